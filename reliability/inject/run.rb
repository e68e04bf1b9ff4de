# frozen_string_literal: true

require "io/splice"
require_relative "ends"
require_relative "verdict"
require_relative "../../test/support/select_scheduler"

module Inject
  # A case in a process of its own: its ends, the call, and what has to be true afterwards.
  class Run
    def initialize(case_)
      @case = case_
      @sources = case_.from.map { |kind| Source.new(kind) }
      @targets = case_.to.map { |kind| Target.new(kind) }
      @more = @case.ready&.call(*(@sources + @targets).map(&:given))
    end

    # The descriptors of the ends.
    def numbers = (@sources + @targets).flat_map(&:numbers)

    def call
      @sources.each(&:start)
      @value = @case.fiber ? in_a_fiber { perform } : perform
    rescue SystemCallError, IOError, NoMemoryError => e
      @error = e
    end

    # What came out, in words; raises what is wrong with it.
    def check(shot)
      Verdict.new(@case, @sources, @targets, @value, @error).check(shot)
      (@sources + @targets).each(&:close)
      check_next_copy
      @error ? "#{@error.class}: #{@error.message}" : "done: #{@value.inspect}"
    end

    private

    def perform = @case.call.call(*(@sources + @targets).map(&:given), *@more)

    def in_a_fiber
      outcome = nil
      Fiber.set_scheduler(SelectScheduler.new)
      Fiber.schedule do
        outcome = [yield, nil]
      rescue SystemCallError, IOError, NoMemoryError => e
        outcome = [nil, e]
      end
      Fiber.set_scheduler(nil)
      raise outcome.last if outcome.last

      outcome.first
    end

    # No byte of this copy is in the next one.
    def check_next_copy
      (near, source), (far, target) = Array.new(2) { UNIXSocket.pair }
      near.write("next" * 1000)
      near.close
      IO::Splice.copy_stream(source, target)
      target.close
      raise Failed, "bytes of this copy were in the next one" if far.read != "next" * 1000
    ensure
      [source, far].each(&:close)
    end
  end
end
