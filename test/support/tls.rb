# frozen_string_literal: true

require "openssl"
require_relative "self_signed"

module SpliceTest
  # Two ends of a TLS connection, over two sockets. `kernel` asks that the kernel encrypt for the server, if it can, or
  # for the `:client`.
  def tls_pair(wire = unix_pair, version: nil, kernel: false)
    contexts = [OpenSSL::SSL::SSLContext.new, kernel == true ? kernel_context : server_context]
    contexts.first.max_version = version if version
    contexts.first.options |= OpenSSL::SSL::OP_ENABLE_KTLS if kernel == :client
    client, server = wire.zip(contexts).map { |socket, context| OpenSSL::SSL::SSLSocket.new(socket, context) }
    [client, server].each { |socket| socket.sync_close = true }
    accepting = thread { server.accept }
    guarded { client.connect }
    thread_value(accepting)
    [client, server]
  end

  def kernel_context
    @kernel_context ||= new_server_context.tap { |context| context.options |= OpenSSL::SSL::OP_ENABLE_KTLS }
  end

  def server_context = @server_context ||= new_server_context

  def new_server_context
    OpenSSL::SSL::SSLContext.new.tap do |context|
      context.key = OpenSSL::PKey::EC.generate("prime256v1")
      context.cert = SelfSigned.certificate(context.key)
    end
  end
end
