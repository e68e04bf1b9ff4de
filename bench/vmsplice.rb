# frozen_string_literal: true

# What `IO.vmsplice` of each kind of data costs, beside `IO#write` of the same bytes, and beside the plain system
# call in C with the same pages again and again.
#
#   ruby bench/vmsplice.rb [--size SIZE] [--pipe SIZE] [--reader reads|splices] [--rounds N] [--blocking] [--quick]
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
require "optparse"
require "rbconfig"
require "shellwords"
require_relative "harness"

Warning[:experimental] = false # what Ruby 3.1 says of IO::Buffer

SIZES = { "4K" => 4 << 10, "64K" => 64 << 10, "1M" => 1 << 20, "16M" => 16 << 20 }.freeze
MADE = { "100" => 100, **SIZES }.freeze
PIPES = { "64K" => 64 << 10, "1M" => 1 << 20 }.freeze
READERS = %w[reads splices].freeze

options = { rounds: 15, turn: 50, first: 32 << 20 }
OptionParser.new do |parser|
  parser.on("--size SIZE", MADE.keys, "only pieces of this size: #{MADE.keys.join(", ")} (100: only made)")
  parser.on("--pipe SIZE", PIPES.keys, "only a pipe of this capacity: #{PIPES.keys.join(", ")}")
  parser.on("--reader HOW", READERS, "only a reader that #{READERS.join(", or one that ")}")
  parser.on("--rounds N", Integer, "how many turns each has (#{options[:rounds]})")
  parser.on("--blocking", "a pipe in blocking mode, instead of one as Ruby makes it")
  parser.on("--quick", "only see that it works") { options.update(rounds: 1, turn: 5, first: 1 << 20) }
  parser.parse!(into: options)
rescue OptionParser::ParseError => e
  abort e.message
end
ROUNDS, BLOCKING = options.values_at(:rounds, :blocking)
ROUNDS.positive? or abort "--rounds: at least 1"
# A turn is made to take about so long, and has at least one piece; the first, which does not count, has so many bytes.
TURN = options[:turn] * 1_000_000
FIRST = options[:first]

sources = File.expand_path("vmsplice", __dir__)
built = Bench.build_directory("vmsplice")
READER, WRITER = %w[reader writer].map do |name|
  File.join(built, name).tap do |program|
    Bench.sh(*RbConfig::CONFIG["CC"].shellsplit, "-O2", "-o", program, "#{name}.c", chdir: sources)
  end
end

# A way to put pieces of so many bytes into a pipe, and the one that it is compared with.
Way = Struct.new(:title, :bytes, :beside, :put)

# The loops are written out, so that there is nothing in them but the work.
def ways(size)
  string = "x" * size
  filled = string.dup
  pages = IO::Splice::Pages.new(string)
  header = "HTTP/1.1 200 OK\r\nContent-Length: #{size}\r\n\r\n"
  longer = header.bytesize + size
  {
    write: Way.new("IO#write(string)", size, nil, ->(pipe, n) { pipe.write(string) while (n -= 1) >= 0 }),
    string: Way.new("String", size, :write, ->(pipe, n) { IO.vmsplice(pipe, string) while (n -= 1) >= 0 }),
    pages: Way.new("Pages", size, :write, ->(pipe, n) { IO.vmsplice(pipe, pages) while (n -= 1) >= 0 }),
    c: Way.new("the call in C", size, :write, nil),
    write_both: Way.new("IO#write(header, string)", longer, nil, lambda do |pipe, n|
      pipe.write(header, string) while (n -= 1) >= 0
    end),
    both: Way.new("[header, Pages]", longer, :write_both, lambda do |pipe, n|
      IO.vmsplice(pipe, [header, pages]) while (n -= 1) >= 0
    end),
    write_filled: Way.new("fill, IO#write(string)", size, nil, lambda do |pipe, n|
      while (n -= 1) >= 0
        filled[0, size] = string
        pipe.write(filled)
      end
    end),
    gift: Way.new("fill, IO::Buffer, F_GIFT", size, :write_filled, lambda do |pipe, n|
      while (n -= 1) >= 0
        buffer = IO::Buffer.new(size, IO::Buffer::MAPPED)
        buffer.set_string(string)
        IO.vmsplice(pipe, buffer, IO::Splice::F_GIFT)
      end
    end),
  }
end

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
  bytes == expected or abort "#{way.title}: the reader got #{bytes.inspect} bytes instead of #{expected}"

  Turn.new(bytes.fdiv(ended - start), cpu.fdiv(bytes))
end

def here(way, count, pipe)
  GC.start # what the others left behind
  start = Bench.nanoseconds
  before = cpu_nanoseconds
  way.put.call(pipe, count)
  [start, cpu_nanoseconds - before]
end

