# frozen_string_literal: true

# What a copy costs, from any kind of end to any other: by this gem, by Ruby's own `IO.copy_stream`, and by the
# best plain loop in C; on some routes also by Python, Go, cp, pv and socat, as far as they are installed.
#
#   ruby bench/routes.rb [--size MIB] [--rounds N] [--part NAME] [--only ROUTE] [--quick]
#
# Then many copies at once, and objects.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require_relative "harness"
require_relative "harness/copies"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ size: 256 }, { size: 8 }) do |parser|
  parser.on("--size MIB", Integer, "how much is copied")
  parser.on("--only ROUTE", "one route, or a piece of its name: shm-pipe, tcp-tcp")
end
SIZE, ROUNDS = options.values_at(:size, :rounds)
SIZE.positive? or abort "--size: at least 1"
options[:whole] = false if options[:only]
COPIES = Copies.new(SIZE * MIB)

SOCKETS = %w[tcp unix].freeze
# Where more is asked for than not to be dearer.
SPLICED = [%w[pipe pipe], *["pipe", *SOCKETS].product(SOCKETS)].freeze

# Of the CPU alone: the speed depends on which processor wakes which. From a file Ruby makes the same system calls.
def goals(from, to)
  [
    (Goal.new(metric: :cpu, beside: :ruby, most: SPLICED.include?([from, to]) ? 0.333 : 1.0) unless COPIES.file?(from)),
    Goal.new(metric: :cpu, beside: :c, most: 1.15)
  ].compact
end

def route(table, from, to, bytes, count = 1)
  turns = Turns.new
  table.peers.each_key do |peer|
    turns.peer(peer) { COPIES.turn(from, to, peer, bytes, count:) } if COPIES.can?(peer, from, to)
  end
  turns.warm_up
  table.add("#{from} to #{to}", turns.run(ROUNDS), goals: goals(from, to))
end

PEERS = Copies::PEERS.slice(:gem, :ruby, :c)
METRICS = { speed: ["MB/s", "more", 0], cpu: ["CPU s per GiB", "less", 3] }.freeze
KINDS = [*COPIES.files.keys, "pipe", *SOCKETS].freeze
ROUTES = KINDS.product(KINDS).reject { |pair| pair.uniq.size == 2 && (pair - COPIES.files.keys).empty? }
              .select { |pair| pair.join("-").include?(options.fetch(:only, "")) }
WITH_OTHERS = [%w[shm shm], %w[shm tcp], %w[shm pipe], %w[pipe pipe], %w[pipe shm], %w[pipe tcp], %w[tcp tcp],
               %w[tcp shm], %w[tcp pipe]] & ROUTES

results = Results.new("routes", options, COPIES.versions)
systems = COPIES.files.map do |name, directory|
  "#{name} is a file on #{Bench.sh("stat", "-f", "-c", "%T", directory, chdir: directory).chomp}"
end

title = "Every route, #{SIZE} MiB"
routes = results.table(title, peers: PEERS, metrics: METRICS, about: [systems.join(", ")])
ROUTES.each { |from, to| route(routes, from, to, SIZE * MIB) } if routes

programs = Copies::PEERS.slice(:gem, :python, :go, :cp, :pv, :socat)
others = results.table("Other programs, #{SIZE} MiB", peers: programs, metrics: METRICS)
WITH_OTHERS.each { |from, to| route(others, from, to, SIZE * MIB) } if others

each = [SIZE / 64, 1].max
threads = results.table("100 threads, a copy of #{each} MiB in each", peers: PEERS, metrics: METRICS)
SOCKETS.each { |kind| route(threads, kind, kind, each * MIB, 100) } if threads

objects = results.table("Objects, #{SIZE} MiB", peers: PEERS.slice(:gem, :ruby), metrics: METRICS)
if objects
  [%w[StringIO pipe], %w[StringIO tcp], ["shm", "new StringIO"], ["tcp", "new StringIO"], %w[shm gzip], %w[tcp gzip]]
    .each { |from, to| route(objects, from, to, SIZE * MIB) }
end

results.finish
