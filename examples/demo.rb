#!/usr/bin/env ruby
# frozen_string_literal: true

# What this gem is for, on this machine: the CPU and the time that copies take, and a thousand slow downloads while Ruby
# computes. Beside it, the same with IO.copy_stream. Every copy is checked.
#
#   ruby examples/demo.rb
#
# It takes half a minute, 600 MiB of disk, and 3,000 descriptors.

require "etc"
require "io/splice"
require "socket"
require "tmpdir"

MIB = 1 << 20
BYTES = 512 * MIB
ROUNDS = 3
CLIENTS = 1000
PAGE = 192 << 10

# The same job in two ways.
Way = Struct.new(:name, :copy, :proxy, :hand_over)
WAYS = [
  Way.new("IO.copy_stream", IO.method(:copy_stream),
          lambda do |a, b|
            back = Thread.new { IO.copy_stream(b, a) }
            IO.copy_stream(a, b)
            b.close_write
            back.join
          end,
          ->(path, socket) { Thread.new { IO.copy_stream(path, socket) && socket.close } }),
  Way.new("io_splice", IO::Splice.method(:copy_stream), IO::Splice.method(:relay),
          IO::Splice.background.method(:copy_stream))
].freeze

def cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# Forks. In the child only its own sockets stay open, so that the others' peers see when they end.
# @return [IO] from which to take what the block returns
def child(*own)
  report, into = IO.pipe
  fork do
    (ObjectSpace.each_object(BasicSocket).reject(&:closed?) - own).each(&:close)
    Marshal.dump(yield(*own), into)
    into.close
    exit!(true)
  end
  into.close
  report
end

def result(report) = Marshal.load(report) # rubocop:disable Security/MarshalLoad -- of a child of ours

def check(right, what) = right || abort("demo: #{what}: WRONG")

def connection
  TCPServer.open("127.0.0.1", 0) do |server|
    [TCPSocket.new("127.0.0.1", server.local_address.ip_port), server.accept]
  end
end

# Runs the block in a process of its own, between a peer that sends and one that takes everything.
# @return [Array] its seconds and CPU seconds
def measured(input: true, output: true)
  feeder, a = connection if input
  b, sink = connection if output
  fed = child(feeder) { |socket| 8.times { IO::Splice.copy_stream("feed", socket) } } if input
  sunk = child(sink) { |socket| IO::Splice.copy_stream(socket, File::NULL) } if output
  copied = child(*[a, b].compact) do |*ends|
    start = [now, cpu]
    yield(*ends)
    [now, cpu].zip(start).map { |one, before| one - before }
  end
  [feeder, a, b, sink].compact.each(&:close)
  check(result(sunk) == BYTES, "what arrived") if sunk
  result(fed) if fed
  result(copied)
end

Copied = Struct.new(:rate, :cpu)

# @return [Array<Copied>] for each way the median of its GB/s, and of its CPU seconds for a GiB
def compared(**ends)
  rounds = Array.new(ROUNDS) { WAYS.map { |way| measured(**ends) { |*io| yield way, *io } } }
  rounds.transpose.map do |runs|
    took, spent = runs.transpose.map { |figures| figures.sort[ROUNDS / 2] }
    Copied.new(BYTES / took / 1e9, spent * 1024 * MIB / BYTES)
  end
end

# A client that takes 16 KiB of each of its downloads five times a second.
def slow_clients(port)
  sockets = Array.new(CLIENTS) do
    Socket.new(:INET, :STREAM).tap do |socket|
      socket.setsockopt(:SOCKET, :RCVBUF, 16 << 10)
      socket.connect(Addrinfo.tcp("127.0.0.1", port))
    end
  end
  taken = 0
  until sockets.empty?
    start = now
    sockets.reject! do |socket|
      bytes = socket.read_nonblock(16 << 10, exception: false)
      taken += bytes.bytesize if bytes.is_a?(String)
      bytes.nil? && socket.close.nil?
    end
    sleep([0.2 - (now - start), 0].max)
  end
  taken
