# frozen_string_literal: true

require "test_helper"
require "pty"
require "support/relay_sides"

# Exceptions, kills, closes and signals in the middle.
class TestRelayStopped < Minitest::Test
  include RelaySides

  def test_closing_either_side_ends_it
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      sides = [left.input, right.input, left.output, right.output].uniq
      sides.each_index do |index|
        left = side(one)
        right = side(other)
        relay = relaying(left.given, right.given)
        left.far_out.write("hello")
        guarded { right.far_in.readpartial(5) }
        guarded { [left.input, right.input, left.output, right.output].uniq[index].close }
        error = assert_raises(IOError) { thread_value(relay) }
        refute_kind_of TimeoutError, error
        assert_equal [5, 0], error.bytes_relayed
      end
    end
  end

  def test_closing_a_side_while_the_other_direction_is_over_ends_it
    2.times do |closed|
      left = side(:unix)
      right = side(:unix)
      left.hang_up
      relay = relaying(left.given, right.given)
      assert_equal("", guarded { right.far_in.read })
      [left, right][closed].input.close
      assert_raises(IOError) { thread_value(relay) }
    end
  end

  def test_closing_a_side_while_the_relay_waits_for_output_puts_back_what_is_held
    left = side(:unix)
    right = side(:unix)
    filled = fill_up(right.output)
    left.far_out.write("still there")
    relay = until_taken(left.input, relaying(left.given, right.given))
    guarded { right.input.close }
    assert_raises(IOError) { thread_value(relay) }
    left.hang_up
    assert_equal("still there", guarded { left.input.read })
    assert_equal filled, until_reset { right.far_in.readpartial(70_000) }.bytesize
  end

  def test_raise_ends_it_at_once_and_says_how_far_it_has_come
    left = side(:unix)
    right = side(:tcp)
    relay = relaying(left.given, right.given)
    left.far_out.write("hello")
    guarded { right.far_in.readpartial(5) }
    relay.raise(Stop)
    error = assert_raises(Stop) { thread_value(relay) }
    assert_kind_of IO::Splice::Relayed, error
    assert_equal [5, 0], error.bytes_relayed
    refute_kind_of IO::Splice::Relayed, Stop.new
  end

  def test_kill_ends_it_at_once
    relay = relaying(side(:unix).given, side(:unix).given)
    relay.kill
    assert_nil thread_value(relay)
  end

  def test_a_timeout_ends_it_at_once
    assert_raises(Timeout::Error) { Timeout.timeout(0.01) { IO::Splice.relay(side(:unix).given, side(:unix).given) } }
  end

  def test_after_an_interrupt_the_bytes_that_were_held_are_in_the_read_buffer
    KINDS.first(6).product(KINDS.first(6)).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      %i[raise kill].each do |stop|
        relay = until_taken(left.input, relaying(left.given, right.given))
        stop == :raise ? relay.raise(Stop) : relay.kill
        join_stopped(relay)
        refute_predicate relay, :alive?
      end
      assert_still_there(left, right, filled)
    end
  end

  def test_after_an_interrupt_the_bytes_from_b_to_a_are_there_too
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(left.output)
      right.far_out.write("still there")
      relay = until_taken(right.input, relaying(left.given, right.given))
      relay.raise(Stop)
      join_stopped(relay)
      assert_still_there(right, left, filled)
    end
  end

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_raise_at_random_moments_loses_nothing_between_#{one}_and_#{other}" do
      12.times { stopped_at_random(one, other) { |relay| relay.raise(Stop) } }
    end

    define_method "test_kill_at_random_moments_loses_nothing_between_#{one}_and_#{other}" do
      12.times { stopped_at_random(one, other, &:kill) }
    end
  end

  def test_timeouts_at_random_moments_lose_nothing
    PLAIN.product(PLAIN).each do |one, other|
      3.times do
        in_the_middle(one, other) do |left, right|
          Timeout.timeout((rand * 0.004) + 0.0001) { IO::Splice.relay(left.given, right.given) }
        rescue Timeout::Error
          nil
        end
      end
    end
  end

  def test_a_stopped_relay_can_be_taken_up_again_and_again
    PLAIN.product(PLAIN).each do |one, other|
      in_the_middle(one, other, 300_000) do |left, right|
        loop do
          relay = thread { IO::Splice.relay(left.given, right.given) }
          sleep(rand * 0.003)
          relay.raise(Stop)
          join_stopped(relay)
          break if [left, right].any? { |side| side.output.closed? || at_its_end?(side.input) }
        end
      end
    end
  end

  def test_interrupts_at_random_moments_do_not_lose_what_was_read_ahead
    400.times do |number|
      left = side(:unix)
      right = side(:unix)
      [left, right].each { |side| side.input.ungetbyte(pattern(30_000)) }
      relay = thread { IO::Splice.relay(left.given, right.given) }
      rand(2000).times { nil }
      Thread.pass if number.odd?
      relay.raise(Stop)
      join_stopped(relay)
      [left, right].each(&:hang_up)
      [left, right].each { |side| side.output.close_write }
      [[left, right], [right, left]].each do |from, to|
        assert_bytes(pattern(30_000), guarded { to.far_in.read + from.input.read })
      end
    ensure
      close_all
    end
  end

  def test_closing_a_side_at_random_moments_leaves_whole_prefixes
    20.times do |number|
      closed, other = nil
      left = side(:unix)
      right = side(:unix)
      closed, other = number.even? ? [left, right] : [right, left]
      [left, right].each { |side| feed(side, pattern(SIZE)) }
      now = Thread::Queue.new
      from_closed = slowly(other)
      to_closed = slowly(closed, rand(SIZE / 2), now)
      relay = thread { IO::Splice.relay(left.given, right.given) }
      guarded { now.pop }
      guarded { closed.input.close }
      join_stopped(relay)
      other.output.close_write
      arrived = thread_value(from_closed)
      assert_bytes pattern(arrived.bytesize), arrived
      assert_bytes(pattern(SIZE), thread_value(to_closed) + guarded { other.input.read })
      close_all
    end
  end

  def test_signals_run_their_handlers_and_the_relay_goes_on
    signals = Thread::Queue.new
    handler = trap(:USR1) { signals << true }
    left = side(:unix)
    right = side(:tcp)
    relay = thread { IO::Splice.relay(left.given, right.given) }
    20.times do |number|
      until_asleep(relay)
      Process.kill(:USR1, Process.pid)
      guarded { signals.pop }
      left.far_out.write(number.to_s)
      assert_equal(number.to_s, guarded { right.far_in.read(number.to_s.size) })
    end
    [left, right].each(&:hang_up)
    assert_equal [30, 0], thread_value(relay)
  ensure
    trap(:USR1, handler)
  end

  def test_an_interrupt_while_the_output_is_told_of_the_end_comes_when_it_knows
    input, far_out = pipe
    far_in, output = pipe
    left = side(:unix)
    left.hang_up
    far_out.close
    output.define_singleton_method(:close_write) do
      Thread.current.raise(Stop)
      super()
    end
    relay = thread { IO::Splice.relay(left.given, [input, output]) }
    assert_raises(Stop) { thread_value(relay) }
    assert_empty(guarded { far_in.read })
  end

  def test_a_terminal_that_nobody_reads_does_not_hold_up_an_interrupt
    terminal, _user = closing(*PTY.open)
    terminal.syswrite("typed\n")
    zeros = closing(File.open("/dev/zero", "r+")).first
    relay = until_asleep(thread { IO::Splice.relay(terminal, zeros) })
    relay.raise(Stop)
    assert_raises(Stop) { thread_value(relay) }
  end

  def test_an_object_with_methods_of_its_own_is_refused
    left = side(:unix)
    veiled = Struct.new(:to_io) { def write(bytes) = to_io.write(bytes.reverse) }
    error = assert_raises(TypeError) { relay(veiled.new(left.input), side(:unix).given) }
    assert_match(/its own methods/, error.message)
  end

  def test_signals_in_the_middle_of_streams_lose_nothing
    signals = 0
    handler = trap(:USR1) { signals += 1 }
    left = side(:unix)
    right = side(:tcp)
    kicks = thread { Process.kill(:USR1, Process.pid) && sleep(0.0005) until @over }
    assert_exchange(left, right, pattern(5 * SIZE), pattern(5 * SIZE).reverse)
    @over = true
    kicks.join
    assert_operator signals, :>, 0
  ensure
    trap(:USR1, handler)
  end

  def test_a_handler_may_end_it
    left = side(:unix)
    handler = trap(:USR1) { raise Stop }
    kick = thread do
      until_asleep(Thread.main)
      Process.kill(:USR1, Process.pid)
    end
    error = assert_raises(Stop) { relay(left.given, side(:unix).given) }
    kick.join
    assert_equal [0, 0], error.bytes_relayed
  ensure
    trap(:USR1, handler)
  end

  def test_a_frozen_exception_is_raised_as_it_is
    frozen = Stop.new.freeze
    handler = trap(:USR1) { raise frozen }
    kick = thread do
      until_asleep(Thread.main)
      Process.kill(:USR1, Process.pid)
    end
    assert_same frozen, assert_raises(Stop) { relay(side(:unix).given, side(:unix).given) }
    kick.join
  ensure
    trap(:USR1, handler)
  end

  private

  # As that, but it is slow, also bears a reset, and puts something into the queue when it is `much`.
  def slowly(side, much = 0, now = [])
    in_a_thread do
      until_reset do |bytes|
        now << true if bytes.bytesize >= much
        Thread.pass
        side.far_in.readpartial(20_000)
      end
    ensure
      now << true
    end
  end

  def until_reset
    bytes = +"".b
    loop { bytes << yield(bytes) }
  rescue EOFError, Errno::ECONNRESET
    bytes
  end

  def stopped_at_random(one, other)
    in_the_middle(one, other) do |left, right, now|
      relay = thread { IO::Splice.relay(left.given, right.given) }
      guarded { now.pop }
      guarded { yield relay }
      join_stopped(relay)
    end
  end

  # Yields two sides between which bytes go both ways, and a queue that tells when some have arrived. After that
  # those that have arrived and those that are left are together all there were.
  def in_the_middle(one, other, size = SIZE / 2)
    sides = [side(one), side(other)]
    now = Thread::Queue.new
    sides.each do |side|
      narrow(side.output, side.far_in, side.far_out, side.input)
      feed(side, pattern(size))
    end
    arrived = sides.map { |side| slowly(side, rand(size), now) }
    yield(*sides, now)
    sides.each { |side| side.output.close_write }
    sides.zip(arrived.reverse) do |from, thread|
      assert_bytes(pattern(size), thread_value(thread) + guarded { from.input.read })
    end
    close_all
  end

  def at_its_end?(input)
    readable?(input) && input.eof?
  end
end
