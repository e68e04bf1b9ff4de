# frozen_string_literal: true

module Soak
  # What operations have in common: a seed from which all that is random comes, tasks, a tape, and statistics.
  class Operation
    # Only with `--hostile KIND`.
    HOSTILE = { "idle" => "stalls", "shared" => "shared", "portions" => "portions", "neighbour" => "ends",
                "crowd" => "child", "background_peers" => "peers" }.freeze
    SIZES = [->(_) { 0 }, ->(_) { 1 }, ->(r) { r.rand(1..4096) }, ->(r) { r.rand(1..65_536) }, lambda { |r|
                                                                                                 r.rand(1..300_000)
                                                                                               },
             ->(r) { r.rand(1..300_000) }, ->(r) { r.rand(1..1_000_000) }, ->(r) { r.rand(1..4_000_000) }].freeze
    GONE = [Errno::EPIPE, Errno::ECONNRESET].freeze

    class << self
      # All operations that there are, by name.
      def all = @all ||= {}

      # Those that are looked for.
      def usable = all.keys.select { |name| HOSTILE[name].nil? || Soak.hostile?(HOSTILE[name]) }

      def inherited(operation)
        super
        Operation.all[operation.name[/\w+\z/].gsub(/(?<=.)[A-Z]/) { "_#{_1}" }.downcase] = operation
      end
    end

    attr_reader :tasks, :random

    # What goes on, for whoever finds the operation stuck.
    attr_reader :does

    def initialize(tasks, tape, statistics, largest = nil)
      @tasks = tasks
      @random = tasks.random
      @tape = tape
      @statistics = statistics
      @largest = largest
      @ends = []
      @does = self.class.name
    end

    # Raises what is wrong. An operation for that the tasks are not made does nothing.
    def run
      way = tasks.disturbances.sample(random:)
      way = :none if way == :io_timeout && !IO.method_defined?(:timeout=)
      operate(way)
    rescue Wrong, StandardError => e
      raise Wrong, "#{e.is_a?(Wrong) ? nil : "#{e.class}: "}#{e.message}\n  in #{@does}#{first_lines(e)}"
    ensure
      @ends.each { |io| io.close if io.respond_to?(:close) && !io.closed? }
    end

    private

    def first_lines(error) = error.backtrace.first(8).map { |line| "\n    #{line}" }.join

    def stream
      size = SIZES.sample(random:).call(random)
      size = random.rand(0..@largest) if @largest && size > @largest
      @tape.cut(size, self.class.name)
    end

    def source(kind, stream, **how) = Source.new(kind, stream, tasks, **how).tap { |source| @ends << source.io }
    def target(kind, **how) = Target.new(kind, tasks, **how).tap { |target| @ends << target.io }
    def one_of(kinds) = kinds.sample(random:)
    def chance(one_in) = random.rand(one_in).zero?

    def doing(text)
      @does = "#{self.class.name}: #{text}"
    end

    def call(name, way, close = nil, &)
      @statistics.called(name)
      conditions = Soak.conditions(@ends)
      outcome = tasks.disturbed(way, close, &)
      compare_conditions(conditions, name)
      @statistics.interrupted(way) if outcome.kind != :value
      outcome
    end

    def streams = Soak.streams

    # What others who share an end rely on.
    def compare_conditions(before, name)
      # /proc/locks may miss one while others come and go.
      changed = 3.times.map { Soak.conditions(before.keys).reject { |io, after| before[io] == after } }.min_by(&:size)
      changed.each { |io, after| equal(before[io], after, "mode and locks of #{io.inspect} after #{name}") }
    end

    def number_or_io(end_, way)
      end_.number? && !way.to_s.start_with?("close") && chance(4) ? end_.io.fileno : end_.io
    end

    def io_timeout(way, *ends)
      return unless way == :io_timeout

      ends.each { |end_| end_.io.timeout = 0.0005 * random.rand(1..20) if end_.io.respond_to?(:timeout=) }
    end

    def no_io_timeout(*ends)
      ends.each { |end_| end_.io.timeout = nil if end_.io.respond_to?(:timeout=) && !end_.io.closed? }
    end

    # Raises what no disturbance of that kind can be the reason of.
    def expect(outcome, way)
      error = outcome.error
      return if error.nil? || expected?(error, way)

      raise error
    end

    def expected?(error, way)
      case way
      when :raise, :counted, :handler, :timeout then error.is_a?(Stop)
      when :throw then error.is_a?(Timeout::Error)
      when :close_source, :close_target then error.is_a?(IOError) && !error.is_a?(EOFError)
      when :reset then GONE.any? { |gone| error.is_a?(gone) }
      when :io_timeout then error.is_a?(IO::TimeoutError)
      end
    end

    def same(expected, actual, what)
      @statistics.checked(actual.bytesize)
      raise Wrong, "#{what}: #{@tape.difference(expected, actual)}" unless expected == actual
    end

    def prefix(whole, actual, what)
      same(whole.byteslice(0, actual.bytesize), actual, what)
    end

    def equal(expected, actual, what)
      raise Wrong, "#{what}: #{actual.inspect} instead of #{expected.inspect}" unless expected == actual
    end
  end
end
