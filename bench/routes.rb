# frozen_string_literal: true

# What a copy costs, from any kind of end to any other: by this gem, by Ruby's own `IO.copy_stream`, and by the
# best plain loop in C.
#
#   ruby bench/routes.rb [--size MIB] [--rounds N] [--only ROUTE] [--quick]
#
# The copier is a process of its own, and so are the ones that feed and drain it; a source is ready before
# the time counts. Then small copies, where what counts is a call's own cost, and many copies at once.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "io/wait"
require "optparse"
require "rbconfig"
require "shellwords"
require "socket"
require "tmpdir"
require_relative "harness"

MIB = 1 << 20
GIB = 1 << 30

options = { size: 512, rounds: 5, batches: 100 }
OptionParser.new do |parser|
  parser.on("--size MIB", Integer, "how much is copied (#{options[:size]})")
  parser.on("--rounds N", Integer, "how many turns each has (#{options[:rounds]})")
  parser.on("--only ROUTE", "one part: shm-pipe, tcp-tcp, small, threads, or a piece of such a name")
  parser.on("--quick", "only see that it works") { options.update(size: 8, rounds: 1, batches: 5) }
  parser.parse!(into: options)
rescue OptionParser::ParseError => e
  abort e.message
end
SIZE, ROUNDS, BATCHES = options.values_at(:size, :rounds, :batches)
[SIZE, ROUNDS].all?(&:positive?) or abort "--size, --rounds: at least 1"

# Two kinds of file: on a memory file system, and on what holds temporary files.
File.directory?("/dev/shm") or abort "no memory file system at /dev/shm"
FILES = { "shm" => Dir.mktmpdir("io_splice", "/dev/shm"), "disk" => Dir.mktmpdir("io_splice") }.freeze
BENCH = Process.pid
at_exit { FileUtils.rm_rf(FILES.values) if Process.pid == BENCH }

sources = File.expand_path("routes", __dir__)
built = Bench.build_directory("routes")
COPY, ENDS = %w[copy ends].map do |name|
  File.join(built, name).tap do |program|
    compile = [*RbConfig::CONFIG["CC"].shellsplit, "-O2", "-pthread", "-o", program, "#{name}.c"]
    Bench.sh(*compile, chdir: sources)
  end
end

COPIERS = {
  gem: ->(*arguments) { IO::Splice.copy_stream(*arguments) },
  ruby: ->(*arguments) { IO.copy_stream(*arguments) },
}.freeze

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

def ended_well(pid)
  Process.wait(pid)
  Process.last_status.success? or abort "a process of the bench failed"
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

# The process at the far ends of all these.
def far_end(does, bytes, ios)
  spawn(ENDS, does, bytes.to_s, *ios.map { |io| io.fileno.to_s }, **ios.to_h { |io| [io, io] })
ensure
  ios.each(&:close)
end

# One turn, or `count` copies at once.
Turn = Struct.new(:megabytes_per_second, :cpu_seconds_per_gib)

def turn(from, to, copier, bytes, count = 1)
  helpers = []
  inputs, outputs = [[from, "source", "rb"], [to, "target", "wb"]].map do |kind, name, mode|
    next [File.open(File.join(FILES[kind], name), mode)] if FILES[kind]

    pairs = Array.new(count) { connection(kind) }
    pairs.each(&:reverse!) if name == "target"
    helpers << far_end(name == "source" ? "feed" : "drain", bytes, pairs.map(&:last))
    pairs.map(&:first)
  end
  pairs = inputs.zip(outputs)
  command = [COPY, *pairs.flatten.map { |io| io.fileno.to_s }] if copier == :c
  took, cpu, copied = in_a_process(command, passing: pairs.flatten) { measure(pairs, COPIERS[copier]) }
  helpers.each { |pid| ended_well(pid) }
  copied == bytes * count or abort "#{copier}, #{from} to #{to}: #{copied} of #{bytes * count} bytes copied"

  Turn.new(copied * 1000.0 / took, cpu / 1e9 * GIB / copied)
end

