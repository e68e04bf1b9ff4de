# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"
require "support/objects"

# How far a copy came that an exception has ended: what the exception says is what has arrived.
class TestCopyPartial < Minitest::Test
  include CopyEnds
  include SteadyBuffers
  include Objects

  # Made before descriptors are counted.
  BACKGROUND = IO::Splice.background

  PartialWrite = IO::Splice::PartialWrite
  SIZE = 3_000_000

  # From a stream that goes on to one that nobody reads from until the copy has been interrupted.
  %i[pipe unix tcp].product(%i[pipe unix tcp]) do |from, to|
    define_method(:"test_an_interrupted_copy_from_#{from}_to_#{to}") do
      far, near = pair(to)
      copying = in_a_thread { IO::Splice.copy_stream(source(from, pattern(SIZE)), near) }
      guarded { far.wait_readable }
      until_settled(copying)
      copying.raise(Stop)
      error = assert_raises(Stop) { thread_value(copying) }
      near.close
      arrived = drain(far)
      assert_kind_of PartialWrite, error
      assert_equal arrived.bytesize, error.bytes_written
      assert_bytes pattern(arrived.bytesize), arrived
    end
  end

  def test_a_target_that_is_full
    %i[file pipe unix tcp].each do |from|
      source = source(from, pattern(SIZE))
      target = tempfile
      limited(1_000_000) do
        error = assert_raises(Errno::EFBIG) { copy_stream(source, target) }
        assert_equal [target.size] * 2, [1_000_000, error.bytes_written], from
      end
    end
  end

  def test_a_source_that_ends_early
    [tempfile(pattern(1000)), StringIO.new(pattern(1000)), IO::Splice::Pages.new(pattern(1000))].each do |source|
      error = assert_raises(EOFError) { copy_stream(source, tempfile, 2000) }
      assert_equal ["end of file reached after 1000 of 2000 bytes", 1000], [error.message, error.bytes_written]
    end
  end

  def test_full_of_a_source_that_ends_early
    reader, writer = pipe
    writer << "five!"
    writer.close
    error = assert_raises(EOFError) { IO::Splice.full(reader, tempfile, 10) }
    assert_equal 5, error.bytes_written
  end

  def test_a_block_that_raises
    error = assert_raises(Stop) do
      copy_stream(tempfile(pattern(SIZE)), tempfile) { |bytes| raise Stop if bytes > 1_500_000 }
    end
    assert_includes 1_500_000..SIZE, error.bytes_written
  end

  def test_nothing_is_said_when_nothing_has_moved
    reader, writer = pipe
    reader.close
    refute_kind_of PartialWrite, assert_raises(Errno::EPIPE) { copy_stream(tempfile("abc"), writer) }
    refute_kind_of PartialWrite, assert_raises(EOFError) { copy_stream(tempfile, tempfile, 1) }
    refute_kind_of PartialWrite, assert_raises(ArgumentError) { copy_stream(tempfile, tempfile, -1) }
  end

  def test_with_one_target_tee_stream_says_what_it_says_with_several
    [tempfile(pattern(1000)), StringIO.new(pattern(1000))].each do |source|
      error = assert_raises(EOFError) { IO::Splice.tee_stream(source, tempfile, len: 2000) }
      assert_kind_of IO::Splice::PartialTee, error
      assert_equal [[1000], nil], [error.bytes_written, error.target]
      reader, writer = pipe
      reader.close
      source.rewind
      error = assert_raises(Errno::EPIPE) { IO::Splice.tee_stream(source, writer) }
      assert_equal [[0], writer], [error.bytes_written, error.target]
    end
    target = Writer.new { |_| raise IOError, "no more" }
    error = assert_raises(IOError) { IO::Splice.tee_stream(tempfile("abc"), target) }
    assert_same target, error.target
  end

  def test_a_tee_stream_of_a_source_that_ends_early
    [tempfile(pattern(1000)), StringIO.new(pattern(1000))].each do |source|
      error = assert_raises(EOFError) { IO::Splice.tee_stream(source, tempfile, StringIO.new, len: 2000) }
      assert_equal [1000, 1000], error.bytes_written
      refute_kind_of PartialWrite, error
    end
  end

  def test_in_the_background
    @descriptors += 16 # a background keeps idle pipes
    file = tempfile(pattern(1000))
    errors = [BACKGROUND.copy_stream(file, tempfile, 2000, 0, close: false),
              BACKGROUND.tee_stream(file, tempfile, tempfile, len: 2000, close: false),
              BACKGROUND.copy_stream(unfinished(500), tempfile, close: false).tap { |one| cancel_after(one, 500) }]
             .map { |transfer| guarded { transfer.wait.error } }
    assert_equal [1000, [1000, 1000], 500], errors.map(&:bytes_written)
    assert_kind_of IO::Splice::Cancelled, errors.last
  end

  private

  def limited(bytes)
    soft, hard = Process.getrlimit(:FSIZE)
    handler = trap(:XFSZ, "IGNORE")
    Process.setrlimit(:FSIZE, bytes, hard)
    yield
  ensure
    Process.setrlimit(:FSIZE, soft, hard)
    trap(:XFSZ, handler)
  end

  # A socket from which so many bytes come, and then nothing.
  def unfinished(bytes)
    near, far = unix_pair
    far << pattern(bytes)
    near
  end

  def cancel_after(transfer, bytes)
    guarded { sleep 0.001 until transfer.bytes == bytes }
    transfer.cancel
  end
end
