# frozen_string_literal: true

# What a proxy with `IO::Splice.relay` costs, beside one in C, in Go and in plain Ruby, HAProxy and socat, as far as
# they are installed.
#
#   ruby bench/relay.rb [--mib MIB] [--rounds N] [--part NAME] [--peer NAME] [--fibers] [--quick]
#
# Each proxy is a process of its own that runs all the time; the CPU and the memory are those of this process alone.
# The clients and the server are one other process, all of it over TCP on loopback. Before anything counts, each proxy
# relays once with every byte looked at; in the rounds that count, the bytes are counted.
#
# Then how the cost grows with the connections, and what many relays in one process take: 2,200 idle ones, and 200 of
# them busy.

require "io/wait"
require "socket"
require_relative "harness"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ mib: 256, trips: 3000, idle: 2000, busy: 200, each: 4 * MIB, watch: 0.5 },
                        { mib: 16, trips: 100, idle: 100, busy: 20, each: MIB, watch: 0.1 }) do |parser|
  parser.on("--mib MIB", Integer, "how much goes each way")
  parser.on("--peer NAME", "only peers with that in their name, beside the gem")
  parser.on("--fibers", "also the gem in fibers, under a minimal scheduler")
end
ROUNDS, TRIPS, EACH, WATCH = options.values_at(:rounds, :trips, :each, :watch)
BYTES = options[:mib] * MIB
BYTES.positive? or abort "--mib: at least 1"
options[:whole] = false if options[:peer]

# Each relay takes up to seven descriptors; their far ends take two in another process.
_, limit = Process.getrlimit(:NOFILE)
Process.setrlimit(:NOFILE, limit, limit)
BUSY = options[:busy].clamp(1, [limit / 20, 1].max)
IDLE = options[:idle].clamp(0, limit / 10)

# All that was started and has not been waited for; none outlives this process, however it ends. Each is the first of
# a process group.
CHILDREN = [] # rubocop:disable Style/MutableConstant
BENCH = Process.pid
at_exit do
  next unless Process.pid == BENCH

  Process.kill(:KILL, *CHILDREN.map(&:-@)) if CHILDREN.any?
  CHILDREN.each { |pid| Process.wait(pid) }
end

CLIENT, LOOP = %w[client proxy].map { |name| Bench.compile("relay", name) }
SERVER = TCPServer.new("127.0.0.1", 0)
PORT = SERVER.local_address.ip_port

# A program that ends with this process, and what else it may start with its group.
def start(*command, **passing)
  spawn(CLIENT, "run", *command, pgroup: true, **passing).tap { |pid| CHILDREN << pid }
end

# What is at the far ends of a proxy did not get what it should.
Wrong = Class.new(StandardError)

