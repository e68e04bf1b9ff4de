# frozen_string_literal: true

# What a proxy with `IO::Splice.relay` costs, beside one in C, in Go and in plain Ruby, HAProxy and socat, as far as
# they are installed.
#
#   ruby bench/relay.rb [--scenario PIECE] [--peer PIECE] [--mib MIB] [--rounds N] [--fibers] [--quick]
#
# Each proxy is a process of its own that runs all the time; the CPU is that of this process alone. The clients and the
# server are one other process, all of it over TCP on loopback. Before anything counts, each proxy relays once with
# every byte looked at; in the rounds that count, the bytes are counted.
#
# Then what many relays in one process take: 2,000 idle ones, and 200 busy ones beside them.

require "optparse"
require "rbconfig"
require "shellwords"
require "socket"
require_relative "harness"

MIB = 1 << 20
GIB = 1 << 30

options = { mib: 1024, rounds: 7, trips: 3000, idle: 2000, busy: 200, each: 4 * MIB, watch: 1 }
OptionParser.new do |parser|
  parser.on("--scenario PIECE", "one part: 'one way', 'both ways', 'at once', 'request', 'many', or a piece of that")
  parser.on("--peer PIECE", "only peers with that in their name, beside the gem")
  parser.on("--mib MIB", Integer, "how much goes each way (#{options[:mib]})")
  parser.on("--rounds N", Integer, "how many turns each has (#{options[:rounds]})")
  parser.on("--fibers", "also the gem in fibers, under a minimal scheduler")
  parser.on("--quick", "only see that it works") do
    options.update(mib: 16, rounds: 1, trips: 100, idle: 100, busy: 20, each: MIB, watch: 0.1)
  end
  parser.parse!(into: options)
rescue OptionParser::ParseError => e
  abort e.message
end
ROUNDS, TRIPS, EACH, WATCH, FIBERS = options.values_at(:rounds, :trips, :each, :watch, :fibers)
BYTES = options[:mib] * MIB
[ROUNDS, BYTES].all?(&:positive?) or abort "--mib, --rounds: at least 1"

# Each relay takes up to three descriptors, seven while it is busy; their far ends take two in another process.
_, limit = Process.getrlimit(:NOFILE)
Process.setrlimit(:NOFILE, limit, limit)
BUSY = options[:busy].clamp(1, [limit / 20, 1].max)
IDLE = options[:idle].clamp(0, limit / 4)

# All that was started and has not been waited for; none outlives this process, however it ends. Each is the first of
# a process group.
CHILDREN = [] # rubocop:disable Style/MutableConstant
BENCH = Process.pid
at_exit do
  next unless Process.pid == BENCH

  Process.kill(:KILL, *CHILDREN.map(&:-@)) if CHILDREN.any?
  CHILDREN.each { |pid| Process.wait(pid) }
end

def which(name)
  ENV.fetch("PATH", "").split(":").push("/usr/sbin").map { |directory| File.join(directory, name) }
     .find { |path| File.file?(path) && File.executable?(path) }
end

SOURCES = File.expand_path("relay", __dir__)
BUILT = Bench.build_directory("relay")
CLIENT, LOOP = %w[client proxy].map do |name|
  File.join(BUILT, name).tap do |program|
    compile = [*RbConfig::CONFIG["CC"].shellsplit, "-O2", "-Wall", "-Wextra", "-pthread", "-o", program, "#{name}.c"]
    Bench.sh(*compile, chdir: SOURCES)
  end
end

def build_go(go)
  File.join(BUILT, "proxy-go").tap do |program|
    settings = { "CGO_ENABLED" => "0", "GOCACHE" => File.join(BUILT, "go"), "GOFLAGS" => nil, "GO111MODULE" => "off" }
    Bench.sh("env", *settings.map { |name, value| "#{name}=#{value}" }, go, "build", "-o", program, "proxy.go",
             chdir: SOURCES)
  end
end

SERVER = TCPServer.new("127.0.0.1", 0)
PORT = SERVER.local_address.ip_port

# A program that ends with this process, and what else it may start with its group.
def start(*command, **passing)
  spawn(CLIENT, "run", *command, pgroup: true, **passing).tap { |pid| CHILDREN << pid }
end

def finish(pid, name)
  Process.wait(pid)
  CHILDREN.delete(pid)
  Process.last_status.success? or abort "#{name}: what is at its far ends failed"
end

