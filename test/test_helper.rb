# frozen_string_literal: true

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require_relative "support/strict"
require "io/splice"
require "io/wait"
require "minitest/autorun"
require "socket"
require "tempfile"
require "timeout"
require "tmpdir"

# In Ruby 3.1 an encoding that is loaded after there has been a Ractor is a deadlock.
%w[UTF-16 UTF-16LE].each { |encoding| "x".encode(encoding) }

Thread.report_on_exception = false

# What every test has at hand. Nothing here measures time; the one limit is a guard against hanging.
module SpliceTest
  GUARD = 60 # seconds: generous, since these machines are shared

  def setup
    @to_close = []
    @descriptors = open_descriptors
    super
  end

  def teardown
    super
    @to_close.each { |io| io.close unless io.closed? }
    return unless passed?

    # What only the garbage collector knows of is not left open, but will be closed by it.
    GC.start if open_descriptors > @descriptors
    assert_operator open_descriptors, :<=, @descriptors, "descriptors were left open"
  end

  # Fails instead of hanging, and says where the block hung.
  def guarded(seconds = GUARD, &)
    Timeout.timeout(seconds, nil, "still running after #{seconds} s", &)
  end

  def pipe
    closing(*IO.pipe)
  end

  def unix_pair
    closing(*UNIXSocket.pair)
  end

  def tcp_pair
    TCPServer.open("127.0.0.1", 0) do |server|
      closing(TCPSocket.new("127.0.0.1", server.local_address.ip_port), server.accept)
    end
  end

  def tempfile(content = "")
    file = Tempfile.create("io_splice", binmode: true)
    File.unlink(file.path)
    file.write(content)
    file.flush
    file.rewind
    closing(file).first
  end

  # A thread of the test's own, which reports its failure only through `value`.
  def thread(&) = Thread.new(&)

  # What the block says in a Ractor of its own.
  def in_ractor(*args, &)
    experimental = Warning[:experimental]
    Warning[:experimental] = false
    ractor = Ractor.new(*args, &)
    guarded { ractor.respond_to?(:value) ? ractor.value : ractor.take }
  ensure
    Warning[:experimental] = experimental
  end

  # Leaves this process so many descriptors, and no more.
  def with_free_descriptors(count)
    taken = []
    limits = Process.getrlimit(:NOFILE)
    open = Dir.children("/proc/self/fd").map(&:to_i).select { |number| number < limits.first } # valgrind's are above
    Process.setrlimit(:NOFILE, open.max + 50, limits.last)
    2.times do
      loop { taken << File.open(File::NULL) }
    rescue Errno::EMFILE
      GC.start # which closes what nobody uses any more: those are taken in the second turn
    end
    taken.pop(count).each(&:close)
    yield
  ensure
    Process.setrlimit(:NOFILE, *limits)
    taken.each { |io| io.close unless io.closed? }
  end

  # A process of the test's own, which succeeds if the block comes to its end.
  def fork_child
    fork do
      yield
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- it is told, whatever it is
      warn e.full_message
    ensure
      exit!(1)
    end
  end

  # How a child has ended.
  def ended(child)
    guarded { Process.wait2(child).last }
  rescue Timeout::Error
    Process.kill(:KILL, child)
    Process.wait2(child).last
  end

  # Whether it is ready now. Ruby says no as well when an interrupt was due, such as the end of a thread's time slice.
  def readable?(io) = Array.new(3) { io.wait_readable(0) }.any?

  def writable?(io) = Array.new(3) { io.wait_writable(0) }.any?

  # Returns once the thread waits in the kernel or elsewhere.
  def until_asleep(thread)
    guarded { Thread.pass until thread.stop? }
    thread
  end

  # Returns once the copy or relay of a thread waits for its output: with the bytes of the source, or for leave to take
  # them.
  def until_taken(source, thread)
    until_asleep(thread)
    tries = 0
    Thread.pass while readable?(source) && (tries += 1) < 1000
    thread
  end

  # Bytes that tell where they stand, so that a lost, repeated or foreign one shows.
  def pattern(size)
    @pattern ||= "".b
    @pattern << [@pattern.bytesize / 8].pack("Q>") while @pattern.bytesize < size
    @pattern.byteslice(0, size)
  end

  def fill(writer)
    total = 0
    loop { total += writer.write_nonblock("f" * 65_536) }
  rescue IO::WaitWritable
    total
  end

  # Fills it for good: TCP (which may put off an acknowledgement by 40 ms) and terminals pass on what they hold a
  # little later, which makes room again.
  def fill_up(writer)
    total = fill(writer)
    calm = writer.is_a?(TCPSocket) || writer.tty? ? 0 : 8
    until calm == 8
      sleep 0.01
      more = fill(writer)
      total += more
      calm = more.zero? ? calm + 1 : 0
    end
    total
  end

  private

  def closing(*ios)
    @to_close.concat(ios)
    ios
  end

  def open_descriptors
    Dir.children("/proc/self/fd").size
  end
end

class Minitest::Test
  extend Strict::TestNames
  include SpliceTest
end

# For tests of what Ruby calls experimental and warns of: Ractors, in Ruby 3.1 IO::Buffer.
module Experimental
  def setup
    super
    @experimental = Warning[:experimental]
    Warning[:experimental] = false
  end

  def teardown
    Warning[:experimental] = @experimental
    super
  end

  private

  def ractor(...) = Ractor.new(...)

  def value_of(ractor)
    guarded { ractor.respond_to?(:value) ? ractor.value : ractor.take }
  end
end
