# frozen_string_literal: true

# What one call costs: in the gem, in a textbook C extension that does the same, and bare, in C.
#
#   ruby bench/call.rb [--rounds N] [--batches N] [--quick]
#
# `trysplice` and `trytee` find an empty pipe, which the kernel answers at once; `splice` moves one byte.
# Filling and emptying the pipes is outside of the time that counts.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "optparse"
require "rbconfig"
require "shellwords"
require_relative "harness"

PIPE = 1 << 20
BATCH = 200 # calls: each byte takes one of the 256 slots of such a pipe

options = { rounds: 31, batches: 100 }
OptionParser.new do |parser|
  parser.on("--rounds N", Integer, "how many turns each has (#{options[:rounds]})")
  parser.on("--batches N", Integer, "how many times #{BATCH} calls a turn is (#{options[:batches]})")
  parser.on("--quick", "only see that it works") { options.update(rounds: 3, batches: 10) }
  parser.parse!(into: options)
rescue OptionParser::ParseError => e
  abort e.message
end
ROUNDS, BATCHES = options.values_at(:rounds, :batches)
CALLS = BATCH * BATCHES
ROUNDS.positive? or abort "--rounds: at least 1"
CALLS.between?(BATCH, PIPE) or abort "--batches: 1 to #{PIPE / BATCH}, so that the bytes fit into a pipe"

sources = File.expand_path("call", __dir__)
built = Bench.build_directory("call")
BARE = File.join(built, "bare")
Bench.sh(RbConfig.ruby, File.join(sources, "extconf.rb"), chdir: built)
Bench.sh("make", chdir: built)
Bench.sh(*RbConfig::CONFIG["CC"].shellsplit, "-O2", "-o", BARE, File.join(sources, "bare.c"), chdir: built)
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

pipes = Pipes.new
objects = Hash.new(0)

# One turn, in nanoseconds a call.
turn = lambda do |name, calls, (input, output), moves|
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
  objects[name] += allocated
  nanoseconds.fdiv(CALLS)
end

turns = Bench::Turns.new
WORK.each do |work|
  pipes.forms.each do |form, ends|
    %i[gem textbook].each do |peer|
      name = [work.call, form, peer]
      turns.peer(name) { turn.call(name, work[peer], ends, work.call == "splice") }
    end
  end
  turns.peer([work.call, :bare]) { Bench.sh(BARE, work.call, CALLS.to_s, BATCH.to_s, chdir: built).to_f / CALLS }
end
turns.peer(:empty_loop) { turn.call(:empty_loop, EMPTY_LOOP, pipes.forms["IO"], false) }
turns.warm_up
objects.clear # the first call of each fills Ruby's inline caches, which are objects
turns.run(ROUNDS)

per_call = ->(name) { format("%.4g", objects.fetch(name).fdiv(ROUNDS * CALLS)) }
line = ->(*cells) { puts cells.zip([28, 22, 22, 20, 0]).map { |cell, width| cell.to_s.ljust(width) }.join.rstrip }

puts Bench.machine, "#{ROUNDS} rounds of #{CALLS} calls, in turns; median (lowest..highest)", ""
line.call("ns a call", "gem", "C extension", "gem / C, by pairs", "objects a call, gem and C")
WORK.each do |work|
  puts work.title
  pipes.forms.each_key do |form|
    pair = %i[gem textbook].map { |peer| [work.call, form, peer] }
    line.call("  #{form}", *pair.map { |name| turns.figures(name) }, turns.ratio(*pair).to_s(2),
              pair.map(&per_call).join(" and "))
  end
  line.call("  bare system call, in C", "", turns.figures([work.call, :bare]))
end
line.call("empty loop, not subtracted", turns.figures(:empty_loop))