end

def memory = File.read("/proc/self/status")[/RssAnon:\s+(\d+)/, 1].to_i / 1024.0
def threads = Dir.children("/proc/self/task").size

# How often Ruby does a piece of work in a second, until the block is true.
def speed
  start = now
  count = 0
  (count += 1) && 200.times { |i| i * i } until yield(now - start)
  count / (now - start)
end

Beside = Struct.new(:threads, :memory, :speed)

# @return [Beside] what the downloads of all clients take in one process, and the part of its speed that Ruby has
def downloads(way)
  server = TCPServer.new("127.0.0.1", 0)
  port = server.local_address.ip_port
  taken = child { slow_clients(port) }
  beside = child(server) do
    alone = speed { |elapsed| elapsed > 1 }
    GC.start
    before = Beside.new(threads, memory)
    all = Array.new(CLIENTS) do
      socket = server.accept
      socket.setsockopt(:SOCKET, :SNDBUF, 16 << 10)
      way.hand_over.call("page", socket)
    end
    with = speed { |elapsed| elapsed > 2 }
    most = Beside.new(threads - before.threads, memory - before.memory)
    all.each { |one| one.is_a?(Thread) ? one.join : one.wait }
    most.speed = 100 * with / [alone, speed { |elapsed| elapsed > 1 }].max
    most
  end
  server.close
  result(beside).tap { check(result(taken) == CLIENTS * PAGE, "the downloads") }
end

# @param rows [Hash] by label a figure of each way
# @param remarks [Hash] by label what is said behind each
def bars(format, rows, remarks = {})
  most = rows.values.flatten.max
  rows.each do |label, figures|
    WAYS.each_with_index do |way, i|
      bar = "#{"█" * (28 * figures[i].fdiv(most)).ceil} #{format(format, figures[i])}"
      puts "  #{(i.zero? ? label : "").ljust(25)}#{way.name.ljust(16)}#{bar.ljust(38)}#{remarks.dig(label, i)}".rstrip
    end
  end
end

Process.setrlimit(:NOFILE, Process.getrlimit(:NOFILE).last)
puts "io_splice #{IO::Splice::VERSION} beside IO.copy_stream: Ruby #{RUBY_VERSION}, " \
     "Linux #{Etc.uname[:release][/\A\d+\.\d+/]}, #{Etc.nprocessors} processors"
Dir.mktmpdir do |dir|
  Dir.chdir(dir)
  File.open("feed", "wb") { |file| (BYTES / 8 / MIB).times { file.write(Random.bytes(MIB)) } }
  File.binwrite("page", Random.bytes(PAGE))
  copies = {
    "a proxy, TCP to TCP" => compared { |way, a, b| way.proxy.call(a, b) },
    "an upload, TCP to file" => compared(output: false) { |way, a| way.copy.call(a, "upload") },
    "a download, file to TCP" => compared(input: false) { |way, b| 8.times { way.copy.call("feed", b) } },
  }
  check(File.binread("upload", BYTES / 8, BYTES / 2) == File.binread("feed"), "the upload")
  puts "", "CPU seconds for each GiB (less is better), and the speed"
  bars("%.2f", copies.transform_values { |both| both.map(&:cpu) },
       copies.transform_values { |both| both.map { |one| format("%.1f GB/s", one.rate) } })
  puts "  (From a file both make the same system call.)"

  puts "", "#{CLIENTS} slow downloads while Ruby computes: in threads, and in the background"
  beside = WAYS.map { |way| downloads(way) }
  bars("%.0f", "threads" => beside.map(&:threads))
  bars("%.0f MiB", "memory" => beside.map(&:memory))
  bars("%.0f %%", "Ruby's speed, of alone" => beside.map { |one| [one.speed, 100].min })
end
puts "", "All bytes arrived."
