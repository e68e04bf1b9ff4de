# frozen_string_literal: true

# Makes millions of calls of each kind and sees that memory, mappings and descriptors stay what they were, and that a
# system call makes no object of Ruby's.
#
#     ruby -Ilib reliability/memory.rb [CALLS] [--only NAME]
#
# CALLS (10,000,000) are those of a kind that takes less than about 5 us; the slower ones make a tenth, a hundredth or a
# thousandth of them, as the table says. A call is what the name of its kind says: with two calls in it, both. Each kind
# has a process of its own. It has grown when it needs 1 MiB more at the end than when half of its calls were made: a
# leak of one byte a call shows from two million calls on. The exit status is 1 then.

if ENV["MALLOC_ARENA_MAX"] != "1"
  # Each thread would take a heap of its own, and what is freed would be kept; both would pass for growth.
  settled = { "MALLOC_ARENA_MAX" => "1", "MALLOC_TRIM_THRESHOLD_" => "131072", "MALLOC_MMAP_THRESHOLD_" => "131072" }
  exec(settled, RbConfig.ruby, *$LOAD_PATH.map { |path| "-I#{path}" }, __FILE__, *ARGV)
end

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "optparse"
require "socket"
require "stringio"
require "tempfile"
require_relative "../test/support/select_scheduler"

Warning[:experimental] = false # IO::Buffer in Ruby 3.1
Thread.report_on_exception = false

BOUND = 1 << 20
GUARD = 7200 # seconds for a kind: only against hanging

# What is called, and how often: `share` of all calls. `objects`: how many a call may make. `bound`: how much the memory
# may differ.
Kind = Struct.new(:name, :share, :objects, :bound, :in_a_fiber, :prepare, keyword_init: true)
KINDS = [] # rubocop:disable Style/MutableConstant -- it is filled below

def kind(name, share: 1, objects: nil, bound: BOUND, in_a_fiber: false, &prepare)
  KINDS << Kind.new(name:, share:, objects:, bound:, in_a_fiber:, prepare:)
end

# The ends that the kinds share; each process has its own.
module Ends
  NULL = File.open(File::NULL, "w")
  DATA = ("0123456789abcdef" * 640).freeze # more than two pages

  module_function

  def file
    Tempfile.create("io_splice", binmode: true).tap do |file|
      File.unlink(file.path)
      file << DATA
      file.flush.rewind
    end
  end

  def filled_pipe(bytes = "x")
    IO.pipe.tap { |_, w| w << bytes }
  end

  def full_pipe
    IO.pipe.tap { |_, w| nil while w.write_nonblock(DATA, exception: false) != :wait_writable }
  end

  # A call that must fail with this error.
  def raising(error)
    lambda do
      yield
      abort "no #{error}"
    rescue error
      nil
    end
  end

  # A call that waits in a thread of its own, until the second block ends the wait.
  def interrupting(work, interrupt = :kill.to_proc)
    thread = Thread.new(&work)
    Thread.pass until thread.stop?
    interrupt.call(thread)
    thread.join
  rescue Interrupted, IOError
    nil
  end

  Interrupted = Class.new(StandardError)
end

include Ends # rubocop:disable Style/MixinUsage -- the list below is nothing but calls of these

# The system calls

kind("trysplice of an empty pipe", objects: 0) do
  r, w = IO.pipe
  _, into = IO.pipe
  -> { w && IO.trysplice(r, nil, into, nil, 1) }
end

kind("trytee of an empty pipe", objects: 0) do
  r, w = IO.pipe
  _, into = IO.pipe
  -> { w && IO.trytee(r, into, 1) }
end

kind("splice there, trysplice back", objects: 0) do
  r, w = filled_pipe
  out, into = IO.pipe
  -> { IO.splice(r, nil, into, nil, 1) + IO.trysplice(out, nil, w, nil, 1) }
end

kind("splice to a socket, splice from a socket", objects: 0) do
  r, w = filled_pipe
  here, there = UNIXSocket.pair
  -> { IO.splice(r, nil, here, nil, 1) + IO.splice(there, nil, w, nil, 1) }
end

kind("splice from a file, splice to a file", share: 0.1, objects: 0) do
  r, w = IO.pipe
  from = file
  to = file
  -> { IO.splice(from, 0, w, nil, 5000) + IO.splice(r, nil, to, 0, 5000, IO::Splice::WAITALL) }