def measure(pairs, copier)
  pairs[0][0].wait_readable
  clocks = -> { [Process::CLOCK_MONOTONIC, Process::CLOCK_PROCESS_CPUTIME_ID].map { nanoseconds(_1) } }
  before = clocks.call
  copied = pairs.one? ? copier.call(*pairs[0]) : pairs.map { |pair| Thread.new { copier.call(*pair) } }.sum(&:value)
  [*clocks.call.zip(before).map { |now, start| now - start }, copied]
end

def nanoseconds(clock)
  Process.clock_gettime(clock, :nanosecond)
end

# Copies that the kernel is done with at once. As many as a socket's buffer holds are a batch; filling and
# emptying the sockets does not count.
module Small
  SIZES = { 100 => 32, 4096 => 16, 65_536 => 1 }.freeze
  SOURCES = %w[file socket].freeze

  # Nanoseconds a copy.
  def self.turn(source, size, copier, scheduled)
    per_copy = 0
    work = -> { per_copy = batches(source, size, COPIERS[copier]) }
    in_a_process do
      scheduled ? in_a_fiber(work) : work.call
      [per_copy]
    end.first
  end

  def self.in_a_fiber(work)
    Fiber.set_scheduler(Scheduler.new)
    Fiber.schedule(&work)
    Fiber.scheduler.run
  end

  def self.batches(source, size, copier)
    count = SIZES[size]
    bytes = "x" * (size * count)
    input, feed = source == "file" ? File.open(File.join(FILES["shm"], "source"), "rb") : UNIXSocket.pair
    output, drain = UNIXSocket.pair
    arguments = [input, output, size, (0 if source == "file")].compact
    drained = String.new(capacity: bytes.bytesize)
    times = Array.new(BATCHES + 1) do
      feed&.write(bytes)
      start = Bench.nanoseconds
      count.times { copier.call(*arguments) }
      (Bench.nanoseconds - start).tap { drain.readpartial(bytes.bytesize, drained) until drain.nread.zero? }
    end
    times.drop(1).sum / BATCHES / count # the first fills the caches
  end

  # The least that a fiber scheduler can be.
  class Scheduler
    def initialize
      @readable = {}
      @writable = {}
    end

    def run
      until @readable.empty? && @writable.empty?
        IO.select(@readable.keys, @writable.keys).first(2).zip([@readable, @writable]) do |ios, waiting|
          ios.filter_map { |io| waiting.delete(io) }.each(&:resume)
        end
      end
    end
    alias close run

    def io_wait(io, events, _timeout)
      @readable[io] = Fiber.current if events.anybits?(IO::READABLE)
      @writable[io] = Fiber.current if events.anybits?(IO::WRITABLE)
      Fiber.yield
      [@readable, @writable].each { |waiting| waiting.delete(io) }
      events
    end

    def kernel_sleep(*) = nil
    def block(*) = raise("nothing here blocks")
    def unblock(*) = nil

    def fiber(&)
      Fiber.new(blocking: false, &).tap(&:resume)
    end
  end
end

# A goal: what it is about, the ratio that was measured, and the least or the most that it may be.
Goal = Struct.new(:about, :ratio, :least, :most) do
  def reached?
    (least.nil? || ratio.median >= least) && (most.nil? || ratio.median <= most)
  end

  def to_s
    "#{about} #{ratio.to_s(2)}, not #{least ? ">= #{least}" : "<= #{most}"}"
  end
end

MISSED = [] # rubocop:disable Style/MutableConstant

# What to say of some goals; those that were missed are listed at the end.
def verdict(name, goals)
  missed = goals.reject(&:reached?)
  MISSED.concat(missed.map { |goal| "#{name}: #{goal}" })
  missed.empty? ? "reached" : "MISSED: #{missed.map(&:about).join(", ")}"
end

SOCKETS = %w[tcp unix].freeze
# Where more is asked for than not to be slower.
SPLICED = [%w[pipe pipe], *["pipe", *SOCKETS].product(SOCKETS)].freeze