# A proxy: `command` is told of its listening socket, if it takes one, and `config` is its standard input.
Peer = Struct.new(:title, :command, :config, :version) do
  attr_reader :port, :pid

  def run
    return listen_by_itself if command.arity.zero?

    listener = TCPServer.new("127.0.0.1", 0)
    @port = listener.local_address.ip_port
    input, text = IO.pipe
    text.write(config.call(listener.fileno)) if config
    text.close
    @pid = start(*command.call(listener.fileno).map(&:to_s), in: input, listener => listener)
  ensure
    [listener, input].each { |io| io&.close }
  end

  def stop
    Process.kill(:KILL, -pid)
    Process.wait(pid)
    CHILDREN.delete(pid)
  end

  # Nanoseconds of the processor, those of its children too. The clock of another process has such a number (see
  # clock_getcpuclockid(3)); it is exact, and knows the threads that have ended.
  def cpu
    Process.clock_gettime((~pid << 3) | 2, :nanosecond) + (by_children * 1_000_000_000 / Etc.sysconf(Etc::SC_CLK_TCK))
  rescue Errno::EINVAL
    abort "#{title}: it has ended"
  end

  # As above, once it is done with what it is at and takes no more; at the end of connections without children.
  def settled_cpu(ended: false)
    before = cpu
    loop do
      sleep 0.005
      now = cpu
      return now if now == before && !(ended && children?)

      before = now
    end
  end

  private

  def listen_by_itself
    @pid = start(*command.call, in: File::NULL)
    sleep 0.01 until (@port = listening_port)
  end

  def listening_port
    sockets = Dir["/proc/#{pid}/fd/*"].filter_map { |fd| File.readlink(fd)[/\Asocket:\[(\d+)\]/, 1] }
    lines = File.readlines("/proc/net/tcp").map(&:split)
    lines.find { |line| line[3] == "0A" && sockets.include?(line[9]) }&.then { |line| line[1].split(":").last.hex }
  end

  # In the kernel's ticks.
  def by_children
    stat(pid)[13, 2].sum(&:to_i)
  end

  def children?
    command.arity.zero? && Dir["/proc/[0-9]*/stat"].any? { |path| stat(path[/\d+/])[1].to_i == pid }
  end

  # The fields from the third on.
  def stat(pid)
    File.read("/proc/#{pid}/stat").rpartition(")").last.split
  rescue Errno::ENOENT, Errno::ESRCH
    []
  end
end

# It is read from standard input, so there is no file to be left behind.
HAPROXY = <<~CONFIG
  global
    nbthread 1
    maxconn 4096
  defaults
    mode tcp
    option splice-auto
    timeout connect 60s
    timeout client 60s
    timeout server 60s
  listen relay
    bind fd@%<listener>d
    server server 127.0.0.1:%<port>d
CONFIG

def ruby(mode)
  ->(listener) { [RbConfig.ruby, File.join(SOURCES, "proxy.rb"), mode, listener, PORT] }
end

def peers
  go, haproxy, socat = %w[go haproxy socat].map { |name| which(name) }
  all = {
    gem: Peer.new("the gem", ruby("threads")),
    fibers: Peer.new("the gem, fibers", ruby("fibers")),
    c: Peer.new("a loop in C", ->(listener) { [LOOP, listener, PORT] }),
  }
  all[:go] = Peer.new("Go, io.Copy", ->(listener) { [build_go(go), listener, PORT] }, nil, [go, "version"]) if go
  if haproxy
    config = ->(listener) { format(HAPROXY, listener:, port: PORT) }
    command = ->(_) { [haproxy, "-q", "-db", "-f", "/dev/stdin"] }
    all[:haproxy] = Peer.new("HAProxy", command, config, [haproxy, "-v"])
  end
  if socat
    command = -> { [socat, "-t600", "-b262144", "TCP4-LISTEN:0,bind=127.0.0.1,fork", "TCP4:127.0.0.1:#{PORT}"] }
    all[:socat] = Peer.new("socat", command, nil, [socat, "-V"])
  end
  all[:ruby] = Peer.new("Ruby, copy_stream", ruby("copy_stream"))
  all
end

# Runs the far ends of a proxy: when all is connected, the first block; until they say what they found out,
# the second, again and again. Returns that.
def far_ends(peer, does, *arguments, between: nil, meanwhile: nil, port: peer.port)
  input, go = IO.pipe
  said, says = IO.pipe
  arguments = [does, port, SERVER.fileno, *arguments].map(&:to_s)
  CHILDREN << (pid = spawn(CLIENT, *arguments, pgroup: true, in: input, out: says, SERVER => SERVER))
  [input, says].each(&:close)
  said.gets == "ready\n" or finish(pid, peer.title)
  between&.call
  go.puts
  meanwhile&.call until said.wait_readable(meanwhile ? 0.05 : nil)
  numbers = said.read.split.map(&:to_i)
  finish(pid, peer.title)
  numbers
ensure
  [go, said].each(&:close)
end

