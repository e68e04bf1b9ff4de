# frozen_string_literal: true

# What one call costs: in the gem, in a textbook C extension that does the same, and bare, in C.
#
#   ruby bench/call.rb [--rounds N] [--batches N] [--part NAME] [--quick]
#
# `trysplice` and `trytee` find an empty pipe, which the kernel answers at once; `splice` moves one byte.
# Filling and emptying the pipes is outside of the time that counts. All of that alone, and beside a second thread that
# sleeps: then the gem lets go of the GVL. Then calls that move 64 KiB, from a file to /dev/null through two pipes, and
# between a pipe and a socket; and what it costs to load the gem.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "socket"
require "tempfile"
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

# `most` is how many times as much as the textbook extension a call may cost in a thread that is alone. Each `splice`
# asks by two fcntl whether it could block.
Work = Struct.new(:call, :title, :most, :gem, :textbook)
# The loops are written out, so that there is nothing in them but the call.
WORK = [
  Work.new(
    "trysplice", "trysplice on an empty pipe", 1.8,
    ->(input, output, n) { IO.trysplice(input, nil, output, nil, 1) while (n -= 1) >= 0 },
    ->(input, output, n) { Textbook.trysplice(input, nil, output, nil, 1) while (n -= 1) >= 0 }
  ),
  Work.new(
    "splice", "splice of one byte", 0.9,
    ->(input, output, n) { IO.splice(input, nil, output, nil, 1) while (n -= 1) >= 0 },
    ->(input, output, n) { Textbook.splice(input, nil, output, nil, 1) while (n -= 1) >= 0 }
  ),
  Work.new(
    "trytee", "trytee on an empty pipe", 0.9,
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

# Calls that move 64 KiB, as many as it takes. Their time is the processor's, of this thread; filling and emptying the
# ends does not count, and what the clock costs is taken off.
class Moves
  SIZE = 64 << 10
  BYTES = "x" * SIZE
  TIMES = 200

  # Pairs of ends, with what is done before the calls and after them.
  Case = Struct.new(:name, :pairs, :fill, :empty)

  attr_reader :cases

  def initialize
    first, second = Array.new(2) { IO.pipe }
    there, here = UNIXSocket.pair
    @drained = String.new(capacity: SIZE)
    @cases = [
      Case.new("file to pipe, pipe to pipe, pipe to /dev/null",
               [[file, first[1]], [first[0], second[1]], [second[0], File.open(File::NULL, "w")]],
               -> { file.rewind }, -> {}),
      Case.new("pipe to UNIX socket", [[first[0], there]], -> { first[1].write(BYTES) }, -> { drain(here) }),
      Case.new("UNIX socket to pipe", [[there, first[1]]], -> { here.write(BYTES) }, -> { drain(first[0]) })
    ]
  end

  def turn(one, splice)
    took = 0
    TIMES.times do
      one.fill.call
      start = Bench::ThreadTime.now
      one.pairs.each { |input, output| move(splice, input, output) }
      took += Bench::ThreadTime.now - start
      one.empty.call
    end
    Turn.new(took.fdiv(TIMES) - Bench::ThreadTime::LOOK)
  end

  private

  def file
    @file ||= Tempfile.create("io_splice").tap do |file|
      File.unlink(file.path)
      file.write(BYTES)
      file.flush
    end
  end

  def move(splice, input, output)
    left = SIZE
    left -= splice.call(input, output, left) while left.positive?
  end

  def drain(io)
    left = SIZE
    left -= io.readpartial(left, @drained).bytesize while left.positive?
  end
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
                      metrics: { time: ["ns", "less", 0], objects: ["objects", "less", 3] })
beside = results.table("What a call costs beside an idle thread",
                       peers: { gem: "io_splice", textbook: "C extension" },
                       metrics: { time: ["ns", "less", 0], objects: ["objects", "less", 3] })
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
              goals: [Bench::Goal.new(metric: :time, beside: :textbook, most: work.most),
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

moving = results.table("What calls cost that move 64 KiB", peers: { gem: "io_splice", textbook: "C extension" },
                                                           metrics: { time: ["ns", "less", 0] })
if moving
  moves = Moves.new
  splices = { gem: ->(input, output, len) { IO.splice(input, nil, output, nil, len) },
              textbook: ->(input, output, len) { Textbook.splice(input, nil, output, nil, len) } }
  moves.cases.each do |one|
    turns = Bench::Turns.new
    splices.each { |peer, splice| turns.peer(peer) { moves.turn(one, splice) } }
    turns.warm_up
    moving.add(one.name, turns.run(ROUNDS), goals: [Bench::Goal.new(metric: :time, beside: :textbook, most: 1.15)])
  end
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
