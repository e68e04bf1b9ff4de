# frozen_string_literal: true

require "test_helper"
require "support/piped_buffers"

# `IO::Buffer`s with `F_GIFT`: they go into the pipe themselves, or are refused.
class TestIOBufferGift < Minitest::Test
  include PipedBuffers

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
end