end

kind("tee, splice to a device", objects: 0) do
  r, w = filled_pipe
  out, into = IO.pipe
  -> { w && (IO.tee(r, into, 1) + IO.splice(out, nil, NULL, nil, 1)) }
end

kind("trytee with numbers, trysplice with numbers", objects: 0) do
  r, w = filled_pipe
  out, into = IO.pipe
  numbers = [r, out, into, NULL].map(&:fileno)
  lambda do
    from, duplicate, to, null = numbers
    w && (IO.trytee(from, to, 1) + IO.trysplice(duplicate, nil, null, nil, 1))
  end
end

# A vmsplice, and the pipe is empty again.
def vmsplice(data, flags = 0)
  r, w = IO.pipe
  -> { IO.splice(r, nil, NULL, nil, IO.vmsplice(w, data, flags), IO::Splice::WAITALL) }
end

kind("vmsplice of a String", objects: 0) { vmsplice("string") }
kind("vmsplice of a long String", objects: 0) { vmsplice(DATA) }
kind("vmsplice of a String with F_GIFT", objects: 0) { vmsplice("string", IO::Splice::F_GIFT) }
kind("vmsplice of an Array of Strings", objects: 0) { vmsplice(%w[one two three]) }
kind("vmsplice of an IO::Buffer", objects: 0) { vmsplice(IO::Buffer.new(100)) }
kind("vmsplice of Pages", objects: 0) { vmsplice(IO::Splice::Pages.new("string")) }
kind("vmsplice of an Array of all", objects: 0) do
  pages = IO::Splice::Pages.new(DATA)
  vmsplice(["string", pages, IO::Buffer.new(100), pages.slice(5, 5)])
end

kind("vmsplice of what has to_str") do
  text = Object.new
  def text.to_str = "text"
  vmsplice(["string", text])
end

kind("vmsplice of an IO::Buffer with F_GIFT", share: 0.1) do
  r, w = IO.pipe
  -> { IO.splice(r, nil, NULL, nil, IO.vmsplice(w, IO::Buffer.new(16_384), IO::Splice::F_GIFT)) }
end

kind("vmsplice of a gift that does not fit", share: 0.1) do
  r, w = full_pipe
  raising(Errno::EAGAIN) do
    buffer = IO::Buffer.new(16_384)
    r && IO.vmsplice(w, buffer, IO::Splice::F_GIFT | IO::Splice::F_NONBLOCK)
  ensure
    buffer.free
  end
end

kind("vmsplice of half a gift", share: 0.01) do
  r, w = IO.pipe
  content = +""
  lambda do
    buffer = IO::Buffer.new(131_072)
    IO.vmsplice(w, buffer, IO::Splice::F_GIFT | IO::Splice::F_NONBLOCK)
    r.readpartial(131_072, content)
    buffer.free
  end
end

# They are cut from 2 MiB, of which more or less is touched when it is looked at.
kind("Pages.new of a short String", bound: 4 * BOUND) { -> { IO::Splice::Pages.new("string") } }
kind("Pages.new of 3 MiB", share: 0.001) do
  body = "b" * (3 << 20)
  -> { IO::Splice::Pages.new(body) }
end
kind("Pages#slice, Pages#to_s, Pages#==") do
  pages = IO::Splice::Pages.new(DATA)
  -> { pages.slice(100, 10).to_s && pages == pages.slice(0) }
end
kind("IO#pipe_size", objects: 0) do
  r, = IO.pipe
  -> { r.pipe_size }
end

# The copies

def copy(from, into, *rest, &progress)
  -> { IO::Splice.copy_stream(from, into, *rest, &progress) }
end

kind("copy_stream of a file to a file", share: 0.1, objects: 0) do
  from = file
  to = file
  -> { to.seek(0) && IO::Splice.copy_stream(from, to, 5000, 0) }
end

kind("copy_stream of a file to a device, with a block", share: 0.1, objects: 2) do
  told = 0
  copy(file, NULL, 5000, 0) { |bytes| told += bytes }
end

kind("copy_stream of a file to a pipe, of the pipe to a device", share: 0.1, objects: 0) do
  r, w = IO.pipe
  from = file
  -> { IO::Splice.copy_stream(from, w, 5000, 0) + IO::Splice.copy_stream(r, NULL, 5000) }
end

