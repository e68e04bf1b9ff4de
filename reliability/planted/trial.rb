# frozen_string_literal: true

module Planted
  # Runs the checks, without faults and with them.
  class Trial
    def initialize(tree)
      @tree = tree
    end

    # Whether all of them were found.
    def run(faults)
      stale, good = faults.partition(&:stale)
      stale.each { |fault| puts "#{fault.name}: #{fault.stale}" }
      passing = good.map(&:check).uniq.select { |check| passes?(check) }
      missed = good.reject { |fault| passing.include?(fault.check) && found?(fault) }
      puts "#{good.size - missed.size} of #{faults.size} faults were found"
      faults.size == good.size && missed.empty?
    end

    private

    def passes?(check)
      name = "unchanged-#{check.gsub(/[^\w.-]+/, "-")}"
      outcome = @tree.build(check, name)
      outcome = @tree.run(check, name) if outcome.passed?
      puts "#{check}: without a fault #{outcome}"
      outcome.passed?
    end

    def found?(fault)
      found, said = @tree.plant(fault) { try(fault) }
      puts "#{fault.name}: #{said}"
      found
    end

    def try(fault)
      outcome = @tree.build(fault.check, fault.name)
      return [false, "DOES NOT COMPILE: #{outcome}"] unless outcome.passed?

      outcome = @tree.run(fault.check, fault.name)
      return [false, "NOT FOUND by #{fault.check}, which #{outcome}"] if outcome.passed?

      [true, "found by #{fault.check}, which #{outcome}"]
    end
  end
end
