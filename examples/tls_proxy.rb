# frozen_string_literal: true

# Decrypts what comes from its clients, and passes it on to a server that speaks no TLS:
#
#   ruby -Ilib examples/tls_proxy.rb PORT HOST:PORT CERTIFICATE KEY

require "io/splice"
require "openssl"
require "socket"

port, upstream, certificate, key = ARGV
host, upstream_port = upstream.split(":")

context = OpenSSL::SSL::SSLContext.new
context.cert = OpenSSL::X509::Certificate.new(File.read(certificate))
context.key = OpenSSL::PKey.read(File.read(key))
context.options |= OpenSSL::SSL::OP_ENABLE_KTLS

server = TCPServer.new("127.0.0.1", Integer(port))
puts "listening on #{server.local_address.ip_port}"
$stdout.flush

loop do
  Thread.new(server.accept) do |socket|
    ssl = OpenSSL::SSL::SSLSocket.new(socket, context)
    ssl.sync_close = true
    ssl.accept
    TCPSocket.open(host, upstream_port, connect_timeout: 5) do |backend|
      IO::Splice.relay(ssl, backend, idle_timeout: 60)
    end
  rescue SystemCallError, SocketError, IOError, OpenSSL::SSL::SSLError => e
    warn e.message
  ensure
    ssl&.close
  end
end
