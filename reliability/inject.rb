# frozen_string_literal: true

# Walks through every system call of every kind of copy: strace(1) answers the n-th of them with an error, for every
# error that the kernel could give. The outcome is always the right bytes, or a right error with right positions and
# counts and nothing lost.
#
#   ruby -Ilib reliability/inject.rb                      all of it: ten minutes or more
#   ruby -Ilib reliability/inject.rb --quick              a sample, 40 seconds
#   ruby -Ilib reliability/inject.rb --only splice        one system call
#   ruby -Ilib reliability/inject.rb --background         transfers in the background, and nothing else
#   ruby -Ilib reliability/inject.rb --untrue             splice also says 0, and it is not true
#
# Only the thread that copies is watched, and only what it does between two marks. What Ruby does there for itself (its
# timer, its memory) is not judged.

require "optparse"
require "tmpdir"
require_relative "inject/trial"
require_relative "inject/cases"
require_relative "inject/background"

module Inject
  # Goes through cases and what can be answered to their calls.
  class Walk
    QUICK = 40 # seconds

    def initialize(options)
      @options = options
      @random = Random.new(options[:seed])
      @hits = Hash.new(0)
      @outcomes = Hash.new(0)
      @failures = []
    end

    def run
      puts "seed #{@options[:seed]}"
      until_late(cases) { |case_| walk(case_) }
      report
      @failures.empty? && @hits.any?
    end

    private

    def cases
      chosen = CASES.values.select { |case_| wanted?(:case, case_.name) }
      @options[:quick] ? chosen.shuffle(random: @random) : chosen
    end

    def until_late(list)
      started = now
      list.each do |element|
        break if @options[:quick] && now - started > QUICK

        yield element
      end
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    def walk(case_)
      plain = Trial.new(case_, untrue: @options[:untrue])
      return failed("#{case_.name}, without any injection", plain) if plain.failure

      shots = choose(plain.shots)
      shots.each { |shot| fire(shot) }
      puts "#{case_.name}: #{shots.size}" if @options[:verbose]
    end

    def choose(shots)
      shots.select! { |shot| wanted?(:only, shot.call.to_s) && wanted?(:errno, shot.errno) }
      shots.each { |shot| shot.at = @options[:at] } if @options[:at]
      @options[:quick] ? shots.sample(8, random: @random) : shots.uniq
    end

    def wanted?(option, name) = [nil, name].include?(@options[option])

    def fire(shot)
      trial = Trial.new(shot.case_, shot)
      return unless trial.hit?

      @hits[shot.call] += 1
      @outcomes[trial.outcome.to_s[/\A[\w:]+/]] += 1
      puts "#{shot}: #{trial.outcome}" if @options[:at]
      failed(shot, trial) if trial.failure
    end

    def failed(what, trial)
      @failures << what
      puts "FAILED #{what}\n  #{trial.failure}"
      puts "  again: ruby -Ilib reliability/inject.rb #{what.repeat}" if what.is_a?(Shot)
    end

    def report
      puts "#{@hits.values.sum} calls were answered: #{@hits.sort_by(&:last).reverse.map { _1.join(" ") }.join(", ")}"
      puts "outcomes: #{@outcomes.sort_by(&:last).reverse.map { _1.join(" ") }.join(", ")}"
      puts "#{@failures.size} failures"
    end
  end
end

options = { seed: Random.new_seed % (1 << 32) }
OptionParser.new do |parser|
  parser.on("--quick") { options[:quick] = true }
  parser.on("--untrue", "splice also says that an input has ended which has not") { options[:untrue] = true }
  parser.on("--background [CASE]", "only transfers in the background") { |name| options[:background] = name || true }
  parser.on("--verbose") { options[:verbose] = true }
  parser.on("--seed N", Integer) { |seed| options[:seed] = seed }
  parser.on("--case NAME") { |name| options[:case] = name }
  parser.on("--only SYSCALL") { |call| options[:only] = call }
  parser.on("--errno NAME") { |name| options[:errno] = name }
  parser.on("--at N", Integer) { |at| options[:at] = at }
end.parse!

if (trouble = Inject::Strace.trouble)
  puts "skipped: #{trouble}"
  exit
end

Dir.mktmpdir do |dir|
  ENV["TMPDIR"] = dir # for what a process leaves that has not come to its end
  passed = options[:background] || Inject::Walk.new(options).run
  passed = Inject::BackgroundWalk.new(options).run && passed unless options.key?(:case)
  exit(passed ? true : false)
end
