# frozen_string_literal: true

# What one call costs: in the gem, in a textbook C extension that does the same, and bare, in C.
#
#   ruby bench/call.rb [--rounds N] [--batches N] [--part NAME] [--quick]
#
# `trysplice` and `trytee` find an empty pipe, which the kernel answers at once; `splice` moves one byte.
# Filling and emptying the pipes is outside of the time that counts. All of that alone, and beside a second thread that
# sleeps: then the gem lets go of the GVL. Then what it costs to load the gem.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require_relative "harness"

PIPE = 1 << 20
BATCH = 200 # calls: each byte takes one of the 256 slots of such a pipe

options = Bench.options({ rounds: 31, batches: 50 }, { rounds: 3, batches: 5 }) do |parser|
  parser.on("--batches N", Integer, "how many times #{BATCH} calls a turn is")
end
ROUNDS, BATCHES = options.values_at(:rounds, :batches)
CALLS = BATCH * BATCHES
CALLS.between?(BATCH, PIPE) or abort "--batches: 1 to #{PIPE / BATCH}, so that the bytes fit into a pipe"

sources = File.expand_path("call", __dir__)
built = Bench.build_directory("call")
Bench.sh(RbConfig.ruby, File.join(sources, "extconf.rb"), chdir: built)
Bench.sh("make", chdir: built)
BARE = Bench.compile("call", "bare")
require File.join(built, "textbook")

Work = Struct.new(:call, :title, :gem, :textbook)
# The loops are written out, so that there is nothing in them but the call.
WORK = [
  Work.new(
    "trysplice", "trysplice on an empty pipe",
    ->(input, output, n) { IO.trysplice(input, nil, output, nil, 1) while (n -= 1) >= 0 },
    ->(input, output, n) { Textbook.trysplice(input, nil, output, nil, 1) while (n -= 1) >= 0 }
  ),
  Work.new(
    "splice", "splice of one byte",
    ->(input, output, n) { IO.splice(input, nil, output, nil, 1) while (n -= 1) >= 0 },
    ->(input, output, n) { Textbook.splice(input, nil, output, nil, 1) while (n -= 1) >= 0 }
  ),
  Work.new(
    "trytee", "trytee on an empty pipe",
    ->(input, output, n) { IO.trytee(input, output, 1) while (n -= 1) >= 0 },
    ->(input, output, n) { Textbook.trytee(input, output, 1) while (n -= 1) >= 0 }
  )
].freeze
EMPTY_LOOP = ->(_input, _output, n) { nil while (n -= 1) >= 0 }

# A pipe to take from and a pipe to put into, both empty between two turns.
class Pipes
  BYTES = "x" * CALLS

  def initialize
    @input, @feed = IO.pipe
    @drain, @output = IO.pipe
    [@feed, @output].each { |io| io.pipe_size = PIPE }
    @drained = String.new(capacity: BATCH)
  end

  # The two ends that a call gets, in both forms.
  def forms
    { "IO" => [@input, @output], "Integer" => [@input.fileno, @output.fileno] }
  end

  def fill
    @feed.write_nonblock(BYTES) == CALLS or abort "the bytes do not fit into the pipe"
  end

  def drain
    @drain.read_nonblock(BATCH, @drained).bytesize == BATCH or abort "a call moved no byte"
  end
end

Turn = Struct.new(:time, :objects) # for a call: nanoseconds, and the objects that it makes

def turn(pipes, calls, (input, output), moves)
  nanoseconds = allocated = 0
  pipes.fill if moves
  BATCHES.times do
    before = GC.stat(:total_allocated_objects)
    start = Bench.nanoseconds
    calls.call(input, output, BATCH)
    nanoseconds += Bench.nanoseconds - start
    allocated += GC.stat(:total_allocated_objects) - before
    pipes.drain if moves
  end
  Turn.new(nanoseconds.fdiv(CALLS), allocated.fdiv(CALLS))
end

# Of another Ruby that loads a library, and of one that loads none.
class Loading
  TIMES = 5

  def self.milliseconds(*arguments)
    start = Bench.nanoseconds
    TIMES.times { Bench.sh(RbConfig.ruby, *arguments, chdir: "/") }
    (Bench.nanoseconds - start).fdiv(1_000_000 * TIMES)
  end

  def self.turn
    library = ["-I", File.expand_path("../lib", __dir__), "-rio/splice"]
    with, without = [library, []].map { |arguments| milliseconds("--disable-gems", *arguments, "-e0") }
    with - without
  end
end

results = Bench::Results.new("call", options)

calls = results.table("What a call costs",
                      peers: { gem: "io_splice", textbook: "C extension", bare: "bare call in C", loop: "empty loop" },
                      metrics: { time: ["ns", "less", 0], objects: ["objects", "less", 3] }, chart: { kind: "bars" })
beside = results.table("What a call costs beside an idle thread",
                       peers: { gem: "io_splice", textbook: "C extension" },
                       metrics: { time: ["ns", "less", 0], objects: ["objects", "less", 3] }, chart: { kind: "bars" })
if calls
  pipes = Pipes.new
  WORK.product(pipes.forms.to_a) do |work, (form, ends)|
    turns = Bench::Turns.new
    %i[gem textbook].each { |peer| turns.peer(peer) { turn(pipes, work[peer], ends, work.call == "splice") } }
    turns.peer(:bare) do
      Turn.new(Bench.sh(BARE, work.call, CALLS.to_s, BATCH.to_s, chdir: built).to_f / CALLS)
    end
    turns.peer(:loop) { turn(pipes, EMPTY_LOOP, ends, false) }
    turns.warm_up # the first call of each fills Ruby's inline caches, which are objects
    turns.run(ROUNDS)
    calls.add("#{work.title}, #{form}", turns,
              goals: [Bench::Goal.new(metric: :time, beside: :textbook, most: 0.9),
                      Bench::Goal.new(metric: :objects, most: 0.0)])
  end
end

if beside
  pipes = Pipes.new
  idle = Thread.new { sleep }
  Thread.pass until idle.stop?
  WORK.product(pipes.forms.to_a) do |work, (form, ends)|
    turns = Bench::Turns.new
    %i[gem textbook].each { |peer| turns.peer(peer) { turn(pipes, work[peer], ends, work.call == "splice") } }
    turns.warm_up
    turns.run(ROUNDS)
    beside.add("#{work.title}, #{form}", turns,
               goals: [Bench::Goal.new(metric: :time, beside: :textbook, most: 2.2),
                       Bench::Goal.new(metric: :objects, most: 0.0)])
  end
  idle.kill.join
end

loading = results.table("Loading", peers: { gem: "io_splice" }, metrics: { time: ["ms more than nothing", "less", 2] })
if loading
  turns = Bench::Turns.new
  turns.peer(:gem) { Loading.turn }
  turns.warm_up
  loading.add("require \"io/splice\"", turns.run([ROUNDS / 3, 1].max),
              goals: [Bench::Goal.new(metric: :time, most: 5.0)])
end

results.finish
