# frozen_string_literal: true

require "test_helper"
require "stringio"
require "support/copy_ends"

class TestCopyInterrupts < Minitest::Test
  include CopyEnds

  KINDS = %i[pipe tcp unix].freeze
  PAIRS = KINDS.product(KINDS).freeze
  SIZE = 1_000_000

  # At random moments: what has arrived and what is left are together all there was.

  PAIRS.each do |from, to|
    define_method "test_raise_at_random_moments_loses_nothing_from_#{from}_to_#{to}" do
      40.times { stopped_at_random(from, to) { |copy| copy.raise(Stop) } }
    end

    define_method "test_kill_at_random_moments_loses_nothing_from_#{from}_to_#{to}" do
      40.times { stopped_at_random(from, to) { |copy, _| copy.kill } }
    end

    define_method "test_closing_the_target_at_random_moments_loses_nothing_from_#{from}_to_#{to}" do
      40.times { stopped_at_random(from, to) { |_, _, target| target.close } }
    end

    define_method "test_closing_the_source_at_random_moments_leaves_a_whole_prefix_from_#{from}_to_#{to}" do
      40.times { stopped_at_random(from, to) { |_, source| source.close } }
    end
  end

  def test_timeouts_at_random_moments_lose_nothing
    PAIRS.each do |from, to|
      20.times do
        source = narrow_source(from)
        target, arrived = slow_target(to)
        begin
          Timeout.timeout((rand * 0.004) + 0.0001) { IO::Splice.copy_stream(source, target) }
        rescue Timeout::Error
          nil
        end
        target.close
        assert_whole(thread_value(arrived), source)
      end
    end
  end

  def test_a_stopped_copy_can_be_taken_up_again_and_again
    PAIRS.each do |from, to|
      source = narrow_source(from)
      target, arrived = slow_target(to)
      loop do
        copy = thread { IO::Splice.copy_stream(source, target) }
        sleep(rand * 0.003)
        copy.raise(Stop)
        thread_value(copy)
        break
      rescue Stop
        next
      end
      target.close
      assert_bytes pattern(SIZE), thread_value(arrived) + source.read
    end
  end

  def test_raise_at_random_moments_does_not_lose_what_was_read_ahead
    1500.times do |number|
      reader, writer = UNIXSocket.pair
      out, target = UNIXSocket.pair
      reader.ungetbyte(pattern(100_000))
      arrived = thread { out.read }
      copy = thread { IO::Splice.copy_stream(reader, target) }
      rand(2000).times { nil }
      Thread.pass if number.odd?
      copy.raise(Stop)
      join_stopped(copy)
      [writer, target].each(&:close)
      assert_bytes pattern(100_000), thread_value(arrived) + reader.read
    ensure
      [reader, writer, out, target].each(&:close)
    end
  end

  def test_a_stopped_copy_with_a_length_leaves_the_rest
    PAIRS.each do |from, to|
      10.times do
        source = narrow_source(from)
        target, arrived = slow_target(to)
        copy = thread { IO::Splice.copy_stream(source, target, SIZE / 2) }
        sleep(rand * 0.003)
        copy.raise(Stop)
        join_stopped(copy)
        target.close
        assert_whole(thread_value(arrived), source)
      end
    end
  end

  def test_files_too_stand_behind_what_has_arrived
    KINDS.each do |to|
      10.times do
        source = tempfile(pattern(3_000_000))
        target, arrived = slow_target(to)
        copy = thread { IO::Splice.copy_stream(source, target) }
        sleep(rand * 0.003)
        copy.kill
        guarded { copy.join }
        position = source.pos
        target.close
        arrived = thread_value(arrived)
        assert_equal arrived.bytesize, position
        assert_bytes pattern(position), arrived
      end
    end
  end

  # Waiting for the one end or the other

  def test_waiting_for_input_ends_at_once
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      copy = waiting_for_input(reader, target)
      copy.raise(Stop)
      assert_raises(Stop) { thread_value(copy) }
      copy = waiting_for_input(reader, target)
      copy.kill
      assert_nil thread_value(copy)
      assert_raises(Timeout::Error) { Timeout.timeout(0.01) { IO::Splice.copy_stream(reader, target) } }
      writer.write("still there")
      assert_equal 11, copy_stream(reader, target, 11)
      assert_equal "still there", out.read(11)
    end
  end

  def test_waiting_for_output_ends_at_once
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      filled = fill_up(target)
      writer.write("still there")
      %i[raise kill].each do |stop|
        copy = until_taken(reader, thread { IO::Splice.copy_stream(reader, target) })
        stop == :raise ? copy.raise(Stop) : copy.kill
        join_stopped(copy)
        refute_predicate copy, :alive?
      end
      assert_raises(Timeout::Error) { Timeout.timeout(0.01) { IO::Splice.copy_stream(reader, target) } }
      assert_still_there(reader, writer, out, target, filled)
    end
  end

  def test_closing_an_end_while_the_copy_waits_for_input
    PAIRS.each do |from, to|
      %i[source target].each do |end_|
        reader, writer = pair(from)
        _, target = pair(to)
        copy = waiting_for_input(reader, target)
        guarded { end_ == :source ? reader.close : target.close }
        assert_raises(IOError) { thread_value(copy) }
        writer.close
      end
    end
  end

  def test_closing_an_end_while_the_copy_waits_for_output
    PAIRS.each do |from, to|
      %i[source target].each do |end_|
        reader, writer = pair(from)
        out, target = pair(to)
        filled = fill_up(target)
        writer.write("still there")
        copy = until_taken(reader, thread { IO::Splice.copy_stream(reader, target) })
        guarded { end_ == :source ? reader.close : target.close }
        assert_raises(IOError) { thread_value(copy) }
        assert_still_there(reader, writer, out, target, filled)
      end
    end
  end

  def test_ends_in_blocking_mode_can_be_interrupted
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      filled = fill_up(target)
      reader.nonblock = target.nonblock = false
      copy = waiting_for_input(reader, target)
      copy.kill
      guarded { copy.join }
      writer.write("still there")
      copy = until_asleep(thread { IO::Splice.copy_stream(reader, target) })
      copy.kill
      guarded { copy.join }
      assert_still_there(reader, writer, out, target, filled)
    end
  end

  def test_signals_run_their_handlers_and_the_copy_goes_on
    signals = 0
    handler = trap(:USR1) { signals += 1 }
    source = narrow_source(:tcp)
    target, arrived = slow_target(:unix)
    kicks = thread { 200.times { Process.kill(:USR1, Process.pid) && sleep(0.0001) } }
    assert_equal SIZE, copy_stream(source, target)
    kicks.join
    target.close
    assert_bytes pattern(SIZE), thread_value(arrived)
    assert_operator signals, :>, 0
  ensure
    trap(:USR1, handler)
  end

  def test_a_handler_may_end_the_copy
    reader, writer = pipe
    _, target = unix_pair
    handler = trap(:USR1) { raise Stop }
    kick = thread do
      until_asleep(Thread.main)
      Process.kill(:USR1, Process.pid)
    end
    assert_raises(Stop) { guarded { IO::Splice.copy_stream(reader, target) } }
    kick.join
    writer.write("x")
    assert_equal "x", reader.readpartial(10)
  ensure
    trap(:USR1, handler)
  end

  def test_io_timeouts_are_honoured
    skip "Ruby 3.2" unless IO.method_defined?(:timeout=)
    reader, writer = pipe
    out, target = unix_pair
    reader.timeout = 0.01
    assert_raises(IO::TimeoutError) { guarded { IO::Splice.copy_stream(reader, target) } }
    filled = fill_up(target)
    target.timeout = 0.01
    writer.write("still there")
    assert_raises(IO::TimeoutError) { guarded { IO::Splice.copy_stream(reader, target) } }
    assert_equal "still there", reader.readpartial(100)
    target.close
    assert_equal filled, out.read.bytesize
  end

  # Isolation

  def test_a_stuck_copy_never_leaves_its_bytes_to_the_next_one
    PAIRS.each do |from, to|
      full_pairs(to, 20).each_with_index do |(out, target, filled), number|
        filled += fill(target)
        stuck, writer = pair(from)
        writer.write("foreign" * 1000)
        copy = until_taken(stuck, thread { IO::Splice.copy_stream(stuck, target) })
        copy.kill
        guarded { copy.join }
        assert_next_copy_is_clean(from, to)
        writer.close
        back = stuck.read if number.even?
        target.close
        # A TCP connection may have found more room meanwhile.
        delivered = out.read.bytesize - filled
        assert_includes 0..7000, delivered
        assert_equal ("foreign" * 1000).byteslice(delivered..), back if back
        [stuck, out].each(&:close)
      end
    end
  end

  def test_what_is_not_delivered_goes_back_before_what_is_still_read_ahead
    piped = pipe.tap { |_, writer| (writer << "line\n" << pattern(5000)) && writer.close }.first
    [tempfile("line\n#{pattern(5000)}"), piped].each do |source|
      source.gets
      broken = Array.new(2) { pipe.tap { |reader, _| reader.close }.last }
      assert_raises(Errno::EPIPE) { IO::Splice.copy_stream(source, broken.first, 100) }
      assert_raises(Errno::EPIPE) { IO::Splice.tee_stream(source, *broken, len: 100) }
      assert_equal pattern(5000), source.read.b
    end
  end

  def test_a_copy_whose_reader_has_gone_leaves_nothing_to_the_next_one
    PAIRS.each do |from, to|
      outcomes = full_pairs(to, 20).map do |out, target, _|
        fill(target)
        source, writer = pair(from)
        writer.write("foreign" * 1000)
        writer.close
        copy = until_taken(source, thread { IO::Splice.copy_stream(source, target) })
        out.close
        outcome = begin
          thread_value(copy)
        rescue Errno::EPIPE, Errno::ECONNRESET => e
          e.class
        end
        assert_next_copy_is_clean(from, to)
        back = source.read
        [source, target].each(&:close)
        # A TCP connection may have found more room meanwhile, even for all of it.
        assert_equal ("foreign" * 1000).byteslice(7000 - back.bytesize, 7000), back
        assert_equal [7000, Errno::EPIPE], [back.bytesize, outcome] unless to == :tcp
        assert_empty back if outcome == 7000
        outcome
      end
      refute_equal [7000], outcomes.uniq
    end
  end

  def test_fifty_copies_at_once
    copies = Array.new(50) do |index|
      from, to = PAIRS[index % PAIRS.size]
      source = narrow_source(from, "#{index}:#{pattern(200_000)}".b)
      target, arrived = slow_target(to)
      [thread { IO::Splice.copy_stream(source, target) }, target, arrived]
    end
    copies.each_with_index do |(copy, target, arrived), index|
      expected = "#{index}:#{pattern(200_000)}".b
      assert_equal expected.bytesize, thread_value(copy)
      target.close
      assert_bytes expected, thread_value(arrived)
    end
  end

  def test_a_child_copies_while_the_parent_is_in_the_middle_of_a_copy
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      filled = fill_up(target)
      writer.write("of the parent")
      copy = until_taken(reader, thread { IO::Splice.copy_stream(reader, target) })
      pid = fork { exit!(child_copies? ? 0 : 1) }
      assert_predicate guarded { Process.wait2(pid).last }, :success?
      writer.close
      arrived = thread { out.read }
      assert_equal 13, thread_value(copy)
      target.close
      assert_equal "of the parent", thread_value(arrived).byteslice(filled..)
    end
  end

  def test_a_child_has_none_of_the_gems_descriptors
    reader, writer = unix_pair
    _, target = unix_pair
    fill_up(target)
    writer.write("of the parent")
    copy = until_taken(reader, thread { IO::Splice.copy_stream(reader, target) })
    r, w = pipe
    pid = fork do
      links = Dir.children("/proc/self/fd").map(&:to_i) - numbers_of_ios
      w.puts(links.count { |fd| File.ftype("/proc/self/fd/#{fd}") == "fifo" rescue false }) # rubocop:disable Style/RescueModifier
      w.close
      exit!(0)
    end
    w.close
    assert_equal "0", guarded { r.read }.chomp
    Process.wait(pid)
    copy.kill
    guarded { copy.join }
  end

  # Ractors

  def test_a_ractor_copies_between_numbers_and_paths_and_ios_of_its_own
    source = narrow_source(:unix)
    target, arrived = slow_target(:tcp)
    copied, version = in_ractor(source.fileno, target.fileno) do |from, to|
      r, w = IO.pipe
      IO::Splice.copy_stream("/proc/version", w)
      w.close
      arrived_here = r.read
      r.close
      [IO::Splice.copy_stream(from, to), arrived_here]
    end
    assert_equal SIZE, copied
    assert_equal File.read("/proc/version"), version
    target.close
    assert_bytes pattern(SIZE), thread_value(arrived)
  end

  def test_a_ractor_copies_to_an_object
    version = in_ractor do
      into = StringIO.new
      IO::Splice.copy_stream("/proc/version", into)
      into.string
    end
    assert_equal File.read("/proc/version"), version
  end

  # Fibers

  def test_other_fibers_run_while_a_copy_waits
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      copied = nil
      arrived = +"".b
      with_scheduler do
        Fiber.schedule do
          copied = IO::Splice.copy_stream(reader, target)
          target.close
        end
        Fiber.schedule do
          pattern(SIZE).each_char.each_slice(50_000) { |slice| writer.write(slice.join) }
          writer.close
        end
        Fiber.schedule { nil while (bytes = out.read(10_000)) && (arrived << bytes) }
      end
      assert_equal SIZE, copied
      assert_bytes pattern(SIZE), arrived
    end
  end

  def test_ends_in_blocking_mode_do_not_hold_up_other_fibers
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      reader.nonblock = target.nonblock = false
      copied = nil
      arrived = +"".b
      with_scheduler do
        Fiber.schedule do
          copied = IO::Splice.copy_stream(reader, target)
          target.close
        end
        Fiber.schedule do
          writer.write(pattern(SIZE))
          writer.close
        end
        Fiber.schedule { nil while (bytes = out.read(10_000)) && (arrived << bytes) }
      end
      assert_equal SIZE, copied
      assert_bytes pattern(SIZE), arrived
    end
  end

  def test_many_fibers_copy_at_once
    arrived = Array.new(20) { +"".b }
    with_scheduler do
      arrived.each_with_index do |into, index|
        from, to = PAIRS[index % PAIRS.size]
        reader, writer = pair(from)
        out, target = pair(to)
        Fiber.schedule { IO::Splice.copy_stream(reader, target) && target.close }
        Fiber.schedule { writer.write("#{index}:#{pattern(SIZE)}") && writer.close }
        Fiber.schedule { nil while (bytes = out.read(20_000)) && (into << bytes) }
      end
    end
    arrived.each_with_index { |bytes, index| assert_bytes "#{index}:#{pattern(SIZE)}".b, bytes }
  end

  def test_a_timeout_in_a_fiber_loses_nothing
    PAIRS.each do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      filled = fill_up(target)
      writer.write("still there")
      timed_out = false
      with_scheduler do
        Fiber.schedule do
          Timeout.timeout(0.02) { IO::Splice.copy_stream(reader, target) }
        rescue Timeout::Error
          timed_out = true
        end
      end
      assert timed_out
      assert_still_there(reader, writer, out, target, filled)
    end
  end

  private

  # It holds little, so that a copy is in the middle for most of its time.
  def narrow_source(kind, bytes = pattern(SIZE))
    fed(*narrow(*pair(kind)), bytes)
  end

  # A target that is slow to take what it gets, and the thread that has what arrived; the block is called
  # when it is `much`.
  def slow_target(kind, much = 0)
    reader, writer = narrow(*pair(kind))
    arrived = in_a_thread do
      bytes = +"".b
      while reader.wait_readable && !reader.eof?
        bytes << reader.readpartial(20_000)
        yield if block_given? && bytes.bytesize >= much
        Thread.pass
      end
      reader.close
      bytes
    end
    [writer, arrived]
  end

  def stopped_at_random(from, to)
    source = narrow_source(from)
    now = Thread::Queue.new
    target, arrived = slow_target(to, rand(SIZE)) { now << true }
    copy = thread { IO::Splice.copy_stream(source, target) }
    guarded { now.pop }
    guarded { yield copy, source, target }
    join_stopped(copy)
    target.close
    assert_whole(thread_value(arrived), source)
    source.close
  end

  def assert_whole(arrived, source)
    return assert_bytes(pattern(SIZE).byteslice(0, arrived.bytesize), arrived) if source.closed?

    assert_bytes pattern(SIZE), arrived + guarded { source.read }
  end

  # A socket that was full may have room a little later, so the bytes are either there or still in the source.
  def assert_still_there(reader, writer, out, target, filled)
    [writer, target].each(&:close)
    arrived = guarded { out.read }.byteslice(filled..)
    return assert("still there".start_with?(arrived), arrived) if reader.closed?

    assert_equal "still there", arrived + guarded { reader.read }
  end

  # Pairs, and how many bytes each has taken. All are filled at once, since it is a matter of waiting;
  # one that is used a little later may take some more.
  def full_pairs(kind, count)
    pairs = Array.new(count) { pair(kind) }
    pairs.map { |_, target| thread { fill_up(target) } }.zip(pairs).map { |filled, pair| [*pair, thread_value(filled)] }
  end

  def waiting_for_input(reader, target)
    until_asleep(thread { IO::Splice.copy_stream(reader, target) })
  end

  def assert_next_copy_is_clean(from, to)
    source = narrow_source(from, pattern(5000))
    target, arrived = slow_target(to)
    assert_equal 5000, copy_stream(source, target)
    target.close
    assert_bytes pattern(5000), thread_value(arrived)
    source.close
  end

  def child_copies?
    PAIRS.all? do |from, to|
      reader, writer = pair(from)
      out, target = pair(to)
      writer.write("of the child")
      writer.close
      copied = IO::Splice.copy_stream(reader, target)
      target.close
      copied == 12 && out.read == "of the child"
    end
  end
end
