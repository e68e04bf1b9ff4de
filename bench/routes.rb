# frozen_string_literal: true

# What a copy costs, from any kind of end to any other: by this gem, by Ruby's own `IO.copy_stream`, and by the
# best plain loop in C; on some routes also by Python, Go, cp, pv and socat, as far as they are installed.
#
#   ruby bench/routes.rb [--size MIB] [--rounds N] [--part NAME] [--only ROUTE] [--quick]
#
# Then small copies, where what counts is a call's own cost, and many copies at once.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require_relative "harness"
require_relative "harness/copies"
require_relative "harness/scheduler"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ size: 256, batches: 100 }, { size: 8, batches: 5 }) do |parser|
  parser.on("--size MIB", Integer, "how much is copied")
  parser.on("--only ROUTE", "one route, or a piece of its name: shm-pipe, tcp-tcp")
end
SIZE, ROUNDS, BATCHES = options.values_at(:size, :rounds, :batches)
SIZE.positive? or abort "--size: at least 1"
options[:whole] = false if options[:only]
COPIES = Copies.new(SIZE * MIB)

# Copies that the kernel is done with at once. As many as a socket's buffer holds are a batch; filling and
# emptying the sockets does not count.
module Small
  SIZES = { 100 => 32, 4096 => 16, 65_536 => 1 }.freeze
  SOURCES = %w[file socket].freeze

  # Nanoseconds a copy.
  def self.turn(source, size, copier, scheduled)
    per_copy = 0
    work = -> { per_copy = batches(source, size, Copies::IN_RUBY[copier]) }
    COPIES.in_a_process do
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
    input, feed = source == "file" ? File.open(COPIES.path("shm", "source"), "rb") : UNIXSocket.pair
    output, drain = UNIXSocket.pair
    arguments = [input, output, size, (0 if source == "file")].compact
    drained = String.new(capacity: bytes.bytesize)
    times = Array.new(BATCHES) do
      feed&.write(bytes)
      start = Bench.nanoseconds
      count.times { copier.call(*arguments) }
      (Bench.nanoseconds - start).tap { drain.readpartial(bytes.bytesize, drained) until drain.nread.zero? }
    end
    Figures.new(times).median / count # a fork copies pages as it first writes to them
  end
end

SOCKETS = %w[tcp unix].freeze
# Where more is asked for than not to be slower.
SPLICED = [%w[pipe pipe], *["pipe", *SOCKETS].product(SOCKETS)].freeze

def goals(from, to)
  spliced = SPLICED.include?([from, to])
  [
    Goal.new(metric: :speed, beside: :ruby, least: spliced ? 1.4 : 1.0),
    (Goal.new(metric: :cpu, beside: :ruby, most: 0.333) if spliced),
    Goal.new(metric: :speed, beside: :c, least: 0.95),
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
routes = results.table(title, peers: PEERS, metrics: METRICS, chart: { kind: "bars" }, about: [systems.join(", ")])
ROUTES.each { |from, to| route(routes, from, to, SIZE * MIB) } if routes

others = results.table("Other programs, #{SIZE} MiB", peers: Copies::PEERS.slice(:gem, :python, :go, :cp, :pv, :socat),
                                                      metrics: METRICS, chart: { kind: "bars" })
WITH_OTHERS.each { |from, to| route(others, from, to, SIZE * MIB) } if others

each = [SIZE / 64, 1].max
threads = results.table("100 threads, a copy of #{each} MiB in each", peers: PEERS, metrics: METRICS)
SOCKETS.each { |kind| route(threads, kind, kind, each * MIB, 100) } if threads

objects = results.table("Objects, #{SIZE} MiB", peers: PEERS.slice(:gem, :ruby), metrics: METRICS)
if objects
  [%w[StringIO pipe], %w[StringIO tcp], ["shm", "new StringIO"], ["tcp", "new StringIO"], %w[shm gzip], %w[tcp gzip]]
    .each { |from, to| route(objects, from, to, SIZE * MIB) }
end

small = results.table("Small copies", peers: Copies::PEERS.slice(:gem, :ruby),
                                      metrics: { time: ["ns a copy", "less", 0] })
if small
  [false, true].product(Small::SOURCES, Small::SIZES.keys) do |scheduled, source, size|
    turns = Turns.new
    small.peers.each_key { |copier| turns.peer(copier) { Small.turn(source, size, copier, scheduled) } }
    small.add("#{source} to socket, #{size} B#{", in a fiber" if scheduled}", turns.run(ROUNDS),
              goals: [Goal.new(metric: :time, beside: :ruby, most: 1.0)])
  end
end

results.finish
