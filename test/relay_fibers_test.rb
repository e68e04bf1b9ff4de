# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# Relays of fibers with a scheduler.
class TestRelayFibers < Minitest::Test
  include RelaySides

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_other_fibers_run_while_a_relay_waits_between_#{one}_and_#{other}" do
      assert_exchange_of_fibers([[side(one), side(other)]])
    end
  end

  def test_several_relays_in_one_thread
    kinds = PLAIN.product(PLAIN) * 2
    assert_exchange_of_fibers(kinds.map { |kinds_of_one| kinds_of_one.map { |kind| side(kind) } })
  end

  def test_sides_in_blocking_mode_do_not_hold_up_other_fibers
    blocking = %i[blocking_unix blocking_tcp blocking_pipes]
    assert_exchange_of_fibers(blocking.product(blocking).map { |kinds| kinds.map { |kind| side(kind) } })
  end

  def test_a_half_close_is_passed_on_in_a_fiber
    PLAIN.product(PLAIN).each do |one, other|
      a = side(one)
      b = side(other)
      relayed = nil
      said = []
      with_scheduler do
        Fiber.schedule { relayed = IO::Splice.relay(a.given, b.given) }
        Fiber.schedule do
          a.far_out.write("request")
          a.hang_up
          said << b.far_in.read
          b.far_out.write("answer")
          said << a.far_in.readpartial(100)
          b.hang_up
          said << a.far_in.read
        end
      end
      assert_equal [[7, 6], %w[request answer] << ""], [relayed, said]
    end
  end

  def test_idle_timeouts_in_fibers
    left = side(:unix)
    right = side(:unix)
    errors = []
    with_scheduler do
      2.times do
        Fiber.schedule do
          IO::Splice.relay(side(:tcp).given, side(:pipes).given, idle_timeout: 0.02)
        rescue TimeoutError => e
          errors << e.bytes_relayed
        end
      end
      Fiber.schedule do
        left.far_out.write("hello")
        IO::Splice.relay(left.given, right.given, idle_timeout: 0)
      rescue TimeoutError => e
        errors << e.bytes_relayed
      end
      Fiber.schedule do
        here = side(:unix)
        here.hang_up
        there = side(:unix)
        Fiber.schedule { IO::Splice.relay(here.given, there.given, idle_timeout: 3600) }
        errors << there.far_in.read
        there.hang_up
      end
    end
    assert_equal ["", [0, 0], [0, 0], [5, 0]], errors.sort_by(&:to_s)
    assert_equal "hello", right.far_in.readpartial(10)
  end

  def test_a_byte_in_one_direction_keeps_it_alive_in_a_fiber
    undisturbed(0.2) do |tick|
      left = side(:unix)
      right = side(:unix)
      error = nil
      with_scheduler do
        Fiber.schedule do
          IO::Splice.relay(left.given, right.given, idle_timeout: 0.2)
        rescue TimeoutError => e
          error = e
        end
        Fiber.schedule { 15.times { tick.call && right.far_out.write("x") } }
      end
      assert_equal [0, 15], error.bytes_relayed
    end
  end

  def test_an_idle_relay_in_a_fiber_is_left_alone
    left = side(:unix)
    right = side(:unix)
    waits = nil
    with_scheduler do |scheduler|
      Fiber.schedule { IO::Splice.relay(left.given, right.given) }
      Fiber.schedule do
        20.times do
          left.far_out.write("ping")
          right.far_in.readpartial(4)
        end
        sleep 0.01
        waits = scheduler.io_waits.size
        sleep 0.1
        waits = scheduler.io_waits.size - waits
        [left, right].each(&:hang_up)
      end
    end
    assert_equal 0, waits
  end

  def test_a_timeout_in_a_fiber_loses_nothing
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      timed_out = false
      with_scheduler do
        Fiber.schedule do
          Timeout.timeout(0.02) { IO::Splice.relay(left.given, right.given) }
        rescue Timeout::Error
          timed_out = true
        end
      end
      assert timed_out
      assert_still_there(left, right, filled)
    end
  end

  def test_a_reset_in_a_fiber_is_reported
    left = side(:tcp)
    right = side(:tcp)
    error = nil
    with_scheduler do
      Fiber.schedule do
        IO::Splice.relay(left.given, right.given)
      rescue SystemCallError => e
        error = e
      end
      Fiber.schedule do
        right.far_out.write("last words")
        left.far_in.readpartial(100)
        reset(right)
      end
    end
    assert_kind_of Errno::ECONNRESET, error
    assert_equal [0, 10], error.bytes_relayed
  end

  private

  def assert_exchange_of_fibers(sides, size = 300_000)
    relayed = []
    arrived = Hash.new { |hash, side| hash[side] = +"".b }
    arrived.compare_by_identity
    with_scheduler do
      sides.each_with_index do |(left, right), number|
        Fiber.schedule { relayed[number] = IO::Splice.relay(left.given, right.given) }
        [[left, "#{number}<"], [right, "#{number}>"]].each do |side, name|
          Fiber.schedule { side.far_out.write(name, pattern(size)) && side.hang_up }
          Fiber.schedule { nil while (bytes = side.far_in.read(20_000)) && (arrived[side] << bytes) }
        end
      end
    end
    sides.each_with_index do |(left, right), number|
      assert_equal [size + number.to_s.size + 1] * 2, relayed[number]
      assert_bytes "#{number}<".b + pattern(size), arrived[right]
      assert_bytes "#{number}>".b + pattern(size), arrived[left]
    end
  end
end
