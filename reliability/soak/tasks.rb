# frozen_string_literal: true

module Soak
  # What interrupts an operation from outside.
  Stop = Class.new(StandardError)

  # How a call ended. `counted` says that no interrupt can have hidden its result; `again`, that there was more than
  # one, of which a later one can have taken the place of the first on the way out of the call.
  Outcome = Struct.new(:kind, :value, :counted, :again, keyword_init: true) do
    def error = kind == :error ? value : nil
    def result = kind == :value ? value : nil
    def moved? = kind == :value && value.is_a?(Integer)
  end

  # What runs beside an operation, and how the calls under test are made and disturbed. Here: in threads.
  class Tasks
    # A fault that a disturbance is expected to come out as.
    INTERRUPTS = [Stop, Timeout::Error].freeze

    attr_reader :random

    def initialize(random)
      @random = random
    end

    def disturbances = %i[none none raise counted counted kill timeout throw io_timeout close_source close_target reset]

    # What the tasks themselves read and write: in a fiber only a scheduler may wait.
    def far(*ios) = ios

    def go(&) = Thread.new(&)

    def value_of(task) = task.value

    # A time after which to interrupt: often at once, seldom long.
    def moment = random.rand(4).then { |kind| [0, random.rand * 0.0005, random.rand * 0.003, random.rand * 0.02][kind] }

    # Makes a call and interrupts it in the given way. The close of an IO is what the block `close` does.
    def disturbed(way, close = nil, &call)
      case way
      when :raise, :counted, :kill then interrupted(way, &call)
      when :timeout then caught { Timeout.timeout(timeout, Stop) { call.call } }
      when :throw then caught { Timeout.timeout(timeout) { call.call } }
      when :close_source, :close_target then closed_meanwhile(close, &call)
      else caught(counted: true, &call)
      end
    end

    def caught(counted: false)
      Outcome.new(kind: :value, value: yield, counted:)
    rescue StandardError => e
      Outcome.new(kind: :error, value: e, counted: counted || e.is_a?(IO::Splice::PartialWrite))
    end

    private

    # A timeout of 0 is none.
    def timeout = moment + 0.00001

    def interrupted(way, &call)
      outcome = nil
      thread = way == :counted ? counted(call) { outcome = _1 } : Thread.new { outcome = caught_uncounted(&call) }
      pause(thread)
      times = random.rand(1..3)
      times.times { way == :kill ? thread.kill : thread.raise(Stop) }
      join(thread)
      outcome&.again = times > 1
      outcome || Outcome.new(kind: :gone)
    end

    # An interrupt may come when all is over.
    def join(thread)
      thread.join
    rescue *INTERRUPTS
      nil
    end

    # The exception comes where the call lets it in, and nowhere else, so that it hides no count.
    def counted(call)
      Thread.new do
        Thread.handle_interrupt(Stop => :never) do
          yield(caught(counted: true) { Thread.handle_interrupt(Stop => :on_blocking) { call.call } })
        end
      end
    end

    def caught_uncounted(&) = caught(&)

    def closed_meanwhile(close, &call)
      thread = Thread.new { caught(counted: true, &call) }
      pause(thread)
      close.call
      thread.value
    end

    # Until the call waits, or for some time.
    def pause(thread)
      return sleep(moment) if random.rand(3).positive?

      1000.times { thread.stop? ? break : Thread.pass }
    end
  end

  # For a thread that nobody else may interrupt, the main one: signal handlers do.
  class MainTasks < Tasks
    def disturbances = %i[none timeout throw handler io_timeout reset]

    def disturbed(way, close = nil, &call)
      return super unless way == :handler

      caught do
        Signals.raise_soon(Stop)
        call.call
      ensure
        Signals.disarm
      end
    end
  end

  # For fibers that a scheduler runs.
  class FiberTasks < Tasks
    def disturbances = %i[none none timeout throw io_timeout reset]

    def far(*ios) = ios.each { |io| io.nonblock = true }

    def go
      queue = Thread::Queue.new
      Fiber.schedule do
        queue << [true, yield]
      rescue StandardError => e
        queue << [false, e]
      end
      queue
    end

    def value_of(task)
      fine, value = task.pop
      fine ? value : raise(value)
    end
  end
end
