# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# `idle_timeout`, and the timeouts of IOs.
class TestRelayIdleTimeout < Minitest::Test
  include RelaySides

  def test_no_byte_in_either_direction_for_too_long
    [0.01, 0, 0.0, 1/100r, Float::MIN].each do |seconds|
      error = assert_raises(TimeoutError) { relay(side(:unix).given, side(:tcp).given, idle_timeout: seconds) }
      assert_kind_of IO::Splice::Relayed, error
      assert_equal [0, 0], error.bytes_relayed
    end
  end

  def test_the_error_is_that_of_ruby_where_it_has_one
    assert_operator TimeoutError, :<, IOError
    skip "Ruby 3.2" unless IO.const_defined?(:TimeoutError)
    assert_same IO::TimeoutError, TimeoutError
  end

  def test_without_a_timeout_or_with_a_long_one_it_waits
    [nil, 3600, 1e300, Float::INFINITY, 10**30].each do |seconds|
      left = side(:unix)
      right = side(:unix)
      relay = relaying(left.given, right.given, idle_timeout: seconds)
      left.far_out.write("!")
      assert_equal("!", guarded { right.far_in.read(1) })
      [left, right].each(&:hang_up)
      assert_equal [1, 0], thread_value(relay)
    end
  end

  def test_a_timeout_of_0_is_none_while_bytes_are_there
    left = side(:unix)
    right = side(:unix)
    left.far_out.write("there")
    right.far_out.write("already")
    [left, right].each(&:hang_up)
    assert_equal [5, 7], relay(left.given, right.given, idle_timeout: 0)
    left = side(:unix)
    left.far_out.write("there")
    error = assert_raises(TimeoutError) { relay(left.given, side(:unix).given, idle_timeout: 0) }
    assert_equal [5, 0], error.bytes_relayed
  end

  def test_a_byte_in_one_direction_keeps_it_alive
    both_directions do |from, to, order|
      error = undisturbed(0.2) do |tick|
        relay = relaying(*order.map(&:given), idle_timeout: 0.2)
        15.times { tick.call && from.far_out.write("x") && to.far_in.readpartial(10) }
        assert_raises(TimeoutError) { thread_value(relay) }
      end
      assert_says_relayed error, order, { from => 15, to => 0 } if error
    end
  end

  def test_a_peer_that_takes_what_is_held_bit_by_bit_keeps_it_alive
    both_directions do |from, to, order|
      error = undisturbed(0.2) do |tick|
        narrow(to.output, to.far_in)
        size = 1 << 20
        thread { from.far_out.write(pattern(size)) }
        relay = relaying(*order.map(&:given), idle_timeout: 0.2)
        taken = 0
        # Smaller bites than what is held, for longer than the timeout. The kernel takes no more before most of what it
        # has is gone, and that is up to 150 kB before Linux 6.5.
        taken += to.far_in.readpartial(32_768).bytesize while taken < size && tick.call && relay.alive?
        assert_raises(TimeoutError) { thread_value(relay) }.tap { assert_equal size, taken }
      end
      assert_equal 0, error.bytes_relayed[order.index(to)] if error
    end
  end

  def test_a_signal_does_not_keep_it_alive
    handler = trap(:USR1) { nil }
    relay = relaying(side(:unix).given, side(:unix).given, idle_timeout: 0.1)
    kicks = thread { Process.kill(:USR1, Process.pid) && sleep(0.005) while relay.alive? }
    assert_raises(TimeoutError) { thread_value(relay) }
    kicks.join
  ensure
    trap(:USR1, handler)
  end

  def test_an_output_that_takes_nothing_is_no_byte_either
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      assert_raises(TimeoutError) { relay(left.given, right.given, idle_timeout: 0.02) }
      assert_still_there(left, right, filled)
    end
  end

  def test_a_direction_that_is_over_does_not_end_the_timeout
    left = side(:unix)
    left.hang_up
    assert_raises(TimeoutError) { relay(left.given, side(:unix).given, idle_timeout: 0.01) }
    assert_raises(TimeoutError) { relay(side(:unix).given, left.given, idle_timeout: 0.01) }
  end

  def test_what_is_no_time_is_refused
    left = side(:unix)
    left.far_out.write("untouched\nuntouched")
    left.input.gets
    [-1, -0.001, -1/3r, Float::NAN, -Float::INFINITY].each do |seconds|
      assert_raises(ArgumentError) { relay(left.given, side(:unix).given, idle_timeout: seconds) }
    end
    ["1", :one, [1], true, false, Object.new].each do |seconds|
      assert_raises(TypeError) { relay(left.given, side(:unix).given, idle_timeout: seconds) }
    end
    assert_equal "untouched", left.input.readpartial(100)
  end

  def test_io_timeouts_are_honoured
    skip "Ruby 3.2" unless IO.method_defined?(:timeout=)
    left = side(:unix)
    right = side(:unix)
    left.input.timeout = 0.01
    assert_raises(IO::TimeoutError) { relay(left.given, right.given) }
    assert_raises(IO::TimeoutError) { relay(right.given, left.given) }
    left.input.timeout = nil
    right.input.timeout = 3600
    assert_raises(IO::TimeoutError) { relay(left.given, right.given, idle_timeout: 0.01) }
  end
end