kind("copy_stream of a socket to a socket, and back", share: 0.1, objects: 0) do
  here, there = UNIXSocket.pair
  near, far = UNIXSocket.pair
  here << "bytes"
  -> { IO::Splice.copy_stream(there, near, 5) + IO::Splice.copy_stream(far, here, 5) }
end

kind("copy_stream of an object to a pipe, of the pipe to an object", share: 0.1, objects: 60) do
  r, w = IO.pipe
  source = StringIO.new("bytes")
  target = StringIO.new
  lambda do
    [source, target].each(&:rewind)
    IO::Splice.copy_stream(source, w, 5) + IO::Splice.copy_stream(r, target, 5)
  end
end

kind("copy_stream of a path to a path", share: 0.1, objects: 5) { copy("/proc/self/stat", File::NULL) }

kind("copy_stream of what Ruby has read ahead", share: 0.1, objects: 2) do
  r, w = IO.pipe
  lambda do
    r.ungetbyte("bytes")
    w << "more"
    IO::Splice.copy_stream(r, NULL, 9)
  end
end

kind("full, partial", share: 0.1, objects: 0) do
  r, w = IO.pipe
  from = file
  -> { IO::Splice.full(from, w, 5000, 0) + IO::Splice.partial(r, NULL, 5000) }
end

kind("tee_stream of a pipe to two pipes and an object", share: 0.01, objects: 50) do
  r, w = IO.pipe
  outputs = Array.new(2) { IO.pipe }
  object = StringIO.new
  lambda do
    w << "bytes"
    object.rewind
    IO::Splice.tee_stream(r, *outputs.map(&:last), object, len: 5)
    outputs.each { |out,| IO.splice(out, nil, NULL, nil, 5) }
  end
end

kind("relay of a few bytes", share: 0.01, objects: 20) do
  lambda do
    client, front = UNIXSocket.pair
    back, server = UNIXSocket.pair
    [client, server].each { |far| far << "bytes" and far.close_write }
    IO::Splice.relay(front, back)
    [client, front, back, server].each(&:close)
  end
end

# What raises

kind("Errno::EAGAIN") do
  r, w = IO.pipe
  _, into = IO.pipe
  raising(Errno::EAGAIN) { w && IO.splice(r, nil, into, nil, 1, IO::Splice::F_NONBLOCK) }
end

kind("EOFError") do
  r, w = IO.pipe
  _, into = IO.pipe
  w.close
  raising(EOFError) { IO.splice(r, nil, into, nil, 1) }
end

kind("EOFError of a copy", share: 0.1) do
  r, w = IO.pipe
  w.close
  raising(EOFError) { IO::Splice.copy_stream(r, NULL, 5) }
end

kind("TypeError") { raising(TypeError) { IO.splice(:nothing, nil, NULL, nil, 1) } }
kind("TypeError of a piece") do
  _, w = IO.pipe
  raising(TypeError) { IO.vmsplice(w, ["string", :nothing]) }
end
kind("ArgumentError") { raising(ArgumentError) { IO.splice(0, nil, NULL, nil, -1) } }
kind("Errno::EBADF") { raising(Errno::EBADF) { IO.tee(1 << 20, NULL, 1) } }
kind("Errno::EINVAL with a reason", share: 0.1) do
  from = file
  raising(Errno::EINVAL) { IO.splice(from, nil, NULL, nil, 1) }
end

kind("IOError of a closed IO") do
  r, w = IO.pipe
  r.close
  raising(IOError) { IO.splice(r, nil, w, nil, 1) }
end

kind("IOError of bytes that are read ahead") do
  r, w = IO.pipe
  r.ungetbyte("x")
  raising(IOError) { IO.splice(r, nil, w, nil, 1) }
end

kind("Errno::EPIPE after a part, with WAITALL", share: 0.01) do
  lambda do
    r, w = filled_pipe("some")
    out, into = IO.pipe
    interrupting(-> { raising(EOFError) { IO::Splice.full(r, into, 9) }.call }, ->(_) { w.close })
    [r, out, into].each(&:close)
  end
end

kind("PartialTee", share: 0.01) do
  r, w = IO.pipe
  out, into = IO.pipe
  gone, broken = IO.pipe
  gone.close
  lambda do
    w << "bytes"
    raising(IO::Splice::PartialTee) { IO::Splice.tee_stream(r, into, broken, len: 5) }.call
    IO.splice(out, nil, NULL, nil, 5)
    r.read_nonblock(5, exception: false)
  end
