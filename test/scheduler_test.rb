# frozen_string_literal: true

require "test_helper"
require "stringio"

# In a fiber with a scheduler the scheduler waits, and the other fibers of the thread run.
class TestScheduler < Minitest::Test
  Interrupted = Class.new(StandardError)
  MODES = { "nonblocking" => true, "blocking" => false }.freeze
  FORMS = { "ios" => :itself, "numbers" => :fileno }.freeze
  VARIANTS = MODES.to_a.product(FORMS.to_a)

  # Ruby unwinds nothing of a fiber that is never resumed.
  %i[copy_stream tee_stream relay].each do |name|
    define_method(:"test_an_abandoned_#{name}_leaves_no_descriptor") do
      child = fork_child do
        abandon(name)
        before = open_descriptors
        10.times { abandon(name) }
        5.times { GC.start }
        open_descriptors < before + 10 or exit!(1)
      end
      assert_predicate status_of(child), :success?
    end
  end

  def abandon(name)
    source, peer = unix_pair
    target, reader = unix_pair
    fill_up(target)
    peer << "bytes"
    targets = name == :tee_stream ? [target, target] : [target]
    waiting = thread do
      Fiber.set_scheduler(SelectScheduler.new)
      Fiber.schedule { IO::Splice.public_send(name, source, *targets) }
    end
    until_asleep(waiting)
    waiting.kill.join
    [source, peer, target, reader].each(&:close)
  end

  def test_from_an_object_to_a_blocking_pipe
    arrived = nil
    with_scheduler do
      reader, writer = pipe
      writer.nonblock = false
      Fiber.schedule { IO::Splice.copy_stream(StringIO.new(pattern(300_000)), writer) && writer.close }
      Fiber.schedule { arrived = reader.read }
    end
    assert_equal pattern(300_000), arrived.b
  end

  VARIANTS.each do |(mode, nonblock), (form, as)|
    %i[splice_between_pipes splice_between_sockets tee vmsplice room].each do |name|
      define_method(:"test_two_fibers_of_one_thread_feed_each_other_by_#{name}_with_#{mode}_#{form}") do
        send(name, nonblock, as)
      end
    end
  end

  def splice_between_pipes(nonblock, as)
    ping_r, ping_w, pong_r, pong_w = in_mode(nonblock, *pipe, *pipe).map(&as)
    r, w = pipe
    w << "ball"
    moved = []
    scheduler = scheduler_of do
      Fiber.schedule { 10.times { moved << IO.splice(ping_r, nil, pong_w, nil, 100) } }
      Fiber.schedule do
        IO.splice(r, nil, ping_w, nil, 100)
        9.times { moved << IO.splice(pong_r, nil, ping_w, nil, 100) }
        moved << IO.splice(pong_r, nil, w.fileno, nil, 100)
      end
    end
    assert_equal [4] * 20, moved
    assert_equal "ball", r.read_nonblock(100)
    assert_operator scheduler.io_waits.size, :>=, 10
    assert_includes scheduler.io_waits, [number(ping_r), IO::READABLE]
  end

  def splice_between_sockets(nonblock, as)
    here, there = in_mode(nonblock, *unix_pair)
    r, w = pipe
    out, into = pipe
    w << "ball"
    moved = []
    scheduler = scheduler_of do
      Fiber.schedule { moved << IO.splice(here.public_send(as), nil, into.public_send(as), nil, 100) }
      Fiber.schedule { moved << IO.splice(r.public_send(as), nil, there.public_send(as), nil, 100) }
    end
    assert_equal [4, 4], moved
    assert_equal "ball", out.read_nonblock(100)
    assert_equal [[here.fileno, IO::READABLE]], scheduler.io_waits
    assert_equal [nonblock] * 2, [here, there].map(&:nonblock?)
  end

  def tee(nonblock, as)
    r, w, out, into = in_mode(nonblock, *pipe, *pipe)
    duplicated = nil
    scheduler = scheduler_of do
      Fiber.schedule { duplicated = IO.tee(r.public_send(as), into.public_send(as), 100) }
      Fiber.schedule { IO.vmsplice(w.public_send(as), "ball") }
    end
    assert_equal 4, duplicated
    assert_equal "ball", r.read_nonblock(100)
    assert_equal "ball", out.read_nonblock(100)
    assert_equal [[r.fileno, IO::READABLE]], scheduler.io_waits
  end

  def vmsplice(nonblock, as)
    r, w = in_mode(nonblock, *pipe)
    file = tempfile
    put = nil
    scheduler = scheduler_of do
      Fiber.schedule { put = IO.vmsplice(w.public_send(as), [pattern(300_000)] * 2) }
      Fiber.schedule { IO.splice(r.public_send(as), nil, file.public_send(as), nil, 600_000, IO::Splice::WAITALL) }
    end
    assert_equal 600_000, put
    file.rewind
    assert_equal pattern(300_000) * 2, file.read
    assert_includes scheduler.io_waits, [w.fileno, IO::WRITABLE]
    assert_includes scheduler.io_waits, [r.fileno, IO::READABLE]
  end

  def room(nonblock, as)
    reader, full = pipe
    there = fill(full)
    in_mode(nonblock, full)
    r, w = pipe
    w << "ball"
    moved = nil
    scheduler = scheduler_of do
      Fiber.schedule { moved = IO.splice(r.public_send(as), nil, full.public_send(as), nil, 100) }
      Fiber.schedule { reader.read(there) }
    end
    assert_equal 4, moved
    assert_equal "ball", reader.read_nonblock(100)
    assert_equal [[full.fileno, IO::WRITABLE]], scheduler.io_waits
  end

  def test_a_call_that_need_not_wait_does_not_ask_the_scheduler
    r, w = pipe
    out, into = pipe
    w << "there"
    scheduler = scheduler_of do
      Fiber.schedule do
        IO.splice(r, nil, into, nil, 100)
        IO.vmsplice(w, "more")
        IO.tee(r, into, 100)
        IO.trysplice(r, nil, into, nil, 100)
        IO.trysplice(r, nil, into, nil, 100)
        IO.trytee(r, into, 100)
      end
    end
    assert_equal "theremoremore", out.read_nonblock(100)
    assert_empty scheduler.io_waits
  end

  def test_a_blocking_fiber_waits_without_the_scheduler
    r, w = pipe
    out, into = pipe
    waiting = nil
    feeder = thread do
      guarded { Thread.pass until waiting }
      until_asleep(waiting)
      w << "from a thread"
    end
    moved = nil
    scheduler = scheduler_of do
      waiting = Thread.current
      moved = Fiber.new(blocking: true) { IO.splice(r, nil, into, nil, 100) }.resume
    end
    guarded { feeder.join }
    assert_equal 13, moved
    assert_equal "from a thread", out.read_nonblock(100)
    assert_empty scheduler.io_waits
  end

  def test_another_thread_runs_while_the_scheduler_waits
    r, w = pipe
    out, into = pipe
    moved = nil
    waiting = thread { with_scheduler { Fiber.schedule { moved = IO.splice(r, nil, into, nil, 100) } } }
    until_asleep(waiting)
    w << "from a thread"
    guarded { waiting.join }
    assert_equal 13, moved
    assert_equal "from a thread", out.read_nonblock(100)
  end

  def test_a_timeout_ends_the_wait_of_a_fiber
    r, w = pipe
    full_r, full = pipe
    there = fill(full)
    calls = [proc { IO.splice(r, nil, full, nil, 100) }, proc { IO.tee(r, full, 100) },
             proc { IO.vmsplice(full, "more") }]
    ended = []
    with_scheduler do
      calls.each do |call|
        Fiber.schedule do
          Timeout.timeout(0.01, Interrupted, &call)
        rescue Interrupted => e
          ended << e.class
        end
      end
    end
    assert_equal [Interrupted] * 3, ended
    w << "later"
    full_r.read(there)
    assert_equal 5, IO.splice(r, nil, full, nil, 100)
    assert_equal "later", full_r.read_nonblock(100)
  end

  def test_an_error_raised_in_a_fiber_ends_its_wait
    r, w = pipe
    out, into = pipe
    ended = nil
    with_scheduler do
      waiting = Fiber.schedule do
        IO.splice(r, nil, into, nil, 100)
      rescue Interrupted => e
        ended = e
      end
      Fiber.schedule { waiting.raise(Interrupted, "enough") }
    end
    assert_equal "enough", ended.message
    w << "later"
    assert_equal 5, IO.splice(r, nil, into, nil, 100)
    assert_equal "later", out.read_nonblock(100)
  end

  def test_the_end_of_the_input_ends_the_wait_of_a_fiber
    r, w = pipe
    _, into = pipe
    ended = nil
    with_scheduler do
      Fiber.schedule { ended = assert_raises(EOFError) { IO.splice(r, nil, into, nil, 100) } }
      Fiber.schedule { w.close }
    end
    assert_kind_of EOFError, ended
  end

  def test_a_reader_that_goes_away_ends_the_wait_of_a_fiber
    reader, full = pipe
    fill(full)
    ended = nil
    with_scheduler do
      Fiber.schedule { ended = assert_raises(Errno::EPIPE) { IO.vmsplice(full, "more") } }
      Fiber.schedule { reader.close }
    end
    assert_kind_of Errno::EPIPE, ended
  end

  def test_a_fiber_learns_that_another_one_closed_its_io
    2.times do |which|
      r, w = pipe
      _, into = pipe
      ended = nil
      with_scheduler do
        Fiber.schedule { ended = assert_raises(IOError) { IO.splice(r, nil, into, nil, 100) } }
        Fiber.schedule do
          [r, into][which].close
          w << "too late" unless r.closed?
        end
      end
      assert_kind_of IOError, ended
    end
  end

  def test_a_number_that_another_fiber_gave_to_a_foreign_pipe_is_not_read_for_a_closed_io
    r, = pipe
    out, into = pipe
    foreign = nil
    with_scheduler do
      Fiber.schedule { assert_raises(IOError) { IO.splice(r, nil, into, nil, 100) } }
      Fiber.schedule do
        number = r.fileno
        r.close
        foreign = pipe
        assert_equal number, foreign.first.fileno
        foreign.last << "foreign"
      end
    end
    assert_equal "foreign", foreign.first.read_nonblock(100)
    assert_equal :wait_readable, out.read_nonblock(100, exception: false)
  end

  def test_waitall_goes_on_through_the_scheduler
    r, w = pipe
    out, into = pipe
    came = +""
    moved = nil
    scheduler = scheduler_of do
      Fiber.schedule { moved = IO.splice(r, nil, into, nil, 9, IO::Splice::WAITALL) }
      Fiber.schedule do
        %w[one two six].each do |word|
          w << word
          came << out.read(3)
        end
      end
    end
    assert_equal 9, moved
    assert_equal "onetwosix", came
    assert_operator scheduler.io_waits.count([r.fileno, IO::READABLE]), :>=, 3
  end

  def test_the_timeout_of_an_io_ends_the_wait_of_a_fiber
    skip "IO#timeout came with Ruby 3.2" unless IO.method_defined?(:timeout=)
    r, = pipe
    _, into = pipe
    r.timeout = 0.01
    ended = nil
    with_scheduler do
      Fiber.schedule { ended = assert_raises(IO::TimeoutError) { IO.splice(r, nil, into, nil, 100) } }
    end
    assert_kind_of IO::TimeoutError, ended
  end

  private

  # Runs the block and the fibers that it schedules, to their end, and returns the scheduler.
  def scheduler_of
    with_scheduler do |scheduler|
      yield
      scheduler
    end
  end

  def in_mode(nonblock, *ios)
    ios.each { |io| io.nonblock = nonblock }
  end

  def number(io)
    io.is_a?(Integer) ? io : io.fileno
  end
end