# What the proxy itself took of the processor, and what its far ends say.
def with_cpu(peer, *arguments)
  before = 0
  numbers = far_ends(peer, *arguments, between: -> { before = peer.settled_cpu })
  [numbers, peer.settled_cpu(ended: true) - before]
end

# A goal: what it is about, the ratio that was measured, and the least or the most that it may be.
Goal = Struct.new(:about, :ratio, :least, :most) do
  def reached?
    least ? ratio.median >= least : ratio.median <= most
  end

  def to_s
    least ? ">= #{least}" : "<= #{most}"
  end
end

MISSED = [] # rubocop:disable Style/MutableConstant

# What to say of some goals; those that were missed are listed at the end.
def verdict(name, goals)
  missed = goals.reject(&:reached?)
  MISSED.concat(missed.map { |goal| "#{name}: #{goal.about} #{goal.ratio.to_s(2)}, not #{goal}" })
  goals.map { |goal| "#{goal.about} #{goal}: #{goal.reached? ? "reached" : "MISSED"}" }.join(", ")
end

def line(*cells)
  puts cells.zip([19, 23, 23, 23, 19, 0]).map { |cell, width| cell.to_s.ljust(width) }.join.rstrip
end

# Megabytes a second, and seconds of the processor for each gigabyte.
Transfer = Struct.new(:speed, :cpu)

def transfer(peer, count, there, back, check)
  (took,), cpu = with_cpu(peer, "stream", count, there, back, 0, check)
  bytes = count * (there + back)
  Transfer.new(bytes * 1000.0 / took, cpu / 1e9 * GIB / bytes)
end

# What is expected beside each peer: at least this speed, and at most this CPU.
EXPECTED = { go: [1.0, 0.6], haproxy: [1.0, nil], c: [nil, 1.2] }.freeze

def goals(key, speed, cpu)
  least, most = EXPECTED[key]
  [(Goal.new("speed", speed, least) if least), (Goal.new("CPU", cpu, nil, most) if most)].compact
end

def transfers(name, peers, count, there, back)
  peers.each_value { |peer| transfer(peer, count, there, back, 1) }
  turns = Bench::Turns.new
  peers.each { |key, peer| turns.peer(key) { transfer(peer, count, there, back, 0) } }
  turns.run(ROUNDS)
  puts "", name
  line("", "MB/s", "the gem / that", "CPU s per GiB", "the gem / that", "goals for the gem")
  peers.each do |key, peer|
    own = [turns.figures(key, &:speed).to_s, turns.figures(key, &:cpu).to_s(3)]
    ratios = key == :gem ? [] : %i[speed cpu].map { |which| turns.ratio(:gem, key, &which) }
    about = verdict("#{name}, beside #{peer.title}", ratios.empty? ? [] : goals(key, *ratios))
    line(peer.title, *own.zip(ratios.map { |ratio| ratio.to_s(2) }).flatten, about)
  end
end

# Nanoseconds there and back, the median and what 99 of 100 stay below, and those of the processor.
Trips = Struct.new(:median, :p99, :cpu)

def trips(peer)
  (median, p99), cpu = with_cpu(peer, "trips", TRIPS)
  Trips.new(median, p99, cpu / TRIPS)
end

def direct_trips
  Trips.new(*far_ends(Peer.new("no proxy"), "trips", TRIPS, port: PORT))
end

def microseconds(numbers)
  Bench::Figures.new(numbers.map { |number| number / 1000.0 }).to_s(1)
end

def requests(name, peers)
  rounds = Hash.new { |found, key| found[key] = [] }
  turns = Bench::Turns.new
  turns.peer(:direct) { rounds[:direct] << direct_trips }
  peers.each { |key, peer| turns.peer(key) { rounds[key] << trips(peer) } }
  turns.warm_up
  rounds.clear
  turns.run(2 * ROUNDS) # they are short, and depend on which processor wakes which
  added = rounds.transform_values { |all| all.zip(rounds[:direct]).map { |own, direct| own.median - direct.median } }
  puts "", name
  line("", "median us", "p99 us", "added by it, us", "the gem / that", "CPU us a round trip, goal for the gem")
  line("no proxy", *%i[median p99].map { |which| microseconds(rounds[:direct].map(&which)) })
  peers.each do |key, peer|
    own = %i[median p99 cpu].map { |which| microseconds(rounds[key].map(&which)) }
    ratio = Bench::Figures.new(added[:gem].zip(added[key]).map { |gem, other| gem.fdiv(other) }) unless key == :gem
    goal = verdict("#{name}, beside HAProxy", [Goal.new("added", ratio, nil, 1.0)]) if key == :haproxy
    line(peer.title, *own.first(2), microseconds(added[key]), ratio&.to_s(2), [own.last, goal].compact.join("  "))
  end
end

