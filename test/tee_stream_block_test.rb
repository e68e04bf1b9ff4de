# frozen_string_literal: true

require "test_helper"
require "English"
require "support/tee_ends"

# The block that is told how far it is.
class TestTeeStreamBlock < Minitest::Test
  include TeeEnds

  # On a busy machine it is called in the middle of a portion, which some targets have whole.
  def test_an_exception_from_the_block_ends_it_behind_what_it_was_told
    SOURCES.each do |from|
      targets, collects = targets(*TARGETS)
      told = nil
      error = assert_raises(Stop) do
        tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| raise Stop if (told = bytes).positive? }
      end
      assert_kind_of IO::Splice::PartialTee, error
      assert_nil error.target
      assert_includes 1...(3 * MIB), told
      assert_tells error, collects
      assert_operator error.bytes_written.min, :>=, told
    end
  end

  def test_the_block_may_break_and_throw
    SOURCES.each do |from|
      targets, collects = targets(*TARGETS)
      copied = catch(:enough) do
        tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| throw :enough, bytes if bytes.positive? }
      end
      assert_have copied, collects
      targets, collects = targets(*TARGETS)
      copied = guarded do
        IO::Splice.tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| break bytes if bytes.positive? }
      end
      assert_have copied, collects
    end
  end

  def test_the_block_may_close_a_target
    targets, collects = targets(:pipe, :stringio)
    reader, closed = unix_pair
    arrived = thread { reader.read }
    error = assert_raises(IOError) { tee_stream(tempfile(pattern(3 * MIB)), *targets, closed) { closed.close } }
    assert_tells error, [*collects, -> { thread_value(arrived) }]
  end

  def test_a_child_that_is_forked_in_the_block_cannot_go_on_and_brings_nothing_into_its_own_pipes
    [:file, *STREAMS].each do |from|
      source = source(from, pattern(3 * MIB))
      targets, collects = targets(*STREAMS)
      report, tell = pipe
      pid = foreign = nil
      begin
        tee_stream(source, *targets) do |bytes|
          next if pid || bytes.zero?

          pid = fork
          # They get the numbers that the gem's own had.
          foreign = Array.new(20) { IO.pipe } unless pid
        end
      ensure
        unless pid
          tell.write(foreign.map { |r,| r.read_nonblock(1, exception: false) }.uniq.inspect, $ERROR_INFO.class)
          exit!(0)
        end
      end
      tell.close
      assert_equal("[:wait_readable]Errno::EBADF", guarded { report.read })
      Process.wait(pid)
      assert_all pattern(3 * MIB), collects
    end
  end

  private

  # As many bytes, or more, of those that were to be copied.
  def assert_have(copied, collects)
    assert_includes 1...(3 * MIB), copied
    assert_operator assert_prefixes(collects).min, :>=, copied
  end
end