def finish(pid, name)
  Process.wait(pid)
  CHILDREN.delete(pid)
  Process.last_status.success? or raise Wrong, "#{name}: what is at its far ends failed"
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
    return unless pid

    Process.kill(:KILL, -pid)
    Process.wait(pid)
    CHILDREN.delete(pid)
    @pid = nil
  end

  # Nanoseconds of the processor, those of its children too. The clock of another process has such a number (see
  # clock_getcpuclockid(3)); it is exact, and knows the threads that have ended.
  def cpu
    Bench.nanoseconds((~pid << 3) | 2) + (by_children * 1_000_000_000 / Etc.sysconf(Etc::SC_CLK_TCK))
  rescue Errno::EINVAL
    abort "#{title}: it has ended"
  end

  # As above, once it is done with what it is at and takes no more; at the end of connections without children.
  def settled_cpu(ended: false)
    before = cpu
    loop do
      sleep 0.005
      children = ended && children?
      now = cpu
      return now if now == before && !children

      before = now
    end
  end

  # From now on {peak} is the most memory that it has; see proc(5).
  def forget_peak = File.write("/proc/#{pid}/clear_refs", "5")

  # Resident memory in KiB, now and at most.
  def memory = status("VmRSS")
  def peak = status("VmHWM")
  def threads = status("Threads")

  # How many descriptors it has of each kind.
  def descriptors
    kinds = Dir["/proc/#{pid}/fd/*"].filter_map do |path|
      File.readlink(path)[/\A\w+(:\[\w+\])?/]&.sub(/:\[\d+\]/, "")
    rescue Errno::ENOENT
      nil # closed meanwhile
    end
    kinds.tally
  end

  private

  def status(name) = File.read("/proc/#{pid}/status")[/^#{name}:\s*(\d+)/, 1].to_i

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
    %<settings>s
  defaults
    mode tcp
    %<options>s
    timeout connect 60s
    timeout client 60s
    timeout server 60s
  listen relay
    bind fd@%<listener>d
    server server 127.0.0.1:%<port>d
CONFIG

def ruby(mode)
  ->(listener) { [RbConfig.ruby, File.expand_path("relay/proxy.rb", __dir__), mode, listener, PORT] }
end

# With splice-auto it decides by itself, and here it decides not to; see peers.md.
def haproxy(program, title, settings, options)
  config = ->(listener) { format(HAPROXY, listener:, port: PORT, settings:, options:) }
  Peer.new(title, ->(_) { [program, "-q", "-db", "-f", "/dev/stdin"] }, config, [program, "-v"])
end

# All that are installed.
def peers
  go = Bench.compile_go("relay", "proxy")
  proxy, socat = %w[haproxy socat].map { |name| Bench.which(name) }
  all = {
    gem: Peer.new("io_splice", ruby("threads")),
    fibers: Peer.new("io_splice, fibers", ruby("fibers")),
    c: Peer.new("loop in C", ->(listener) { [LOOP, listener, PORT] }),
  }
  all[:go] = Peer.new("Go's io.Copy", ->(listener) { [go, listener, PORT] }, nil, %w[go version]) if go
  if proxy
    all[:haproxy] = haproxy(proxy, "HAProxy", "", "option splice-auto")
    all[:splicing] = haproxy(proxy, "HAProxy, splicing", "tune.pipesize #{MIB}",
                             "option splice-request\n  option splice-response")
  end
  if socat
    command = -> { [socat, "-t600", "-b262144", "TCP4-LISTEN:0,bind=127.0.0.1,fork", "TCP4:127.0.0.1:#{PORT}"] }
    all[:socat] = Peer.new("socat", command, nil, [socat, "-V"])
  end
  all[:ruby] = Peer.new("IO.copy_stream", ruby("copy_stream"))
  all
end

# Starts proxies and waits until each has relayed something.
def running(peers)
  peers.each_value do |peer|
    peer.run
    far_ends(peer, "stream", 1, 1, 1, 0, 1)
    peer.settled_cpu(ended: true)
  end
  yield
ensure
  peers.each_value(&:stop)
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
  loop do
    meanwhile&.call
    break if said.wait_readable(meanwhile && 0.05)
  end
  numbers = said.read.split.map(&:to_i)
  finish(pid, peer.title)
  numbers
ensure
  [go, said].each(&:close)
end

# What the proxy itself took of the processor, and what its far ends say.
def with_cpu(peer, *arguments)
  before = 0
  tries ||= 0
  numbers = far_ends(peer, *arguments, between: -> { before = peer.settled_cpu })
  [numbers, peer.settled_cpu(ended: true) - before]
rescue Wrong => e
  # HAProxy 2.6 with splicing ends a connection too early now and then. The gem must not.
  raise if peer.title.start_with?("io_splice") || (tries += 1) == 3

  warn "#{e.message}; once more"
  retry
end

# Megabytes a second, seconds of the processor for each gigabyte, and how many MiB the process had more, if asked for.
Transfer = Struct.new(:speed, :cpu, :memory)

def transfer(peer, count, there, back, check: 0)
  (took,), cpu = with_cpu(peer, "stream", count, there, back, 0, check)
  bytes = count * (there + back)
  Transfer.new(bytes * 1000.0 / took, cpu / 1e9 * GIB / bytes)
end

# The gem is to have at least this speed, and at most this CPU.
GOALS = [
  Goal.new(metric: :speed, beside: :go, least: 1.0), Goal.new(metric: :cpu, beside: :go, most: 0.6),
  Goal.new(metric: :speed, beside: :haproxy, least: 1.0), Goal.new(metric: :cpu, beside: :c, most: 1.2)
].freeze

def transfers(table, name, peers, count, there, back)
  peers.each_value { |peer| transfer(peer, count, there, back, check: 1) }
  turns = Turns.new
  peers.each { |key, peer| turns.peer(key) { transfer(peer, count, there, back) } }
  table.add(name, turns.run(ROUNDS), goals: GOALS)
end

# Processes that have not had more connections before.
def growth(table, peers, count)
  running(peers) do
    none = peers.transform_values(&:memory)
    peers.each_value { |peer| transfer(peer, count, BYTES / count, 0, check: 1) }
    turns = Turns.new
    peers.each do |key, peer|
      turns.peer(key) do
        peer.forget_peak
        transfer(peer, count, BYTES / count, 0).tap { |turn| turn.memory = (peer.peak - none[key]) / 1024.0 }
      end
    end
    table.add("#{count} connection#{"s" if count > 1}", turns.run(ROUNDS), x: count)
  end
end

# Microseconds there and back, the median and what 99 of 100 stay below, and those of the processor.
Trips = Struct.new(:median, :p99, :cpu)

def trips(peer)
  numbers, cpu = with_cpu(peer, "trips", TRIPS)
  Trips.new(*numbers.map { |number| number / 1000.0 }, cpu / 1000.0 / TRIPS)
end

def direct_trips
  Trips.new(*far_ends(Peer.new("no proxy"), "trips", TRIPS, port: PORT).map { |number| number / 1000.0 })
end

def requests(table, name, peers)
  turns = Turns.new
  peers.each { |key, peer| turns.peer(key) { trips(peer) } }
  turns.peer(:direct) { direct_trips }
  turns.warm_up
  # They are short, and depend on which processor wakes which.
  values = turns.run(2 * ROUNDS).values(Trips.members)
  peers.each_key do |key|
    medians = values.values_at(key, :direct).map { |one| one[:median] }
    values[key][:added] = medians.transpose.map { |own, direct| own - direct }
  end
  table.add(name, values, goals: [Goal.new(metric: :added, beside: :haproxy, most: 1.0)])
end

# What a process takes now: resident memory in MiB, threads, descriptors by kind, and when it has had how many
# nanoseconds of the processor.
Usage = Struct.new(:memory, :threads, :descriptors, :now, :cpu) do
  def self.of(peer)
    new(peer.memory / 1024.0, peer.threads, peer.descriptors, Bench.nanoseconds, peer.cpu)
  end

  # The most of each, as the numbers of a table.
  def self.most(all)
    cpu = (all.last.cpu - all.first.cpu) * 1000.0 / (all.last.now - all.first.now)
    { memory: [all.map(&:memory).max], threads: [all.map(&:threads).max],
      descriptors: [all.map { |usage| usage.descriptors.values.sum }.max], cpu: [cpu] }
  end

  def connections = descriptors.values_at("socket", "anon_inode:[eventpoll]").compact.sum
end

# With nothing to do for a while.
def idle(peer)
  peer.settled_cpu
  before = Usage.of(peer)
  sleep WATCH
  [before, Usage.of(peer)]
end

# As above, once all connections are gone.
def all_closed(peer, before)
  20.times do
    usages = idle(peer)
    return usages if usages.first.connections <= before.connections
  end
  abort "#{peer.title}: descriptors were left behind"
end

# What a peer takes at four times.
def many(peer)
  running({ peer: }) do
    none = idle(peer)
    waiting = []
    busy = []
    far_ends(peer, "stream", BUSY, EACH, EACH, IDLE, 1, between: -> { waiting.concat(idle(peer)) },
                                                        meanwhile: -> { busy << Usage.of(peer) })
    afterwards = all_closed(peer, none.last)
    { "none" => none, "#{IDLE + BUSY} idle" => waiting, "#{BUSY} of them busy" => waiting.last(1) + busy,
      "afterwards" => afterwards }.transform_values { |usages| Usage.most(usages) }
  end
end

wanted = options.fetch(:peer, "").downcase
CHOSEN = peers.select do |key, peer|
  key == :gem || (peer.title.downcase.include?(wanted) && (key != :fibers || options[:fibers]))
end
TITLES = CHOSEN.transform_values(&:title)
FEW = CHOSEN.slice(:gem, :fibers, :c, :go, :haproxy, :splicing) # those that many connections at once are for

programs = CHOSEN.values.select(&:version).uniq(&:version)
results = Results.new("relay", options, programs.to_h { |peer| [peer.title, Bench.version(*peer.version)] })

transferred = { speed: ["MB/s", "more", 0], cpu: ["CPU s per GiB", "less", 3] }
table = results.table("Transfers, #{options[:mib]} MiB", peers: TITLES, metrics: transferred, chart: { kind: "bars" })
if table
  running(CHOSEN) do
    transfers(table, "one way", CHOSEN, 1, BYTES, 0)
    transfers(table, "both ways", CHOSEN, 1, BYTES, BYTES)
    transfers(table, "one way, over 64 connections", CHOSEN, 64, BYTES / 64, 0)
  end
end

table = results.table("Requests and responses of 100 bytes",
                      peers: { **TITLES, direct: "no proxy" },
                      metrics: { median: ["us, the median", "less", 1], p99: ["us, 99 of 100", "less", 1],
                                 added: ["us added by it", "less", 1], cpu: ["us of CPU a trip", "less", 1] },
                      chart: { kind: "bars" })
running(CHOSEN) { requests(table, "#{TRIPS} round trips over one connection", CHOSEN) } if table

table = results.table("How it grows with connections, #{options[:mib]} MiB over all",
                      peers: TITLES.slice(*FEW.keys),
                      metrics: { **transferred, memory: ["MiB more memory", "less", 2] },
                      chart: { kind: "lines", x: "connections" },
                      about: ["memory: the process's own, at most, and more than with none; not the kernel's"])
[1, 4, 16, 64, 256].each { |count| growth(table, FEW, count) } if table

table = results.table("Many relays in one process",
                      peers: TITLES.slice(*FEW.keys),
                      metrics: { memory: ["MiB", "less", 1], threads: ["threads", "less", 0],
                                 descriptors: ["descriptors", "less", 0], cpu: ["CPU ms a second", "less", 1] },
                      chart: { kind: "bars" })
if table
  looks = FEW.transform_values { |peer| many(peer) }
  looks[:gem].each_key { |time| table.add(time, looks.transform_values { |times| times.fetch(time) }) }
end

results.finish
