# frozen_string_literal: true

# Serves the files of a directory by HTTPS:
#
#   ruby -Ilib examples/https_files.rb DIRECTORY PORT CERTIFICATE KEY
#
# Where the kernel encrypts (`modprobe tls`), a file is sent by sendfile(2), and slow clients take no thread: the
# background has them. Otherwise OpenSSL encrypts in the thread of the connection.

require "io/splice"
require "openssl"
require "socket"

directory, port, certificate, key = ARGV
directory = File.realpath(directory)

context = OpenSSL::SSL::SSLContext.new
context.cert = OpenSSL::X509::Certificate.new(File.read(certificate))
context.key = OpenSSL::PKey.read(File.read(key))
context.options |= OpenSSL::SSL::OP_ENABLE_KTLS

# The file that a request asks for, if it is below the directory.
def file_for(directory, request)
  path = File.realpath(File.join(directory, request[%r{\AGET (/[^ ?]*)}, 1].to_s))
  path if path.start_with?("#{directory}/") && File.file?(path)
rescue SystemCallError, ArgumentError
  nil
end

def respond(ssl, path)
  return ssl.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") unless path

  size = File.size(path)
  ssl.write("HTTP/1.1 200 OK\r\nContent-Length: #{size}\r\nConnection: close\r\n\r\n")
  if IO::Splice.ktls(ssl).include?(:write)
    IO::Splice.background.copy_stream(path, ssl, size, idle_timeout: 60)
  else
    IO::Splice.copy_stream(path, ssl, size)
  end
end

server = TCPServer.new("127.0.0.1", Integer(port))
puts "https://127.0.0.1:#{server.local_address.ip_port}"
$stdout.flush

loop do
  Thread.new(server.accept) do |socket|
    ssl = OpenSSL::SSL::SSLSocket.new(socket, context)
    ssl.sync_close = true
    ssl.accept
    respond(ssl, file_for(directory, ssl.gets("\r\n\r\n").to_s))
  rescue SystemCallError, IOError, OpenSSL::SSL::SSLError => e
    warn e.message
  ensure
    ssl&.close
  end
end
