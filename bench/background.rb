# frozen_string_literal: true

# What a proxy costs that hands its connections over to `IO::Splice.background`, beside one with a thread for each, one
# in C, Go's io.Copy and HAProxy that splices, as far as they are installed.
#
#   ruby bench/background.rb [--mib MIB] [--rounds N] [--part NAME] [--peer NAME] [--quick]
#
# As in relay.rb each proxy is a process of its own, and the clients and the server are one other process. Here are many
# connections, and those that come and go.

require_relative "harness"
require_relative "relay/proxies"

options = Bench.options({ mib: 256, trips: 3000, idle: 4000, short: 2000 },
                        { mib: 16, trips: 100, idle: 100, short: 50 }) do |parser|
  parser.on("--mib MIB", Integer, "how much goes over all connections (256); 1024 for numbers to be kept")
  parser.on("--peer NAME", "only peers with that in their name, beside the gem")
end
ROUNDS, TRIPS, SHORT = options.values_at(:rounds, :trips, :short)
BYTES = options[:mib] * MIB
BYTES.positive? or abort "--mib: at least 1"
options[:whole] = false if options[:peer]

# Each connection takes two descriptors in each process, and in that of C's loop six.
IDLE = options[:idle].clamp(0, DESCRIPTORS / 4)
COUNTS = [1, 64, 256, 1000].freeze
GOOD = 100
BAD = [9 * GOOD, IDLE].min

wanted = options.fetch(:peer, "").downcase
all = peers
all = { gem: all[:background], threads: all[:gem], **all.slice(:c, :go, :splicing) }
CHOSEN = all.select { |key, peer| key == :gem || peer.title.downcase.include?(wanted) }
CHOSEN[:threads]&.title = "io_splice, threads"
# The loop in C and Go's hold four descriptors of pipes for each connection.
MANY = CHOSEN.except(*(%i[c go] if 6 * IDLE > DESCRIPTORS))
TITLES = CHOSEN.transform_values(&:title)

# Beside both of the others, whichever is the better one. Of the CPU alone: the speed depends on which processor wakes
# which.
GOALS = %i[splicing go].map { |beside| Goal.new(metric: :cpu, beside:, most: 0.9) }.freeze

# Megabytes a second, and seconds of the processor for each gigabyte.
Transfer = Struct.new(:speed, :cpu)

def transfer(peer, count, check: 0)
  each = BYTES / count
  (took,), cpu = with_cpu(peer, "stream", count, each, 0, 0, check)
  Transfer.new(count * each * 1000.0 / took, cpu / 1e9 * GIB / (count * each))
end

# Runs what a peer does in a row, in turns.
def in_turns(peers, rounds = ROUNDS)
  turns = Turns.new
  peers.each { |key, peer| turns.peer(key) { yield peer } }
  turns.run(rounds)
end

# Microseconds there and back, the median and what 99 of 100 stay below, and those of the processor.
Trips = Struct.new(:median, :p99, :cpu)

def trips(peer, idle)
  numbers, cpu = with_cpu(peer, "trips", TRIPS, idle, open: true)
  Trips.new(*numbers.map { |number| number / 1000.0 }, cpu / 1000.0 / TRIPS)
end

# KiB of each connection that waits, and the threads of the process.
Idle = Struct.new(:memory, :threads)

def idle(peer)
  running({ peer: }) do
    before = peer.share
    with = nil
    between = lambda do
      peer.settled_cpu
      with = Idle.new((peer.share - before).fdiv(IDLE), peer.threads)
    end
    far_ends(peer, "stream", 1, 1, 1, IDLE, 1, between:)
    with
  end
end

# Connections a second, and the microseconds of the processor for each.
Short = Struct.new(:rate, :cpu)

def short(peer, bytes: KIB)
  (took,), cpu = with_cpu(peer, "short", SHORT, bytes)
  Short.new(SHORT * 1e9 / took, cpu / 1000.0 / SHORT)
end

programs = CHOSEN.values.select(&:version).uniq(&:version)
results = Results.new("background", options, programs.to_h { |peer| [peer.title, Bench.version(*peer.version)] })

metrics = { speed: ["MB/s", "more", 0], cpu: ["CPU s per GiB", "less", 3] }
title = "Transfers over many connections, #{options[:mib]} MiB over all"
table = results.table(title, peers: TITLES, metrics:)
if table
  running(CHOSEN) do
    COUNTS.each do |count|
      CHOSEN.each_value { |peer| transfer(peer, count, check: 1) }
      table.add("#{count} connection#{"s" if count > 1}", in_turns(CHOSEN) { |peer| transfer(peer, count) },
                goals: GOALS)
    end
  end
end

metrics = { median: ["us, the median", "less", 1], p99: ["us, 99 of 100", "less", 1],
            cpu: ["us of CPU a trip", "less", 1] }
table = results.table("Requests and responses of 100 bytes beside idle connections", peers: TITLES.slice(*MANY.keys),
                                                                                     metrics:)
if table
  running(MANY) do
    MANY.each_value { |peer| trips(peer, 0) }
    # They are short, and depend on which processor wakes which.
    [0, IDLE].each do |count|
      table.add("#{TRIPS} round trips beside #{count}", in_turns(MANY, 2 * ROUNDS) { |peer| trips(peer, count) },
                goals: [Goal.new(metric: :cpu, beside: :splicing, most: 1.0)])
    end
  end
end

about = ["memory: the process's own, its share of what it shares with others; not the kernel's"]
metrics = { memory: ["KiB each", "less", 2], threads: ["threads", "less", 0] }
table = results.table("Idle connections", peers: TITLES.slice(*MANY.keys), metrics:, about:)
table&.add("#{IDLE} connections", in_turns(MANY) { |peer| idle(peer) }, goals: [Goal.new(metric: :memory, most: 1.0)])

about = ["the last one passes nothing on: it is the part of the first that is Ruby's own"]
metrics = { rate: ["connections a s", "more", 0], cpu: ["us of CPU each", "less", 1] }
table = results.table("Short connections", peers: { **TITLES, ruby: "Ruby's accept, connect, close" }, metrics:, about:)
if table
  ruby = Peer.new("Ruby's own part", ruby("nothing"))
  ruby.run
  running(CHOSEN) do
    turns = Turns.new
    CHOSEN.each { |key, peer| turns.peer(key) { short(peer) } }
    turns.peer(:ruby) { short(ruby, bytes: 0) }
    turns.warm_up
    table.add("connect, #{KIB} bytes there and back, close", turns.run(ROUNDS))
  end
end

# Seconds that good connections take alone, and beside bad ones.
Beside = Struct.new(:alone, :beside, :times)

def beside(peer)
  alone, beside = [0, BAD].map do |bad|
    (took,), = with_cpu(peer, "beside", GOOD, BYTES / GOOD, 0, bad)
    took / 1e9
  end
  Beside.new(alone, beside, beside / alone)
end

# The proxies in C and Go end at the first reset.
ROBUST = CHOSEN.slice(:gem, :splicing)
about = ["of four bad ones, one client sends byte by byte, one urgent bytes, one never reads, and one has reset"]
metrics = { alone: ["s alone", "less", 3], beside: ["s beside them", "less", 3], times: ["times as long", "less", 2] }
table = results.table("Good connections beside bad ones", peers: TITLES.slice(*ROBUST.keys), metrics:, about:)
if table
  running(ROBUST) do
    table.add("#{GOOD} good ones beside #{BAD} bad ones", in_turns(ROBUST) { |peer| beside(peer) },
              goals: [Goal.new(metric: :times, most: 2.0)])
  end
end

results.finish
