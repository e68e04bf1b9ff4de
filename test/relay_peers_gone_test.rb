# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# A peer resets its connection or closes it in the middle.
class TestRelayPeersGone < Minitest::Test
  include RelaySides

  def test_a_reset_is_reported_after_what_had_arrived_has_been_delivered
    both_orders do |front, back, order|
      back.far_out.write("last words")
      guarded { back.input.wait_readable }
      reset(back)
      error = assert_raises(Errno::ECONNRESET) { relay(*order.map(&:given)) }
      assert_says_relayed error, order, { front => 0, back => 10 }
      front.output.close_write
      assert_equal("last words", guarded { front.far_in.read })
    end
  end

  def test_a_reset_of_who_is_being_written_to_is_reported_after_the_other_direction_has_been_delivered
    both_orders do |front, back, order|
      front.far_out.write("a request")
      back.far_out.write(pattern(50_000))
      guarded { [front, back].each { |side| side.input.wait_readable } }
      reset(back)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { relay(*order.map(&:given)) }
      assert_says_relayed error, order, { front => 0, back => 50_000 }
      front.output.close_write
      assert_bytes(pattern(50_000), guarded { front.far_in.read })
      assert_equal "a request", front.input.readpartial(100)
    end
  end

  def test_what_had_arrived_before_a_reset_is_delivered_to_a_slow_reader_too
    both_orders do |front, back, order|
      filled = fill_up(front.output)
      front.far_out.write("a request")
      back.far_out.write_nonblock(pattern(150_000))
      guarded { [front, back].each { |side| side.input.wait_readable } }
      reset(back)
      # What was not yet on its way is gone with the reset.
      size = back.input.recv(150_000, Socket::MSG_PEEK).bytesize
      relay = relaying(*order.map(&:given))
      arrived = collect(front)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { thread_value(relay) }
      front.output.close_write
      assert_bytes pattern(size), thread_value(arrived).byteslice(filled..)
      assert_says_relayed error, order, { front => 0, back => size }
    end
  end

  def test_a_client_that_goes_away_while_the_backend_sends
    PLAIN.product(PLAIN).each do |one, other|
      front = side(one)
      back = side(other)
      front.hang_up
      sent = feed(back, pattern(60_000_000)) # more than the buffers of two connections grow to
      relay = relaying(front.given, back.given)
      got = guarded { front.far_in.read(100_000) }
      front.far_in.close
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { thread_value(relay) }
      assert_bytes pattern(100_000), got
      assert_kind_of IO::Splice::Relayed, error
      assert_equal 0, error.bytes_relayed[0]
      assert_includes 100_000..59_999_999, error.bytes_relayed[1]
      assert_predicate until_asleep(sent), :alive?
      back.input.close
      thread_value(sent)
    end
  end

  def test_the_last_request_of_a_client_that_goes_away_is_delivered
    both_orders do |front, back, order|
      front.far_out.write("last request")
      guarded { front.input.wait_readable }
      back.far_out.write("an answer that nobody takes")
      guarded { back.input.wait_readable }
      reset(front)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { relay(*order.map(&:given)) }
      assert_says_relayed error, order, { front => 12, back => 0 }
      back.output.close_write
      assert_equal("last request", guarded { back.far_in.read })
      assert_equal "an answer that nobody takes", back.input.readpartial(100)
    end
  end

  def test_nobody_left_to_read_is_reported_with_what_could_not_be_delivered
    left = side(:unix)
    right = side(:pipes)
    relay = relaying(left.given, right.given)
    left.far_out.write("arrives")
    assert_equal("arrives", guarded { right.far_in.readpartial(100) })
    right.far_in.close
    left.far_out.write("does not")
    error = assert_raises(Errno::EPIPE) { thread_value(relay) }
    assert_equal [7, 0], error.bytes_relayed
    assert_equal("does not", guarded { left.input.readpartial(100) })
  end

  def test_the_message_of_an_error_says_which_direction_it_was
    front = side(:unix)
    back = side(:pipes)
    back.far_in.close
    front.far_out.write("x")
    assert_match(/relay.*a to b/, assert_raises(Errno::EPIPE) { relay(front.given, back.given) }.message)
    assert_match(/relay.*b to a/, assert_raises(Errno::EPIPE) { relay(back.given, front.given) }.message)
  end

  private

  # A client's side and a backend's, with each of them first.
  def both_orders(&)
    both_directions(:tcp, &)
  end
end
