# frozen_string_literal: true

# How the cost of a copy grows with its size, from 100 bytes to 4 GiB: by this gem, by Ruby's own `IO.copy_stream`, by
# the best loop in C, and by plain reading and writing in C. Below some size the last is the best; the gem should be
# near the better one on either side.
#
#   ruby bench/growth.rb [--most MIB] [--rounds N] [--part NAME] [--quick]

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require_relative "harness"
require_relative "harness/copies"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ most: 4096, together: 64, calls: 1000 }, { most: 1, together: 1, calls: 20 }) do |parser|
  parser.on("--most MIB", Integer, "the largest size")
end
ROUNDS, TOGETHER, CALLS = options.values_at(:rounds, :together, :calls)
# A source and a target are in memory.
available = File.read("/proc/meminfo")[/^MemAvailable:\s+(\d+)/, 1].to_i * KIB
MOST = [options[:most] * MIB, available / 3].min
SIZES = [100, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 256 * MIB, 4 * GIB]
        .select { |size| size <= MOST }
LARGE = 256 * MIB # from there on two rounds are enough

def title(size)
  unit, name = { GIB => "GiB", MIB => "MiB", KIB => "KiB" }.find { |unit,| size >= unit }
  unit ? "#{size / unit} #{name}" : "#{size} B"
end

# What is small costs what a call from Ruby costs. How long a large one takes depends on which processor wakes which.
def goals(size) = size < 64 * KIB ? [Goal.new(metric: :time, beside: :ruby, most: 1.1)] : []

def measure(table, copies, from, to, size)
  times = (TOGETHER * MIB / size).clamp(1, CALLS)
  # A single copy would go on to the end of its source.
  times = 2 if times == 1 && size < LARGE
  turns = Turns.new
  table.peers.each_key { |peer| turns.peer(peer) { copies.turn(from, to, peer, size, times:) } }
  copies.fill(from, size) if copies.file?(from) && times == 1
  turns.warm_up # memory that was never touched is slow
  turns.run(size < LARGE ? ROUNDS : [ROUNDS, 2].min)
  table.add(title(size), turns, goals: goals(size))
end

results = Results.new("growth", options)
copies = Copies.new(SIZES.select { |size| size < LARGE }.max)
[%w[shm tcp], %w[shm shm], %w[tcp tcp], %w[tcp shm]].each do |from, to|
  table = results.table("How a copy from #{from} to #{to} grows", peers: Copies::PEERS.slice(:gem, :ruby, :c, :memory),
                                                                  metrics: { time: ["us a copy", "less", 1],
                                                                             memory: ["KiB more memory", "less", 0] })
  SIZES.each { |size| measure(table, copies, from, to, size) } if table
end
results.finish
