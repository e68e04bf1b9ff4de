# frozen_string_literal: true

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require_relative "support/strict"
require "io/splice"
require "minitest/autorun"
require "timeout"

%w[assertions children ends experimental fibers garbage threads].each { |topic| require_relative "support/#{topic}" }

Thread.report_on_exception = false

# What every test has at hand. Nothing here measures time; the one limit is a guard against hanging.
module SpliceTest
  # How many times slower than usual this machine is: an emulated one says so (bin/with-kernel).
  SLOWNESS = Integer(ENV.fetch("SLOWNESS", "1"))
  GUARD = 60 * SLOWNESS # seconds: generous, since these machines are shared

  def setup
    @to_close = []
    @descriptors = open_descriptors
    super
  end

  def teardown
    super
    @to_close.each { |io| io.close unless io.closed? }
    return unless passed?

    # What only the garbage collector knows of is not left open, but will be closed by it; and what a thread of a
    # background has in its hands, by that thread, once its call has come back.
    GC.start if open_descriptors > @descriptors
    500.times { open_descriptors > @descriptors ? sleep(0.01) : break }
    assert_operator open_descriptors, :<=, @descriptors, "descriptors were left open"
  end

  # Fails instead of hanging, and says where the block hung. The seconds are those of a usual machine.
  def guarded(seconds = 60, &)
    seconds *= SLOWNESS
    Timeout.timeout(seconds, nil, "still running after #{seconds} s", &)
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

  # Bytes that tell where they stand, so that a lost, repeated or foreign one shows.
  def pattern(size)
    @pattern ||= "".b
    @pattern << [@pattern.bytesize / 8].pack("Q>") while @pattern.bytesize < size
    @pattern.byteslice(0, size)
  end

  private

  def closing(*ios)
    @to_close.concat(ios)
    ios
  end

  # The numbers of the descriptors that these IOs have: one that is closed, or was never opened, has none.
  def numbers_of_ios(ios = ObjectSpace.each_object(IO))
    ios.filter_map do |io|
      io.fileno
    rescue IOError
      nil
    end
  end

  def open_descriptors
    Dir.children("/proc/self/fd").size
  end
end

class Minitest::Test
  extend Strict::TestNames
  include SpliceTest
end