def in_c(way, count, pipe)
  program(WRITER, *[pipe.fileno, way.bytes, count].map(&:to_s), pipe => pipe) do |report|
    pipe.close
    report.read.split.map(&:to_i)
  end
end

def cpu_nanoseconds
  Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :nanosecond)
end

# A goal: the ratio that was measured, and the least or the most that it may be.
Goal = Struct.new(:name, :ratio, :least, :most) do
  def to_s
    least ? ">= #{least}" : "<= #{most}"
  end

  def reached?
    least ? ratio.median >= least : ratio.median <= most
  end
end

MISSED = [] # rubocop:disable Style/MutableConstant

def verdict(goal)
  MISSED << "#{goal.name}: #{goal.ratio.to_s(2)}, not #{goal}" unless goal.reached?
  "#{goal}: #{goal.reached? ? "reached" : "MISSED"}"
end

# How many times as fast as `IO#write` it is to be, if there is a goal.
def least(name, size, capacity, reader)
  case [name, size, capacity]
  in [:string, _, _] then 0.95
  in [:pages, "1M", "1M"] then { "reads" => 2.5, "splices" => 8 }.fetch(reader)
  else nil
  end
end

def table(widths, cells)
  puts cells.zip(widths).map { |cell, width| cell.to_s.ljust(width) }.join.rstrip
end

def line(*cells) = table([6, 26, 22, 22, 22, 24, 0], cells)
def made_line(*cells) = table([6, 45, 45, 20, 0], cells)

def put_in(size, capacity, reader)
  ways = ways(SIZES.fetch(size))
  turns = Bench::Turns.new
  ways.each do |name, way|
    first = turn(way, [FIRST / way.bytes, 1].max, PIPES.fetch(capacity), reader)
    count = [(first.speed * TURN / way.bytes).round, 1].max
    turns.peer(name) { turn(way, count, PIPES.fetch(capacity), reader) }
  end
  turns.run(ROUNDS)
  ways.each do |name, way|
    goal = least(name, size, capacity, reader)&.then do |least|
      Goal.new("#{way.title}, #{size}, pipe #{capacity}, reader #{reader}", turns.ratio(name, :write, &:speed), least)
    end
    speed = turns.figures(name, &:speed).to_s(2)
    cpu = turns.figures(name, &:cpu).to_s(3)
    ratios = [way.beside, (:c unless name == :c)].map { |other| other && turns.ratio(name, other, &:speed).to_s(2) }
    line((size if name == ways.keys.first), way.title, speed, *ratios, cpu, goal && verdict(goal))
  end
end

# Nanoseconds for each object, and those of them that were spent in the garbage collector.
Making = Struct.new(:all, :collecting)

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

def made(size)
  string = "x" * MADE.fetch(size)
  works = {
    pages: ->(n) { IO::Splice::Pages.new(string) while (n -= 1) >= 0 },
    dup: ->(n) { string.dup.setbyte(0, 121) while (n -= 1) >= 0 },
  }
  turns = Bench::Turns.new
  works.each do |name, work|
    first = making(work, (FIRST / MADE.fetch(size)).clamp(FEWEST, 1000))
    count = [(TURN / first.all).round, FEWEST].max
    turns.peer(name) { making(work, count) }
  end
  turns.run(ROUNDS)
  ratio = turns.ratio(:pages, :dup, &:all)
  cells = works.keys.map do |name|
    "#{turns.figures(name, &:all)}, GC #{turns.figures(name, &:collecting).median.round}"
  end
  made_line(size, *cells, ratio.to_s(2), verdict(Goal.new("making Pages, #{size}", ratio, nil, 2)))
end

chosen = ->(name, all) { options[name] ? all & [options[name]] : all }
puts Bench.machine, "#{ROUNDS} rounds of about #{TURN / 1_000_000} ms, in turns; median (lowest..highest), " \
                    "ratios by pairs#{"; pipe in blocking mode" if BLOCKING}"
$stdout.sync = true

sizes = chosen.call(:size, SIZES.keys)
conditions = sizes.empty? ? [] : chosen.call(:pipe, PIPES.keys).product(chosen.call(:reader, READERS))
conditions.each do |capacity, reader|
  puts "", "A pipe of #{capacity}, a reader that #{reader}"
  line("", "", "GB/s", "/ IO#write above", "/ C", "CPU s per GB, writer", "goal, / IO#write")
  sizes.each { |size| put_in(size, capacity, reader) }
end

puts "", "Making one, until it is collected; and how much of that is the garbage collector's"
made_line("", "Pages.new, ns", "dup and setbyte, ns", "Pages / dup", "goal")
chosen.call(:size, MADE.keys).each { |size| made(size) }

puts "", "Turns as short as with --quick say nothing about goals." if options[:quick]
puts "", MISSED.empty? ? "All goals reached." : ["Goals missed (lowest..highest):", *MISSED.map { |goal| "  #{goal}" }]
