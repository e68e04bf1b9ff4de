# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"

# What Ruby has read ahead of an input is taken out of its buffer, and what cannot be delivered goes back there.
class TestReadAhead < Minitest::Test
  include CopyEnds

  # What a subclass, or a singleton class, may make of the methods that read.
  module AnotherString
    def readpartial(*) = "#{super}!"
    def read(*) = "read"
    def sysread(*) = "sysread"
    def read_nonblock(*) = "read_nonblock"
    def getbyte = 33
    def ungetbyte(*) = nil
  end

  module Refusing
    %i[readpartial read sysread read_nonblock getbyte gets ungetbyte eof? pos pos= seek to_io fileno].each do |name|
      define_method(name) { |*| raise NotImplementedError, name.to_s }
    end
  end

  MODULES = [AnotherString, Refusing].freeze

  # Each of the calls: what has arrived of a source.
  CALLS = {
    copy_stream: ->(source) { arrived { |target| IO::Splice.copy_stream(source, target) } },
    tee_stream: lambda do |source|
      other = tempfile
      arrived { |target| IO::Splice.tee_stream(source, target, other) }.tap do |bytes|
        assert bytes == other.tap(&:rewind).read, "the other has got other bytes"
      end
    end,
    relay: lambda do |source|
      arrived do |target|
        empty, nothing = pipe
        nothing.close
        File.open(File::NULL, "w") { |nowhere| IO::Splice.relay([source, nowhere], [empty, target]) }
      end
    end,
  }.freeze

  CALLS.each do |call, copied|
    define_method(:"test_#{call}_calls_no_method_that_reads") do
      MODULES.each do |overridden|
        reader, writer = pipe
        writer.write("line\nread ahead")
        reader.gets
        writer.write(" and behind")
        writer.close
        reader.extend(overridden)
        assert_equal "read ahead and behind", instance_exec(reader, &copied)
      end
    end

    define_method(:"test_#{call}_of_more_than_is_taken_at_once") do
      reader, writer = pipe
      ahead = pattern(5_000_000)
      reader.ungetbyte(ahead)
      writer.write("behind")
      writer.close
      arrived = instance_exec(reader, &copied)
      assert_equal ahead.bytesize + 6, arrived.bytesize
      assert ahead + "behind".b == arrived, "other bytes"
    end
  end

  def test_a_length_within_what_was_read_ahead
    [1, 1_048_575, 1_048_576, 1_048_577, 2_097_152, 2_999_999, 3_000_000].each do |len|
      reader, writer = pipe
      reader.ungetbyte(pattern(3_000_000))
      target = tempfile
      assert_equal len, IO::Splice.copy_stream(reader, target, len)
      assert pattern(len) == target.tap(&:rewind).read
      writer.close
      assert pattern(3_000_000).byteslice(len..) == reader.read.b, "the rest of #{len}"
    end
  end

  def test_progress_of_what_was_read_ahead
    reader, writer = pipe
    writer.close
    reader.ungetbyte(pattern(3_000_000))
    told = []
    IO::Splice.copy_stream(reader, tempfile, &told.method(:<<))
    assert_equal [told.sort, 3_000_000, told.uniq.size], [told, told.last, told.size]
  end

  def test_characters_read_ahead_are_refused_as_ever
    reader, writer = pipe
    reader.set_encoding("UTF-16LE", "UTF-8")
    writer.write("content".encode("UTF-16LE"))
    reader.ungetc("!")
    CALLS.each_value do |copied|
      error = assert_raises(IOError) { guarded { instance_exec(reader, &copied) } }
      assert_equal "byte oriented read for character buffered IO", error.message
    end
    assert_equal "!c", reader.getc + reader.getc
  end

  def test_what_could_not_be_delivered_goes_back_before_what_was_still_there
    reader, writer = pipe
    reader.ungetbyte(pattern(3_000_000))
    writer.write("behind")
    writer.close
    here, there = unix_pair
    copy = thread { IO::Splice.copy_stream(reader, here) }
    until_asleep(copy)
    copy.raise(Interrupt)
    assert_raises(Interrupt) { guarded { copy.value } }
    here.close
    assert pattern(3_000_000) + "behind".b == there.read.b + reader.read.b, "bytes were lost, repeated or moved"
  end

  def test_tee_stream_puts_back_before_what_was_still_there
    reader, writer = pipe
    reader.ungetbyte(pattern(3_000_000))
    writer.write("behind")
    writer.close
    here, there = unix_pair
    other, another = unix_pair
    copy = thread { IO::Splice.tee_stream(reader, here, other) }
    until_asleep(copy)
    copy.raise(Interrupt)
    assert_raises(Interrupt) { guarded { copy.value } }
    [here, other].each(&:close)
    taken = [there.read, another.read].max_by(&:bytesize)
    assert pattern(3_000_000) + "behind".b == taken.b + reader.read.b, "bytes were lost, repeated or moved"
  end

  def test_relay_puts_back_before_what_was_still_there
    client, front = unix_pair
    back, server = unix_pair
    front.ungetbyte(pattern(3_000_000))
    client.write("behind")
    relay = thread { IO::Splice.relay(front, back) }
    until_asleep(relay)
    relay.raise(Interrupt)
    assert_raises(Interrupt) { guarded { relay.value } }
    client.close
    back.close
    assert pattern(3_000_000) + "behind".b == server.read.b + front.read.b, "bytes were lost, repeated or moved"
  end

  # Ruby's buffer is bounded by an int, and so is what can be put back into it.
  def test_a_large_buffer_that_somebody_fills_meanwhile
    reader, = pipe
    size = 300_000_000
    reader.ungetbyte("x" * size)
    stop = Class.new(StandardError)
    copied = nil
    assert_raises(stop) do
      IO::Splice.copy_stream(reader, File::NULL) do |bytes|
        copied = bytes
        reader.ungetbyte("y" * 500_000)
        raise stop
      end
    end
    assert_equal "y" * 500_000, reader.readpartial(500_000)
    rest = 0
    buffer = +""
    rest += reader.readpartial(8 << 20, buffer).bytesize while rest < size - copied
    assert_equal size - copied, rest
    assert_equal :wait_readable, reader.read_nonblock(1, exception: false)
  end

  def test_a_buffer_that_was_made_for_a_few_bytes_is_as_large_as_ever
    reader, writer = pipe
    onward, into = pipe
    fill(into)
    writer.write("few")
    copy = until_taken(reader, thread { IO::Splice.copy_stream(reader, into) })
    copy.kill.join
    onward.close
    writer.write("z" * 8000)
    assert_equal "few", reader.readpartial(3)
    reader.getbyte
    assert_equal 7999, reader.readpartial(10_000).bytesize
  end

  def test_no_memory_for_it_is_a_no_memory_error_and_nothing_is_lost
    skip "Ruby 4's garbage collector aborts when it gets no memory" if RUBY_VERSION >= "4"

    child = fork_child do
      reader, = IO.pipe
      reader.ungetbyte("x" * 3_000_000)
      error = without_memory { IO::Splice.copy_stream(reader, $stdout) }
      raise "no NoMemoryError: #{error.inspect}" unless error.is_a?(NoMemoryError)
      raise "bytes were lost" unless reader.readpartial(4_000_000).bytesize == 3_000_000
    end
    assert_predicate guarded { Process.wait2(child).last }, :success?
  end

  private

  # What arrives at the other end of a socket that the block writes to.
  def arrived
    here, there = unix_pair
    reading = thread { there.read }
    guarded { yield here }
    here.close
    reading.value.b
  ensure
    here.close
    reading.join
  end

  # What the block raises when there are no 100 kB left.
  def without_memory
    limits = Process.getrlimit(:AS)
    GC.start
    Process.setrlimit(:AS, File.read("/proc/self/statm").to_i * IO::Splice::PAGE_SIZE, limits.last)
    taken = []
    begin
      loop { taken << ("\0" * 100_000) }
    rescue NoMemoryError
      taken.pop&.clear
    end
    yield
  rescue NoMemoryError => e
    e
  ensure
    Process.setrlimit(:AS, *limits)
  end
end
