# frozen_string_literal: true

require "etc"
require "fileutils"

# What the benches share: peers are run in turns and compared pair by pair, so that a machine that is slower
# for a while is slower for all of them.
module Bench
  # One number for each round.
  class Figures
    def initialize(values)
      @values = values.sort
    end

    def median
      middle = @values.size / 2
      @values.size.odd? ? @values[middle] : (@values[middle - 1] + @values[middle]) / 2.0
    end

    # The median, and in brackets the smallest and the largest.
    def to_s(digits = 0)
      format("%.#{digits}f (%.#{digits}f..%.#{digits}f)", median, @values.first, @values.last)
    end
  end

  # Peers by name. Each is a block that does its work once and returns a number, or several in an object; then
  # a block says which of them is meant.
  class Turns
    def initialize
      @peers = {}
      @rounds = Hash.new { |rounds, name| rounds[name] = [] }
    end

    def peer(name, &work)
      @peers[name] = work
    end

    # A round that does not count.
    def warm_up
      @peers.each_value(&:call)
    end

    # Of two neighbours each is the first in every other round.
    def run(rounds)
      rounds.times do |round|
        names = round.even? ? @peers.keys : @peers.keys.reverse
        names.each { |name| @rounds[name] << @peers[name].call }
      end
    end

    def figures(name, &)
      Figures.new(numbers(name, &))
    end

    # How many times as much as `other` does `name` need, round by round?
    def ratio(name, other, &)
      Figures.new(numbers(name, &).zip(numbers(other, &)).map { |own, others| own.fdiv(others) })
    end

    private

    def numbers(name, &which)
      which ? @rounds.fetch(name).map(&which) : @rounds.fetch(name)
    end
  end

  def self.machine
    cpu = File.read("/proc/cpuinfo")[/^model name\s*: (.+)/, 1] || "unknown CPU"
    system = Etc.uname
    <<~TEXT
      #{Etc.nprocessors} x #{cpu}
      #{system[:sysname]} #{system[:release]} #{system[:machine]}
      #{RUBY_DESCRIPTION}
    TEXT
  end

  # The directory for what a bench builds with this Ruby.
  def self.build_directory(name)
    File.expand_path("../tmp/bench/#{name}/#{RUBY_PLATFORM}-#{RUBY_VERSION}", __dir__)
        .tap { |directory| FileUtils.mkdir_p(directory) }
  end

  # Runs a command and returns what it says; ends the bench with that if it fails. It starts no thread, which
  # would be in the way of what is measured afterwards.
  def self.sh(*command, chdir:)
    output = IO.popen(command, err: %i[child out], chdir:, &:read)
    Process.last_status.success? or abort "#{command.join(" ")}: failed\n#{output}"
    output
  end

  def self.nanoseconds
    Process.clock_gettime(Process::CLOCK_MONOTONIC, :nanosecond)
  end
end
