# frozen_string_literal: true

require "etc"
require "fileutils"
require "optparse"
require "rbconfig"
require "shellwords"
require_relative "harness/figures"
require_relative "harness/results"

# What the benches share.
module Bench
  KIB = 1 << 10
  MIB = 1 << 20
  GIB = 1 << 30

  # Peers by name. Each is a block that does its work once and returns a number, or an object with one for each metric.
  # They run in turns and are compared pair by pair, so that a machine that is slower for a while is slower for all.
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
      self
    end

    # @return [Hash] by peer and metric the number of each round
    def values(metrics)
      @peers.keys.to_h do |name|
        rounds = @rounds.fetch(name)
        [name, metrics.to_h { |metric| [metric, rounds.map { |one| one.is_a?(Numeric) ? one : one[metric] }] }]
      end
    end
  end

  # The processor time of this thread, which is what a call costs that is shorter than a machine's pauses.
  module ThreadTime
    # Nanoseconds.
    def self.now = Process.clock_gettime(Process::CLOCK_THREAD_CPUTIME_ID, :nanosecond)

    # How many of them are between two looks at it.
    LOOK = Array.new(15) { Array.new(1000) { now.then { |start| now - start } }.sum.fdiv(1000) }.min
  end

  module_function

  # Parses the options that all benches have, and those that the block adds.
  def options(defaults, quick)
    all = { rounds: 5, whole: true, **defaults }
    OptionParser.new do |parser|
      parser.on("--rounds N", Integer, "how many turns each has (#{all[:rounds]})")
      parser.on("--quick", "only see that it works") { all.update(rounds: 1, whole: false, **quick) }
      parser.on("--part NAME", "only what has that in its name")
      yield parser if block_given?
      parser.parse!(into: all)
      all[:whole] = false if all[:part]
    rescue OptionParser::ParseError => e
      abort e.message
    end
    all[:rounds].positive? or abort "--rounds: at least 1"
    all
  end

  def machine
    cpu = File.read("/proc/cpuinfo")[/^model name\s*: (.+)/, 1] || "unknown CPU"
    system = Etc.uname
    { processors: "#{Etc.nprocessors} x #{cpu}", memory: File.read("/proc/meminfo")[/^MemTotal:\s+(\d+)/, 1].to_i / KIB,
      kernel: system.values_at(:sysname, :release, :machine).join(" "), ruby: RUBY_DESCRIPTION }
  end

  # The directory for what a bench builds with this Ruby.
  def build_directory(name)
    File.expand_path("../tmp/bench/#{name}/#{RUBY_PLATFORM}-#{RUBY_VERSION}", __dir__)
        .tap { |directory| FileUtils.mkdir_p(directory) }
  end

  # @return [String] the program that `bench/<bench>/<name>.c` was made into
  def compile(bench, name)
    File.join(build_directory(bench), name).tap do |program|
      sh(*RbConfig::CONFIG["CC"].shellsplit, *%w[-O2 -Wall -Wextra -pthread], "-o", program, "#{name}.c",
         chdir: File.expand_path(bench, __dir__))
    end
  end

  # As {compile}, of `<name>.go`; nil without Go.
  def compile_go(bench, name)
    go = which("go") or return
    File.join(build_directory(bench), "#{name}-go").tap do |program|
      settings = { "CGO_ENABLED" => "0", "GOCACHE" => File.join(build_directory(bench), "go"), "GOFLAGS" => nil,
                   "GO111MODULE" => "off" }
      sh("env", *settings.map { |variable, value| "#{variable}=#{value}" }, go, "build", "-o", program, "#{name}.go",
         chdir: File.expand_path(bench, __dir__))
    end
  end

  def which(name)
    ENV.fetch("PATH", "").split(":").push("/usr/sbin").map { |directory| File.join(directory, name) }
       .find { |path| File.file?(path) && File.executable?(path) }
  end

  # Runs a command and returns what it says; ends the bench with that if it fails. It starts no thread, which
  # would be in the way of what is measured afterwards.
  def sh(*command, chdir:)
    output = IO.popen(command, err: %i[child out], chdir:, &:read)
    Process.last_status.success? or abort "#{command.join(" ")}: failed\n#{output}"
    output
  end

  # What a program says of its version.
  def version(*command)
    sh(*command, chdir: "/")[/.*\d.*/].strip
  end

  def nanoseconds(clock = Process::CLOCK_MONOTONIC)
    Process.clock_gettime(clock, :nanosecond)
  end

  # The two ends of a connection, to read from and to write to.
  def connection(kind)
    case kind
    when "pipe" then IO.pipe
    when "unix" then UNIXSocket.pair
    when "tcp"
      TCPServer.open("127.0.0.1", 0) do |server|
        writer = TCPSocket.new("127.0.0.1", server.local_address.ip_port)
        [server.accept, writer]
      end
    end
  end
end
