#!/usr/bin/env ruby
# frozen_string_literal: true

# A TCP proxy with a fiber for each connection, by the async gem (2.x); no byte of theirs comes into this program.
#
#   ruby -Ilib examples/tcp_proxy_async.rb LISTEN_PORT BACKEND_HOST:PORT
#
# It listens on 127.0.0.1 and prints its port; LISTEN_PORT 0 takes a free one. A connection that breaks, or finds
# no backend, ends alone: the proxy goes on. Ctrl-C ends it.

require "async"
require "io/splice"
require "socket"

CONNECT_TIMEOUT = 5 # seconds
IDLE_TIMEOUT = 300

# One connection, to its end.
def pass_on(task, client, host, port)
  backend = task.with_timeout(CONNECT_TIMEOUT) { TCPSocket.new(host, port) }
  # A small message does not wait until the one before it has been acknowledged.
  [client, backend].each { |socket| socket.setsockopt(:TCP, :NODELAY, true) }
  IO::Splice.relay(client, backend, idle_timeout: IDLE_TIMEOUT)
rescue SystemCallError, SocketError, IOError, Async::TimeoutError => e
  warn "tcp_proxy_async: #{e.message}"
ensure
  [client, backend].compact.each(&:close)
end

listen, backend = ARGV
host, _, port = backend.to_s.rpartition(":")
abort "usage: tcp_proxy_async.rb LISTEN_PORT BACKEND_HOST:PORT" if host.empty?

begin
  Async do |proxy|
    server = TCPServer.new("127.0.0.1", listen)
    puts server.local_address.ip_port
    $stdout.flush
    loop do
      client = server.accept
      proxy.async { |task| pass_on(task, client, host.delete("[]"), port) }
    rescue SystemCallError => e # no more descriptors: some will be free again
      warn "tcp_proxy_async: #{e.message}"
      sleep 0.1
    end
  end
rescue Interrupt
  exit
end
