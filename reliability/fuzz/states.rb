# frozen_string_literal: true

require "io/nonblock"

module Fuzz
  # What the two ends of a pipe, or a pair of sockets, may be like.
  module States
    # A pipe's state is that of its content, or of how Ruby and the kernel keep it.
    ALL = {
      "empty" => ->(_, _) {},
      "data" => ->(_, writer) { writer.syswrite(Ends::WORDS) },
      "full" => ->(reader, writer) { States.fill(reader, writer) },
      "eof" => ->(_, writer) { writer.syswrite(Ends::WORDS) && States.no_more(writer) },
      "ended" => ->(_, writer) { States.no_more(writer) },
      "broken" => ->(reader, _) { reader.close },
      "ahead" => ->(reader, writer) { writer.syswrite(Ends::WORDS) && reader.gets },
      "unwritten" => ->(_, writer) { States.keep_unwritten(writer) },
      "stuck" => ->(reader, writer) { States.fill(reader, writer) && States.keep_unwritten(writer) },
      "blocking" => ->(*both) { both.each { |io| io.nonblock = false } },
      "urgent" => ->(_, writer) { States.send_urgent(writer) },
      "noted" => ->(reader, _) { States.fill_error_queue(reader) },
      "waiting" => ->(*both) { both.first.respond_to?(:timeout=) && both.each { |io| io.timeout = 0.001 } },
    }.freeze

    def self.fill(reader, writer)
      ::Ends.narrow(reader, writer, 4096)
      64.times { writer.write_nonblock("f" * 4096) }
    rescue IO::WaitWritable
      true
    end

    def self.keep_unwritten(writer)
      writer.sync = false
      writer.write("unwritten")
    end

    def self.send_urgent(writer)
      writer.syswrite("before")
      writer.is_a?(BasicSocket) ? writer.send("!", Socket::MSG_OOB) : writer.syswrite("!")
      writer.syswrite("after")
    rescue Errno::EOPNOTSUPP
      nil
    end

    SO_TIMESTAMPING = 37
    TIME_STAMPS = (1 << 1) | (1 << 4) | (1 << 11)

    # poll(2) says POLLERR of a TCP socket that is told when each packet left.
    def self.fill_error_queue(socket)
      return unless socket.is_a?(TCPSocket)

      socket.setsockopt(Socket::SOL_SOCKET, SO_TIMESTAMPING, TIME_STAMPS)
      socket.syswrite("sent")
    end

    def self.no_more(writer) = writer.is_a?(BasicSocket) ? writer.close_write : writer.close
  end
end
