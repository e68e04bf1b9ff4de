# frozen_string_literal: true

require "test_helper"
require "support/piped_buffers"

# What happens to an `IO::Buffer` while the call waits.
class TestIOBufferWaiting < Minitest::Test
  include PipedBuffers

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

  private

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
end
