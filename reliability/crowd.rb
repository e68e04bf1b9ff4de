# frozen_string_literal: true

# A crowd in the background: many relays at once, most of them with a peer that behaves badly, while signals come,
# children are forked and the garbage collector runs. What each peer gets has to be what was sent to it. In the end no
# descriptor, no thread and no memory may be left.
#
#   ruby -Ilib reliability/crowd.rb [SECONDS] [--relays N] [--short N] [--seed N]
#
# Before that, short transfers of 1 KiB are made, 500 at a time.

require "io/splice"
require "optparse"
require "socket"
require "tempfile"

options = { relays: 1000, short: 100_000, seed: Random.new_seed % (1 << 32) }
OptionParser.new do |parser|
  parser.on("--relays N", Integer, "how many are under way at a time (1000)") { |count| options[:relays] = count }
  parser.on("--short N", Integer, "how many short transfers (100000)") { |count| options[:short] = count }
  parser.on("--seed N", Integer, "what the peers do follows from it") { |seed| options[:seed] = seed }
end.parse!
SECONDS = Float(ARGV.fetch(0, 60))
PATTERN = Random.new(1).bytes(1 << 20).freeze
TCP = TCPServer.new("127.0.0.1", 0)
POOL = 8 # descriptors of the gem's own pipes, which may be kept
STUCK = 120 # seconds without any byte for somebody who behaves well

def tcp_pair = TCPSocket.new("127.0.0.1", TCP.local_address.ip_port).then { |socket| [socket, TCP.accept] }
def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# What a peer sends, and what has arrived of what the other one has sent.
class Peer
  attr_reader :socket

  def initialize(socket, random)
    @socket = socket
    @random = random
    @left = random.rand(300_000)
    @sent = @heard = 0
    @open = true
    @moved_at = now
  end

  # Does a little, and says whether it is done.
  def go_on
    hear
    send_some if @left.positive?
    hang_up if @open && @left.zero?
    !@open && @ended
  rescue Errno::EPIPE, Errno::ECONNRESET, Errno::ENOTCONN
    raise "a good connection was broken" if good?

    true
  end

  def good? = true

  def check_alive
    raise "no byte for #{STUCK} s: sent #{@sent}, #{@left} left, heard #{@heard}" if good? && now - @moved_at > STUCK
  end

  private

  def portion = @random.rand(1..65_536)

  def send_some
    bytes = PATTERN.byteslice(@sent % PATTERN.bytesize, [portion, @left].min)
    written = @socket.write_nonblock(bytes, exception: false)
    moved(written) { @sent += written and @left -= written } unless written == :wait_writable
  end

  def hear
    until @ended
      bytes = @socket.read_nonblock(65_536, exception: false)
      return if bytes == :wait_readable
      break @ended = true unless bytes

      expected = PATTERN.byteslice(@heard % PATTERN.bytesize, bytes.bytesize)
      expected << PATTERN.byteslice(0, bytes.bytesize - expected.bytesize)
      raise "foreign bytes at #{@heard}" unless bytes == expected

      moved { @heard += bytes.bytesize }
    end
  end

  def hang_up
    @socket.close_write
    @open = false
  end

  def moved(*)
    @moved_at = now
    yield
  end
end

# Whose relay may end at any time: the other peer behaves badly. It hears nothing foreign all the same.
class ExcusedPeer < Peer
  def good? = false
end

# Those that behave badly.
class BadPeer < ExcusedPeer
end

class ByteAtATime < BadPeer
  private

  def portion = 1
end

class NeverReads < BadPeer
  private

  def hear = @ended = @left.zero?
end

class SendsUrgentBytes < BadPeer
  private

  # Nothing is said of the urgent byte itself: it is not in the stream.
  def send_some
    super
    @socket.send("!", Socket::MSG_OOB) if @socket.is_a?(TCPSocket) && @random.rand(20).zero?
  end
end

class Resets < BadPeer
  def go_on
    return super unless @random.rand(30).zero?

    @socket.setsockopt(Socket::Option.linger(true, 0))
    true
  end
