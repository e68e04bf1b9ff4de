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

require_relative "harness"
require_relative "relay/proxies"

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
BUSY = options[:busy].clamp(1, [DESCRIPTORS / 20, 1].max)
IDLE = options[:idle].clamp(0, DESCRIPTORS / 10)

# Megabytes a second, seconds of the processor for each gigabyte, and how many MiB the process had more, if asked for.
Transfer = Struct.new(:speed, :cpu, :memory)

def transfer(peer, count, there, back, check: 0)
  (took,), cpu = with_cpu(peer, "stream", count, there, back, 0, check)
  bytes = count * (there + back)
  Transfer.new(bytes * 1000.0 / took, cpu / 1e9 * GIB / bytes)
end

# Of the CPU alone: the speed depends on which processor wakes which.
GOALS = [Goal.new(metric: :cpu, beside: :go, most: 0.6), Goal.new(metric: :cpu, beside: :c, most: 1.2)].freeze

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
    table.add("#{count} connection#{"s" if count > 1}", turns.run(ROUNDS))
  end
end

# Microseconds there and back, the median and what 99 of 100 stay below, and those of the processor.
Trips = Struct.new(:median, :p99, :cpu)

def trips(peer)
  numbers, cpu = with_cpu(peer, "trips", TRIPS, 0)
  Trips.new(*numbers.map { |number| number / 1000.0 }, cpu / 1000.0 / TRIPS)
end

def direct_trips
  Trips.new(*far_ends(Peer.new("no proxy"), "trips", TRIPS, 0, port: PORT).map { |number| number / 1000.0 })
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
  table.add(name, values, goals: [Goal.new(metric: :cpu, beside: :haproxy, most: 1.0)])
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
CHOSEN = peers.except(:background).select do |key, peer|
  key == :gem || (peer.title.downcase.include?(wanted) && (key != :fibers || options[:fibers]))
end
TITLES = CHOSEN.transform_values(&:title)
FEW = CHOSEN.slice(:gem, :fibers, :c, :go, :haproxy, :splicing) # those that many connections at once are for

programs = CHOSEN.values.select(&:version).uniq(&:version)
results = Results.new("relay", options, programs.to_h { |peer| [peer.title, Bench.version(*peer.version)] })

transferred = { speed: ["MB/s", "more", 0], cpu: ["CPU s per GiB", "less", 3] }
table = results.table("Transfers, #{options[:mib]} MiB", peers: TITLES, metrics: transferred)
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
                                 added: ["us added by it", "less", 1], cpu: ["us of CPU a trip", "less", 1] })
running(CHOSEN) { requests(table, "#{TRIPS} round trips over one connection", CHOSEN) } if table

table = results.table("How it grows with connections, #{options[:mib]} MiB over all",
                      peers: TITLES.slice(*FEW.keys),
                      metrics: { **transferred, memory: ["MiB more memory", "less", 2] },
                      about: ["memory: the process's own, at most, and more than with none; not the kernel's"])
[1, 4, 16, 64, 256].each { |count| growth(table, FEW, count) } if table

table = results.table("Many relays in one process",
                      peers: TITLES.slice(*FEW.keys),
                      metrics: { memory: ["MiB", "less", 1], threads: ["threads", "less", 0],
                                 descriptors: ["descriptors", "less", 0], cpu: ["CPU ms a second", "less", 1] })
if table
  looks = FEW.transform_values { |peer| many(peer) }
  looks[:gem].each_key { |time| table.add(time, looks.transform_values { |times| times.fetch(time) }) }
end

results.finish
