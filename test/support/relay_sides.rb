# frozen_string_literal: true

require "support/copy_ends"

# What the tests of relay share: sides of each kind, and peers that write and read at their far ends.
module RelaySides
  include CopyEnds

  TimeoutError = IO::Splice::TimeoutError
  Wrapped = Struct.new(:to_io)

  # One side of a relay: what the relay is given, its input and output, and where the peer reads and writes.
  Side = Struct.new(:given, :input, :output, :far_in, :far_out) do
    def hang_up = far_out.close_write
  end

  KINDS = %i[unix tcp pipes blocking_unix blocking_tcp blocking_pipes number numbers wrapped].freeze
  PLAIN = %i[unix tcp pipes].freeze
  SIZE = 1_000_000

  private

  # An input or an output of its own and the peer's.
  def side(kind)
    case kind
    when :unix, :tcp then socket(*pair(kind))
    when :pipe, :pipes then pipes_side
    when :blocking_unix, :blocking_tcp, :blocking_pipes
      side(kind.to_s.delete_prefix("blocking_").to_sym).tap do |side|
        [side.input, side.output].each { |io| io.nonblock = false }
      end
    when :number then side(:unix).tap { |side| side.given = side.input.fileno }
    when :numbers then pipes_side.tap { |side| hand_over(side) }
    when :wrapped then side(:unix).tap { |side| side.given = Wrapped.new(side.input) }
    end
  end

  def socket(near, far)
    Side.new(near, near, near, far, far)
  end

  def pipes_side
    input, far_out = pair(:pipe)
    far_in, output = pair(:pipe)
    Side.new([input, output], input, output, far_in, far_out)
  end

  # The relay closes the descriptor of the output, so nobody else may do that.
  def hand_over(side)
    side.output.autoclose = false
    side.given = [side.input.fileno, side.output.fileno]
  end

  def relay(...)
    guarded { IO::Splice.relay(...) }
  end

  def relaying(...)
    @relay = until_asleep(thread { IO::Splice.relay(...) }.tap { |relay| @threads << relay })
  end

  # A thread in which the peer writes.
  def feed(side, bytes)
    in_a_thread do
      side.far_out.write(bytes)
    rescue SystemCallError, IOError
      nil
    ensure
      side.hang_up
    end
  end

  # A thread in which the peer reads all there is.
  def collect(side)
    in_a_thread { side.far_in.read }
  end

  # All that is asked of a relay: every byte, the counts, and the end on both sides.
  def assert_exchange(left, right, to_right, to_left, ahead = ["", ""])
    arrived = [right, left].map { |side| collect(side) }
    feed(left, to_right)
    feed(right, to_left)
    expected = [ahead[0] + to_right, ahead[1] + to_left]
    assert_equal expected.map(&:bytesize), relay(left.given, right.given)
    expected.zip(arrived) { |bytes, thread| assert_bytes bytes, thread_value(thread) }
  end

  # A socket that was full may have room a little later, so the bytes are either there or still in the source.
  def assert_still_there(from, to, filled)
    from.hang_up
    to.output.close_write
    arrived = guarded { to.far_in.read }.byteslice(filled..)
    assert_equal("still there", arrived + guarded { from.input.read })
  end

  def both_directions(kind = :unix)
    [false, true].each do |reverse|
      one = side(kind)
      other = side(kind)
      yield one, other, reverse ? [other, one] : [one, other]
    end
  end

  def assert_says_relayed(error, order, bytes)
    assert_kind_of IO::Splice::Relayed, error
    assert_equal order.map { |side| bytes[side] }, error.bytes_relayed
  end

  # Returns once the relay's end has learnt of it.
  def reset(side)
    close_with_a_reset(side.far_out)
    closed = 7 # TCP_CLOSE
    guarded { Thread.pass until side.input.getsockopt(:TCP, :INFO).data.unpack1("C") == closed }
  end

  # Yields what sleeps a tenth of the time in question. When the machine itself was in the way, it tells nothing.
  def undisturbed(limit)
    last = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    longest = 0
    look = lambda do
      now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      longest = [longest, now - last].max
      last = now
    end
    tick = -> { look.call && sleep(limit / 10) && look.call }
    guarded(10) { yield tick }
  rescue Minitest::Assertion, Timeout::Error, SystemCallError, IOError
    raise if longest < limit / 2
  end

  def pipes(from = 0)
    Dir.children("/proc/self/fd").count do |number|
      number.to_i >= from && File.readlink("/proc/self/fd/#{number}").start_with?("pipe:")
    rescue Errno::ENOENT
      false
    end
  end

  def close_all
    @to_close.each { |io| io.close unless io.closed? }
    @to_close.clear
  end
end
