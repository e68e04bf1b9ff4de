# frozen_string_literal: true

# What a small copy costs, where it is the call itself that counts: `IO.copy_stream` with `io/splice/core_ext` beside
# Ruby's own, between any two kinds of end; `IO::Splice.copy_stream` with an object at one end; and copies in a fiber.
#
#   ruby bench/small.rb [--rounds N] [--batches N] [--part NAME] [--only KIND] [--quick]
#
# The time is the processor's, of this thread, during the copy alone: filling and emptying the ends does not count, and
# what the clock costs is taken off.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "fileutils"
require "socket"
require "stringio"
require "tempfile"
require "tmpdir"

IO.singleton_class.alias_method(:rubys_own, :copy_stream)
require "io/splice/core_ext"
require_relative "harness"
require_relative "harness/scheduler"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ rounds: 9, batches: 10 }, { batches: 1 }) do |parser|
  parser.on("--batches N", Integer, "how many batches a turn has, of which the quickest counts")
  parser.on("--only KIND", "only copies from or to this kind of end: Tempfile")
end
ROUNDS, BATCHES = options.values_at(:rounds, :batches)
BATCHES.positive? or abort "--batches: at least 1"
ONLY = options[:only]
options[:whole] = false if ONLY

SIZES = { "0 B" => 0, "100 B" => 100, "4 KiB" => 4 * KIB, "64 KiB" => 64 * KIB }.freeze
SOURCES = %w[File Tempfile path pipe UNIX TCP StringIO].freeze
TO_THE_END = ["pipe to the end", "UNIX to the end", "TCP to the end"].freeze # with no length
TARGETS = ["File", "Tempfile", "path", "/dev/null", "pipe", "UNIX", "TCP", "StringIO"].freeze
OBJECTS = ["StringIO", "plain object"].freeze

DIRECTORY = Dir.mktmpdir("io_splice")
at_exit { FileUtils.rm_rf(DIRECTORY) }

# An object that has what copy_stream calls, and no more.
class Source
  def initialize(bytes) = @bytes = bytes
  def rewind = @done = false
  def close = nil

  def read(_length, buffer = +"")
    return if @done

    @done = true
    buffer.replace(@bytes)
  end
end

# As {Source}.
class Target
  def rewind = nil
  def close = nil
  def write(bytes) = bytes.bytesize
end

# One end of copies of one size. `prepare` is called before each copy of a source, after each of a target.
End = Struct.new(:end, :prepare, :ends_itself, :others) do
  def self.source(kind, bytes)
    case kind
    when "path" then new(file("source", bytes), -> {}, true)
    when "pipe", "UNIX", "TCP"
      reader, writer = Bench.connection(kind.downcase)
      new(reader, -> { writer.write(bytes) }, false, [writer])
    when *TO_THE_END then ended(kind[/\w+/].downcase, bytes)
    else
      source = rewound(kind, bytes)
      new(source, -> { source.rewind }, true)
    end
  end

  # A new connection for each copy, since its end is the writer's.
  def self.ended(kind, bytes)
    source = new(nil, nil, true)
    source.prepare = lambda do
      source.close
      source.end, writer = Bench.connection(kind)
      writer.write(bytes)
      writer.close_write
      source.others = [writer]
    end
    source.tap { |end_| end_.prepare.call }
  end

  def self.rewound(kind, bytes)
    case kind
    when "File" then File.open(file("source", bytes))
    when "Tempfile" then Tempfile.new("source", DIRECTORY).tap { |file| file.write(bytes) && file.flush }
    when "StringIO" then StringIO.new(bytes)
    else Source.new(bytes)
    end
  end

  def self.target(kind, bytes)
    case kind
    when "path" then new(File.join(DIRECTORY, "target"), -> {})
    when "/dev/null" then File.open(kind, "w").then { |null| new(null, -> {}) }
    when "pipe", "UNIX", "TCP" then drained(*Bench.connection(kind.downcase), bytes.bytesize)
    else
      target = overwritten(kind)
      new(target, -> { target.rewind })
    end
  end

  def self.drained(reader, writer, size)
    buffer = String.new(capacity: size)
    drain = lambda do
      left = size
      left -= reader.readpartial(left, buffer).bytesize while left.positive?
    end
    new(writer, drain, false, [reader])
  end

  def self.overwritten(kind)
    case kind
    when "File" then written_at_once(File.open(File.join(DIRECTORY, "target"), "w"))
    when "Tempfile" then written_at_once(Tempfile.new("target", DIRECTORY))
    when "StringIO" then StringIO.new
    else Target.new
    end
  end

  # The gem has written all when it returns. Ruby's own leaves what comes from an object in the write buffer, and that
  # would be written outside of the time that counts.
  def self.written_at_once(file) = file.tap { file.sync = true }

  def self.file(name, bytes)
    File.join(DIRECTORY, name).tap { |path| File.binwrite(path, bytes) }
  end

  # A connection that is reset does not wait for late packets (TIME_WAIT), and there are only so many ports.
  def close
    [self.end, *others].compact.grep_v(String).each do |open|
      open.setsockopt(Socket::Option.linger(true, 0)) if open.is_a?(TCPSocket)
      open.close
    end
  end
end

