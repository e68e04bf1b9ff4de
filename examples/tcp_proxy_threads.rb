#!/usr/bin/env ruby
# frozen_string_literal: true

# A TCP proxy with a thread for each connection, the simplest form; no byte of theirs comes into this program.
#
#   ruby -Ilib examples/tcp_proxy_threads.rb LISTEN_PORT BACKEND_HOST:PORT
#
# It listens on 127.0.0.1 and prints its port; LISTEN_PORT 0 takes a free one. A connection that breaks, or finds
# no backend, ends alone: the proxy goes on. Ctrl-C ends it.

require "io/splice"
require "socket"

CONNECT_TIMEOUT = 5 # seconds
IDLE_TIMEOUT = 300

# One connection, to its end.
def pass_on(client, host, port)
  backend = TCPSocket.new(host, port, connect_timeout: CONNECT_TIMEOUT)
  # A small message does not wait until the one before it has been acknowledged.
  [client, backend].each { |socket| socket.setsockopt(:TCP, :NODELAY, true) }
  IO::Splice.relay(client, backend, idle_timeout: IDLE_TIMEOUT)
rescue SystemCallError, SocketError, IOError => e
  warn "tcp_proxy_threads: #{e.message}"
ensure
  [client, backend].compact.each(&:close)
end

listen, backend = ARGV
host, _, port = backend.to_s.rpartition(":")
abort "usage: tcp_proxy_threads.rb LISTEN_PORT BACKEND_HOST:PORT" if host.empty?

trap(:INT) { exit }
TCPServer.open("127.0.0.1", listen) do |server|
  puts server.local_address.ip_port
  $stdout.flush
  loop do
    Thread.new(server.accept) { |client| pass_on(client, host.delete("[]"), port) }
  rescue SystemCallError, ThreadError => e # no more descriptors or threads: some will be free again
    warn "tcp_proxy_threads: #{e.message}"
    sleep 0.1
  end
end
