# frozen_string_literal: true

require "io/splice"
require "io/wait"
require "socket"
require "stringio"
require "tmpdir"
require "zlib"
require_relative "../harness"

module Bench
  # Copies between any two kinds of end, by any of the peers. The copier is a process of its own, and so are the ones
  # that feed and drain it; a source is ready before the time counts.
  class Copies
    # Megabytes a second, seconds of the processor for a gigabyte, microseconds for each copy, and how many KiB more
    # the process had at most.
    Turn = Struct.new(:speed, :cpu, :time, :memory)

    IN_RUBY = {
      gem: ->(*arguments) { IO::Splice.copy_stream(*arguments) },
      ruby: ->(*arguments) { IO.copy_stream(*arguments) },
    }.freeze
    PEERS = { gem: "io_splice", ruby: "IO.copy_stream", c: "loop in C", memory: "read and write in C",
              python: "os.splice", go: "Go's io.Copy", cp: "cp", pv: "pv", socat: "socat" }.freeze
    VERSIONS = { python: %w[python3 --version], go: %w[go version], cp: %w[cp --version], pv: %w[pv --version],
                 socat: %w[socat -V] }.freeze

    # Ends without a descriptor, of which only Ruby knows.
    OBJECTS = { "StringIO" => ->(bytes) { StringIO.new("x" * bytes) }, "new StringIO" => ->(_) { StringIO.new },
                "gzip" => ->(_) { Zlib::GzipWriter.new(StringIO.new, Zlib::BEST_SPEED) } }.freeze

    attr_reader :files

    # @param size [Integer] the bytes of the source files
    def initialize(size)
      File.directory?("/dev/shm") or abort "no memory file system at /dev/shm"
      @files = { "shm" => Dir.mktmpdir("io_splice", "/dev/shm"), "disk" => Dir.mktmpdir("io_splice") }
      bench = Process.pid
      at_exit { FileUtils.rm_rf(@files.values) if Process.pid == bench }
      @copy, @ends = %w[copy ends].map { |name| Bench.compile("routes", name) }
      @go = Bench.compile_go("routes", "copy")
      @files.each_key { |kind| fill(kind, size) }
    end

    def fill(kind, size)
      piece = "x" * MIB
      File.open(path(kind, "source"), "wb") do |file|
        size.div(MIB).times { file.write(piece) }
        file.write(piece[0, size % MIB])
      end
    end

    def path(kind, name) = File.join(@files.fetch(kind), name)
    def file?(kind) = @files.key?(kind)

    # The programs among the peers that are installed.
    def versions
      VERSIONS.select { |_, (program)| Bench.which(program) }
              .to_h { |peer, command| [PEERS.fetch(peer), Bench.version(*command)] }
    end

    # Whether a peer is here, and can copy from the one kind to the other.
    def can?(peer, from, to)
      case peer
      when :python then python? && [from, to].include?("pipe")
      when :go then @go
      when :cp then file?(from) && file?(to)
      when :pv then Bench.which("pv")
      when :socat then Bench.which("socat") && !file?(from) && !file?(to)
      else true
      end
    end

    # @param bytes [Integer] of each copy
    # @param count [Integer] copies that are made at once, each in a thread
    # @param times [Integer] how often each is made, one after the other
    def turn(from, to, peer, bytes, count: 1, times: 1)
      helpers = []
      inputs, outputs = [[from, "source", "rb"], [to, "target", "wb"]].map do |kind, name, mode|
        next [File.open(path(kind, name), mode)] if file?(kind)
        next [OBJECTS.fetch(kind).call(bytes)] if OBJECTS.key?(kind)

        pairs = Array.new(count) { Bench.connection(kind) }
        pairs.each(&:reverse!) if name == "target"
        helpers << far_end(name == "source" ? "feed" : "drain", bytes * times, pairs.map(&:last))
        pairs.map(&:first)
      end
      took, cpu, copied, memory = run(peer, inputs.zip(outputs), bytes, times, [from, to])
      helpers.each { |pid| ended_well(pid) }
      expected = bytes * count * times
      copied == expected or abort "#{peer}, #{from} to #{to}: #{copied} of #{expected} bytes copied"

      Turn.new(copied * 1000.0 / took, cpu / 1e9 * GIB / copied, took / 1000.0 / times, memory)
    end

    # Runs the block in a process of its own and returns the integers that it says, or those that `command` says.
    def in_a_process(command = nil, passing: [])
      said, says = IO.pipe
      kept = passing.to_h { |io| [io, io] }
      pid = command ? spawn(*command, **kept, out: says) : fork { says.puts yield.join(" ") }
      [says, *passing].each(&:close)
      said.read.split.map(&:to_i)
    ensure
      said.close
      ended_well(pid)
    end

    private

    def python?
      return @python if defined?(@python)

      @python = Bench.which("python3") && system("python3", "-c", "import os; os.splice", err: File::NULL)
    end

    # The process at the far ends of all these.
    def far_end(does, bytes, ios)
      spawn(@ends, does, bytes.to_s, *ios.map { |io| io.fileno.to_s }, **ios.to_h { |io| [io, io] })
    ensure
      ios.each(&:close)
    end

    def ended_well(pid)
      Process.wait(pid)
      Process.last_status.success? or abort "a process of the bench failed"
    end

    def run(peer, pairs, bytes, times, kinds)
      ends = pairs.flatten.grep(IO)
      numbers = ends.map { |io| io.fileno.to_s }
      loops = ["-l", bytes.to_s, "-n", times.to_s] if times > 1
      case peer
      when :gem, :ruby
        in_a_process(passing: ends) { measure(pairs, IN_RUBY.fetch(peer), bytes, times, kinds.first) }
      when :c, :memory
        in_a_process([@copy, *("-m" if peer == :memory), *loops, *numbers], passing: ends)
      when :python
        in_a_process(["python3", File.expand_path("../routes/copy.py", __dir__), *numbers], passing: ends)
      when :go then in_a_process([@go, *numbers], passing: ends)
      else in_a_process(passing: ends) { program(peer, *pairs.first, bytes, kinds) }
      end
    end

    # Copies here; a file is copied from its beginning each time.
    def measure(pairs, copier, bytes, times, from)
      pairs[0][0].wait_readable if pairs[0][0].is_a?(IO)
      memory = peak
      clocks = -> { [Process::CLOCK_MONOTONIC, Process::CLOCK_PROCESS_CPUTIME_ID].map { Bench.nanoseconds(_1) } }
      rest = times > 1 ? [bytes, (0 if file?(from))].compact : []
      before = clocks.call
      copied = if times > 1 then again_and_again(*pairs.first, copier, times, rest)
               elsif pairs.one? then copier.call(*pairs[0])
               else
                 pairs.map { |pair| Thread.new { copier.call(*pair) } }.sum(&:value)
               end
      [*clocks.call.zip(before).map { |now, start| now - start }, copied, peak - memory]
    end

    def again_and_again(input, output, copier, times, rest)
      target = output.is_a?(File)
      copied = 0
      while (times -= 1) >= 0
        output.pos = 0 if target
        copied += copier.call(input, output, *rest)
      end
      copied
    end

    # The most memory that this process ever had, in KiB.
    def peak = File.read("/proc/self/status")[/^VmHWM:\s+(\d+)/, 1].to_i

    # A whole program, whose start is part of the time.
    def program(peer, input, output, bytes, kinds)
      command =
        case peer
        when :cp then ["cp", *kinds.zip(%w[source target]).map { |kind, name| path(kind, name) }]
        when :pv then %w[pv -q]
        when :socat then %w[socat -u -b262144 STDIN STDOUT]
        end
      input.wait_readable
      start = Bench.nanoseconds
      pid = spawn(*command, in: input, out: output)
      [input, output].each(&:close)
      ended_well(pid)
      took = Bench.nanoseconds - start
      times = Process.times
      copied = file?(kinds.last) ? File.size(path(kinds.last, "target")) : bytes # a drain has counted them
      [took, ((times.cutime + times.cstime) * 1e9).round, copied]
    end
  end
end
