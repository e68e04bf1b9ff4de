#!/usr/bin/env ruby
# frozen_string_literal: true

# A TCP proxy for thousands of connections: each is handed over to the background. No byte of theirs comes into this
# program, and none of them needs a thread.
#
#   ruby -Ilib examples/tcp_proxy.rb LISTEN_PORT BACKEND_HOST:PORT
#
# It listens on 127.0.0.1 and prints its port; LISTEN_PORT 0 takes a free one. A connection that breaks, or finds
# no backend, ends alone: the proxy goes on. Ctrl-C ends it.
#
# tcp_proxy_threads.rb is the same with a thread for each connection, tcp_proxy_async.rb with a fiber.

require "io/splice"
require "socket"

CONNECT_TIMEOUT = 5 # seconds
IDLE_TIMEOUT = 300

# Connects to the backend and hands both connections over; they are closed when the relay has ended.
def hand_over(client, host, port)
  backend = TCPSocket.new(host, port, connect_timeout: CONNECT_TIMEOUT)
  # A small message does not wait until the one before it has been acknowledged.
  [client, backend].each { |socket| socket.setsockopt(:TCP, :NODELAY, true) }
  IO::Splice.background.relay(client, backend, idle_timeout: IDLE_TIMEOUT) do |transfer|
    warn "tcp_proxy: #{transfer.error.message}" if transfer.error
  end
rescue SystemCallError, SocketError, IOError => e
  warn "tcp_proxy: #{e.message}"
  [client, backend].compact.each(&:close) # nothing was handed over
end

listen, backend = ARGV
host, _, port = backend.to_s.rpartition(":")
abort "usage: tcp_proxy.rb LISTEN_PORT BACKEND_HOST:PORT" if host.empty?

trap(:INT) { exit }
# Each connection needs two descriptors: as many as this process may have.
Process.setrlimit(:NOFILE, Process.getrlimit(:NOFILE).last)
TCPServer.open("127.0.0.1", listen) do |server|
  puts server.local_address.ip_port
  $stdout.flush
  loop do
    # The thread lives until the backend has answered, so that a slow one does not hold up the next client.
    Thread.new(server.accept) { |client| hand_over(client, host.delete("[]"), port) }
  rescue SystemCallError, ThreadError => e # no more descriptors or threads: some will be free again
    warn "tcp_proxy: #{e.message}"
    sleep 0.1
  end
end