# Copies of one size, from one kind of end to another.
class SmallCopy
  BATCH = 20

  COPIERS = { core_ext: ->(*arguments) { IO.copy_stream(*arguments) },
              gem: ->(*arguments) { IO::Splice.copy_stream(*arguments) },
              ruby: ->(*arguments) { IO.rubys_own(*arguments) } }.freeze

  def initialize(from, to, size)
    @size = size
    @source = End.source(from, "x" * size)
    @target = End.target(to, "x" * size)
    @length = size unless @source.ends_itself
  end

  # @return [Float] microseconds a copy
  def turn(copier, scheduled: false)
    batches = -> { Array.new(BATCHES) { batch(COPIERS.fetch(copier)) }.min / 1000 }
    scheduled ? in_a_fiber(batches) : batches.call
  end

  def close = [@source, @target].each(&:close)

  private

  def batch(copier)
    took = 0
    BATCH.times do
      @source.prepare.call
      arguments = [@source.end, @target.end, *@length]
      start = ThreadTime.now
      copied = copier.call(*arguments)
      took += ThreadTime.now - start
      copied == @size or abort "#{copied} of #{@size} bytes copied"
      @target.prepare.call
    end
    took.fdiv(BATCH) - ThreadTime::LOOK
  end

  def in_a_fiber(batches)
    took = nil
    Fiber.set_scheduler(Scheduler.new)
    Fiber.schedule { took = batches.call }
    Fiber.set_scheduler(nil)
    took
  end
end

# The rounds of copies between many kinds of end, by name.
class Many
  Copy = Struct.new(:name, :row) do
    def ratio = row.ratio(:ruby, :time).median
  end

  def initialize(copiers)
    @copiers = copiers
    @copies = []
  end

  # @return [Hash] by peer the microseconds of each round
  def add(from, to, size)
    rounds = Many.rounds(from, to, SIZES.fetch(size), @copiers)
    @copies << Copy.new("#{from} to #{to}, #{size}", Row.new(rounds:))
    rounds.transform_values { |metrics| metrics[:time] }
  end

  def self.rounds(from, to, size, copiers, scheduled: false)
    copy = SmallCopy.new(from, to, size)
    turns = Turns.new
    copiers.each { |peer, copier| turns.peer(peer) { copy.turn(copier, scheduled:) } }
    turns.warm_up
    turns.run(ROUNDS).values([:time])
  ensure
    copy&.close
  end

  # Adds the geometric mean of all, round by round, and the one that is the dearest beside Ruby's own.
  def sum_up(table, name, mean: nil, most: nil)
    return if @copies.empty?

    table.add("#{name}: geometric mean of #{@copies.size}", @copiers.keys.to_h { |peer| [peer, { time: means(peer) }] },
              goals: [goal(mean)].compact)
    worst = @copies.max_by(&:ratio)
    above = @copies.count { |copy| copy.ratio > most }
    table.add("#{name}: the worst, #{worst.name} (above #{most}: #{above})", worst.row.rounds, goals: [goal(most)])
  end

  private

  def means(peer)
    rounds = @copies.map { |copy| copy.row.rounds[peer][:time] }.transpose
    # A copy of nothing may cost less than the clock is off.
    rounds.map { |times| Math.exp(times.sum { |time| Math.log([time, 0.01].max) } / times.size) }
  end

  def goal(most) = most && Goal.new(metric: :time, beside: :ruby, most:)
end

# Adds a row for each size; of a pair of kinds that the block gives for a metric, that is the cost.
def fill(table, name, many)
  SIZES.each_key do |size|
    rounds = Hash.new { |hash, peer| hash[peer] = {} }
    table.metrics.each_key do |kind|
      pair = yield(kind.name) or next
      next unless ONLY.nil? || pair.include?(ONLY)

      many.add(*pair, size).each { |peer, times| rounds[peer][kind] = times }
    end
    table.add("#{name}, #{size}", rounds) unless rounds.empty?
  end
end

def metrics(word) = TARGETS.to_h { |kind| [kind.to_sym, ["us #{word} #{kind}", "less", 2]] }

results = Results.new("small", options)
ruby = { ruby: "Ruby's own" }

by_core_ext = Many.new(gem: :core_ext, ruby: :ruby)
copies = results.table("Small copies with core_ext", peers: { gem: "IO.copy_stream with core_ext", **ruby },
                                                     metrics: metrics("to"), across: true)
(SOURCES + TO_THE_END).each { |from| fill(copies, from, by_core_ext) { |to| [from, to] } } if copies

of_objects = Many.new(gem: :gem, ruby: :ruby)
objects = results.table("Small copies of objects", peers: { gem: "IO::Splice.copy_stream", **ruby },
                                                   metrics: metrics("with"), across: true)
if objects
  OBJECTS.each do |object|
    fill(objects, "from a #{object}", of_objects) { |to| [object, to] }
    fill(objects, "to a #{object}", of_objects) { |from| [from, object] if SOURCES.include?(from) }
  end
end

fibers = results.table("Small copies in a fiber", peers: { gem: "IO::Splice.copy_stream", **ruby },
                                                  metrics: { time: ["us a copy", "less", 2] })
if fibers
  %w[File UNIX].product(SIZES.keys.drop(1)) do |from, size|
    next unless ONLY.nil? || [from, "UNIX"].include?(ONLY)

    rounds = Many.rounds(from, "UNIX", SIZES.fetch(size), { gem: :gem, ruby: :ruby }, scheduled: true)
    fibers.add("#{from} to UNIX, #{size}", rounds, goals: [Goal.new(metric: :time, beside: :ruby, most: 1.0)])
  end
end

summary = results.table("Small copies in short", peers: { gem: "io_splice", **ruby },
                                                 metrics: { time: ["us a copy", "less", 2] })
if summary
  by_core_ext.sum_up(summary, "with core_ext", mean: 0.9, most: 1.05)
  of_objects.sum_up(summary, "objects", most: 1.1)
end

results.finish
