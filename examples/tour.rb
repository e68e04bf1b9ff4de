#!/usr/bin/env ruby
# frozen_string_literal: true

# One file on a tour through everything: file -> pipe -> TCP socket -> pipe -> new file, and on the way a
# tee of the stream goes to a process that computes a checksum. Then the same with IO.copy_stream.
#
#   ruby examples/tour.rb FILE

require "digest"
require "io/splice"
require "socket"
require "tempfile"

# The job with io_splice: no byte comes into this program.
module Splicing
  CAPACITY = 1 << 20

  def self.name = "io_splice"

  def self.send(file, checksum, socket)
    through do |r, w|
      loop do
        waiting = IO.splice(file, nil, w, nil, CAPACITY)
        while waiting.positive?
          copied = IO.tee(r, checksum, waiting)
          waiting -= IO.splice(r, nil, socket, nil, copied, IO::Splice::WAITALL)
        end
      end
    end
  end

  def self.receive(socket, file)
    through do |r, w|
      loop do
        waiting = IO.splice(socket, nil, w, nil, CAPACITY)
        IO.splice(r, nil, file, nil, waiting, IO::Splice::WAITALL)
      end
    end
  end

  # Bytes between two ends that are no pipes go through a pipe of one's own.
  def self.through
    r, w = IO.pipe
    r.pipe_size = CAPACITY
    yield r, w
  rescue EOFError
    nil
  ensure
    r.close
    w.close
  end
end

# The same job with what Ruby has.
module Copying
  # IO.copy_stream has one target, so for two it needs an object that writes to both.
  Both = Struct.new(:one, :other) do
    def write(bytes)
      one.write(bytes)
      other.write(bytes)
    end
  end

  def self.name = "IO.copy_stream"
  def self.send(file, checksum, socket) = IO.copy_stream(file, Both.new(checksum, socket))
  def self.receive(socket, file) = IO.copy_stream(socket, file)
end

def cpu_seconds = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
def seconds = Process.clock_gettime(Process::CLOCK_MONOTONIC)

# Runs the block in a process of its own; gives its pid and where its CPU seconds can be read.
def in_process
  report, into = IO.pipe
  pid = fork do
    yield
    into << cpu_seconds
    into.close
    exit!(true)
  end
  into.close
  [pid, report]
end

# @return [Array] whether both checksums are right, the seconds, and the CPU seconds of both sides
def tour(way, source, expected)
  target = Tempfile.create("tour", binmode: true)
  server = TCPServer.new("127.0.0.1", 0)
  receiver, report = in_process { way.receive(server.accept, target) }
  checksum = IO.popen("sha256sum", "r+b")
  start = [seconds, cpu_seconds]
  socket = TCPSocket.new("127.0.0.1", server.local_address.ip_port)
  File.open(source, "rb") { |file| way.send(file, checksum, socket) }
  socket.close
  checksum.close_write
  teed = checksum.read[/\h{64}/]
  Process.wait(receiver)
  spent = [seconds - start[0], cpu_seconds - start[1] + report.read.to_f]
  [[teed, Digest::SHA256.file(target).hexdigest].all?(expected), *spent]
ensure
  [server, checksum, report].compact.each(&:close)
  File.unlink(target)
end

source = ARGV.fetch(0) { abort "usage: tour.rb FILE" }
size = File.size(source)
expected = Digest::SHA256.file(source).hexdigest # which also brings the file into the page cache
puts "#{source}: #{size} bytes, SHA-256 #{expected[0, 16]}…",
     "file -> pipe -> TCP -> pipe -> new file, with a tee to sha256sum", ""
puts format("%<way>-16s%<bytes>12s%<seconds>10s%<rate>10s%<cpu>14s  %<right>s",
            way: "", bytes: "bytes", seconds: "seconds", rate: "MB/s", cpu: "CPU seconds", right: "checksums")
all_right = [Splicing, Copying].map do |way|
  right, elapsed, cpu = tour(way, source, expected)
  puts format("%<way>-16s%<bytes>12d%<seconds>10.3f%<rate>10.0f%<cpu>14.3f  %<right>s",
              way: way.name, bytes: size, seconds: elapsed, rate: size / elapsed / 1e6, cpu:,
              right: right ? "right" : "WRONG")
  right
end
exit all_right.all?