def speed_goals(from, to, turns)
  compare = ->(other, &which) { turns.ratio(:gem, other, &which) }
  spliced = SPLICED.include?([from, to])
  [
    Goal.new("speed / Ruby", compare.call(:ruby, &:megabytes_per_second), spliced ? 1.4 : 1.0),
    (Goal.new("CPU / Ruby", compare.call(:ruby, &:cpu_seconds_per_gib), nil, 0.333) if spliced),
    Goal.new("speed / C", compare.call(:c, &:megabytes_per_second), 0.95),
    Goal.new("CPU / C", compare.call(:c, &:cpu_seconds_per_gib), nil, 1.15)
  ].compact
end

def line(first, *cells)
  widths = [10, 8, 8, 10, 10, 8, 8, 8, 10, 10, 0]
  puts [first.ljust(18), *cells.zip(widths).map { |cell, width| cell.to_s.ljust(width) }].join.rstrip
end

def route(name, from, to, bytes, count = 1)
  turns = Bench::Turns.new
  %i[gem ruby c].each { |copier| turns.peer(copier) { turn(from, to, copier, bytes, count) } }
  turns.warm_up
  turns.run(ROUNDS)
  cells = { megabytes_per_second: 0, cpu_seconds_per_gib: 3 }.flat_map do |which, digits|
    medians = %i[gem ruby c].map { |peer| format("%.#{digits}f", turns.figures(peer, &which).median) }
    medians + %i[ruby c].map { |other| format("%.2f", turns.ratio(:gem, other, &which).median) }
  end
  line(name, *cells, verdict(name, speed_goals(from, to, turns)))
end

def small(source, size, scheduled)
  turns = Bench::Turns.new
  COPIERS.each_key { |copier| turns.peer(copier) { Small.turn(source, size, copier, scheduled) } }
  turns.run(ROUNDS)
  ratio = turns.ratio(:gem, :ruby)
  name = "#{source} to socket, #{size} B#{", in a fiber" if scheduled}"
  puts [name.ljust(40), *COPIERS.keys.map { |copier| turns.figures(copier).to_s.ljust(24) }, ratio.to_s(2).ljust(20),
        verdict("small, #{name}", [Goal.new("time / Ruby", ratio, nil, 1.0)])].join
end

only = ->(name) { name.include?(options.fetch(:only, "")) }
kinds = [*FILES.keys, "pipe", *SOCKETS]
routes = kinds.product(kinds).reject { |pair| pair.uniq.size == 2 && (pair - FILES.keys).empty? }
              .select { |pair| only.call(pair.join("-")) }

FILES.each_value do |directory|
  File.open(File.join(directory, "source"), "wb") { |file| (routes.empty? ? 1 : SIZE).times { file.write("x" * MIB) } }
end
systems = FILES.map do |name, directory|
  "#{name}: #{Bench.sh("stat", "-f", "-c", "%T", directory, chdir: directory).chomp}"
end
puts Bench.machine, systems.join(", "), "#{SIZE} MiB, #{ROUNDS} rounds, in turns; medians, ratios by pairs"
$stdout.sync = true

header = lambda do
  line("", "MB/s", "", "", "", "", "CPU s per GiB")
  line("", *(["gem", "Ruby", "C", "gem/Ruby", "gem/C"] * 2), "goals")
end
unless routes.empty?
  puts
  header.call
  routes.each { |from, to| route("#{from}-#{to}", from, to, SIZE * MIB) }
end

if only.call("threads")
  puts "", "100 copies of #{[SIZE / 128, 1].max} MiB at once, each in a thread"
  header.call
  SOCKETS.each { |kind| route("#{kind}, threads", kind, kind, [SIZE / 128, 1].max * MIB, 100) }
end

if only.call("small")
  puts "", "#{"small copies".ljust(40)}#{"ns a copy, gem".ljust(24)}#{"Ruby".ljust(24)}gem/Ruby"
  [false, true].product(Small::SOURCES, Small::SIZES.keys) { |scheduled, *what| small(*what, scheduled) }
end

puts "", MISSED.empty? ? "All goals reached." : ["Goals missed (lowest..highest):", *MISSED.map { |goal| "  #{goal}" }]
