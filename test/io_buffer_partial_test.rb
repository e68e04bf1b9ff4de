# frozen_string_literal: true

require "test_helper"
require "support/piped_buffers"

# Gifts that end up not whole in the pipe.
class TestIOBufferPartial < Minitest::Test
  include PipedBuffers

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
end
