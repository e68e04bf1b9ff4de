# frozen_string_literal: true

require "test_helper"

class TestVmsplice < Minitest::Test
  F_NONBLOCK = IO::Splice::F_NONBLOCK
  F_GIFT = IO::Splice::F_GIFT

  def test_a_string
    reader, writer = pipe

    assert_equal 5, IO.vmsplice(writer, "hello")
    assert_equal "hello", reader.readpartial(99)
  end

  def test_an_array_of_strings_goes_in_in_order
    each_mode do |reader, writer|
      assert_equal 11, IO.vmsplice(writer, ["hello", " ", "world"])
      assert_equal "hello world", reader.readpartial(99)
    end
  end

  def test_nothing_to_put_in
    each_mode do |reader, writer|
      ["", [], ["", ""]].each do |nothing|
        assert_equal 0, IO.vmsplice(writer, nothing)
        assert_equal 0, IO.vmsplice(writer, nothing, F_NONBLOCK)
      end
      assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
    end
  end

  def test_nothing_does_not_wait_for_a_full_pipe
    _, writer = pipe
    fill(writer)

    assert_equal(0, guarded { IO.vmsplice(writer, ["", ""]) })
  end

  def test_empty_pieces_among_others
    each_mode do |reader, writer|
      assert_equal 3, IO.vmsplice(writer, ["", "a", "", "", "bc", ""])
      assert_equal "abc", reader.readpartial(99)
    end
  end

  def test_bytes_count_and_not_characters
    reader, writer = pipe

    assert_equal 6, IO.vmsplice(writer, "äöü")
    assert_equal 4, IO.vmsplice(writer, "ü".encode("UTF-16"))
    assert_equal "äöü".b + "ü".encode("UTF-16").b, reader.readpartial(99)
  end

  def test_every_byte_value_goes_through
    binary = (0..255).to_a.pack("C*") * 50
    each_mode do |reader, writer|
      assert_equal binary.bytesize, IO.vmsplice(writer, binary)
      assert_equal binary, reader.readpartial(1 << 20)
    end
  end

  def test_a_frozen_string
    reader, writer = pipe

    assert_equal 6, IO.vmsplice(writer, "frozen")
    assert_equal 6, IO.vmsplice(writer, ["frozen"].freeze)
    assert_equal "frozenfrozen", reader.readpartial(99)
  end

  def test_a_part_of_a_longer_string
    whole = pattern(10_000)
    each_mode do |reader, writer|
      assert_equal 7000, IO.vmsplice(writer, whole.byteslice(1000, 7000))
      assert_equal whole.byteslice(1000, 7000), reader.readpartial(1 << 20)
    end
  end

  def test_the_same_string_several_times
    string = "again and "
    each_mode do |reader, writer|
      assert_equal 30, IO.vmsplice(writer, [string] * 3)
      assert_equal string * 3, reader.readpartial(99)
    end
  end

  def test_more_pieces_than_the_kernel_takes_in_one_call
    pieces = Array.new(3000) { |index| format("%04d,", index) }
    each_mode do |reader, writer|
      assert_equal(15_000, guarded { IO.vmsplice(writer, pieces) })
      assert_equal pieces.join, reader.readpartial(1 << 20)
    end
  end

  def test_more_than_fits_into_the_pipe
    each_mode do |reader, writer|
      reading = thread { reader.read(500_001) }

      assert_equal(500_001, guarded { IO.vmsplice(writer, pattern(500_001)) })
      assert_equal(pattern(500_001), guarded { reading.value })
    end
  end

  def test_pieces_of_odd_sizes_that_do_not_fit_into_the_pipe
    pieces = Array.new(1500) { |index| pattern(600_000).byteslice(index * 399, 399) }
    each_mode do |reader, writer|
      reading = thread { reader.read(1500 * 399) }

      assert_equal(1500 * 399, guarded { IO.vmsplice(writer, pieces) })
      assert_equal(pattern(1500 * 399), guarded { reading.value })
    end
  end

  def test_an_object_with_to_str
    wrapped = Class.new { def to_str = "converted" }.new
    reader, writer = pipe

    assert_equal 9, IO.vmsplice(writer, wrapped)
    assert_equal 12, IO.vmsplice(writer, ["a ", wrapped, "!"])
    assert_equal "converteda converted!", reader.readpartial(99)
  end

  def test_a_subclass_of_string
    reader, writer = pipe

    assert_equal 3, IO.vmsplice(writer, Class.new(String).new("sub"))
    assert_equal "sub", reader.readpartial(9)
  end

  def test_what_is_no_string_is_refused_and_nothing_goes_in
    reader, writer = pipe

    [nil, 1, :symbol, 1.5, {}, Object.new, $stdout, [nil], ["good", 1], ["good", ["nested"]]].each do |wrong|
      assert_raises(TypeError, wrong.inspect) { IO.vmsplice(writer, wrong) }
    end
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end

  def test_an_error_of_to_str_comes_through_and_nothing_goes_in
    wrapped = Class.new { def to_str = raise(KeyError, "own") }.new
    reader, writer = pipe

    assert_equal "own", assert_raises(KeyError) { IO.vmsplice(writer, wrapped) }.message
    assert_raises(KeyError) { IO.vmsplice(writer, ["good", wrapped]) }
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end

  def test_without_room_it_would_block
    each_mode(:full) do |reader, writer, filled|
      message = assert_raises(Errno::EAGAIN) { guarded { IO.vmsplice(writer, "x", F_NONBLOCK) } }.message
      assert_match(/vmsplice/, message)
      assert_equal filled, reader.readpartial(1 << 20).bytesize
      assert_equal 1, IO.vmsplice(writer, "x", F_NONBLOCK)
      assert_equal "x", reader.readpartial(9)
    end
  end

  def test_without_waiting_it_returns_how_much_went_in
    each_mode do |reader, writer|
      put = guarded { IO.vmsplice(writer, pattern(200_000), F_NONBLOCK) }

      assert_equal writer.pipe_size, put
      assert_equal pattern(put), reader.readpartial(1 << 20)
    end
  end

  def test_without_waiting_it_returns_how_much_of_many_pieces_went_in
    pieces = Array.new(3000) { |index| pattern(300_000).byteslice(index * 100, 100) }
    each_mode do |reader, writer|
      put = guarded { IO.vmsplice(writer, pieces, F_NONBLOCK) }

      assert_includes 1..writer.pipe_size, put
      assert_equal pattern(put), reader.readpartial(1 << 20)
    end
  end

  def test_without_waiting_all_that_fits_goes_in
    pieces = Array.new(3000) { |index| format("%04d,", index) }
    each_mode do |reader, writer|
      assert_equal(15_000, guarded { IO.vmsplice(writer, pieces, F_NONBLOCK) })
      assert_equal pieces.join, reader.readpartial(1 << 20)
    end
  end

  def test_it_waits_for_room
    each_mode(:full) do |reader, writer, filled|
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, "late") })

      assert_predicate putting, :alive?
      assert_equal(filled, guarded { reader.read(filled) }.bytesize)
      assert_equal(4, guarded { putting.value })
      assert_equal "late", reader.readpartial(9)
    end
  end

  def test_a_gift_of_a_string_changes_nothing
    each_mode do |reader, writer|
      string = "g" * 8192

      assert_equal 8192, IO.vmsplice(writer, string, F_GIFT)
      assert_equal "g" * 8192, string
      string.replace("other")
      assert_equal "g" * 8192, reader.readpartial(1 << 20)
    end
  end

  def test_a_pipe_that_is_a_fifo_open_for_both
    Dir.mktmpdir do |dir|
      path = File.join(dir, "fifo")
      File.mkfifo(path)
      fifo = closing(File.open(path, File::RDWR)).first

      assert_equal 3, IO.vmsplice(fifo, "one")
      assert_equal 3, IO.vmsplice(fifo.fileno, "two")
      assert_equal "onetwo", fifo.sysread(99)
    end
  end

  # What the reader gets is what the string held when the call was made

  MUTATIONS = {
    "overwritten" => ->(string) { string.bytesize.times { |index| string.setbyte(index, 0) } },
    "replaced" => ->(string) { string.replace("other" * string.bytesize) },
    "cleared" => lambda(&:clear),
    "upcased" => ->(string) { string.tr!("\0-\xFF".b, "Z") },
    "extended" => ->(string) { string << ("more" * 10_000) },
  }.freeze

  def test_a_string_that_changes_after_the_call
    each_mode do |reader, writer|
      each_mutation do |mutate|
        string = +pattern(20_000)
        IO.vmsplice(writer, string)
        mutate.call(string)

        assert_equal pattern(20_000), reader.readpartial(1 << 20)
      end
    end
  end

  def test_strings_of_an_array_that_change_after_the_call
    each_mode do |reader, writer|
      each_mutation do |mutate|
        strings = Array.new(3) { +pattern(6000) }
        IO.vmsplice(writer, strings)
        strings.each(&mutate).clear

        assert_equal pattern(6000) * 3, reader.readpartial(1 << 20)
      end
    end
  end

  def test_a_string_that_is_collected_after_the_call
    each_mode do |reader, writer|
      IO.vmsplice(writer, pattern(20_000).reverse)
      GC.start
      Array.new(50) { "z" * 20_000 }

      assert_equal pattern(20_000).reverse, reader.readpartial(1 << 20)
    end
  end

  def test_a_string_that_changes_after_the_bytes_went_on
    each_mode do |reader, writer|
      copy, into = pipe
      here, there = unix_pair
      string = +pattern(8192)
      IO.vmsplice(writer, string)
      IO.tee(reader, into, 8192)
      IO.splice(reader, nil, here, nil, 8192, IO::Splice::WAITALL)
      string.tr!("\0-\xFF".b, "Z")

      assert_equal pattern(8192), copy.readpartial(1 << 20)
      assert_equal pattern(8192), there.read(8192)
    end
  end

  def test_a_string_that_changes_while_the_call_waits
    each_mode do |reader, writer|
      each_mutation do |mutate|
        string = +pattern(200_000)
        putting = until_in_vmsplice(thread { IO.vmsplice(writer, string) })
        mutate.call(string)

        assert_equal(pattern(200_000), guarded { reader.read(200_000) })
        assert_equal(200_000, guarded { putting.value })
      end
    end
  end

  def test_an_array_that_changes_while_the_call_waits
    each_mode(:full) do |reader, writer, filled|
      each_mutation do |mutate|
        strings = Array.new(3) { +pattern(6000) }
        putting = until_in_vmsplice(thread { IO.vmsplice(writer, strings) })
        strings.each(&mutate)
        strings.replace(["wrong"])
        guarded { reader.read(filled) }

        assert_equal(18_000, guarded { putting.value })
        assert_equal pattern(6000) * 3, reader.readpartial(1 << 20)
        filled = refill(writer)
      end
    end
  end

  def test_a_string_that_something_is_read_into_while_the_call_waits
    each_mode(:full) do |reader, writer, filled|
      source, feed = pipe
      buffer = "b" * 100
      filling = until_asleep(thread { source.sysread(100, buffer) })
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, [buffer, "."]) })
      feed << "changed"
      guarded { [filling.value, reader.read(filled), putting.value] }

      assert_equal "#{"b" * 100}.", reader.readpartial(1 << 20)
    end
  end

  def test_a_string_that_a_later_conversion_changes
    each_mode do |reader, writer|
      string = +pattern(100)
      sly = Object.new
      sly.define_singleton_method(:to_str) { string.replace("changed") && "." }
      IO.vmsplice(writer, [string, sly])

      assert_equal "#{pattern(100)}.", reader.readpartial(1 << 20)
    end
  end

  # What is refused

  def test_the_read_end_as_an_integer_changes_neither_string_nor_pipe
    [true, false].each do |nonblock|
      reader, writer = pipe
      reader.nonblock = nonblock
      writer << "content"
      string = "s" * 100

      [0, F_NONBLOCK, F_GIFT].each do |flags|
        message = assert_raises(Errno::EBADF) { IO.vmsplice(reader.fileno, string, flags) }.message
        assert_match(/vmsplice/, message)
        assert_raises(Errno::EBADF) { IO.vmsplice(reader.fileno, [string, string], flags) }
      end
      assert_equal "s" * 100, string
      assert_equal "content", reader.readpartial(99)
    end
  end

  def test_the_read_end_as_an_io_is_refused
    reader, writer = pipe
    writer << "content"
    string = "s" * 100

    assert_equal "not opened for writing", assert_raises(IOError) { IO.vmsplice(reader, string) }.message
    assert_equal "s" * 100, string
    assert_equal "content", reader.readpartial(99)
  end

  def test_what_is_no_pipe_is_refused
    file = tempfile
    here, there = unix_pair

    [file, here, file.fileno, here.fileno].each do |io|
      message = assert_raises(Errno::EBADF) { IO.vmsplice(io, "x") }.message
      assert_match(/vmsplice: the output is not a pipe/, message)
    end
    assert_equal 0, file.size
    assert_raises(IO::WaitReadable) { there.read_nonblock(1) }
  end

  def test_nobody_left_to_read_is_a_broken_pipe
    each_mode do |reader, writer|
      reader.close

      [0, F_NONBLOCK].each do |flags|
        assert_match(/vmsplice/, assert_raises(Errno::EPIPE) { IO.vmsplice(writer, "x", flags) }.message)
      end
    end
  end

  def test_a_reader_that_leaves_during_the_call_is_a_broken_pipe_that_tells_how_much_went_in
    each_mode do |reader, writer|
      size = writer.pipe_size
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, pattern(200_000)) })
      reader.close

      message = assert_raises(Errno::EPIPE) { guarded { putting.value } }.message
      assert_match(/vmsplice: after #{size} bytes/, message)
    end
  end

  private

  # A pipe as Ruby makes it, and one whose writer is in blocking mode.
  def each_mode(full = nil)
    [true, false].each do |nonblock|
      reader, writer = pipe
      filled = fill(writer) if full
      writer.nonblock = nonblock
      yield reader, writer, filled
    end
  end

  def each_mutation(&) = MUTATIONS.each_value(&)
end
