# frozen_string_literal: true

# The proxies in Ruby.
#
#   ruby proxy.rb threads|fibers|background|copy_stream|nothing LISTENER PORT
#
# It takes connections from the socket LISTENER and relays each to PORT, until it is killed: in a thread with this
# gem, in a fiber with this gem, in the background, or with Ruby's own `IO.copy_stream` in two threads; or it only
# connects, and closes both.

$LOAD_PATH.unshift File.expand_path("../../lib", __dir__)

require "socket"

def pass(from, to)
  IO.copy_stream(from, to)
  to.close_write
end

# The connection beside that of a client.
def connect(client, port)
  server = TCPSocket.new("127.0.0.1", port)
  [client, server].each { |socket| socket.setsockopt(:TCP, :NODELAY, true) }
  server
end

def serve(listener, port, in_parallel)
  loop do
    client = listener.accept
    in_parallel.call do
      server = connect(client, port)
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
when "background"
  require "io/splice"
  loop do
    client = listener.accept
    IO::Splice.background.relay(client, connect(client, port))
  end
when "nothing"
  serve(listener, port, ->(&block) { block.call }) { nil }
else
  abort "usage: proxy.rb threads|fibers|background|copy_stream|nothing LISTENER PORT"
end
