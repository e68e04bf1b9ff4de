# frozen_string_literal: true

# The proxies in Ruby.
#
#   ruby proxy.rb threads|fibers|copy_stream LISTENER PORT
#
# It takes connections from the socket LISTENER and relays each to PORT, until it is killed: in a thread with this
# gem, in a fiber with this gem, or with Ruby's own `IO.copy_stream` in two threads.

$LOAD_PATH.unshift File.expand_path("../../lib", __dir__)

require "socket"

def pass(from, to)
  IO.copy_stream(from, to)
  to.close_write
end

def serve(listener, port, in_parallel)
  loop do
    client = listener.accept
    in_parallel.call do
      server = TCPSocket.new("127.0.0.1", port)
      [client, server].each { |socket| socket.setsockopt(:TCP, :NODELAY, true) }
      yield client, server
    ensure
      [client, server].each { |socket| socket&.close }
    end
  end
end

mode, listener, port = ARGV
listener = TCPServer.for_fd(Integer(listener))
Thread.abort_on_exception = true
case mode
when "copy_stream"
  serve(listener, port, Thread.method(:new)) do |client, server|
    back = Thread.new { pass(server, client) }
    pass(client, server)
    back.join
  end
when "threads"
  require "io/splice"
  serve(listener, port, Thread.method(:new)) { |client, server| IO::Splice.relay(client, server) }
when "fibers"
  require "io/splice"
  require_relative "../harness/scheduler"
  Fiber.set_scheduler(Bench::Scheduler.new)
  Fiber.schedule do
    serve(listener, port, Fiber.method(:schedule)) { |client, server| IO::Splice.relay(client, server) }
  end
else
  abort "usage: proxy.rb threads|fibers|copy_stream LISTENER PORT"
end
