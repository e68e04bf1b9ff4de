# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"
require "support/objects"
require "support/select_scheduler"

# How a copy with objects ends before its time: what was taken counts, and what nobody has taken goes back.
class TestCopyObjectsStopped < Minitest::Test
  include CopyEnds
  include Objects

  Stop = Class.new(StandardError)
  SIZE = 150_000

  # Errors of the target's own, and what comes from outside.
  RAISED = [IOError, Errno::EIO, Stop, NotImplementedError].freeze

  def test_a_write_that_raises
    RAISED.product([0, 10_000, 90_000]) do |error, before|
      sources(pattern(SIZE)) do |kind, source, rest|
        target = Writer.new do |bytes|
          raise error, "no more" if target.taken.bytesize >= before

          [bytes.bytesize, 3000].min
        end
        raised = assert_raises(error, kind) { copy_stream(source, target) }
        taken = target.taken
        assert_operator taken.bytesize, :>=, before
        assert_bytes pattern(SIZE), taken + rest.call, kind
        assert_came(taken.bytesize, raised)
      end
    end
  end

  def test_a_write_that_throws
    sources(pattern(SIZE)) do |kind, source, rest|
      target = Writer.new { |bytes| target.kept.size < 3 ? bytes.bytesize / 2 : throw(:out, :thrown) }
      assert_equal :thrown, catch(:out) { copy_stream(source, target) }
      assert_bytes pattern(SIZE), target.taken + rest.call, kind
    end
  end

  def test_a_write_that_kills_its_thread
    sources(pattern(SIZE)) do |kind, source, rest|
      target = Writer.new { |bytes| target.kept.size < 3 ? bytes.bytesize / 2 : Thread.current.kill }
      after = nil
      guarded { Thread.new { IO::Splice.copy_stream(source, target) && after = :after }.join }
      assert_nil after
      assert_bytes pattern(SIZE), target.taken + rest.call, kind
    end
  end

  def test_a_read_that_raises_has_the_target_get_what_was_read_before
    [IOError, Stop, EOFError].each do |error|
      times = 0
      make = lambda do |piece, buffer|
        raise error, "enough" if (times += 1) > 3

        buffer.replace(piece)
      end
      %i[file pipe unix].each do |to|
        times = 0
        target, collect = target(to)
        if error == EOFError
          assert_equal 3000, copy_stream(Reader.new(pattern(SIZE), 1000, &make), target)
        else
          raised = assert_raises(error) { copy_stream(Reader.new(pattern(SIZE), 1000, &make), target) }
          assert_came(3000, raised)
        end
        assert_bytes pattern(3000), collect.call
      end
    end
  end

  def test_a_target_without_a_reader
    [StringIO, Reader].each do |kind|
      far, target = pipe
      far.close
      source = kind.new(pattern(SIZE))
      error = assert_raises(Errno::EPIPE) { copy_stream(source, target) }
      assert_came(0, error)
      assert_bytes pattern(SIZE), rest(source)
    end
  end

  def test_what_cannot_go_back_is_delivered_as_far_as_the_target_takes_it
    reader, target = pipe
    source = Reader.new(pattern(SIZE))
    source.singleton_class.undef_method(:ungetbyte)
    copying = until_asleep(thread { IO::Splice.copy_stream(source, target) })
    copying.raise(Stop)
    error = assert_raises(Stop) { guarded { copying.value } }
    target.close
    arrived = reader.read.b
    assert_bytes pattern(arrived.bytesize), arrived
    assert_came(arrived.bytesize, error)
  end

  def test_a_frozen_exception_is_not_marked
    target = Writer.new { |_| raise Stop.new("frozen").freeze }
    error = assert_raises(Stop) { copy_stream(StringIO.new("abc"), target) }
    refute_kind_of IO::Splice::PartialWrite, error
  end

  def test_a_target_that_is_closed_meanwhile
    source = StringIO.new(pattern(SIZE))
    reader, target = pipe
    copying = until_asleep(thread { IO::Splice.copy_stream(source, target) })
    target.close
    assert_raises(IOError) { guarded { copying.value } }
    assert_bytes pattern(SIZE), reader.read.b + source.read
  end

  def test_a_source_that_is_closed_meanwhile
    source, writer = pipe
    writer.write(pattern(1000))
    target = StringIO.new("".b)
    copying = until_asleep(thread { IO::Splice.copy_stream(source, target) })
    source.close
    assert_raises(IOError) { guarded { copying.value } }
    assert_bytes pattern(1000), target.string
  end

  def test_a_number_that_is_not_open_for_writing_is_told_of_before_anything_is_read
    reader, = pipe
    source = Reader.new(pattern(100))
    assert_raises(Errno::EBADF) { copy_stream(source, reader.fileno) }
    assert_empty source.asked
  end

  def test_a_closed_target_is_told_of_before_anything_is_read
    source = Reader.new(pattern(100))
    target = tempfile.tap(&:close)
    assert_raises(IOError) { copy_stream(source, target) }
    assert_empty source.asked
  end

  def test_a_file_is_emptied_when_the_source_has_been_read
    Dir.mktmpdir do |dir|
      path = "#{dir}/there"
      File.write(path, "content")
      source = Reader.new("new") { |_, _| raise Stop }
      assert_raises(Stop) { copy_stream(source, path) }
      assert_equal "content", File.read(path)
      source = Reader.new("new") do |piece, _|
        assert_equal "content", File.read(path)
        piece
      end
      assert_equal 3, copy_stream(source, path)
      assert_equal "new", File.read(path)
      assert_equal 0, copy_stream(StringIO.new, path)
      assert_equal "", File.read(path)
    end
  end

  def test_an_offset_leaves_the_position_also_after_an_error
    file = tempfile(pattern(SIZE))
    file.pos = 7
    target = Writer.new { |bytes| target.kept.size > 1 ? raise(Stop) : bytes.bytesize / 2 }
    error = assert_raises(Stop) { copy_stream(file, target, nil, 1000) }
    assert_bytes pattern(SIZE).byteslice(1000, error.bytes_written), target.taken
    assert_equal 7, file.pos
    assert_raises(Errno::ESPIPE) { copy_stream(pipe.first, StringIO.new, 1, 1) }
    error = assert_raises(ArgumentError) { copy_stream(StringIO.new("abc"), StringIO.new, 1, 1) }
    assert_equal "cannot specify src_offset for non-IO", error.message
  end

  # At any moment

  # Works in Ruby, so that an interrupt could come anywhere.
  class Slow
    attr_reader :bytes

    def initialize(bytes = "".b)
      @bytes = bytes
      @pos = 0
    end

    attr_accessor :pos

    def readpartial(most, buffer)
      piece = @bytes.byteslice(@pos, [most, 1000].min)
      raise EOFError if piece.empty?

      @pos += piece.bytesize
      linger
      buffer.replace(piece)
    end

    def write(bytes)
      half = (bytes.bytesize + 1) / 2
      @bytes << bytes.byteslice(0, half)
      linger
      half
    end

    def read = @bytes.byteslice(@pos..)

    private

    def linger
      20.times { |number| @last = number }
    end
  end

  STOPS = {
    "an_exception" => ->(copying) { copying.raise(Stop) },
    "a_kill" => :kill.to_proc,
  }.freeze

  STOPS.each do |name, stop|
    define_method(:"test_after_#{name}_at_any_moment_nothing_is_lost_or_repeated") do
      150.times do
        source = Slow.new(pattern(60_000))
        target = Slow.new
        stop_at_any_moment(source, target, stop)
        assert_bytes pattern(60_000), target.bytes + source.read
      end
    end

    define_method(:"test_after_#{name}_at_any_moment_of_a_copy_to_a_pipe_nothing_is_lost_or_repeated") do
      100.times do
        source = Slow.new(pattern(60_000))
        target, collect = target(:pipe)
        stop_at_any_moment(source, target, stop)
        assert_bytes pattern(60_000), collect.call + source.read
      end
    end

    define_method(:"test_after_#{name}_at_any_moment_of_a_copy_from_a_pipe_nothing_is_lost_or_repeated") do
      100.times do
        source = source(:pipe, pattern(60_000))
        target = Slow.new
        stop_at_any_moment(source, target, stop)
        assert_bytes pattern(60_000), target.bytes + guarded { source.read.b }
        source.close
      end
    end
  end

  def test_a_timeout_at_any_moment
    100.times do
      source = Slow.new(pattern(60_000))
      target = Slow.new
      begin
        Timeout.timeout(0.0005 + (rand * 0.003)) { IO::Splice.copy_stream(source, target) }
      rescue Timeout::Error
        nil
      end
      assert_bytes pattern(60_000), target.bytes + source.read
    end
  end

  def test_a_block_that_leaves
    [[StringIO.new(pattern(SIZE)), Writer.new], [tempfile(pattern(SIZE)), Writer.new]].each do |source, target|
      IO::Splice.copy_stream(source, target) { |bytes| break bytes }
      assert_bytes pattern(SIZE), target.taken + source.read.b
      refute_empty target.taken
    end
  end

  # The first thing that makes another thread: until then nobody could raise anything in this one.
  def test_a_thread_that_comes_during_the_copy
    in_a_child do
      source = StringIO.new(pattern(SIZE))
      main = Thread.current
      target = Writer.new do |bytes|
        Thread.new { main.raise(Stop) }.join if target.kept.size == 2
        bytes.bytesize
      end
      begin
        IO::Splice.copy_stream(source, target)
        raise "not stopped"
      rescue Stop
        raise "other bytes" unless target.taken + source.read == pattern(SIZE)
      end
    end
  end

  def test_a_string_that_waits_to_be_written_cannot_be_changed
    buffer = nil
    source = Object.new
    source.define_singleton_method(:read) { |_, own| buffer ? nil : (buffer = own).replace("x" * 100_000) }
    reader, target = pipe
    copying = until_asleep(thread { IO::Splice.copy_stream(source, target) })
    assert_raises(RuntimeError) { buffer << "more" }
    arrived = in_a_thread { drain(reader) }
    assert_equal 100_000, thread_value(copying)
    target.close
    assert_equal "x" * 100_000, thread_value(arrived)
  end

  # In a fiber

  def test_a_fiber_waits_through_its_scheduler
    reader, target = pipe
    source = StringIO.new(pattern(SIZE))
    arrived = "".b
    turns = 0
    Thread.new do
      Fiber.set_scheduler(SelectScheduler.new)
      Fiber.schedule { IO::Splice.copy_stream(source, target) && target.close }
      Fiber.schedule do
        taker = Writer.new do |bytes|
          turns += 1
          arrived << bytes
          bytes.bytesize
        end
        IO::Splice.copy_stream(reader, taker)
      end
    end.join
    assert_bytes pattern(SIZE), arrived
    assert_operator turns, :>, 1
  end

  def test_fibers_and_objects_that_wait
    count = 5
    targets = Array.new(count) { Writer.new }
    Thread.new do
      Fiber.set_scheduler(SelectScheduler.new)
      targets.each do |target|
        source = Reader.new(pattern(20_000), 1000) do |piece, _|
          sleep 0.0001
          piece
        end
        Fiber.schedule { IO::Splice.copy_stream(source, target) }
      end
    end.join
    targets.each { |target| assert_bytes pattern(20_000), target.taken }
  end

  private

  # How far the copy came. One that has moved nothing does not say so.
  def assert_came(bytes, error)
    assert_equal bytes.positive?, error.is_a?(IO::Splice::PartialWrite)
    assert_equal bytes, error.bytes_written if bytes.positive?
  end

  def stop_at_any_moment(source, target, stop)
    copying = thread { IO::Splice.copy_stream(source, target) }
    sleep rand * 0.004
    stop.call(copying)
    guarded { copying.join }
  rescue Stop
    nil
  end
end
