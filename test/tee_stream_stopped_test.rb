# frozen_string_literal: true

require "test_helper"
require "support/tee_ends"

# Exceptions, kills and closes from outside, in the middle.
class TestTeeStreamStopped < Minitest::Test
  include TeeEnds

  STREAMS.product([["stop", Stop], ["timeout", Timeout::Error]]).each do |to, (name, error)|
    define_method "test_a_#{name}_in_the_middle_tells_what_each_has_with_a_slow_#{to}" do
      [:file, *STREAMS].product([1, 2, 3]).each do |from,|
        held_up(from, to) do |copy, collects|
          copy.raise(error)
          raised = assert_raises(error) { thread_value(copy) }
          assert_tells raised, collects
          assert_nil raised.target
          assert_includes 1...(6 * MIB), raised.bytes_written.max
        end
      end
    end
  end

  STREAMS.each do |to|
    define_method "test_kill_in_the_middle_leaves_prefixes_with_a_slow_#{to}" do
      [:file, *STREAMS].product([1, 2, 3]).each do |from,|
        held_up(from, to) do |copy, collects|
          copy.kill
          assert_nil thread_value(copy)
          prefixes = collects.map(&:call)
          prefixes.each { |bytes| assert_bytes pattern(bytes.bytesize), bytes }
          assert_includes 1...(6 * MIB), prefixes.map(&:bytesize).max
        end
      end
    end
  end

  STREAMS.product(%i[source target]).each do |to, end_|
    define_method "test_closing_the_#{end_}_in_another_thread_with_a_slow_#{to}" do
      [:file, *STREAMS].each do |from|
        held_up(from, to) do |copy, collects, source, targets|
          until_settled(copy)
          guarded { end_ == :source ? source.close : targets.first.close }
          error = assert_raises(IOError) { thread_value(copy) }
          assert_tells error, collects
          assert_nil error.target if end_ == :source
        end
      end
    end
  end

  def test_raise_in_the_middle_tells_what_each_has_when_the_source_is_an_object
    STREAMS.each do |to|
      %i[stringio readpartial read].each do |from|
        held_up(from, to) do |copy, collects|
          until_settled(copy)
          copy.raise(Stop)
          assert_tells assert_raises(Stop) { thread_value(copy) }, collects
        end
      end
    end
  end

  def test_a_timeout_around_it_ends_it
    [:file, *STREAMS, :stringio].each do |from|
      reader, slow = narrow(*pair(:unix))
      targets, collects = targets(:pipe, :stringio)
      source = source(from, pattern(6 * MIB))
      assert_raises(Timeout::Error) { Timeout.timeout(0.02) { IO::Splice.tee_stream(source, slow, *targets) } }
      slow.close
      [reader.read, *collects.map(&:call)].each { |bytes| assert_bytes pattern(bytes.bytesize), bytes }
    end
  end

  def test_waiting_for_input_ends_at_once_and_takes_nothing
    STREAMS.each do |from|
      reader, writer = pair(from)
      targets, collects = targets(*STREAMS, :file)
      %i[raise kill].each do |stop|
        copy = until_asleep(thread { IO::Splice.tee_stream(reader, *targets) })
        stop == :raise ? copy.raise(Stop) : copy.kill
        begin
          thread_value(copy)
        rescue Stop => e
          assert_equal [0] * 4, e.bytes_written
        end
      end
      writer.write("still there")
      assert_equal "still there", reader.readpartial(100)
      assert_all "", collects
    end
  end

  def test_closing_an_end_while_it_waits_for_input
    STREAMS.product([:source, 0, 1, 2]).each do |from, end_|
      reader, writer = pair(from)
      targets, collects = targets(*STREAMS)
      writer.write("before")
      copy = until_asleep(thread { IO::Splice.tee_stream(reader, *targets) })
      guarded { Thread.pass while readable?(reader) }
      until_settled(copy)
      guarded { end_ == :source ? reader.close : targets[end_].close }
      error = assert_raises(IOError) { thread_value(copy) }
      assert_equal [6] * 3, error.bytes_written
      assert_all "before", collects
    end
  end

  def test_signals_run_their_handlers_and_it_goes_on
    signals = 0
    handler = trap(:USR1) { signals += 1 }
    reader, slow = narrow(*pair(:unix))
    arrived = thread { drain(reader) }
    targets, collects = targets(:pipe, :file)
    kicks = thread { 100.times { Process.kill(:USR1, Process.pid) && sleep(0.0001) } }
    assert_equal 3 * MIB, tee_stream(source(:tcp, pattern(3 * MIB)), slow, *targets)
    kicks.join
    slow.close
    assert_all pattern(3 * MIB), [-> { thread_value(arrived) }, *collects]
    assert_operator signals, :>, 0
  ensure
    trap(:USR1, handler)
  end

  def test_io_timeouts_are_honoured
    skip "Ruby 3.2" unless IO.method_defined?(:timeout=)
    [->(&block) { block.call }, ->(&block) { with_scheduler { Fiber.schedule(&block) } }].each do |around|
      reader, = pipe
      reader.timeout = 0.01
      targets, = targets(:pipe, :unix)
      around.call do
        assert_nil assert_raises(IO::TimeoutError) { guarded { IO::Splice.tee_stream(reader, *targets) } }.target
      end
      _far, slow = pipe
      fill(slow)
      slow.timeout = 0.01
      source = tempfile("abc")
      around.call do
        error = assert_raises(IO::TimeoutError) { guarded { IO::Splice.tee_stream(source, *targets, slow) } }
        assert_same slow, error.target
        assert_equal [3, 3, 0], error.bytes_written
      end
    end
  end

  private

  # A copy of 6 MiB to a slow target, a file, an object and a fast one. It stands still, or will, because of
  # the slow one, from which a part has been read; the block gets it and what collects what has arrived.
  def held_up(from, to)
    reader, slow = narrow(*pair(to))
    source = source(from, pattern(6 * MIB))
    fast, collect = target(:unix)
    file = tempfile
    string = StringIO.new("".b)
    copy = thread { IO::Splice.tee_stream(source, slow, file, string, fast) }
    head = guarded { reader.read(rand(1..MIB)) }
    rest = lambda do
      slow.close
      head + guarded { reader.read }
    end
    yield copy, [rest, -> { content(file) }, -> { string.string }, collect], source, [slow, file, string, fast]
    [reader, source].each { |io| io.close if io.respond_to?(:close) && !io.closed? }
  end
end
