# frozen_string_literal: true

module Fuzz
  # What ends a call that waits: an exception from another thread.
  class Overdue < Exception; end # rubocop:disable Lint/InheritException -- nothing may rescue it by the way

  # Another thread, which must come to its turn while a call waits, and ends the call.
  class Watchdog
    TICK = 0.0005
    LONG = 5 # seconds, for a call that must not wait, or that what was done to it must end

    # @return [Symbol, nil] what was done last to the call: :ending, :raised
    attr_reader :done

    def initialize
      @lock = Thread::Mutex.new
      @acting = Thread::Mutex.new
      @watched = nil
      Thread.new { loop { watch } }
    end

    # Runs the block; if that takes long, `ending` is called, and if that does not help, Overdue is raised there.
    # `patience` is for how long to wait before each.
    def guard(patience, ending, &block)
      Thread.handle_interrupt(Overdue => :never) do
        @lock.synchronize { arm(patience, ending) }
        begin
          Thread.handle_interrupt(Overdue => :immediate, &block)
        ensure
          @lock.synchronize { @watched = nil }
          @acting.synchronize { @late = late } # when what was begun is done
        end
      end
    end

    # Whether the interrupt came too late for the call, or was lost in it.
    def late? = @late

    private

    def arm(patience, ending)
      @patience = patience.dup
      @ending = ending
      @done = nil
      @due = now + @patience.shift
      @watched = Thread.current
    end

    def late
      Thread.handle_interrupt(Overdue => :immediate) { Thread.pass }
      false
    rescue Overdue
      true
    end

    def watch
      sleep TICK
      ending = @lock.synchronize { due_now&.tap { @acting.lock } if @watched && now >= @due }
      ending&.call
    rescue IOError, SystemCallError, ThreadError
      nil
    ensure
      @acting.unlock if @acting.owned?
    end

    # What is to be done. The exception is raised under the lock, so that it meets the right case.
    def due_now
      if @ending && @done.nil?
        @done = :ending
        @due = now + @patience.shift
        return @ending
      end
      @done = :raised
      @due = Float::INFINITY
      @watched.raise(Overdue, "overdue")
      nil
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