# What a process takes: resident memory in KiB, threads, and descriptors by kind.
Usage = Struct.new(:memory, :threads, :descriptors) do
  def self.of(pid)
    status = File.read("/proc/#{pid}/status")
    kinds = Dir["/proc/#{pid}/fd/*"].filter_map do |path|
      File.readlink(path)[/\A\w+(:\[\w+\])?/]&.sub(/:\[\d+\]/, "")
    rescue Errno::ENOENT
      nil # closed meanwhile
    end
    new(*%w[VmRSS Threads].map { |name| status[/^#{name}:\s*(\d+)/, 1].to_i }, kinds.tally)
  end

  def all = descriptors.values.sum

  def to_s
    kinds = descriptors.map { |kind| kind.join(" ") }
    "#{memory / 1024} MiB, #{threads} thread#{"s" if threads > 1}, #{all} descriptors (#{kinds.join(", ")})"
  end
end

def many(title, peer)
  peer.run
  far_ends(peer, "stream", 1, 1, 1, 0, 1)
  peer.settled_cpu
  none = Usage.of(peer.pid)
  idle = idle_cpu = nil
  look = lambda do
    before = peer.settled_cpu
    sleep WATCH
    idle_cpu = peer.cpu - before
    idle = Usage.of(peer.pid)
  end
  peaks = []
  meanwhile = -> { peaks << Usage.of(peer.pid) }
  took, = far_ends(peer, "stream", BUSY, EACH, EACH, IDLE, 1, between: look, meanwhile:)
  peer.settled_cpu
  after = Usage.of(peer.pid)
  report(title, none, idle, idle_cpu, peaks, took, after)
ensure
  peer.stop if peer.pid
end

def report(title, none, idle, idle_cpu, peaks, took, after)
  relays = IDLE + BUSY
  per_relay = (idle.memory - none.memory).fdiv(relays)
  puts title, "  none            #{none}", "  #{relays} idle       #{idle}",
       format("    each: %<memory>.1f KiB, %<fds>.2f descriptors; all: %<cpu>.1f ms of CPU a second",
              memory: per_relay, fds: (idle.all - none.all).fdiv(relays), cpu: idle_cpu / 1e6 / WATCH)
  busiest = peaks.max_by(&:all)
  puts "  #{BUSY} of them busy #{busiest}, at most #{peaks.map(&:memory).max / 1024} MiB" if busiest
  bytes = BUSY * EACH * 2
  puts "    #{bytes / MIB} MiB at #{(bytes * 1000.0 / took).round} MB/s, all bytes right", "  afterwards      #{after}"
  sockets = ->(usage) { usage.descriptors.values_at("socket", "anon_inode:[eventpoll]") }
  sockets.call(after) == sockets.call(none) or abort "#{title}: descriptors were left behind"
end

SCENARIOS = {
  "one way, #{options[:mib]} MiB over one connection" => ->(name, peers) { transfers(name, peers, 1, BYTES, 0) },
  "both ways, #{options[:mib]} MiB each over one connection" => lambda do |name, peers|
    transfers(name, peers, 1, BYTES, BYTES)
  end,
  "one way, 64 connections at once, #{options[:mib]} MiB in all" => lambda do |name, peers|
    transfers(name, peers, 64, BYTES / 64, 0)
  end,
  "request and response of 100 bytes, #{TRIPS} times over one connection" => ->(name, peers) { requests(name, peers) },
  "many relays in one process" => lambda do |name, _|
    puts "", name
    many("in threads", Peer.new("the gem", ruby("threads")))
    many("in fibers", Peer.new("the gem, fibers", ruby("fibers"))) if FIBERS
  end,
}.freeze

ALL = peers
chosen = ALL.select do |key, peer|
  key == :gem || (peer.title.downcase.include?(options.fetch(:peer, "").downcase) && (key != :fibers || FIBERS))
end
scenarios = SCENARIOS.select { |name, _| name.include?(options.fetch(:scenario, "")) }
scenarios.empty? and abort "--scenario: one of\n  #{SCENARIOS.keys.join("\n  ")}"

versions = chosen.values.filter_map(&:version).map { |command| Bench.sh(*command, chdir: BUILT)[/.*version.*/i] }
missing = %i[go haproxy socat] - ALL.keys
puts Bench.machine, versions, ("Not installed: #{missing.join(", ")}" if missing.any?)
puts "#{ROUNDS} rounds, in turns; median (lowest..highest), ratios by pairs"
$stdout.sync = true

chosen.each_value(&:run)
scenarios.each { |name, scenario| scenario.call(name, chosen) }
chosen.each_value(&:stop)

puts "", "Turns as short as with --quick say nothing about goals." if options[:quick]
puts "", MISSED.empty? ? "All goals reached." : ["Goals missed (lowest..highest):", *MISSED.map { |goal| "  #{goal}" }]
