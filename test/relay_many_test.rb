# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# Many relays at once, in one process.
class TestRelayMany < Minitest::Test
  include RelaySides

  def test_two_hundred_relays_at_once_do_not_mix_their_bytes
    relays = Array.new(200) do |number|
      left = side(:unix)
      right = side(number.even? ? :unix : :tcp)
      relaying(left.given, right.given).then { |relay| [relay, left, right, bytes_of(number), bytes_of(number + 500)] }
    end
    3.times do |part|
      relays.each do |_, left, right, to_right, to_left|
        left.far_out.write(to_right.byteslice(part * 7000, 7000))
        right.far_out.write(to_left.byteslice(part * 7000, 7000))
      end
    end
    relays.each do |relay, left, right, to_right, to_left|
      [left, right].each(&:hang_up)
      assert_equal [21_000, 21_000], thread_value(relay)
      assert_bytes(to_right, guarded { right.far_in.read })
      assert_bytes(to_left, guarded { left.far_in.read })
    end
  end

  def test_busy_and_stopped_relays_do_not_mix_their_bytes
    30.times do
      left = side(:unix)
      right = side(:unix)
      filled = fill_up(right.output)
      left.far_out.write("foreign" * 1000)
      relay = until_taken(left.input, relaying(left.given, right.given))
      relay.kill
      join_stopped(relay)
      assert_exchange(side(:unix), side(:tcp), "of its own", "its own answer")
      right.output.close_write
      left.hang_up
      assert_equal("foreign" * 1000, guarded { right.far_in.read.byteslice(filled..) + left.input.read })
      close_all
    end
  end

  def test_idle_relays_cost_no_time
    seconds, switches = said_in_a_child do
      relays = Array.new(200) do
        left = UNIXSocket.pair
        right = UNIXSocket.pair
        relay = thread { IO::Splice.relay(left[0], right[0]) }
        left[1].write("x")
        right[1].read(1)
        [relay, left, right]
      end
      relays.each { |relay,| until_asleep(relay) }
      before = effort
      sleep 0.5 * SLOWNESS
      effort.zip(before).map { |now, then_| now - then_ }
    end
    assert_operator seconds, :<, 0.1 * SLOWNESS
    assert_operator switches, :<, 150, "the 200 idle relays have woken up"
  end

  def test_idle_relays_have_no_pipes
    before = pipes
    relays = Array.new(20) do
      left = side(:unix)
      right = side(:tcp)
      relaying(left.given, right.given)
      left.far_out.write("a message")
      right.far_out.write("another")
      guarded { right.far_in.readpartial(100) && left.far_in.readpartial(100) }
      [left, right]
    end
    guarded(20) { Thread.pass while pipes > before }
    relays.flatten.each(&:hang_up)
  end

  def test_it_works_when_no_pipe_can_be_had
    left = side(:unix)
    right = side(:tcp)
    arrived = [right, left].map { |side| collect(side) }
    feed(left, pattern(SIZE))
    feed(right, pattern(SIZE).reverse)
    answer = said_in_a_child do
      null = File.open(File::NULL)
      Process.setrlimit(:NOFILE, Dir.children("/proc/self/fd").map(&:to_i).max + 1, Process.getrlimit(:NOFILE).last)
      nulls = []
      loop { nulls << null.dup } rescue Errno::EMFILE # rubocop:disable Style/RescueModifier
      refused = begin
        IO.pipe
      rescue Errno::EMFILE => e
        e.class.name
      end
      relayed = IO::Splice.relay(left.given, right.given)
      nulls.each(&:close)
      [refused, relayed]
    end
    assert_equal ["Errno::EMFILE", [SIZE, SIZE]], answer
    assert_bytes pattern(SIZE), thread_value(arrived[0])
    assert_bytes pattern(SIZE).reverse, thread_value(arrived[1])
  end

  private

  def bytes_of(number)
    [number].pack("S>") * 10_500
  end

  # Seconds of the processor, and how often any thread has gone to sleep.
  def effort
    times = Process.times
    tasks = Dir.glob("/proc/self/task/*/status").map { |path| File.read(path) }
    [times.utime + times.stime, tasks.sum { |status| status[/^voluntary_ctxt_switches:\s*(\d+)/, 1].to_i }]
  end
end
