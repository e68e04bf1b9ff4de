# frozen_string_literal: true

require "io/console"
require "io/nonblock"
require "io/wait"
require "pty"
require "socket"
require "tempfile"
require "tmpdir"

# Pipes, sockets, files, terminals, all of which are closed after the test.
module SpliceTest
  def pipe
    closing(*IO.pipe)
  end

  def fifo
    Dir.mktmpdir do |dir|
      path = File.join(dir, "fifo")
      File.mkfifo(path)
      reader = File.open(path, File::RDONLY | File::NONBLOCK | File::BINARY)
      closing(reader, File.open(path, "wb").tap { |writer| writer.sync = true })
    end
  end

  def unix_pair
    closing(*UNIXSocket.pair)
  end

  def tcp_pair
    TCPServer.open("127.0.0.1", 0) do |server|
      closing(TCPSocket.new("127.0.0.1", server.local_address.ip_port), server.accept)
    end
  end

  def terminal
    closing(*PTY.open).each(&:raw!).each { |io| io.sync = true }
  end

  def tempfile(content = "")
    file = Tempfile.create("io_splice", binmode: true)
    File.unlink(file.path)
    file.write(content)
    file.flush
    file.rewind
    closing(file).first
  end

  # All that is in a file.
  def content(file)
    file.flush
    file.rewind
    file.read
  end

  def blocking(ends)
    ends.each { |io| io.nonblock = false }
  end

  # Lets them hold little.
  def narrow(*ends)
    ends.each do |io|
      next io.fcntl(IO::Splice::F_SETPIPE_SZ, 16_384) if io.stat.pipe?

      # A segment on the loopback has up to 64 KiB, and TCP is slow when not even two fit.
      tcp = io.is_a?(TCPSocket)
      io.setsockopt(:SOCKET, :SNDBUF, tcp ? 65_536 : 8192)
      io.setsockopt(:SOCKET, :RCVBUF, tcp ? 131_072 : 8192)
    end
  end

  # The peer gets a reset, and not the end of the stream.
  def close_with_a_reset(socket)
    socket.setsockopt(Socket::Option.linger(true, 0))
    socket.close
  end

  # Whether it is ready now. Ruby says no as well when an interrupt was due, such as the end of a thread's time slice.
  def readable?(io) = Array.new(3) { io.wait_readable(0) }.any?

  def writable?(io) = Array.new(3) { io.wait_writable(0) }.any?

  def fill(writer)
    total = 0
    loop { total += writer.write_nonblock("f" * 65_536) }
  rescue IO::WaitWritable
    total + (writer.is_a?(UNIXSocket) ? fill_by_splice(writer) : 0)
  end

  # Before Linux 6.5 a UNIX socket that is full for write(2) takes more pages by splice.
  def fill_by_splice(writer)
    r, w = IO.pipe
    total = 0
    while w.write("f" * 4096) && (bytes = IO.trysplice(r, nil, writer, nil, 4096)) != :EAGAIN
      total += bytes
    end
    total
  ensure
    [r, w].each(&:close)
  end

  # Fills it without a change of its mode.
  def refill(writer)
    nonblock = writer.nonblock?
    fill(writer)
  ensure
    writer.nonblock = nonblock
  end

  # Fills it for good: TCP and terminals pass on what they hold a little later, which makes room again. TCP may put off
  # an acknowledgement by 40 ms, and asks a peer without room again after 200 ms.
  def fill_up(writer)
    total = fill(writer)
    calm = writer.is_a?(TCPSocket) || writer.tty? ? 0 : 40
    until calm == 40
      sleep 0.01
      more = fill(writer)
      total += more
      calm = more.zero? ? calm + 1 : 0
    end
    total
  end
end

# For tests that fill sockets: with buffers that do not grow.
module SteadyBuffers
  def tcp_pair
    super.each do |socket|
      socket.setsockopt(:SOCKET, :SNDBUF, 65_536)
      socket.setsockopt(:SOCKET, :RCVBUF, 65_536)
    end
  end
end
