# frozen_string_literal: true

# What `IO.vmsplice` of each kind of data costs, beside `IO#write` of the same bytes, and beside the plain system
# call in C with the same pages again and again.
#
#   ruby bench/vmsplice.rb [--size SIZE] [--rounds N] [--part NAME] [--blocking] [--quick]
#
# The reader is a process of its own, which reads into memory or splices on to /dev/null. The time is that from
# the first piece to the end of the input at the reader, the CPU that of the writing process alone. With an
# `IO::Buffer` that is given away, making and filling it is part of the work, as there is a new one for each
# piece; beside it is `IO#write` of a string that is filled anew each time, in place.
#
# Then what it costs to make an `IO::Splice::Pages`, beside a `String#dup` that really copies: until the garbage
# collector is done with all of them.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/nonblock"
require "io/splice"
require_relative "harness"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

Warning[:experimental] = false # what Ruby 3.1 says of IO::Buffer

SIZES = { "4K" => 4 * KIB, "64K" => 64 * KIB, "1M" => MIB, "16M" => 16 * MIB }.freeze
MADE = { "100B" => 100, **SIZES }.freeze
PIPES = { "64K" => 64 * KIB, "1M" => MIB }.freeze
READERS = %w[reads splices].freeze

options = Bench.options({ rounds: 7, turn: 35, first: 32 * MIB }, { turn: 5, first: MIB }) do |parser|
  parser.on("--size SIZE", MADE.keys, "only pieces of this size: #{MADE.keys.join(", ")} (100B: only made)")
  parser.on("--blocking", "a pipe in blocking mode, instead of one as Ruby makes it")
end
ROUNDS, BLOCKING, FIRST = options.values_at(:rounds, :blocking, :first)
TURN = options[:turn] * 1_000_000 # about so many nanoseconds; the first, which does not count, has so many bytes
options[:whole] = false if options[:size] || BLOCKING
SOME = options[:size] ? [options[:size]] : MADE.keys

READER, WRITER = %w[reader writer].map { |name| Bench.compile("vmsplice", name) }

# A way to put pieces of so many bytes into a pipe; in C if it has no block.
Way = Struct.new(:bytes, :put)

# The loops are written out, so that there is nothing in them but the work.
def ways(size)
  string = "x" * size
  filled = string.dup
  pages = IO::Splice::Pages.new(string)
  header = "HTTP/1.1 200 OK\r\nContent-Length: #{size}\r\n\r\n"
  longer = header.bytesize + size
  {
    write: Way.new(size, ->(pipe, n) { pipe.write(string) while (n -= 1) >= 0 }),
    string: Way.new(size, ->(pipe, n) { IO.vmsplice(pipe, string) while (n -= 1) >= 0 }),
    pages: Way.new(size, ->(pipe, n) { IO.vmsplice(pipe, pages) while (n -= 1) >= 0 }),
    c: Way.new(size, nil),
    write_both: Way.new(longer, ->(pipe, n) { pipe.write(header, string) while (n -= 1) >= 0 }),
    both: Way.new(longer, ->(pipe, n) { IO.vmsplice(pipe, [header, pages]) while (n -= 1) >= 0 }),
    write_filled: Way.new(size, lambda do |pipe, n|
      while (n -= 1) >= 0
        filled[0, size] = string
        pipe.write(filled)
      end
    end),
    gift: Way.new(size, lambda do |pipe, n|
      while (n -= 1) >= 0
        buffer = IO::Buffer.new(size, IO::Buffer::MAPPED)
        buffer.set_string(string)
        IO.vmsplice(pipe, buffer, IO::Splice::F_GIFT)
      end
    end),
  }
end

# Which way each peer goes in a row. C does without the copy that a String's snapshot is, and is not safe.
ROWS = {
  "String" => { gem: :string, write: :write, c: :c },
  "Pages" => { gem: :pages, write: :write, c: :c },
  "[header, Pages]" => { gem: :both, write: :write_both },
  "fill, IO::Buffer, F_GIFT" => { gem: :gift, write: :write_filled },
}.freeze

# Gigabytes a second, and what the writing process took of the processor, in seconds a gigabyte.
Turn = Struct.new(:speed, :cpu)

# Runs a program of this bench for as long as the block takes, and ends the bench if that fails.
def program(name, *arguments, **passing, &)
  IO.popen([name, *arguments], **passing, &).tap { Process.last_status.success? or abort "#{name} failed" }
