# frozen_string_literal: true

# Downloads, as many at once as are asked for, each at so many bytes a second: `downloads.rb PORT COUNT BYTES`. It says
# "ready" when all have asked, and ends with its standard input.

require "socket"

port, count, rate = ARGV.map(&:to_i)
TURNS = 10 # in a second

sockets = Array.new(count) do
  socket = Socket.new(:INET, :STREAM)
  socket.setsockopt(:SOCKET, :RCVBUF, 32_768)
  socket.connect(Addrinfo.tcp("127.0.0.1", port))
  socket.write("GET /file HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
  socket
end
$stdout.syswrite("ready\n")
buffer = +""
following = Process.clock_gettime(Process::CLOCK_MONOTONIC)
until $stdin.wait_readable([following - Process.clock_gettime(Process::CLOCK_MONOTONIC), 0].max)
  following += 1.0 / TURNS
  sockets.reject! { |socket| socket.read_nonblock(rate / TURNS, buffer, exception: false).nil? }
end
