# frozen_string_literal: true

require_relative "builder"
require_relative "case"
require_relative "watchdog"
require_relative "../../test/support/select_scheduler"

module Fuzz
  # How a call has ended.
  Outcome = Struct.new(:value, :error, :thrown, :done, :late, keyword_init: true) do
    def kind
      return "throw" if thrown
      return error.class.name || "an unnamed class" if error

      value.is_a?(Symbol) || value.nil? ? value.inspect : value.class.name
    end

    # The kind, and what the message of an error is like, whatever it is about.
    def kinds
      [kind, error&.message&.b&.gsub(/\d+|0x\h+/, "0")&.gsub(/[^ -~]/, "?")&.slice(0, 90)]
    rescue StandardError
      [kind, "no message"]
    end
  end

  # Makes the call of a case, in the thread or fiber that it asks for.
  class Runner
    CONTEXTS = %w[main thread fiber scheduler].freeze
    SHORT = [0.0007, 0.005].freeze # before a call is ended, and before it is ended in a ruder way

    # Whether only an exception could end what closing an end must have ended.
    def self.close_must_help?(kase)
      return false unless kase.closed? && kase.name.match?(/splice\z|tee\z|full|partial/)

      ends = kase.arguments.values_at(0, kase.name.match?(/splice\z/) ? 2 : 1)
      pipes?(ends) && !ends.all? { |end_| stuck?(end_) }
    end

    def self.stuck?(end_) = end_.to_s.match?(/stuck|unwritten/)

    def self.pipes?(ends) = ends.all? { |end_| end_.is_a?(Array) && %w[reader writer].include?(end_.first) }
    private_class_method :pipes?

    def initialize
      @watchdog = Watchdog.new
      @signals = 0
      trap("USR1") { @signals += 1 }
    end

    def run(kase, builder)
      @builder = builder
      arguments = builder.make_arguments
      keywords = kase.keywords(builder)
      GC.stress = true if kase.option("stress")
      send(kase.option("in") || :main, kase, patience(kase)) { kase.invoke(arguments, keywords, builder) }
    ensure
      GC.stress = false
    end

    private

    def patience(kase)
      return [Watchdog::LONG] * 2 if kase.never_waits?
      return [0.3, 0.3] if kase.option("in") == "scheduler" # it has its own way to end it

      Runner.close_must_help?(kase) ? [SHORT.first, Watchdog::LONG] : SHORT
    end

    def main(kase, patience, &call)
      thread = Thread.current
      outcome = Outcome.new
      begin
        @watchdog.guard(patience, ending(kase, thread)) { record(outcome, &call) }
      rescue Exception => e # rubocop:disable Lint/RescueException -- an outcome like others
        outcome.error = e
      end
      outcome.done = @watchdog.done
      outcome.late = @watchdog.late?
      outcome
    end

    def record(outcome)
      outcome.thrown = true
      outcome.value = catch(:own) { yield.tap { outcome.thrown = false } }
    rescue Exception # rubocop:disable Lint/RescueException
      outcome.thrown = false
      raise
    end

    # Thread#kill leaves nothing behind that could be looked at.
    def thread(kase, patience, &call)
      outcome = Outcome.new(thrown: :killed)
      Thread.new { outcome = main(kase, patience, &call) }.join
      outcome
    end

    def fiber(kase, patience, &call)
      Fiber.new { main(kase, patience, &call) }.resume
    end

    # Its time is limited by the scheduler, since an exception in the thread would not reach the fiber.
    def scheduler(kase, patience, &call)
      outcome = Outcome.new(thrown: :killed)
      scheduler = SelectScheduler.new
      Thread.new do
        Fiber.set_scheduler(scheduler)
        Fiber.schedule { outcome = main(kase, patience) { in_time(&call) } }
      end.join
      outcome
    ensure
      scheduler.close_pipe
    end

    def in_time(&) = Fiber.scheduler.timeout_after(0.003, Overdue, "overdue", &)

    def ending(kase, thread)
      case kase.option("ending")
      when "kill" then -> { thread.kill unless thread == Thread.main }
      when "close" then -> { close_one(kase) }
      when "feed" then -> { @builder.ios.each { |io| feed(io) } }
      when "signal" then -> { Process.kill(:USR1, Process.pid) }
      end
    end

    # Not one that would have to write first, and so might keep the watchdog.
    def close_one(kase)
      ends = @builder.arguments.zip(kase.arguments).reject { |_, recipe| Runner.stuck?(recipe) }
      ends.map(&:first).find { |io| (io in IO) && !io.closed? && io.fileno > 2 }&.close
    end

    # Not by way of what Ruby may hold back, which it would write first, waiting for room: that would keep the watchdog.
    def feed(io)
      [-> { io.write_nonblock("fed") if io.sync || io.stat.file? }, -> { io.read_nonblock(99_999) }].each do |step|
        step.call if io.respond_to?(:write_nonblock)
      rescue IOError, SystemCallError
        nil
      end
    end
  end
end
