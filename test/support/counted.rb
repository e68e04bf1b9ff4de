# frozen_string_literal: true

# Makes one copy of each kind for system_calls_test.rb. Only this thread is traced, so what the far ends do does not
# count. Behind the number of bytes may stand the names of the copies that are wanted.

require "io/splice"
require "socket"
require "tempfile"
require_relative "counting"

BYTES = Integer(ARGV.shift)

# In processes, so that they never need this one's lock. They stay until they are killed in the end, whatever happens:
# Ruby answers the signal of a child that ends with calls of its own.
FAR_ENDS = [] # rubocop:disable Style/MutableConstant
at_exit { FAR_ENDS.each { |pid| Process.kill(:KILL, pid) && Process.wait(pid) } }

def far_end(io)
  FAR_ENDS << fork do
    yield
  ensure
    sleep
  end
  io.close
end

def file(content = "")
  Tempfile.create("io_splice", binmode: true).tap do |file|
    File.unlink(file.path)
    file << content
    file.flush.rewind
  end
end

def source(kind)
  return file("x" * BYTES) if kind == "file"

  reader, writer = connection(kind)
  far_end(writer) do
    reader.close
    writer.write("x" * BYTES)
    writer.close
  end
  reader.wait_readable
  reader
end

def target(kind)
  return file if kind == "file"

  reader, writer = connection(kind)
  far_end(reader) do
    writer.close
    content = +"".b
    loop { reader.readpartial(1 << 20, content) }
  end
  writer
end

kinds = %w[file pipe unix tcp]
kinds.product(kinds) do |from, to|
  counted("#{from} to #{to}") do
    input = source(from)
    output = target(to)
    -> { IO::Splice.copy_stream(input, output, BYTES) == BYTES or abort "#{from} to #{to}: bytes are missing" }
  end
end

counted("tee_stream of a file to a pipe, a socket and a file") do
  input = source("file")
  outputs = %w[pipe tcp file].map { |kind| target(kind) }
  -> { IO::Splice.tee_stream(input, *outputs) == BYTES or abort "tee_stream: bytes are missing" }
end

counted("relay of TCP, one way") do
  client, server = connection("tcp")
  far_end(server) do
    client.close
    server.write("x" * BYTES)
    server.close_write
    server.read
  end
  upstream, echo = connection("tcp")
  far_end(echo) do
    upstream.close
    echo.read
    echo.close
  end
  -> { IO::Splice.relay(client, upstream) == [BYTES, 0] or abort "relay: bytes are missing" }
end

# What is small costs what its calls cost.
small = { "file" => -> { file("bytes") }, "unix" => -> { UNIXSocket.pair.tap { |_, w| w << "bytes" }.first } }
small.keys.product(small.keys) do |from, to|
  counted("#{from} to #{to}, 5 bytes") do
    input = small.fetch(from).call
    output = to == "file" ? file : UNIXSocket.pair.tap { |pair| (@kept ||= []) << pair }.first
    -> { IO::Splice.copy_stream(input, output, 5) }
  end
end