end

# What is interrupted while it waits

kind("splice, killed", share: 0.01) do
  r, w = IO.pipe
  _, into = IO.pipe
  -> { w && interrupting(-> { IO.splice(r, nil, into, nil, 1) }) }
end

kind("tee, ended by Thread#raise", share: 0.01) do
  r, w = IO.pipe
  _, into = IO.pipe
  -> { w && interrupting(-> { IO.tee(r, into, 1) }, ->(thread) { thread.raise(Interrupted) }) }
end

kind("splice, ended by closing", share: 0.01) do
  _, into = IO.pipe
  lambda do
    r, w = IO.pipe
    interrupting(-> { IO.splice(r, nil, into, nil, 1) }, ->(_) { r.close })
    w.close
  end
end

kind("vmsplice in the middle of a String, killed", share: 0.01) do
  r, w = IO.pipe
  long = "l" * 100_000
  content = +""
  lambda do
    interrupting(-> { IO.vmsplice(w, ["short", long]) })
    r.readpartial(200_000, content)
  end
end

kind("copy_stream between sockets, killed in the middle", share: 0.01) do
  here, there = UNIXSocket.pair
  full, peer = UNIXSocket.pair
  nil while full.write_nonblock(DATA, exception: false) != :wait_writable
  content = +""
  lambda do
    peer && (here << "bytes")
    interrupting(-> { IO::Splice.copy_stream(there, full) })
    there.readpartial(5, content)
  end
end

kind("relay, killed", share: 0.01) do
  client, front = UNIXSocket.pair
  back, server = UNIXSocket.pair
  -> { client && server && interrupting(-> { IO::Splice.relay(front, back) }) }
end

kind("splice, with a signal while it waits", share: 0.01) do
  Signal.trap(:USR1) { nil }
  r, w = IO.pipe
  turns = Queue.new
  sender = Thread.new do
    while turns.pop
      Process.kill(:USR1, Process.pid)
      w << "x"
    end
  end
  -> { sender && turns.push(true) && IO.splice(r, nil, NULL, nil, 1) }
end

kind("splice, waits in a thread", share: 0.01) do
  r, w = IO.pipe
  out, into = IO.pipe
  Thread.new { loop { IO.splice(r, nil, into, nil, 1) } }
  -> { IO.vmsplice(w, "x") && IO.splice(out, nil, NULL, nil, 1) }
end

# In the fibers of a scheduler

kind("splice and tee, wait in fibers", share: 0.01, in_a_fiber: true) do
  r, w = IO.pipe
  out, into = IO.pipe
  Fiber.schedule { loop { IO.tee(r, into, 1) && IO.splice(r, nil, NULL, nil, 1) } }
  -> { IO.vmsplice(w, "x") && IO.splice(out, nil, NULL, nil, 1) }
end

kind("vmsplice, waits in a fiber", share: 0.01, in_a_fiber: true) do
  r, w = full_pipe
  Fiber.schedule { loop { r.readpartial(65_536) } }
  -> { IO.vmsplice(w, DATA) }
end

kind("copy_stream, waits in fibers", share: 0.01, in_a_fiber: true) do
  here, there = UNIXSocket.pair
  Fiber.schedule { loop { IO::Splice.copy_stream(there, there, 5) } }
  -> { here.write("bytes") && IO::Splice.copy_stream(here, NULL, 5) }
end

kind("relay, waits in fibers", share: 0.001, in_a_fiber: true) do
  lambda do
    client, front = UNIXSocket.pair
    back, server = UNIXSocket.pair
    Fiber.schedule do
      sleep 0
      [client, server].each { |far| far.write("bytes") && far.close_write }
    end
    IO::Splice.relay(front, back)
    [client, front, back, server].each(&:close)
  end
end

