# frozen_string_literal: true

require "stringio"
require_relative "kind"

# The copies
module Memory
  def self.copy(from, into, *rest, &progress)
    -> { IO::Splice.copy_stream(from, into, *rest, &progress) }
  end

  kind("copy_stream of a file to a file", share: 0.1, objects: 0) do
    from = file
    to = file
    -> { to.seek(0) && IO::Splice.copy_stream(from, to, 5000, 0) }
  end

  kind("copy_stream of a file to a device, with a block", share: 0.1, objects: 2) do
    told = 0
    copy(file, NULL, 5000, 0) { |bytes| told += bytes }
  end

  kind("copy_stream of a file to a pipe, of the pipe to a device", share: 0.1, objects: 0) do
    r, w = IO.pipe
    from = file
    -> { IO::Splice.copy_stream(from, w, 5000, 0) + IO::Splice.copy_stream(r, NULL, 5000) }
  end

  kind("copy_stream of a socket to a socket, and back", share: 0.1, objects: 0) do
    here, there = UNIXSocket.pair
    near, far = UNIXSocket.pair
    here << "bytes"
    -> { IO::Splice.copy_stream(there, near, 5) + IO::Splice.copy_stream(far, here, 5) }
  end

  kind("copy_stream of an object to a pipe, of the pipe to an object", share: 0.1, objects: 73) do
    r, w = IO.pipe
    source = StringIO.new("bytes")
    target = StringIO.new
    lambda do
      [source, target].each(&:rewind)
      IO::Splice.copy_stream(source, w, 5) + IO::Splice.copy_stream(r, target, 5)
    end
  end

  kind("copy_stream of a path to a path", share: 0.1, objects: 18) { copy("/proc/self/stat", File::NULL) }

  kind("copy_stream of what Ruby has read ahead", share: 0.1, objects: 2) do
    r, w = IO.pipe
    lambda do
      r.ungetbyte("bytes")
      w << "more"
      IO::Splice.copy_stream(r, NULL, 9)
    end
  end

  kind("full, partial", share: 0.1, objects: 0) do
    r, w = IO.pipe
    from = file
    -> { IO::Splice.full(from, w, 5000, 0) + IO::Splice.partial(r, NULL, 5000) }
  end

  kind("tee_stream of a pipe to two pipes and an object", share: 0.01, objects: 55) do
    r, w = IO.pipe
    outputs = Array.new(2) { IO.pipe }
    object = StringIO.new
    lambda do
      w << "bytes"
      object.rewind
      IO::Splice.tee_stream(r, *outputs.map(&:last), object, len: 5)
      outputs.each { |out,| IO.splice(out, nil, NULL, nil, 5) }
    end
  end

  kind("relay of a few bytes", share: 0.01, objects: 20) do
    lambda do
      client, front = UNIXSocket.pair
      back, server = UNIXSocket.pair
      [client, server].each { |far| far << "bytes" and far.close_write }
      IO::Splice.relay(front, back)
      [client, front, back, server].each(&:close)
    end
  end
end
