# frozen_string_literal: true

require "io/splice"
require "pty"
require "socket"
require "tempfile"
require "tmpdir"

# Makes the ends that the attacks work on. A pair is the end to read from and the end to write to.
module Ends
  class << self
    # Where the files are; nil: where temporary ones are.
    attr_accessor :directory
  end

  module_function

  def pair(kind) = public_send(kind)

  def pipe = IO.pipe.each(&:binmode)

  # A FIFO in the file system, which is gone from there at once.
  def fifo
    Dir.mktmpdir do |dir|
      path = File.join(dir, "fifo")
      File.mkfifo(path)
      [File.open(path, File::RDONLY | File::NONBLOCK), File.open(path, File::WRONLY)].each(&:binmode)
    end
  end

  def unix = UNIXSocket.pair
  def dgram = UNIXSocket.pair(:DGRAM)
  def seqpacket = UNIXSocket.pair(:SEQPACKET)

  def tcp
    TCPServer.open("127.0.0.1", 0) do |server|
      writer = TCPSocket.new("127.0.0.1", server.local_address.ip_port)
      [server.accept, writer]
    end
  end

  # Its controlling side, and the side of the programs.
  def terminal = PTY.open

  # A file without a name, at its beginning.
  def file(content = "")
    file = Tempfile.create("io_splice", Ends.directory, binmode: true)
    File.unlink(file.path)
    file.sync = true
    file.write(content)
    file.rewind
    file
  end

  # Makes about so many bytes fit in between, or as few as the kernel allows.
  def narrow(reader, writer, bytes)
    return writer.fcntl(IO::Splice::F_SETPIPE_SZ, bytes) if writer.stat.pipe?

    writer.setsockopt(:SOCKET, :SNDBUF, bytes)
    # TCP is slow when not even two of its segments fit.
    reader.setsockopt(:SOCKET, :RCVBUF, bytes * 2)
  end
end