end

class IsSilent < BadPeer
  def go_on = @random.rand(200).zero?
end

BAD = [ByteAtATime, NeverReads, SendsUrgentBytes, Resets, IsSilent].freeze

# A relay and its two peers.
class Connection
  def initialize(background, random)
    @random = random
    pairs = Array.new(2) { random.rand(2).zero? ? tcp_pair : UNIXSocket.pair }
    classes = random.rand(10).zero? ? [Peer, Peer] : [BAD.sample(random:), ExcusedPeer].shuffle(random:)
    @peers = pairs.map(&:first).zip(classes).map { |socket, kind| kind.new(socket, random) }
    @relay = background.relay(*pairs.map(&:last), idle_timeout: 30)
    @cancelled = false
  end

  def good? = @peers.all?(&:good?)

  def go_on
    @peers.each(&:check_alive)
    @relay.cancel if !good? && @random.rand(2000).zero?
    return false unless @peers.map(&:go_on).all? || (@relay.done? && !good?)

    @peers.each { |peer| peer.socket.close }
    check if good?
    true
  end

  private

  def check
    @relay.wait(60) or raise "a relay of good peers does not end"
    raise @relay.error if @relay.error
  end
end

# Transfers of 1 KiB, so many at a time.
def short(background, count, at_a_time: 500)
  (count / at_a_time).times do
    ends = Array.new(at_a_time) { UNIXSocket.pair }
    transfers = ends.map do |far, near|
      far.write(PATTERN[0, 1024])
      far.close_write
      background.copy_stream(near, File::NULL)
    end
    transfers.each { |transfer| transfer.value == 1024 or raise "#{transfer.inspect} is short" }
    ends.each { |far, _| far.close }
  end
end

def fork_a_child
  Process.wait(fork { exit!(IO::Splice.background.copy_stream("/dev/zero", File::NULL, 9).value == 9) })
  raise "a child has failed: #{$?}" unless $?.success? # rubocop:disable Style/SpecialGlobalVars
end

def left
  GC.start
  rss = Integer(File.read("/proc/self/status")[/^VmRSS:\s*(\d+)/, 1], 10)
  { descriptors: Dir.children("/proc/self/fd").size, threads: Dir.children("/proc/self/task").size, "KiB" => rss }
end

def crowd(background, random, seconds, count)
  until_then = now + seconds
  connections = []
  finished = 0
  while now < until_then || connections.any?(&:good?)
    connections << Connection.new(background, random) while now < until_then && connections.size < count
    over, connections = connections.partition(&:go_on)
    finished += over.size
    Process.kill(:USR1, Process.pid) if random.rand(3).zero?
    fork_a_child if random.rand(100).zero?
    GC.start if random.rand(30).zero?
  end
  "#{finished} connections ended, #{connections.size} broken off, "
end

trap(:USR1) { nil }
soft, hard = Process.getrlimit(:NOFILE)
Process.setrlimit(:NOFILE, [hard, 20_000].min, hard) if soft < 20_000
puts "--seed #{options[:seed]}"
random = Random.new(options[:seed])

# Runs the block with a background, and says what has become of that.
def with_background(title, **options)
  background = IO::Splice::Background.new(**options)
  said = yield background
  background.close
  puts "#{title}: #{said}#{background.stats}"
end

# What is made at first stays: the heap of Ruby, the pipes of the pool.
def warm_up(random, options)
  with_background("warming up") { |background| short(background, 1000) }
  with_background("warming up") { |background| crowd(background, random, SECONDS / 4, options[:relays]) && nil }
end

warm_up(random, options)
before = left
with_background("short transfers") { |background| short(background, options[:short]) && nil }
with_background("the crowd", threads: 2) { |background| crowd(background, random, SECONDS, options[:relays]) }
sleep 0.1 until (after = left)[:threads] <= before[:threads]
puts "left: #{after}, before #{before}"
abort "descriptors are left" if after[:descriptors] > before[:descriptors] + POOL
abort "memory is left" if after["KiB"] > before["KiB"] + (32 << 10)
