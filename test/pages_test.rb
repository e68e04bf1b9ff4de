# frozen_string_literal: true

require "test_helper"
require "objspace"
require "support/piped_memory"

class TestPages < Minitest::Test
  include PipedMemory

  # Fits into a new pipe; is larger than that; is larger than a huge page.
  SMALL = [1, PAGE - 1, PAGE, PAGE + 1, (3 * PAGE) + 5].freeze
  LARGE = [300 << 10, (3 << 20) + 1].freeze

  # What it is made of

  def test_it_holds_what_the_string_held
    [0, *SMALL, *LARGE].each do |size|
      pages = Pages.new(pattern(size))

      assert_equal size, pages.bytesize
      assert_equal pattern(size), pages.to_s
    end
  end

  def test_bytes_count_and_not_characters
    assert_equal 6, Pages.new("äöü").bytesize
    assert_equal 4, Pages.new("ü".encode("UTF-16")).bytesize
  end

  def test_to_s_has_the_encoding_of_the_source
    ["ü", "ü".b, "u".encode("US-ASCII"), "ü".encode("ISO-8859-1"), "ü".encode("UTF-16LE"), "ü".encode("UTF-16"),
     "\xFF".dup.force_encoding("UTF-8"), "".encode("UTF-16LE")].each do |source|
      string = Pages.new(source).to_s

      assert_equal source.encoding, string.encoding
      assert_equal source, string
    end
  end

  def test_an_encoding_that_the_source_gets_later_does_not_matter
    source = +"ü"
    pages = Pages.new(source)
    source.force_encoding("BINARY")

    assert_equal "ü", pages.to_s
  end

  def test_to_s_is_a_new_string_each_time
    pages = Pages.new("bytes")
    first = pages.to_s
    first << " and more"
    first.setbyte(0, 0)

    assert_equal "bytes", pages.to_s
    assert_equal "bytes of", "#{pages} of"
  end

  def test_the_source_may_change_afterwards
    SMALL.each do |size|
      source = +pattern(size)
      changes = [-> { source.setbyte(0, 255) }, -> { source.replace("other" * size) }, -> { source.clear }]
      changes.each do |change|
        source.replace(pattern(size))
        pages = Pages.new(source)
        change.call

        assert_equal pattern(size), pages.to_s
        assert_sent pattern(size), pages
      end
    end
  end

  def test_a_frozen_string_and_a_part_of_a_longer_one
    whole = pattern(20_000).freeze

    assert_equal whole, Pages.new(whole).to_s
    assert_equal whole.byteslice(1000, 9000), Pages.new(whole.byteslice(1000, 9000)).to_s
  end

  def test_an_object_with_to_str
    wrapped = Class.new { def to_str = "ü".encode("UTF-16LE") }.new

    assert_equal "ü".encode("UTF-16LE"), Pages.new(wrapped).to_s
    assert_equal "sub", Pages.new(Class.new(String).new("sub")).to_s
  end

  def test_a_buffer_as_the_source_is_binary
    mapped = IO::Buffer.new(2 * PAGE, IO::Buffer::MAPPED)
    mapped.set_string(pattern(2 * PAGE))
    [buffer_for("in a string"), IO::Buffer.new(9), mapped, to_free(mapped.slice(7, PAGE))].each do |buffer|
      string = Pages.new(buffer).to_s

      assert_equal Encoding::BINARY, string.encoding
      assert_equal buffer.get_string, string
    end
  end

  def test_a_buffer_may_change_and_go_afterwards
    buffer = IO::Buffer.new(PAGE + 1, IO::Buffer::MAPPED)
    buffer.set_string(pattern(PAGE + 1))
    pages = Pages.new(buffer)
    buffer.clear(7)

    assert_equal pattern(PAGE + 1), pages.to_s
    buffer.free
    assert_sent pattern(PAGE + 1), pages
  end

  def test_what_is_no_string_is_refused
    not_a_string = Class.new { def to_str = 1 }.new
    [nil, 1, :symbol, 1.5, [], ["x"], {}, Object.new, not_a_string, Pages.new("x")].each do |wrong|
      assert_raises(TypeError, wrong.inspect) { Pages.new(wrong) }
    end
    assert_raises(ArgumentError) { Pages.new }
    assert_raises(ArgumentError) { Pages.new("one", "two") }
  end

  def test_an_error_of_to_str_comes_through
    wrapped = Class.new { def to_str = raise(KeyError, "own") }.new

    assert_equal "own", assert_raises(KeyError) { Pages.new(wrapped) }.message
  end

  def test_a_buffer_without_memory_is_refused
    freed = IO::Buffer.new(100)
    freed.free
    whole = IO::Buffer.new(PAGE, IO::Buffer::MAPPED)
    slice = to_free(whole.slice(0, 10))
    whole.free

    assert_raises(IO::Buffer::AllocationError) { Pages.new(freed) }
    assert_raises(IO::Buffer::InvalidatedError) { Pages.new(slice) }
  end

  def test_more_than_there_is_memory_is_an_error_that_can_be_rescued
    said = in_ruby(<<~RUBY)
      string = "x" * (128 << 20)
      used = File.read("/proc/self/status")[/VmSize:\\s+(\\d+)/, 1].to_i << 10
      Process.setrlimit(:AS, used + (64 << 20))
      begin
        IO::Splice::Pages.new(string)
      rescue NoMemoryError => e
        puts e.class
      end
      puts IO::Splice::Pages.new("enough")
    RUBY

    assert_equal "NoMemoryError\nenough\n", said
  end

  # What it is

  def test_it_is_frozen_and_can_be_shared
    pages = Pages.new("frozen")

    assert_predicate pages, :frozen?
    assert_predicate pages.slice(1), :frozen?
    assert Ractor.shareable?(pages)
    assert Ractor.shareable?(pages.slice(1))
    assert Ractor.shareable?([pages].freeze)
    assert_raises(FrozenError) { pages.instance_variable_set(:@name, 1) }
  end

  def test_it_cannot_be_made_without_bytes_or_copied
    pages = Pages.new("x")

    assert_raises(TypeError, NoMethodError) { Pages.allocate }
    assert_raises(TypeError) { pages.dup }
    assert_raises(TypeError) { pages.clone }
    assert_raises(TypeError) { Marshal.dump(pages) }
    assert_equal "x", pages.to_s
  end

  def test_inspect_tells_the_size_and_not_the_bytes
    assert_equal "#<IO::Splice::Pages 0 bytes>", Pages.new("").inspect
    assert_equal "#<IO::Splice::Pages 1000000 bytes>", Pages.new("secret!!" * 125_000).inspect
    assert_equal "#<IO::Splice::Pages 3 bytes>", Pages.new("secret").slice(2, 3).inspect
  end

  def test_a_subclass
    subclass = Class.new(Pages) { def shout = to_s.upcase }
    pages = subclass.new("bytes")

    assert_instance_of subclass, pages
    assert_equal "BYTES", pages.shout
    assert_instance_of subclass, pages.slice(1)
    assert_equal "YTE", pages.slice(1, 3).shout
    assert_equal Pages.new("bytes"), pages
    assert_sent "bytes", pages
  end

  def test_the_same_bytes_are_equal
    pages = Pages.new(pattern(PAGE + 1))
    [pages, Pages.new(pattern(PAGE + 1)), pages.slice(0), Pages.new(".#{pages}").slice(1)].each do |same|
      assert_operator pages, :==, same
      assert_operator same, :==, pages
      assert_operator pages, :eql?, same
      assert_equal pages.hash, same.hash
    end
    assert_operator Pages.new(""), :==, pages.slice(5, 0)
    assert_operator Pages.new(""), :eql?, pages.slice(5, 0)
    assert_equal Pages.new("").hash, pages.slice(5, 0).hash
  end

  def test_other_bytes_are_not_equal
    pages = Pages.new("bytes")
    ["bytez", "byte", "bytes ", "", "Bytes"].map { |other| Pages.new(other) }.each do |other|
      refute_operator pages, :==, other
      refute_operator pages, :eql?, other
      refute_equal pages.hash, other.hash
    end
  end

  def test_other_objects_are_not_equal
    pages = Pages.new("bytes")
    ["bytes", nil, 1, Object.new, buffer_for("bytes"), ["bytes"]].each do |other|
      refute_operator pages, :==, other
      refute_operator pages, :eql?, other
    end
  end

  def test_it_is_a_key_of_a_hash
    pages = Pages.new("bytes")
    hash = { pages => :found, Pages.new("other") => :other, Pages.new("") => :empty }

    assert_equal :found, hash[Pages.new("bytes")]
    assert_equal :found, hash[Pages.new("of bytes").slice(3)]
    assert_equal :empty, hash[pages.slice(5)]
    assert_nil hash[Pages.new("bytez")]
    assert_nil hash["bytes"]
    assert_equal 1, [pages, Pages.new("bytes"), pages.slice(0)].uniq.size
  end

  # Slices

  def test_a_slice
    pages = Pages.new("0123456789")

    assert_equal "0123456789", pages.slice(0).to_s
    assert_equal "3456789", pages.slice(3).to_s
    assert_equal "345", pages.slice(3, 3).to_s
    assert_equal 3, pages.slice(3, 3).bytesize
    assert_equal "9", pages.slice(9, 1).to_s
    assert_equal "0123456789", pages.slice(0, 10).to_s
    assert_equal "0123456789", pages.to_s
  end

  def test_empty_slices
    pages = Pages.new("0123456789")
    [pages.slice(10), pages.slice(10, 0), pages.slice(0, 0), pages.slice(4, 0), Pages.new("").slice(0)].each do |empty|
      assert_equal 0, empty.bytesize
      assert_equal "", empty.to_s
    end
  end

  def test_a_slice_of_a_slice
    pages = Pages.new("0123456789").slice(2, 6)

    assert_equal "34", pages.slice(1, 2).to_s
    assert_equal "567", pages.slice(1).slice(2).to_s
    assert_equal "6", pages.slice(1, 5).slice(1, 4).slice(2, 1).to_s
    assert_sent "34", pages.slice(1, 2)
  end

  def test_a_slice_that_is_not_within_it_is_refused
    pages = Pages.new("0123456789")
    [[11], [11, 0], [10, 1], [0, 11], [9, 2], [-1], [-1, 1], [0, -1], [5, -6], [0, (1 << 63) - 1], [1, (1 << 63) - 1],
     [(1 << 62) + 1]].each do |arguments|
      assert_raises(ArgumentError, arguments.inspect) { pages.slice(*arguments) }
    end
    [[1 << 70], [0, 1 << 70], [-(1 << 70)], [0, -(1 << 70)]].each do |arguments|
      assert_raises(ArgumentError, RangeError, arguments.inspect) { pages.slice(*arguments) }
    end
  end

  def test_a_slice_of_a_slice_does_not_reach_what_is_around_it
    slice = Pages.new("0123456789").slice(2, 6)

    assert_raises(ArgumentError) { slice.slice(7) }
    assert_raises(ArgumentError) { slice.slice(0, 7) }
    assert_raises(ArgumentError) { slice.slice(6, 1) }
    assert_raises(ArgumentError) { slice.slice(-1, 1) }
    assert_equal "", slice.slice(6).to_s
  end

  def test_a_slice_by_what_is_no_integer_is_refused
    pages = Pages.new("0123456789")
    [["1"], [Object.new], [0, "1"], [0, Object.new], [0..1]].each do |arguments|
      assert_raises(TypeError, arguments.inspect) { pages.slice(*arguments) }
    end
    assert_raises(ArgumentError) { pages.slice }
    assert_raises(ArgumentError) { pages.slice(1, 2, 3) }
  end

  def test_a_slice_has_the_encoding_of_the_whole
    pages = Pages.new("aüb")

    assert_equal "ü", pages.slice(1, 2).to_s
    assert_equal Encoding::UTF_8, pages.slice(1, 1).to_s.encoding
    refute_predicate pages.slice(1, 1).to_s, :valid_encoding?
    assert_equal "b".encode("UTF-16LE"), Pages.new("aüb".encode("UTF-16LE")).slice(4).to_s
  end

  def test_slices_share_the_pages
    pages = Pages.new("x" * (8 << 20))
    before = resident
    slices = Array.new(32) { |index| pages.slice(index, pages.bytesize - 32) }
    grown = resident - before

    assert_operator grown, :<, 32 << 20
    assert_equal pages.bytesize - 32, slices.last.bytesize
  end

  def test_a_slice_outlives_the_whole
    slices = thread { Array.new(20) { |index| Pages.new(pattern(50_000)).slice(index * 100, 30_000).slice(7) } }.value
    collect_and_churn

    slices.each_with_index do |slice, index|
      expected = pattern(50_000).byteslice((index * 100) + 7, 29_993)

      assert_equal expected, slice.to_s
      assert_sent expected, slice
    end
  end

  def test_the_whole_outlives_a_slice
    pages = Pages.new(pattern(50_000))
    thread { 20.times { |index| pages.slice(index, 30_000) } }.join
    collect_and_churn

    assert_sent pattern(50_000), pages
  end

  # Into a pipe

  def test_all_sizes_go_through_a_pipe_any_number_of_times
    (SMALL + LARGE).each do |size|
      pages = Pages.new(pattern(size))
      2.times { assert_sent pattern(size), pages }
    end
    pages = Pages.new("again and ")
    reader, writer = pipe
    1000.times do
      IO.vmsplice(writer, pages)
      assert_equal "again and ", reader.readpartial(99)
    end
  end

  def test_a_gift_of_pages_changes_nothing
    (SMALL + LARGE).each do |size|
      pages = Pages.new(pattern(size))
      2.times { assert_sent pattern(size), pages, F_GIFT }

      assert_equal pattern(size), pages.to_s
    end
  end

  def test_slices_at_odd_places_go_through_a_pipe
    pages = Pages.new(pattern(300_000))
    [[0, 1], [PAGE - 1, 2], [1, PAGE], [PAGE, PAGE], [4095, 200_001], [299_999, 1], [7, 299_993]].each do |place|
      assert_sent pattern(300_000).byteslice(*place), pages.slice(*place)
    end
  end

  def test_nothing_to_put_in
    reader, writer = pipe
    fill(writer)
    empty = Pages.new("")

    [empty, [empty], [empty, "", Pages.new("x").slice(1)]].each do |nothing|
      assert_equal(0, guarded { IO.vmsplice(writer, nothing) })
      assert_equal(0, guarded { IO.vmsplice(writer, nothing, F_NONBLOCK) })
    end
    assert_equal "f", reader.read(1)
  end

  def test_the_same_pages_several_times_in_an_array
    pages = Pages.new(pattern(5000))

    assert_sent pattern(5000) * 7, [pages] * 7
    assert_sent pattern(5000) * 70, [pages] * 70
  end

  def test_an_array_of_pages_and_strings_keeps_the_order
    pages = Pages.new(pattern(200_000))
    wrapped = Class.new { def to_str = "converted" }.new
    empty = Pages.new("")
    pieces = ["head", pages.slice(0, 9), "", empty, pages, pattern(100_000), wrapped, pages.slice(199_990), empty,
              pages.slice(5, 5), "tail"]

    assert_sent pieces.map { |piece| bytes_of(piece) }.join, pieces
    assert_sent pieces.reverse.map { |piece| bytes_of(piece) }.join, pieces.reverse
    assert_sent pieces.map { |piece| bytes_of(piece) }.join, pieces, F_GIFT
  end

  def test_more_pieces_than_the_kernel_takes_in_one_call
    pages = Pages.new(pattern(30_000))
    slices = Array.new(3000) { |index| pages.slice(index * 10, 10) }

    assert_sent pattern(30_000), slices
    mixed = slices.each_with_index.map { |slice, index| (index % 3).zero? ? slice.to_s : slice }
    assert_sent pattern(30_000), mixed
  end

  def test_what_is_wrong_among_pages_is_refused_and_nothing_goes_in
    reader, writer = pipe
    pages = Pages.new("good")

    [[pages, nil], [pages, 1], [pages, [pages]], [pages, Object.new]].each do |wrong|
      assert_raises(TypeError, wrong.inspect) { IO.vmsplice(writer, wrong) }
    end
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end

  def test_only_a_pipe_to_write_to_is_accepted
    reader, writer = pipe
    writer << "content"
    here, there = unix_pair
    file = tempfile
    pages = Pages.new("x" * 100)

    assert_raises(Errno::EBADF) { IO.vmsplice(reader.fileno, pages) }
    assert_raises(IOError) { IO.vmsplice(reader, pages) }
    [here, file, here.fileno, file.fileno].each do |io|
      message = assert_raises(Errno::EBADF) { IO.vmsplice(io, pages) }.message
      assert_match(/vmsplice: the output is not a pipe/, message)
    end
    assert_equal "content", reader.readpartial(99)
    assert_raises(IO::WaitReadable) { there.read_nonblock(1) }
    assert_equal 0, file.size
    assert_equal "x" * 100, pages.to_s
  end

  def test_it_waits_for_room
    reader, writer = pipe
    filled = fill(writer)
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, Pages.new("late")) })
    guarded { reader.read(filled) }

    assert_equal(4, guarded { putting.value })
    assert_equal "late", reader.readpartial(9)
  end

  def test_without_waiting_it_would_block_or_returns_how_much_went_in
    reader, writer = pipe
    pages = Pages.new(pattern(200_000))

    assert_equal(writer.pipe_size, guarded { IO.vmsplice(writer, pages, F_NONBLOCK) })
    assert_raises(Errno::EAGAIN) { guarded { IO.vmsplice(writer, pages, F_NONBLOCK) } }
    assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20)
  end

  def test_without_waiting_all_that_fits_goes_in
    reader, writer = pipe
    pages = Pages.new(pattern(50_000))

    assert_equal 50_004, IO.vmsplice(writer, ["ab", pages, "cd"], F_NONBLOCK)
    assert_equal "ab".b + pattern(50_000) + "cd".b, reader.readpartial(1 << 20)
  end

  def test_without_waiting_pieces_that_do_not_fit_are_cut_somewhere
    reader, writer = pipe
    pages = Pages.new(pattern(300_000))
    slices = Array.new(100) { |index| pages.slice(index * 3000, 3000) }
    put = guarded { IO.vmsplice(writer, slices, F_NONBLOCK) }

    assert_includes 1..writer.pipe_size, put
    assert_equal pattern(put), reader.readpartial(1 << 20)
  end

  def test_an_exception_in_the_middle_tells_how_much_went_in
    reader, writer = pipe
    pages = Pages.new(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pages) })
    putting.raise(KeyError, "enough")
    error = assert_raises(KeyError) { guarded { putting.value } }

    assert_kind_of IO::Splice::PartialWrite, error
    assert_equal writer.pipe_size, error.bytes_written
    assert_equal pattern(error.bytes_written), reader.readpartial(1 << 20)
    assert_sent pattern(200_000), pages
  end

  def test_a_reader_that_leaves_is_a_broken_pipe_that_tells_how_much_went_in
    reader, writer = pipe
    pages = Pages.new(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pages) })
    size = writer.pipe_size
    reader.close
    error = assert_raises(Errno::EPIPE) { guarded { putting.value } }

    assert_equal size, error.bytes_written
    assert_match(/after #{size} bytes/, error.message)
    refute_kind_of(IO::Splice::PartialWrite, assert_raises(Errno::EPIPE) { IO.vmsplice(writer, pages) })
    assert_sent pattern(200_000), pages
  end

  def test_with_a_fiber_scheduler_others_run_while_it_waits
    reader, writer = pipe
    pages = Pages.new(pattern(300_000))
    came = nil
    put = nil
    guarded do
      thread do
        Fiber.set_scheduler(SelectScheduler.new)
        Fiber.schedule { put = IO.vmsplice(writer, ["<", pages, ">"]) }
        Fiber.schedule { came = reader.read(300_002) }
      end.join
    end

    assert_equal 300_002, put
    assert_equal "<".b + pattern(300_000) + ">".b, came
  end

  def test_a_thousand_calls_allocate_no_objects
    reader, writer = pipe
    pages = Pages.new("x" * 5000)
    buffer = +""
    put = -> { IO.vmsplice(writer, pages) && reader.readpartial(9999, buffer) }
    put.call
    before = GC.stat(:total_allocated_objects)
    1000.times { put.call }

    assert_operator GC.stat(:total_allocated_objects) - before, :<, 100
  end

  # In flight

  def test_bytes_in_flight_stay_when_the_pages_are_collected
    [1, PAGE, PAGE + 1, 60_000].each do |size|
      pipes = Array.new(10) { pipe }
      collected = put_and_collect { |kind, index| IO.vmsplice(pipes[index].last, kind.new(numbered(index, size))) }

      assert collected, "nothing was collected"
      pipes.each_with_index { |(reader, _), index| assert_equal numbered(index, size), reader.readpartial(1 << 20) }
    end
  end

  def test_bytes_in_flight_of_large_pages_stay_when_they_are_collected
    pipes = Array.new(10) { pipe }
    collected = put_and_collect do |kind, index|
      IO.vmsplice(pipes[index].last, kind.new(numbered(index, 3 << 20)), F_NONBLOCK)
    end

    assert collected, "nothing was collected"
    pipes.each_with_index do |(reader, writer), index|
      assert_equal numbered(index, writer.pipe_size), reader.readpartial(1 << 20)
    end
  end

  def test_bytes_in_flight_of_slices_stay_when_all_is_collected
    pipes = Array.new(10) { pipe }
    collected = put_and_collect do |kind, index|
      IO.vmsplice(pipes[index].last, ["<", kind.new(numbered(index, 200_000)).slice(100_000, 20_000), ">"])
    end

    assert collected, "nothing was collected"
    pipes.each_with_index do |(reader, _), index|
      assert_equal "<#{numbered(index, 20_000)}>", reader.readpartial(1 << 20)
    end
  end

  def test_bytes_that_were_duplicated_stay
    pipes = Array.new(10) { pipe }
    copies = Array.new(10) { pipe }
    collected = put_and_collect do |kind, index|
      IO.vmsplice(pipes[index].last, kind.new(numbered(index, 20_000)))
      IO.tee(pipes[index].first, copies[index].last, 20_000)
    end

    assert collected, "nothing was collected"
    pipes.zip(copies).each_with_index do |((reader, _), (copy, _)), index|
      assert_equal numbered(index, 20_000), copy.readpartial(1 << 20)
      collect_and_churn(3)
      assert_equal numbered(index, 20_000), reader.readpartial(1 << 20)
    end
  end

  %i[unix_pair tcp_pair].each do |kind_of_socket|
    define_method :"test_bytes_that_went_on_to_a_#{kind_of_socket}_stay" do
      sockets = Array.new(5) { public_send(kind_of_socket) }
      r, w = pipe
      collected = put_and_collect(5) do |kind, index|
        IO.vmsplice(w, kind.new(numbered(index, 30_000)))
        IO.splice(r, nil, sockets[index].first, nil, 30_000, WAITALL)
      end

      assert collected, "nothing was collected"
      sockets.each_with_index do |(_, there), index|
        assert_equal(numbered(index, 30_000), guarded { there.read(30_000) })
      end
    end
  end

  def test_bytes_that_went_on_to_a_file_stay
    files = Array.new(10) { tempfile }
    r, w = pipe
    collected = put_and_collect do |kind, index|
      IO.vmsplice(w, kind.new(numbered(index, 2 * PAGE)))
      IO.splice(r, nil, files[index], nil, 2 * PAGE, WAITALL)
    end

    assert collected, "nothing was collected"
    files.each_with_index { |file, index| assert_equal numbered(index, 2 * PAGE), file.pread(9 * PAGE, 0) }
  end

  def test_pages_that_only_a_waiting_call_knows_are_not_collected
    reader, writer = pipe
    filled = fill(writer)
    putting = thread { IO.vmsplice(writer, [Pages.new(pattern(300_000)), "and", Pages.new(pattern(200_000)).slice(9)]) }
    until_in_vmsplice(putting)
    collect_and_churn
    guarded { reader.read(filled) }
    first = guarded { reader.read(100_000) }
    collect_and_churn
    rest = guarded { reader.read(399_994) }

    assert_equal pattern(300_000) + "and".b + pattern(200_000).byteslice(9..), first + rest
    assert_equal(499_994, guarded { putting.value })
  end

  def test_an_array_that_changes_while_the_call_waits
    reader, writer = pipe
    filled = fill(writer)
    pieces = [Pages.new(pattern(300_000)), "and", Pages.new(pattern(9))]
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces) })
    pieces.replace(["wrong", Pages.new("wrong")])
    collect_and_churn(3)
    guarded { reader.read(filled) }

    assert_equal(pattern(300_000) + "and".b + pattern(9), guarded { reader.read(300_012) })
    assert_equal(300_012, guarded { putting.value })
  end

  # The garbage collector

  def test_all_methods_under_gc_stress
    reader, writer = pipe
    GC.stress = true
    said = Array.new(5) do
      pages = Pages.new("some bytes")
      slice = pages.slice(5).slice(0, 4)
      IO.vmsplice(writer, [pages, " ", slice])
      [reader.read(15), pages.bytesize, slice.to_s, slice.inspect, pages == slice, slice.eql?(Pages.new("byte")),
       slice.hash == Pages.new("byte").hash]
    end
    GC.stress = false

    expected = ["some bytes byte", 10, "byte", "#<IO::Splice::Pages 4 bytes>", false, true, true]
    assert_equal [expected], said.uniq
  end

  def test_errors_under_gc_stress
    pages = Pages.new("bytes")
    [[TypeError, -> { Pages.new(1) }], [ArgumentError, -> { pages.slice(6) }], [TypeError, -> { pages.slice("1") }],
     [TypeError, -> { pages.dup }]].each do |error, call|
      GC.stress = true
      assert_raises(error, &call)
    ensure
      GC.stress = false
    end
  end

  def test_compaction_moves_the_objects_and_not_the_bytes
    skip "no GC.compact here" unless compaction?

    kept = Array.new(200) { |index| Pages.new(numbered(index, 5000)) }
    kept.map! { |pages| [Array.new(50) { "garbage" }, pages.slice(0), pages].last }
    hash = kept.to_h { |pages| [pages, pages.to_s] }
    reader, writer = pipe
    IO.vmsplice(writer, kept[7])
    3.times { GC.compact }

    kept.each_with_index { |pages, index| assert_equal numbered(index, 5000), pages.to_s }
    kept.each { |pages| assert_equal pages.to_s, hash[pages] }
    assert_equal numbered(7, 5000), reader.readpartial(1 << 20)
    assert_sent numbered(199, 5000), kept.last
  end

  def test_object_space_knows_how_much_memory_it_holds
    [0, 1, 1 << 20, 3 << 20].each do |size|
      assert_includes size..(size + 1000), ObjectSpace.memsize_of(Pages.new("x" * size))
    end
  end

  def test_many_large_ones_do_not_let_the_process_grow
    assert_operator grown_by("1000.times { IO::Splice::Pages.new(source) }"), :<, 400 << 20
  end

  def test_many_large_ones_without_any_other_objects_do_not_let_the_process_grow
    assert_operator grown_by("i = 0\n(IO::Splice::Pages.new(source); i += 1) while i < 1000"), :<, 400 << 20
  end

  def test_many_slices_of_large_ones_do_not_let_the_process_grow
    assert_operator grown_by("1000.times { IO::Splice::Pages.new(source).slice(10).slice(10) }"), :<, 400 << 20
  end

  def test_many_small_ones_do_not_let_the_process_grow
    assert_operator grown_by('200_000.times { IO::Splice::Pages.new("x") }'), :<, 400 << 20
  end

  def test_putting_it_in_many_times_does_not_let_the_process_grow
    grown = grown_by(<<~RUBY)
      pages = IO::Splice::Pages.new(source)
      r, w = IO.pipe
      null = File.open(File::NULL, "w")
      drain = Thread.new { loop { IO.splice(r, nil, null, nil, 1 << 20) } }
      drain.report_on_exception = false
      500.times { IO.vmsplice(w, ["<", pages, pages.slice(9, 99), ">"]) }
    RUBY
    assert_operator grown, :<, 50 << 20
  end

  # Threads, Ractors, processes

  def test_threads_share_it
    pages = Pages.new(pattern(300_000))
    threads = Array.new(8) do |index|
      reader, writer = pipe
      slice = pages.slice(index * 999)
      putting = thread { IO.vmsplice(writer, [pages, slice]) }
      [slice, putting, thread { reader.read(300_000 + slice.bytesize) }]
    end

    threads.each do |slice, putting, reading|
      assert_equal(300_000 + slice.bytesize, guarded { putting.value })
      assert_equal(pattern(300_000) + slice.to_s, guarded { reading.value })
    end
  end

  def test_threads_make_their_own
    made = Array.new(8) { |index| thread { Array.new(50) { |n| Pages.new(numbered((index * 50) + n, 3000 + n)) } } }
    all = guarded { made.flat_map(&:value) }

    all.each_with_index { |pages, index| assert_equal numbered(index, 3000 + (index % 50)), pages.to_s }
  end

  def test_ractors_share_it_without_a_copy
    pages = Pages.new(pattern(300_000))
    ractors = Array.new(4) do |index|
      ractor(pages, index) do |same, number|
        r, w = IO.pipe
        slice = same.slice(number * 999, 2000)
        right = Array.new(200) do
          IO.vmsplice(w, [slice, same.slice(number, 1)])
          r.read(2001) == slice.to_s + same.slice(number, 1).to_s
        end
        [r, w].each(&:close)
        [same.__id__, same.bytesize, slice, right.uniq]
      end
    end

    ractors.each_with_index do |ractor, index|
      id, bytesize, slice, right = ractor_value(ractor)
      assert_equal [pages.__id__, 300_000, [true]], [id, bytesize, right]
      assert_equal pattern(300_000).byteslice(index * 999, 2000), slice.to_s
    end
  end

  def test_ractors_make_their_own
    ractors = Array.new(4) do |index|
      ractor(index.to_s) do |digit|
        Array.new(300) { |size| IO::Splice::Pages.new(digit * (1 + (size * 37))) }
      end
    end

    ractors.each_with_index do |ractor, index|
      ractor_value(ractor).each_with_index { |pages, size| assert_equal index.to_s * (1 + (size * 37)), pages.to_s }
    end
  end

  def test_parent_and_child_use_it_both
    pages = Pages.new(pattern(300_000))
    to_parent, from_child = pipe
    child = fork_child do
      IO.vmsplice(from_child, [pages, pages.slice(1000, 5000)])
    end
    came = guarded { to_parent.read(305_000) }

    assert_predicate status_of(child), :success?
    assert_equal pattern(300_000) + pattern(6000).byteslice(1000..), came
    assert_sent pattern(300_000), pages
  end

  def test_a_child_that_exits_leaves_what_is_in_flight
    pages = Pages.new(pattern(20_000))
    r, w = pipe
    child = fork_child do
      IO.vmsplice(w, [pages, Pages.new(pattern(20_000).reverse)])
    end
    assert_predicate status_of(child), :success?
    collect_and_churn

    assert_equal(pattern(20_000) + pattern(20_000).reverse, guarded { r.read(40_000) })
  end

  def test_a_child_that_exits_leaves_the_pages_to_its_parent
    pages = Pages.new(pattern(20_000))
    r, w = pipe
    IO.vmsplice(w, pages)
    child = fork_child do
      pages.slice(5)
      Pages.new("another")
    end
    assert_predicate status_of(child), :success?

    assert_equal pattern(20_000), r.readpartial(1 << 20)
    assert_sent pattern(20_000), pages
  end

  def test_parent_and_child_make_new_ones_that_have_nothing_in_common
    before = Pages.new("before the fork")
    from_child, child_writes = pipe
    from_parent, parent_writes = pipe
    go, tell = pipe
    child = fork_child do
      go.read(1)
      mine = Array.new(10) { |index| Pages.new(numbered(index, 500)) }
      IO.vmsplice(child_writes, mine)
      go.read(1)
      IO.vmsplice(child_writes, [before])
    end
    mine = Array.new(10) { |index| Pages.new(numbered(index + 50, 500)) }
    IO.vmsplice(parent_writes, mine)
    tell << "."
    came = guarded { from_child.read(5000) }
    mine += Array.new(10) { |index| Pages.new(numbered(index + 80, 500)) }
    tell << "."
    assert_predicate status_of(child), :success?

    assert_equal Array.new(10) { |index| numbered(index, 500) }.join, came
    assert_equal "before the fork", from_child.readpartial(99)
    assert_equal Array.new(10) { |index| numbered(index + 50, 500) }.join, from_parent.readpartial(1 << 20)
    assert_equal numbered(89, 500), mine.last.to_s
    assert_equal "before the fork", before.to_s
  end

  def test_pages_that_the_parent_dropped_are_still_those_of_the_child
    reader, writer = pipe
    go, tell = pipe
    child = thread do
      kept = Array.new(5) { |index| Pages.new(numbered(index, 9000)) }
      fork_child do
        go.read(1)
        IO.vmsplice(writer, kept)
      end
    end.value
    collect_and_churn
    tell << "."

    assert_predicate status_of(child), :success?
    assert_equal(Array.new(5) { |index| numbered(index, 9000) }.join, guarded { reader.read(45_000) })
  end

  private

  def collect_and_churn(...)
    GC.compact if compaction?
    super
  end

  def bytes_of(piece)
    piece.respond_to?(:to_str) ? piece.to_str.b : piece.to_s.b
  end

  # Bytes that tell whose they are, on every page and off its boundaries.
  def numbered(index, size)
    (format("%04d,", index) * ((size / 5) + 1)).byteslice(0, size)
  end

  # Calls the block with a class of pages and a number, and collects most of what it has made. Other Pages and
  # strings take its place.
  def put_and_collect(times = 10)
    kind = Class.new(Pages)
    thread { times.times { |index| yield kind, index } }.join
    collect_and_churn
    ObjectSpace.each_object(kind).count <= times / 2
  end

  def resident
    File.read("/proc/self/status")[/VmRSS:\s+(\d+)/, 1].to_i << 10
  end

  # By how many bytes the code lets a process grow, at its highest.
  def grown_by(code)
    in_ruby(<<~RUBY).to_i
      source = "x" * (1 << 20)
      peak = -> { File.read("/proc/self/status")[/VmHWM:\\s+(\\d+)/, 1].to_i << 10 }
      IO::Splice::Pages.new(source)
      before = peak.call
      #{code}
      puts peak.call - before
    RUBY
  end
end
