# frozen_string_literal: true

# A fiber scheduler with nothing but what Ruby asks of one, made of `IO.select`.
class SelectScheduler
  Wait = Struct.new(:io, :events, :deadline, :woken, keyword_init: true)
  Timer = Struct.new(:fiber, :deadline, :error, :message)

  # Every `io_wait` so far: the descriptor's number and the events.
  attr_reader :io_waits

  def initialize
    @io_waits = []
    @waits = {}
    @timers = []
    @lock = Thread::Mutex.new
    @unblocked = []
    @interrupts = []
    @wake, @waker = IO.pipe
  end

  def fiber(&)
    Fiber.new(blocking: false, &).tap(&:resume)
  end

  def io_wait(io, events, timeout = nil)
    @io_waits << [io.fileno, events]
    park(Wait.new(io:, events:, deadline: deadline(timeout)))
  end

  def kernel_sleep(duration = nil)
    park(Wait.new(deadline: deadline(duration)))
    true
  end

  def block(_blocker, timeout = nil)
    park(Wait.new(deadline: deadline(timeout)))
  end

  # Any thread may call this.
  def unblock(_blocker, fiber)
    @lock.synchronize { @unblocked << fiber }
    @waker.write_nonblock(".", exception: false)
  end

  # Ruby 4 asks for it when what the fiber waits for is closed. Any thread may call this.
  def fiber_interrupt(fiber, exception)
    @lock.synchronize { @interrupts << [fiber, exception] }
    @waker.write_nonblock(".", exception: false)
  end

  def timeout_after(duration, error, message)
    timer = Timer.new(Fiber.current, deadline(duration), error, message)
    @timers << timer
    yield duration
  ensure
    @timers.delete(timer)
  end

  def close
    run
  ensure
    close_pipe
  end

  # Ruby does not close the scheduler of a thread that is killed while it blocks in a fiber.
  def close_pipe
    @wake.close
    @waker.close
  end

  def run
    turn until @waits.empty?
  end

  private

  # What the fiber gets when it goes on: the events, true when unblocked, false when its time was up.
  def park(wait)
    fiber = Fiber.current
    @waits[fiber] = wait
    Fiber.yield
  ensure
    @waits.delete(fiber)
  end

  def turn
    select
    take_unblocked
    interrupt
    now = deadline(0)
    @waits.to_a.each do |fiber, wait|
      next unless @waits[fiber].equal?(wait)

      if wait.woken then fiber.resume(wait.woken)
      elsif wait.deadline && wait.deadline <= now then fiber.resume(false)
      end
    end
    @timers.select { |timer| timer.deadline <= now }.each do |timer|
      timer.fiber.raise(timer.error, timer.message) if @timers.delete(timer)
    end
  end

  def select
    waits = @waits.each_value.select(&:io)
    closed, open = waits.partition { |wait| wait.io.closed? }
    closed.each { |wait| wait.woken = wait.events }
    readers, writers = [IO::READABLE, IO::WRITABLE].map do |event|
      open.select { |wait| wait.events.anybits?(event) }.map(&:io)
    end
    readable, writable = IO.select([@wake, *readers], writers, [], closed.any? ? 0 : patience)
    open.each { |wait| wait.woken = ready_events(wait, readable, writable) }
    @wake.read_nonblock(1024, exception: false) if readable&.include?(@wake)
  end

  def ready_events(wait, readable, writable)
    events = 0
    events |= IO::READABLE if readable&.include?(wait.io)
    events |= IO::WRITABLE if writable&.include?(wait.io)
    events &= wait.events
    events unless events.zero?
  end

  def take_unblocked
    unblocked = @lock.synchronize { @unblocked.slice!(0..) }
    unblocked.each { |fiber| @waits[fiber].woken = true if @waits[fiber] }
  end

  def interrupt
    interrupts = @lock.synchronize { @interrupts.slice!(0..) }
    interrupts.each { |fiber, exception| fiber.raise(exception) if @waits[fiber] }
  end

  # How long nothing but an IO or another thread can make a fiber go on.
  def patience
    earliest = [*@waits.each_value.map(&:deadline), *@timers.map(&:deadline)].compact.min
    earliest && [earliest - deadline(0), 0].max
  end

  def deadline(seconds)
    seconds && (Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds)
  end
end