# One kind in a process of its own.
class Measurement
  Sample = Struct.new(:memory, :mappings, :descriptors, :objects, :time, keyword_init: true)

  attr_reader :turns

  def initialize(kind, calls)
    @kind = kind
    @turns = [(calls * kind.share).round, 100].max
    @samples = take
  end

  def wrong
    return ["it did not end as it should"] unless @samples

    more = { "bytes" => [growth, @kind.bound], "mappings" => [mappings, 20], "descriptors" => [descriptors, 0],
             "objects a call" => [objects, @kind.objects ? @kind.objects + 0.01 : Float::INFINITY] }
    more.select { |_, (number, most)| number > most }.map { |what, (number, _)| "#{number.round(3)} #{what} more" }
  end

  def columns
    return [@kind.name, @turns, *["-"] * 7] unless @samples

    [@kind.name, @turns, (time * 1e9).round, *@samples.map { |sample| kib(sample.memory) }, kib(growth),
     format("%.2f", objects), @samples.last.descriptors]
  end

  private

  def growth = @samples[2].memory - @samples[1].memory
  def mappings = @samples[2].mappings - @samples[1].mappings
  def descriptors = @samples[2].descriptors - @samples[1].descriptors
  def objects = @samples[2].objects.fdiv(@turns / 2)
  def time = @samples[2].time / (@turns / 2)
  def kib(bytes) = format("%d", bytes / 1024)

  def take
    reader, writer = IO.pipe
    pid = fork { work(reader, writer) }
    writer.close
    said = reader.read if reader.wait_readable(GUARD)
    Marshal.load(said) if said && !said.empty? # rubocop:disable Security/MarshalLoad -- it is our own child's
  ensure
    reader.close
    Process.kill(:KILL, pid)
    Process.wait(pid)
  end

  def work(reader, writer)
    reader.close
    in_place do
      samples = measure(@kind.prepare.call)
      writer.write(Marshal.dump(samples))
      exit!(0)
    end
  ensure
    exit!(1)
  end

  def in_place(&)
    return yield unless @kind.in_a_fiber

    Fiber.set_scheduler(scheduler = SelectScheduler.new)
    Fiber.schedule(&)
    scheduler.run
  end

  def measure(turn)
    [@turns / 10, @turns / 2, @turns / 2].map do |turns|
      before = spent
      @kind.in_a_fiber ? run_in_a_fiber(turn, turns) : run(turn, turns)
      time, objects = spent.zip(before).map { |now, then_| now - then_ }
      sample(time, objects)
    end
  end

  def spent
    [Process.clock_gettime(Process::CLOCK_MONOTONIC), GC.stat(:total_allocated_objects)]
  end

  def run(turn, turns)
    turn.call while (turns -= 1) >= 0
  end

  # Its scheduler keeps a record of all waits.
  def run_in_a_fiber(turn, turns)
    while (turns -= 1) >= 0
      turn.call
      Fiber.scheduler.io_waits.clear
    end
  end

  def sample(time, objects)
    3.times { GC.start }
    Sample.new(memory: File.read("/proc/self/status")[/^RssAnon:\s+(\d+)/, 1].to_i * 1024,
               mappings: File.foreach("/proc/self/maps").count, descriptors: Dir.children("/proc/self/fd").size - 1,
               objects:, time:)
  end
end

calls = 10_000_000
only = nil
OptionParser.new("Usage: ruby -Ilib #{$PROGRAM_NAME} [CALLS] [--only NAME]") do |parser|
  parser.on("--only NAME", "those kinds that have this in their names") { |name| only = name }
  parser.parse!
rescue OptionParser::ParseError => e
  abort e.message
end
calls = Integer(ARGV.first, exception: false) || abort("CALLS is a number") unless ARGV.empty?
calls.positive? or abort "CALLS is more than 0"
kinds = KINDS.select { |kind| only.nil? || kind.name.include?(only) }
kinds.empty? and abort "no kind has that in its name: #{KINDS.map(&:name).join("; ")}"

FORMAT = "%-60s %9s %9s %9s %9s %9s %9s %8s %5s\n"
$stdout.sync = true
puts "Ruby #{RUBY_VERSION}, io_splice #{IO::Splice::VERSION}; memory (anonymous, resident) in KiB"
printf(FORMAT, "kind", "calls", "ns/call", "warm", "half", "end", "growth", "obj/call", "fds")
failed = kinds.reject do |kind|
  measurement = Measurement.new(kind, calls)
  printf(FORMAT, *measurement.columns)
  measurement.wrong.each { |wrong| puts "  GROWS: #{wrong}" }.empty?
end
failed.empty? or abort <<~WORDS
  failed: #{failed.map(&:name).join("; ")}
  repeat: ruby -Ilib #{$PROGRAM_NAME} #{calls} --only NAME
WORDS