end

def turn(way, count, capacity, reader)
  input, pipe = IO.pipe
  pipe.pipe_size = capacity
  pipe.nonblock = !BLOCKING
  start = cpu = nil
  bytes, ended = program(READER, reader, in: input) do |report|
    input.close
    report.readline
    start, cpu = way.put ? here(way, count, pipe) : in_c(way, count, pipe)
    pipe.close
    report.read.split.map(&:to_i)
  ensure
    pipe.close # also after an error, or the reader would wait for ever
  end
  expected = count * way.bytes
  bytes == expected or abort "the reader got #{bytes.inspect} bytes instead of #{expected}"

  Turn.new(bytes.fdiv(ended - start), cpu.fdiv(bytes))
end

def here(way, count, pipe)
  GC.start # what the others left behind
  start = Bench.nanoseconds
  before = Bench.nanoseconds(Process::CLOCK_PROCESS_CPUTIME_ID)
  way.put.call(pipe, count)
  [start, Bench.nanoseconds(Process::CLOCK_PROCESS_CPUTIME_ID) - before]
end

def in_c(way, count, pipe)
  program(WRITER, *[pipe.fileno, way.bytes, count].map(&:to_s), pipe => pipe) do |report|
    pipe.close
    report.read.split.map(&:to_i)
  end
end

# How many times the CPU of `IO#write` it may take.
def goals(row, size, capacity, reader)
  most =
    case [row, size, capacity]
    in ["String", _, _] then 1.05
    in ["Pages", "1M", "1M"] then { "reads" => 0.4, "splices" => 0.125 }.fetch(reader)
    else return []
    end
  [Goal.new(metric: :cpu, beside: :write, most:)]
end

def put_in(table, size, capacity, reader)
  turns = Turns.new
  ways(SIZES.fetch(size)).each do |name, way|
    first = turn(way, [FIRST / way.bytes, 1].max, PIPES.fetch(capacity), reader)
    count = [(first.speed * TURN / way.bytes).round, 1].max
    turns.peer(name) { turn(way, count, PIPES.fetch(capacity), reader) }
  end
  values = turns.run(ROUNDS).values(table.metrics.keys)
  ROWS.each do |row, ways|
    table.add("#{row}, #{size}", ways.transform_values { |way| values.fetch(way) },
              goals: goals(row, size, capacity, reader))
  end
end

# Nanoseconds for each object, and those of them that were spent in the garbage collector.
Making = Struct.new(:making, :collecting)

def making(work, count)
  GC.start # what the others left behind
  start = Bench.nanoseconds
  before = GC.total_time
  work.call(count)
  GC.start
  Making.new((Bench.nanoseconds - start).fdiv(count), (GC.total_time - before).fdiv(count))
end

# So many that the garbage collector runs in between, and not only at the end.
FEWEST = 16

def make(table, size)
  string = "x" * MADE.fetch(size)
  works = {
    gem: ->(n) { IO::Splice::Pages.new(string) while (n -= 1) >= 0 },
    dup: ->(n) { string.dup.setbyte(0, 121) while (n -= 1) >= 0 },
  }
  turns = Turns.new
  works.each do |name, work|
    first = making(work, (FIRST / string.bytesize).clamp(FEWEST, 1000))
    count = [(TURN / first.making).round, FEWEST].max
    turns.peer(name) { making(work, count) }
  end
  table.add(size, turns.run(ROUNDS), goals: [Goal.new(metric: :making, beside: :dup, most: 2.0)])
end

results = Results.new("vmsplice", options)

PIPES.keys.product(READERS) do |capacity, reader|
  table = results.table("A pipe of #{capacity}, a reader that #{reader}",
                        peers: { gem: "io_splice", write: "IO#write", c: "the call in C" },
                        metrics: { speed: ["GB/s", "more", 2], cpu: ["CPU s per GB", "less", 3] },
                        about: ["the CPU of the writing process alone"])
  (SIZES.keys & SOME).each { |size| put_in(table, size, capacity, reader) } if table
end

table = results.table("Making one of Pages",
                      peers: { gem: "Pages.new", dup: "dup and setbyte" },
                      metrics: { making: ["ns", "less", 0], collecting: ["ns of it in GC", "less", 0] },
                      about: ["until it is collected"])
SOME.each { |size| make(table, size) } if table

results.finish
