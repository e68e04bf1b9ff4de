# frozen_string_literal: true

require "test_helper"
require "support/piped_memory"

# What is tested with `IO::Buffer`s: a snapshot of them goes into the pipe, or with `F_GIFT` they do themselves.
class TestIOBuffer < Minitest::Test
  include PipedMemory

  # Ways to have bytes in a buffer. Some there are only in later Rubies.
  KINDS = {
    "internal" => ->(test, content) { test.buffer(content, INTERNAL) },
    "mapped" => ->(test, content) { test.buffer(content) },
    "a slice" => ->(test, content) { test.slice(test.buffer("head#{content}tail"), 4, content.bytesize) },
    "a slice of a slice" => lambda { |test, content|
      test.slice(test.slice(test.buffer("1234#{content}5"), 2, content.bytesize + 2), 2, content.bytesize)
    },
    "of a string" => ->(test, content) { test.buffer_for(content) },
    "of a file" => ->(test, content) { test.file_buffer(content) },
    "of a file, read-only" => ->(test, content) { test.file_buffer(content, IO::Buffer::READONLY) },
    "of a file, private" => ->(test, content) { test.file_buffer(content, IO::Buffer::PRIVATE) },
    "of a subclass" => ->(test, content) { test.buffer(content, MAPPED, Class.new(IO::Buffer)) },
    "shared" => ->(test, content) { test.buffer(content, MAPPED | IO::Buffer::SHARED) },
  }.freeze

  # With `F_GIFT` refused, and what the message says of the kind.
  REFUSED = {
    "internal" => [/internal/, ->(test) { test.buffer("x" * 100, INTERNAL) }],
    "internal, large" => [/internal/, ->(test) { test.buffer("x" * 100_000, INTERNAL) }],
    "a slice" => [/slice/, ->(test) { test.slice(test.buffer("x" * PAGE), 0, 10) }],
    "a slice of all" => [/slice/, ->(test) { test.slice(test.buffer("x" * PAGE), 0, PAGE) }],
    "a slice of an internal one" => [/slice/, ->(test) { test.slice(test.buffer("x" * 100, INTERNAL), 1, 10) }],
    "read-only" => [/read-only/, ->(_) { IO::Buffer.new(PAGE, MAPPED | IO::Buffer::READONLY) }],
    "of a string" => [/external|read-only/, ->(test) { test.buffer_for("x" * PAGE) }],
    "of a file" => [/external|shared|file/, ->(test) { test.file_buffer("x" * PAGE) }],
    "of a file, read-only" => [/external|read-only|file/, ->(test) { test.file_buffer("x", IO::Buffer::READONLY) }],
    "of a file, private" => [/private|file/, ->(test) { test.file_buffer("x" * PAGE, IO::Buffer::PRIVATE) }],
    "shared" => [/shared/, ->(test) { test.buffer("x" * PAGE, MAPPED | IO::Buffer::SHARED) }],
  }.freeze

  # Ends an owner's hold of its memory, or changes what is in it.
  CHANGES = {
    "overwritten" => ->(buffer) { buffer.set_string("Z" * buffer.size) },
    "cleared" => ->(buffer) { buffer.clear(90) },
    "written to through a slice" => ->(buffer) { buffer.slice(0, buffer.size).tap { |all| all.clear(90) }.free },
    "freed" => lambda(&:free),
    "made larger" => ->(buffer) { buffer.resize(buffer.size * 9) && buffer.clear(90) },
    "made smaller" => ->(buffer) { buffer.resize(5) && buffer.clear(90) },
    "transferred and freed" => ->(buffer) { buffer.transfer.free },
  }.freeze

  def slice(buffer, offset, length)
    to_free(buffer.slice(offset, length))
  end

  def file_buffer(content, flags = 0)
    IO::Buffer.map(tempfile(content), content.bytesize, 0, flags)
  end

  # Without a gift

  def test_every_kind_of_buffer_goes_in
    each_kind(KINDS) do |name, make|
      [1, 100, PAGE + 1, 200_000].each do |size|
        buffer = make.call(self, pattern(size))
        2.times { assert_sent pattern(size), buffer, 0, name }

        assert_equal pattern(size), buffer.get_string, name
        refute_predicate buffer, :locked?, name
      end
    end
  end

  def test_every_kind_of_buffer_goes_in_without_waiting
    each_kind(KINDS) do |name, make|
      reader, writer = pipe
      buffer = make.call(self, pattern(200_000))

      assert_equal writer.pipe_size, IO.vmsplice(writer, buffer, F_NONBLOCK), name
      assert_raises(Errno::EAGAIN, name) { IO.vmsplice(writer, buffer, F_NONBLOCK) }
      assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20), name
    end
  end

  def test_a_locked_buffer_goes_in_and_stays_locked
    buffer = buffer("locked bytes")
    buffer.locked do
      assert_sent "locked bytes", buffer
      assert_predicate buffer, :locked?
    end
    refute_predicate buffer, :locked?
  end

  def test_buffers_among_strings_and_pages_in_order
    each_kind(KINDS) do |name, make|
      pieces = ["<", make.call(self, pattern(5000)), Pages.new(","), "", make.call(self, pattern(100_000)), ">"]

      assert_sent "<".b + pattern(5000) + ",".b + pattern(100_000) + ">".b, pieces, 0, name
    end
  end

  def test_more_buffers_than_the_kernel_takes_in_one_call
    whole = buffer(pattern(30_000))

    assert_sent pattern(30_000), Array.new(3000) { |index| slice(whole, index * 10, 10) }
  end

  def test_the_same_buffer_several_times
    assert_sent pattern(50_000) * 3, [buffer(pattern(50_000))] * 3
  end

  def test_a_buffer_that_changes_after_the_call
    each_change do |name, change, make|
      reader, writer = pipe
      buffer = make.call
      IO.vmsplice(writer, buffer)
      change.call(buffer)
      collect_and_churn

      assert_equal pattern(20_000), reader.readpartial(1 << 20), name
    end
  end

  def test_a_buffer_that_is_collected_after_the_call
    reader, writer = pipe
    thread { IO.vmsplice(writer, Array.new(10) { |index| buffer(index.to_s * PAGE) }) }.join
    collect_and_churn

    assert_equal Array.new(10) { |index| index.to_s * PAGE }.join, reader.readpartial(1 << 20)
  end

  def test_a_buffer_that_changes_while_the_call_waits
    each_change do |name, change, make|
      [true, false].each do |full|
        reader, writer = pipe
        filled = full ? fill(writer) : 0
        buffer = make.call
        pieces = ["x" * 100_000, buffer, Pages.new("."), buffer]
        putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces) })
        change.call(buffer)
        collect_and_churn
        guarded { reader.read(filled + 100_000) }

        assert_equal("#{pattern(20_000)}.".b + pattern(20_000), guarded { reader.read(40_001) }, name)
        assert_equal(140_001, guarded { putting.value })
      end
    end
  end

  def test_a_buffer_that_is_in_half_and_changes_while_the_call_waits
    each_change do |name, change, make|
      reader, writer = pipe
      content = pattern(20_000) * 10
      buffer = make.call(content)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, buffer) })
      change.call(buffer)
      collect_and_churn

      assert_equal(content, guarded { reader.read(200_000) }, name)
      assert_equal(200_000, guarded { putting.value })
    end
  end

  def test_a_buffer_of_a_string_or_file_that_changes_after_the_call
    string = +pattern(20_000)
    file = tempfile(pattern(20_000))
    of_string = IO::Buffer.for(string)
    of_file = IO::Buffer.map(file, 20_000, 0)
    reader, writer = pipe
    IO.vmsplice(writer, [of_string, of_file])
    of_string.free
    string.replace("other" * 4000)
    file.pwrite("Z" * 20_000, 0)

    assert_equal "Z" * 20_000, of_file.get_string
    assert_equal pattern(20_000) * 2, reader.readpartial(1 << 20)
  end

  def test_a_buffer_that_a_later_conversion_changes
    each_change do |name, change, make|
      reader, writer = pipe
      buffer = make.call
      sly = Object.new
      sly.define_singleton_method(:to_str) { change.call(buffer) && "." }
      IO.vmsplice(writer, [buffer, sly, buffer])

      assert_equal "#{pattern(20_000)}.".b + pattern(20_000), reader.readpartial(1 << 20), name
    end
  end

  def test_a_buffer_that_changes_after_the_bytes_went_on
    reader, writer = pipe
    copy, into = pipe
    here, there = unix_pair
    buffer = buffer(pattern(8192))
    IO.vmsplice(writer, buffer)
    IO.tee(reader, into, 8192)
    IO.splice(reader, nil, here, nil, 8192, WAITALL)
    buffer.clear(90)

    assert_equal pattern(8192), copy.readpartial(1 << 20)
    assert_equal pattern(8192), there.read(8192)
  end

  def test_a_buffer_without_memory_is_refused_and_nothing_goes_in
    reader, writer = pipe
    good = buffer(pattern(100))

    [0, F_GIFT, F_NONBLOCK].each do |flags|
      without_memory.each do |name, null|
        [null, [null], ["good", good, Pages.new("good"), null]].each do |data|
          assert_raises(IO::Buffer::AllocationError, name) { IO.vmsplice(writer, data, flags) }
        end
      end
    end
    assert_nothing_in reader
    assert_whole pattern(100), good
  end

  def test_a_slice_of_a_freed_buffer_is_refused_and_nothing_goes_in
    reader, writer = pipe
    whole = buffer(pattern(100_000))
    slice = slice(whole, 10, 100)
    whole.free

    [0, F_GIFT].each do |flags|
      assert_raises(IO::Buffer::InvalidatedError) { IO.vmsplice(writer, slice, flags) }
      assert_raises(IO::Buffer::InvalidatedError) { IO.vmsplice(writer, ["good", slice], flags) }
    end
    assert_nothing_in reader
  end

  def test_an_empty_slice_is_nothing
    reader, writer = pipe
    empty = slice(buffer("bytes"), 2, 0)

    assert_equal 0, IO.vmsplice(writer, empty)
    assert_equal 2, IO.vmsplice(writer, ["<", empty, ">"])
    assert_equal "<>", reader.readpartial(99)
  end

  # Given away

  def test_a_gift_is_given_away_whole
    [1, PAGE - 1, PAGE, PAGE + 1, 60_000, 300 << 10, (3 << 20) + 1].each do |size|
      buffer = buffer(pattern(size))

      assert_sent pattern(size), buffer, F_GIFT
      assert_given buffer
    end
  end

  def test_gifts_that_have_been_resized_before
    [[PAGE, 300_000], [300_000, PAGE + 1], [5000, 10]].each do |from, to|
      buffer = buffer("x" * from)
      buffer.resize(to)
      buffer.set_string(pattern(to))

      assert_sent pattern(to), buffer, F_GIFT
      assert_given buffer
    end
  end

  def test_a_copy_and_a_transferred_buffer_can_be_given
    original = buffer(pattern(50_000))
    copy = IO::Buffer.new(50_000, MAPPED).tap { |other| other.copy(original) }
    transferred = original.transfer

    assert_sent pattern(50_000) * 2, [copy, transferred], F_GIFT
    [original, copy, transferred].each { |buffer| assert_given buffer }
  end

  def test_a_buffer_of_a_subclass_can_be_given
    buffer = buffer("bytes", MAPPED, Class.new(IO::Buffer))

    assert_sent "bytes", buffer, F_GIFT
    assert_given buffer
  end

  def test_what_was_given_away_cannot_be_given_again
    reader, writer = pipe
    buffer = buffer("bytes")
    IO.vmsplice(writer, buffer, F_GIFT)

    assert_raises(IO::Buffer::AllocationError) { IO.vmsplice(writer, buffer, F_GIFT) }
    assert_raises(IO::Buffer::AllocationError) { IO.vmsplice(writer, buffer) }
    assert_raises(IO::Buffer::AllocationError) { Pages.new(buffer) }
    assert_equal "bytes", reader.readpartial(99)
  end

  def test_slices_of_what_was_given_away_are_invalid
    reader, writer = pipe
    buffer = buffer(pattern(50_000))
    slices = [slice(buffer, 0, 50_000), slice(buffer, 100, 10), slice(slice(buffer, 100, 1000), 5, 5)]
    slices.each { |slice| assert_predicate slice, :valid? }
    IO.vmsplice(writer, buffer, F_GIFT)

    slices.each do |slice|
      refute_predicate slice, :valid?
      assert_raises(IO::Buffer::InvalidatedError) { slice.get_string }
      assert_raises(IO::Buffer::InvalidatedError) { slice.set_string("Z") }
      assert_raises(IO::Buffer::InvalidatedError) { IO.vmsplice(writer, slice) }
    end
    assert_equal pattern(50_000), reader.readpartial(1 << 20)
  end

  def test_a_buffer_can_be_used_again_after_a_resize
    reader, writer = pipe
    buffer = buffer("0" * PAGE)
    10.times do |index|
      assert_equal PAGE, IO.vmsplice(writer, buffer, F_GIFT)
      assert_given buffer
      buffer.resize(PAGE)
      buffer.set_string((index + 1).to_s[-1] * PAGE)
    end

    assert_equal Array.new(10) { |index| index.to_s * PAGE }.join, reader.readpartial(1 << 20)
    assert_whole "0" * PAGE, buffer
  end

  def test_strings_and_pages_among_gifts_stay_what_they_are
    string = +"string"
    pages = Pages.new("pages")
    buffer = buffer("buffer")

    assert_sent "stringbufferpages", [string, buffer, pages], F_GIFT
    assert_given buffer
    assert_equal %w[string pages], [string, pages.to_s]
  end

  def test_gifts_among_other_pieces_in_order
    pages = Pages.new(pattern(90_000))
    wrapped = Class.new { def to_str = "converted" }.new
    contents = [pattern(PAGE), "b", pattern(100_000), pattern(PAGE + 1), pattern(300_000)]
    gifts = contents.map { |content| buffer(content) }
    pieces = [gifts[0], "1", gifts[1], gifts[2], "", pages, pages.slice(3, 3), gifts[3], wrapped, pattern(70_000),
              gifts[4]]
    expected = [contents[0], "1", contents[1], contents[2], pattern(90_000), pattern(6).byteslice(3, 3), contents[3],
                "converted", pattern(70_000), contents[4]].map(&:b).join

    assert_sent expected, pieces, F_GIFT
    gifts.each { |gift| assert_given gift }
  end

  def test_more_gifts_than_the_kernel_takes_in_one_call
    gifts = Array.new(1100) { |index| buffer(format("%04d,", index)) }
    pieces = gifts.flat_map { |gift| [gift, "."] }

    assert_sent Array.new(1100) { |index| format("%04d,.", index) }.join, pieces, F_GIFT
    assert(gifts.all?(&:null?))
  end

  def test_a_gift_without_the_flag_is_none
    buffer = buffer(pattern(10_000))

    assert_sent pattern(10_000), buffer, IO::Splice::F_MOVE | IO::Splice::F_MORE
    assert_whole pattern(10_000), buffer
  end

  # Refused

  def test_what_cannot_be_given_away_is_refused_and_nothing_has_happened
    each_kind(REFUSED.transform_values(&:last)) do |name, make|
      reader, writer = pipe
      wrong = make.call(self)
      content = wrong.get_string
      good = buffer(pattern(5000))
      [wrong, [wrong], ["string", good, Pages.new("pages"), wrong], [wrong, good]].each do |data|
        [F_GIFT, F_GIFT | F_NONBLOCK].each do |flags|
          error = assert_raises(ArgumentError, name) { IO.vmsplice(writer, data, flags) }

          assert_match REFUSED[name].first, error.message, name
          assert_match(/vmsplice/, error.message)
          refute_kind_of IO::Splice::PartialWrite, error
        end
      end
      assert_nothing_in reader
      assert_whole pattern(5000), good
      assert_whole content, wrong
    end
  end

  def test_a_locked_buffer_is_refused_and_stays_locked
    reader, writer = pipe
    locked = buffer("locked")
    good = buffer("good")
    locked.locked do
      [locked, ["string", good, locked]].each do |data|
        assert_match(/locked/, assert_raises(ArgumentError) { IO.vmsplice(writer, data, F_GIFT) }.message)
      end
      assert_predicate locked, :locked?
      assert_equal "locked", locked.get_string
    end

    assert_whole "locked", locked
    assert_whole "good", good
    assert_nothing_in reader
  end

  def test_the_same_buffer_twice_is_refused_and_nothing_has_happened
    reader, writer = pipe
    buffer = buffer(pattern(5000))
    good = buffer("good")

    [[buffer, buffer], [good, buffer, "string", buffer]].each do |data|
      message = assert_raises(ArgumentError) { IO.vmsplice(writer, data, F_GIFT) }.message
      assert_match(/twice/, message)
    end
    assert_nothing_in reader
    assert_whole pattern(5000), buffer
    assert_whole "good", good
    assert_sent pattern(5000), buffer, F_GIFT
  end

  def test_a_buffer_and_a_slice_of_it_are_refused
    reader, writer = pipe
    buffer = buffer(pattern(5000))
    slice = slice(buffer, 7, 100)

    [[buffer, slice], [slice, buffer]].each do |data|
      assert_match(/slice/, assert_raises(ArgumentError) { IO.vmsplice(writer, data, F_GIFT) }.message)
    end
    assert_nothing_in reader
    assert_whole pattern(5000), buffer
    assert_predicate slice, :valid?
  end

  def test_a_piece_of_the_wrong_kind_among_gifts_is_refused_and_nothing_has_happened
    reader, writer = pipe
    gifts = [buffer("first"), buffer("second")]
    raises = Class.new { def to_str = raise(KeyError, "own") }.new

    [[TypeError, nil], [TypeError, 1], [TypeError, []], [KeyError, raises]].each do |error, wrong|
      assert_raises(error) { IO.vmsplice(writer, [gifts[0], "string", wrong, gifts[1]], F_GIFT) }
    end
    assert_nothing_in reader
    assert_whole "first", gifts[0]
    assert_whole "second", gifts[1]
  end

  def test_a_throw_of_a_conversion_leaves_the_gifts
    reader, writer = pipe
    gift = buffer("bytes")
    throws = Class.new { def to_str = throw(:out, :thrown) }.new

    assert_equal(:thrown, catch(:out) { IO.vmsplice(writer, [gift, throws], F_GIFT) })
    assert_nothing_in reader
    assert_whole "bytes", gift
  end

  def test_a_gift_to_a_read_end_stays_and_does_not_wait
    reader, writer = pipe
    gift = buffer(pattern(5000))
    ["", "content"].each do |content|
      writer << content
      [F_GIFT, F_GIFT | F_NONBLOCK].each do |flags|
        assert_raises(Errno::EBADF) { guarded { IO.vmsplice(reader.fileno, gift, flags) } }
        assert_raises(IOError) { guarded { IO.vmsplice(reader, gift, flags) } }
        assert_whole pattern(5000), gift
      end
    end
    assert_equal "content", reader.readpartial(99)
  end

  def test_a_gift_to_what_is_no_pipe_to_write_to_stays
    reader, writer = pipe
    closed = pipe.last.tap(&:close)
    here, = unix_pair
    file = tempfile
    gift = buffer(pattern(5000))
    refusing = [[IOError, closed], [Errno::EBADF, here], [Errno::EBADF, file], [Errno::EBADF, file.fileno],
                [TypeError, nil]]
    refusing.product([gift, [gift], ["string", gift]]).each do |(error, io), data|
      assert_raises(error) { guarded { IO.vmsplice(io, data, F_GIFT) } }
      assert_whole pattern(5000), gift
    end
    assert_raises(Errno::EINVAL) { IO.vmsplice(writer, gift, F_GIFT | 16) }
    assert_whole pattern(5000), gift
    assert_nothing_in reader
    assert_equal 0, file.size
  end

  # Not whole in the pipe

  def test_without_room_a_gift_stays
    reader, writer = pipe
    filled = fill(writer)
    gift = buffer(pattern(5000))

    [gift, [gift], ["", gift]].each do |data|
      assert_raises(Errno::EAGAIN) { guarded { IO.vmsplice(writer, data, F_GIFT | F_NONBLOCK) } }
      assert_whole pattern(5000), gift
    end
    assert_equal filled, reader.readpartial(1 << 20).bytesize
    assert_equal 5000, IO.vmsplice(writer, gift, F_GIFT | F_NONBLOCK)
    assert_given gift
    assert_equal pattern(5000), reader.readpartial(1 << 20)
  end

  def test_without_room_for_all_of_it_a_gift_stays_and_the_return_value_says_what_is_in
    CHANGES.each do |name, change|
      reader, writer = pipe
      gift = buffer(pattern(200_000))

      assert_equal writer.pipe_size, IO.vmsplice(writer, gift, F_GIFT | F_NONBLOCK)
      assert_whole pattern(200_000), gift
      change.call(gift)
      collect_and_churn
      assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20), name
    end
  end

  def test_without_waiting_the_gifts_that_are_wholly_in_are_gone_and_the_others_stay
    reader, writer = pipe
    contents = [pattern(PAGE), "short", pattern(200_000), pattern(5000)]
    gifts = contents.map { |content| buffer(content) }
    put = IO.vmsplice(writer, [gifts[0], "string", gifts[1], gifts[2], gifts[3]], F_GIFT | F_NONBLOCK)

    assert_includes (PAGE + 11 + 1)..writer.pipe_size, put
    assert_given gifts[0]
    assert_given gifts[1]
    assert_whole contents[2], gifts[2]
    assert_whole contents[3], gifts[3]
    assert_equal "#{contents[0]}stringshort#{contents[2]}".b.byteslice(0, put), reader.readpartial(1 << 20)
  end

  def test_a_gift_that_fits_exactly_and_one_that_has_a_byte_too_many
    reader, writer = pipe
    size = writer.pipe_size
    exact = buffer(pattern(size))

    assert_equal size, IO.vmsplice(writer, exact, F_GIFT | F_NONBLOCK)
    assert_given exact
    assert_equal pattern(size), reader.read(size)
    larger = buffer(pattern(size + 1))
    assert_equal size, IO.vmsplice(writer, larger, F_GIFT | F_NONBLOCK)
    assert_whole pattern(size + 1), larger
    assert_equal pattern(size), reader.readpartial(1 << 20)
  end

  def test_an_exception_in_the_middle_leaves_the_buffer_whole_and_tells_how_much_went_in
    CHANGES.each do |name, change|
      reader, writer = pipe
      gift = buffer(pattern(200_000))
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
      putting.raise(KeyError, "enough")
      error = assert_raises(KeyError) { guarded { putting.value } }

      assert_kind_of IO::Splice::PartialWrite, error
      assert_equal writer.pipe_size, error.bytes_written
      assert_whole pattern(200_000), gift
      change.call(gift)
      collect_and_churn
      assert_equal pattern(error.bytes_written), reader.readpartial(1 << 20), name
    end
  end

  def test_an_exception_before_anything_is_in_leaves_the_buffer_whole
    reader, writer = pipe
    filled = fill(writer)
    gift = buffer(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    putting.raise(KeyError, "enough")
    error = assert_raises(KeyError) { guarded { putting.value } }

    refute_kind_of IO::Splice::PartialWrite, error
    assert_whole pattern(200_000), gift
    assert_equal filled, reader.readpartial(1 << 20).bytesize
    assert_nothing_in reader
  end

  def test_an_exception_between_gifts_leaves_those_that_are_not_wholly_in
    reader, writer = pipe
    gifts = [pattern(PAGE), pattern(200_000), "last"].map { |content| buffer(content) }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, ["head", *gifts], F_GIFT) })
    putting.raise(KeyError, "enough")
    error = assert_raises(KeyError) { guarded { putting.value } }

    assert_given gifts[0]
    assert_whole pattern(200_000), gifts[1]
    assert_whole "last", gifts[2]
    expected = "head#{pattern(PAGE)}#{pattern(200_000)}".b.byteslice(0, error.bytes_written)
    assert_equal expected, reader.readpartial(1 << 20)
    assert_nothing_in reader
  end

  def test_a_killed_thread_leaves_the_buffer_whole
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    putting.kill
    guarded { putting.join }

    assert_whole pattern(200_000), gift
    assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20)
    assert_sent pattern(200_000), gift, F_GIFT
  end

  def test_a_timeout_leaves_the_buffer_whole
    _, writer = pipe
    gift = buffer(pattern(200_000))
    assert_raises(Timeout::Error) { Timeout.timeout(0.05) { IO.vmsplice(writer, gift, F_GIFT) } }

    assert_whole pattern(200_000), gift
    assert_sent pattern(200_000), gift, F_GIFT
  end

  def test_the_timeout_of_the_io_leaves_the_buffer_whole
    skip "no IO#timeout here" unless IO.method_defined?(:timeout=)

    reader, writer = pipe
    writer.timeout = 0.01
    gift = buffer(pattern(200_000))
    error = assert_raises(IO::TimeoutError) { guarded { IO.vmsplice(writer, gift, F_GIFT) } }

    assert_equal writer.pipe_size, error.bytes_written
    assert_whole pattern(200_000), gift
    assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20)
  end

  def test_a_signal_does_not_end_the_wait
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    handled = Queue.new
    before = trap(:USR2) { handled << :handled }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    Process.kill(:USR2, Process.pid)

    assert_equal(:handled, guarded { handled.pop })
    assert_equal(pattern(200_000), guarded { reader.read(200_000) })
    assert_equal(200_000, guarded { putting.value })
    assert_given gift
  ensure
    trap(:USR2, before)
  end

  def test_nobody_left_to_read_leaves_the_buffer_whole
    reader, writer = pipe
    reader.close
    gift = buffer(pattern(5000))

    [F_GIFT, F_GIFT | F_NONBLOCK].each do |flags|
      error = assert_raises(Errno::EPIPE) { IO.vmsplice(writer, gift, flags) }
      refute_kind_of IO::Splice::PartialWrite, error
      assert_whole pattern(5000), gift
    end
  end

  def test_a_reader_that_leaves_in_the_middle_leaves_the_buffer_whole
    reader, writer = pipe
    size = writer.pipe_size
    gifts = [pattern(PAGE), pattern(200_000), "last"].map { |content| buffer(content) }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gifts, F_GIFT) })
    reader.close
    error = assert_raises(Errno::EPIPE) { guarded { putting.value } }

    assert_equal size, error.bytes_written
    assert_match(/after #{size} bytes/, error.message)
    assert_given gifts[0]
    assert_whole pattern(200_000), gifts[1]
    assert_whole "last", gifts[2]
  end

  def test_a_writer_that_is_closed_in_the_middle_leaves_the_buffer_whole
    reader, writer = pipe
    size = writer.pipe_size
    gift = buffer(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    writer.close
    error = assert_raises(IOError) { guarded { putting.value } }

    assert_equal size, error.bytes_written
    assert_whole pattern(200_000), gift
    assert_equal(pattern(size), guarded { reader.binmode.read })
  end

  # While the call waits

  def test_a_gift_on_its_way_is_locked
    with_waiting_gift do |gift, finish|
      assert_predicate gift, :locked?
      assert_raises(IO::Buffer::LockedError) { gift.free }
      assert_raises(IO::Buffer::LockedError) { gift.resize(10) }
      assert_raises(IO::Buffer::LockedError) { gift.transfer }
      assert_raises(IO::Buffer::LockedError) { gift.locked { flunk } }
      finish.call
      assert_given gift
    end
  end

  def test_a_gift_on_its_way_cannot_be_given_by_another_call
    with_waiting_gift do |gift, finish|
      reader, writer = pipe
      assert_match(/locked/, assert_raises(ArgumentError) { IO.vmsplice(writer, gift, F_GIFT) }.message)
      assert_nothing_in reader
      assert_predicate gift, :locked?
      finish.call
      assert_given gift
    end
  end

  def test_what_is_written_through_a_slice_while_the_gift_is_half_in_does_not_show
    [true, false].each do |nonblock|
      reader, writer = pipe
      writer.nonblock = nonblock
      gift = buffer(pattern(200_000))
      slice = slice(gift, 0, 200_000)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
      slice.set_string("Z" * 200_000)

      assert_equal(pattern(200_000), guarded { reader.read(200_000) })
      assert_equal(200_000, guarded { putting.value })
      assert_given gift
    end
  end

  def test_what_is_written_through_a_slice_while_nothing_of_the_gift_is_in_does_not_show
    [true, false].each do |nonblock|
      reader, writer = pipe
      filled = fill(writer)
      writer.nonblock = nonblock
      gift = buffer(pattern(20_000))
      slice = slice(gift, 0, 20_000)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
      slice.set_string("Z" * 20_000)
      guarded { reader.read(filled) }

      assert_equal(pattern(20_000), guarded { reader.read(20_000) })
      assert_equal(20_000, guarded { putting.value })
      assert_given gift
    end
  end

  def test_what_is_written_through_a_slice_while_pieces_before_the_gift_go_in_does_not_show
    [pattern(200_000), Pages.new(pattern(200_000)), buffer(pattern(200_000))].each do |before|
      reader, writer = pipe
      gift = buffer(pattern(20_000))
      slice = slice(gift, 0, 20_000)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, [before, gift], F_GIFT) })
      slice.set_string("Z" * 20_000)
      guarded { reader.read(200_000) }

      assert_equal(pattern(20_000), guarded { reader.read(20_000) }, "after a #{before.class}")
      assert_equal(220_000, guarded { putting.value })
      assert_given gift
    end
  end

  def test_what_a_conversion_writes_through_a_slice_does_not_show
    reader, writer = pipe
    gift = buffer(pattern(20_000))
    slice = slice(gift, 0, 20_000)
    sly = Object.new
    sly.define_singleton_method(:to_str) { slice.set_string("Z" * 20_000) && "." }
    IO.vmsplice(writer, [gift, sly], F_GIFT)

    assert_equal "#{pattern(20_000)}.".b, reader.readpartial(1 << 20)
    assert_given gift
  end

  def test_threads_that_write_through_slices_all_the_time_change_nothing_once_the_call_waits
    reader, writer = pipe
    gift = buffer(pattern(300_000))
    slices = Array.new(3) { |index| slice(gift, index * 100_000, 100_000) }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    written = Queue.new
    writing = slices.map { |slice| thread { write_until_invalid(slice, written) } }
    guarded { 3.times { written.pop } }
    came = Array.new(30) { guarded { reader.read(10_000) } }.join

    assert_equal pattern(300_000), came
    assert_equal(300_000, guarded { putting.value })
    assert_equal([:invalid] * 3, guarded { writing.map(&:value) })
  end

  def test_an_interrupted_call_gives_back_what_the_buffer_held
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    slice = slice(gift, 0, 200_000)
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    slice.set_string("Z" * 200_000)
    putting.raise(KeyError)
    assert_raises(KeyError) { guarded { putting.value } }

    assert_whole pattern(200_000), gift
    assert_predicate slice, :valid?
    assert_equal pattern(200_000), slice.get_string
    assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20)
  end

  def test_an_array_that_changes_while_the_call_waits
    reader, writer = pipe
    gifts = [pattern(PAGE), pattern(200_000), pattern(5000)].map { |content| buffer(content) }
    pieces = [*gifts, "end"]
    other = buffer("wrong")
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces, F_GIFT) })
    pieces.replace([other, "wrong"])

    expected = "#{pattern(PAGE)}#{pattern(200_000)}#{pattern(5000)}end".b
    assert_equal(expected, guarded { reader.read(expected.bytesize) })
    assert_equal(expected.bytesize, guarded { putting.value })
    gifts.each { |gift| assert_given gift }
    assert_whole "wrong", other
  end

  def test_an_array_that_a_conversion_changes
    reader, writer = pipe
    gifts = [buffer("first"), buffer("last")]
    pieces = []
    sly = Object.new
    sly.define_singleton_method(:to_str) { pieces.clear && "." }
    pieces.push(gifts[0], sly, gifts[1])
    IO.vmsplice(writer, pieces, F_GIFT)

    assert_equal "first.last", reader.readpartial(99)
    gifts.each { |gift| assert_given gift }
  end

  def test_with_a_fiber_scheduler_others_run_while_a_gift_waits
    reader, writer = pipe
    gift = buffer(pattern(300_000))
    slice = slice(gift, 0, 300_000)
    locked = came = nil
    guarded do
      thread do
        Fiber.set_scheduler(SelectScheduler.new)
        Fiber.schedule { IO.vmsplice(writer, ["<", gift, ">"], F_GIFT) }
        Fiber.schedule do
          locked = gift.locked?
          slice.set_string("Z" * 300_000)
          came = reader.read(300_002)
        end
      end.join
    end

    assert locked
    assert_equal "<#{pattern(300_000)}>".b, came
    assert_given gift
  end

  def test_gifts_in_threads_at_once
    threads = Array.new(8) do |index|
      reader, writer = pipe
      gift = buffer(index.to_s * 300_000)
      putting = thread { 3.times { |n| give_again(writer, gift, n, index) } }
      [gift, putting, thread { reader.read(900_000) }]
    end

    threads.each_with_index do |(gift, putting, reading), index|
      assert_equal(index.to_s * 900_000, guarded { reading.value })
      guarded { putting.join }
      assert_given gift
    end
  end

  def test_a_gift_in_a_ractor
    said = ractor_value(Ractor.new do
      r, w = IO.pipe
      gift = IO::Buffer.new(50_000, IO::Buffer::MAPPED)
      gift.set_string("x" * 50_000)
      [IO.vmsplice(w, gift, IO::Splice::F_GIFT), gift.null?, r.read(50_000)].tap { [r, w].each(&:close) }
    end)

    assert_equal [50_000, true, "x" * 50_000], said
  end

  # In flight

  def test_bytes_in_flight_stay_when_other_buffers_take_the_place
    readers = Array.new(10) do |index|
      reader, writer = pipe
      IO.vmsplice(writer, buffer(index.to_s * 50_000), F_GIFT)
      reader
    end
    collect_and_churn
    50.times { |index| buffer("Z" * (50_000 + index)).free }

    readers.each_with_index { |reader, index| assert_equal index.to_s * 50_000, reader.readpartial(1 << 20) }
  end

  def test_bytes_that_went_on_stay
    reader, writer = pipe
    copy, into = pipe
    here, there = tcp_pair
    file = tempfile
    gift = buffer(pattern(30_000))
    IO.vmsplice(writer, gift, F_GIFT)
    IO.tee(reader, into, 30_000)
    IO.splice(reader, nil, here, nil, 15_000, WAITALL)
    IO.splice(reader, nil, file, nil, 15_000, WAITALL)
    gift.resize(30_000)
    gift.clear(90)
    collect_and_churn

    assert_equal pattern(30_000), copy.readpartial(1 << 20)
    assert_equal pattern(15_000), there.read(15_000)
    assert_equal pattern(30_000).byteslice(15_000..), file.pread(99_999, 0)
  end

  def test_a_child_that_writes_to_its_copy_does_not_change_what_is_in_flight
    reader, writer = pipe
    gift = buffer(pattern(50_000))
    written, tell = pipe
    go, start = pipe
    child = fork_child do
      go.read(1)
      gift.set_string("Z" * 50_000)
      tell << (gift.get_string == "Z" * 50_000 ? "written" : "not written")
      go.read(1)
    end
    IO.vmsplice(writer, gift, F_GIFT)
    assert_given gift
    start << "."

    assert_equal("written", guarded { written.readpartial(99) })
    assert_equal pattern(50_000), reader.readpartial(1 << 20)
    start << "."
    assert_predicate status_of(child), :success?
  end

  def test_a_child_that_is_forked_with_bytes_in_flight_does_not_change_them
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    put = IO.vmsplice(writer, gift, F_GIFT | F_NONBLOCK)
    child = fork_child do
      exit!(2) unless gift.get_string == pattern(200_000)
      gift.set_string("Z" * 200_000)
      exit!(3) unless gift.get_string == "Z" * 200_000
    end

    assert_equal 0, status_of(child).exitstatus
    assert_whole pattern(200_000), gift
    gift.clear(89)
    assert_equal pattern(put), reader.readpartial(1 << 20)
  end

  def test_what_a_parent_and_its_child_give_away_is_each_its_own
    gift = buffer(pattern(50_000))
    from_child, child_writes = pipe
    from_parent, parent_writes = pipe
    child = fork_child do
      gift.set_string("c" * 50_000)
      IO.vmsplice(child_writes, gift, F_GIFT)
      exit!(2) unless gift.null?
    end
    gift.set_string("p" * 50_000)
    IO.vmsplice(parent_writes, gift, F_GIFT)
    assert_given gift
    assert_equal 0, status_of(child).exitstatus

    assert_equal "c" * 50_000, from_child.readpartial(1 << 20)
    assert_equal "p" * 50_000, from_parent.readpartial(1 << 20)
  end

  # The garbage collector

  def test_gifts_under_gc_stress
    reader, writer = pipe
    GC.stress = true
    said = Array.new(5) do
      gift = buffer("some bytes")
      put = IO.vmsplice(writer, ["<", gift, ">"], F_GIFT)
      [put, gift.null?, reader.read(12)]
    end
    GC.stress = false

    assert_equal [[12, true, "<some bytes>"]], said.uniq
  end

  def test_snapshots_and_refusals_under_gc_stress
    reader, writer = pipe
    GC.stress = true
    3.times do
      buffer = buffer("some bytes")
      part = slice(buffer, 4, 6)
      IO.vmsplice(writer, [buffer, part])
      assert_raises(ArgumentError) { IO.vmsplice(writer, [buffer, part], F_GIFT) }
      assert_whole "some bytes", buffer
    end
    GC.stress = false

    assert_equal "some bytes bytes" * 3, reader.readpartial(99)
  end

  [0, F_GIFT].each do |flags|
    define_method :"test_buffers_that_only_a_waiting_call_knows_are_not_collected#{"_as_gifts" unless flags.zero?}" do
      reader, writer = pipe
      filled = fill(writer)
      putting = thread do
        IO.vmsplice(writer, [buffer(pattern(200_000)), buffer("b" * 5000), buffer(pattern(9000))], flags)
      end
      until_in_vmsplice(putting)
      collect_and_churn
      guarded { reader.read(filled) }
      came = guarded { reader.read(100_000) }
      collect_and_churn
      came << guarded { reader.read(114_000) }

      assert_equal "#{pattern(200_000)}#{"b" * 5000}#{pattern(9000)}".b, came
      assert_equal(214_000, guarded { putting.value })
    end
  end

  def test_gifts_that_are_moved_by_compaction_while_the_call_waits
    skip "no GC.compact here" unless compaction?

    reader, writer = pipe
    gifts = Array.new(100) { |index| buffer(index.to_s * 3000) }
    pieces = gifts.flat_map { |gift| [gift, "between".dup] }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces, F_GIFT) })
    3.times { GC.compact }
    expected = Array.new(100) { |index| "#{index.to_s * 3000}between" }.join

    assert_equal(expected, guarded { reader.read(expected.bytesize) })
    assert_equal(expected.bytesize, guarded { putting.value })
    gifts.each { |gift| assert_given gift }
  end

  { "gifts" => "IO::Splice::F_GIFT", "snapshots" => "0" }.each do |name, flags|
    define_method :"test_many_#{name}_do_not_let_the_process_grow" do
      grown = in_ruby(<<~RUBY).to_i
        Warning[:experimental] = false
        r, w = IO.pipe
        null = File.open(File::NULL, "w")
        drain = Thread.new { loop { IO.splice(r, nil, null, nil, 1 << 20) } }
        drain.report_on_exception = false
        peak = -> { File.read("/proc/self/status")[/VmHWM:\\s+(\\d+)/, 1].to_i << 10 }
        before = peak.call
        300.times do
          buffer = IO::Buffer.new(1 << 20, IO::Buffer::MAPPED)
          buffer.clear(1)
          IO.vmsplice(w, buffer, #{flags})
          buffer.free
        end
        puts peak.call - before
      RUBY
      assert_operator grown, :<, 100 << 20
    end
  end

  # Warnings

  def test_strings_and_pages_alone_make_no_warning
    assert_equal "bytes and pages\n", in_ruby(<<~RUBY, "-w")
      r, w = IO.pipe
      pages = IO::Splice::Pages.new("and pages of bytes")
      IO.vmsplice(w, ["bytes", " ", pages.slice(0, 9)], IO::Splice::F_GIFT)
      IO.vmsplice(w, "\\n")
      begin
        IO.vmsplice(w, 1)
      rescue TypeError
        $stdout << r.readpartial(99)
      end
    RUBY
  end

  def test_only_a_program_that_uses_a_buffer_itself_is_warned_by_ruby_once
    use = <<~RUBY
      r, w = IO.pipe
      buffer = IO::Buffer.new(100, IO::Buffer::MAPPED)
    RUBY
    without = in_ruby(use, "-w")
    with = in_ruby(<<~RUBY, "-w")
      #{use.strip}
      slice = buffer.slice(0, 9)
      IO.vmsplice(w, [buffer, slice])
      IO::Splice::Pages.new(buffer)
      begin
        IO.vmsplice(w, slice, IO::Splice::F_GIFT)
      rescue ArgumentError
        slice.free
        IO.vmsplice(w, buffer, IO::Splice::F_GIFT)
      end
      abort "not given" unless buffer.null?
    RUBY

    assert_equal without, with
  end

  private

  # Those kinds that this Ruby has.
  def each_kind(kinds)
    kinds.each do |name, make|
      next if name == "shared" && !IO::Buffer.const_defined?(:SHARED)
      next if name == "of a file, private" && !private_mappings?

      yield name, make
    end
  end

  # In Ruby 3.1 they fail.
  def private_mappings?
    file_buffer("x", IO::Buffer::PRIVATE) && true
  rescue Errno::EINVAL
    false
  end

  def each_change
    [MAPPED, INTERNAL].each do |flags|
      CHANGES.each do |name, change|
        yield "#{name} (#{flags})", change, ->(content = pattern(20_000)) { buffer(content, flags) }
      end
    end
  end

  def without_memory
    given = buffer("given")
    IO.vmsplice(pipe.last, given, F_GIFT)
    transferred = buffer("transferred")
    transferred.transfer
    { "freed" => buffer("freed").free, "freed, internal" => buffer("freed", INTERNAL).free, "given away" => given,
      "transferred" => transferred, "of no size" => IO::Buffer.new(0) }
  end

  def give_again(writer, gift, times, index)
    unless times.zero?
      gift.resize(300_000)
      gift.set_string(index.to_s * 300_000)
    end
    IO.vmsplice(writer, gift, F_GIFT)
  end

  def write_until_invalid(slice, written)
    loop do
      slice.set_string("Z" * slice.size)
      written << :once if written.size < 3
      Thread.pass
    end
  rescue IO::Buffer::InvalidatedError
    :invalid
  end

  # Yields a gift of which a part is in the pipe, and what lets the rest in.
  def with_waiting_gift
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, gift, F_GIFT) })
    finish = lambda do
      assert_equal(pattern(200_000), guarded { reader.read(200_000) })
      assert_equal(200_000, guarded { putting.value })
    end
    yield gift, finish
  end

  def assert_given(buffer)
    assert_predicate buffer, :null?
    assert_equal 0, buffer.size
    refute_predicate buffer, :locked?
  end

  # It has all its bytes, and can be used in every way.
  def assert_whole(content, buffer)
    refute_predicate buffer, :null?
    refute_predicate buffer, :locked?
    assert_equal content.b, buffer.get_string
    buffer.locked { assert_equal content.bytesize, buffer.size }
  end

  def assert_nothing_in(reader)
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end
end
