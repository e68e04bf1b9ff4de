# frozen_string_literal: true

require "fcntl"

class IO
  module Splice
    # `IO::TimeoutError` from Ruby 3.2 on; before, a class of this gem.
    TimeoutError = IO.const_defined?(:TimeoutError) ? IO::TimeoutError : Class.new(IOError)

    # Extends an exception that ended a {Splice.relay}.
    #
    # @example
    #   client, front = UNIXSocket.pair
    #   back, server = UNIXSocket.pair
    #   client.write("hello")
    #   begin
    #     IO::Splice.relay(front, back, idle_timeout: 0.1)
    #   rescue IO::Splice::Relayed => e
    #     e.class == IO::Splice::TimeoutError # => true
    #     e.bytes_relayed                     # => [5, 0]
    #   end
    #
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    module Relayed
      # @return [Array(Integer, Integer)] the bytes delivered from a to b, and from b to a
      attr_reader :bytes_relayed
    end

    # Copies in both directions between two sockets until both have ended, as a proxy does. It is one loop, in the
    # thread or fiber that calls it, and waits as every call: see {Splice}.
    #
    # When one side ends, the other is told by `shutdown` for writing, and the other direction continues. Neither socket
    # is closed. Bytes that Ruby has read ahead go first, so a proxy that has read a request line with `gets` can hand
    # over from there. Small messages are passed on at once. An idle relay takes neither CPU nor a pipe.
    #
    # A side may also be a pair of an input and an output, such as pipes. A pipe is closed to signal the end, unless it
    # is a standard stream.
    #
    # A side may be an `SSLSocket`. A direction goes through its descriptor where the kernel encrypts (see {ktls}), else
    # through its own methods. It ends with a close_notify.
    #
    # An exception is extended with {Relayed}, which says how much was copied. What could not be delivered goes back
    # into Ruby's read buffer of the side that it came from. A reset of a connection raises `Errno::ECONNRESET` or
    # `Errno::EPIPE`, after what had arrived from the other side has been delivered.
    #
    # Under a fiber scheduler, a close of a side by another fiber is noticed at the next event only.
    #
    # @example A proxy for one connection
    #   backend, server = UNIXSocket.pair
    #   client, front = UNIXSocket.pair
    #   Thread.new { server.write("echo: #{server.gets}") && server.close }
    #   proxy = Thread.new { IO::Splice.relay(front, backend) }
    #   client.puts "hello"
    #   client.close_write
    #   client.read # => "echo: hello\n"
    #   proxy.value # => [6, 12]
    #
    # @param a [IO, Integer, #to_io, OpenSSL::SSL::SSLSocket, Array] a socket, or a pair of an input and an output
    # @param b [IO, Integer, #to_io, OpenSSL::SSL::SSLSocket, Array] the other side
    # @param idle_timeout [Numeric, nil] the seconds without a byte in either direction after which it raises
    # @return [Array(Integer, Integer)] the bytes from a to b, and from b to a
    # @raise [TimeoutError] after `idle_timeout`, or after `IO#timeout` of a side that is waited for (Ruby 3.2)
    # @raise [Relayed] mixed into any exception raised after it has begun
    # @raise [Errno::ECONNRESET, Errno::EPIPE] and others of the kernel
    # @raise [OpenSSL::SSL::SSLError] of OpenSSL, for instance if a connection ends without a close_notify
    # @raise [ArgumentError] if `idle_timeout` is negative, or an array is not a pair
    # @raise [TypeError] if an object other than an SSLSocket has its own methods to read or write
    # @raise [Errno::EBADF, IOError, RangeError, TypeError] as every call: see {Splice}
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    # @see https://man7.org/linux/man-pages/man2/shutdown.2.html shutdown(2)
    def self.relay(a, b, idle_timeout: nil)
      raise ArgumentError, "relay takes no block: that of a background does" if block_given?

      return Copying::TLSRelay.new(a, b, idle_timeout).run if [a, b].flatten(1).any? { |end_| Copying.tls?(end_) }

      (a_in, a_out), (b_in, b_out) = [a, b].map { |side| Copying.pair(side) }
      Copying.relay_between(a_in, b_out, b_in, a_out, idle_timeout) do |direction|
        Copying.pass_on_end([b_out, a_out][direction])
      end
    end

    # @private
    module Copying # :nodoc: all
      module_function

      def pair(side)
        case side
        when Array
          side.size == 2 or raise ArgumentError, "a side is a socket, or a pair of an input and an output"
          side.each { |end_| check_end(end_) }
        else pair([side, side])
        end
      end

      # A relay would bypass an object's own methods, which may encrypt.
      def check_end(end_)
        return if descriptor?(end_) || tls?(end_) || !can?(end_, :to_io)

        raise TypeError, "#{kind(end_)} cannot be relayed: it has its own methods to read and write"
      end

      # Only a close tells the reader of an output that is not a socket that the input has ended.
      def pass_on_end(output)
        io = output.is_a?(Integer) ? IO.for_fd(output, autoclose: false) : output.to_io
        return unless io.stat.pipe? && io.fileno > 2

        # A FIFO that is open for both directions cannot be closed for one.
        both_ways = io.fcntl(Fcntl::F_GETFL) & Fcntl::O_ACCMODE == Fcntl::O_RDWR
        without_interrupts do
          io.autoclose = true if output.is_a?(Integer)
          both_ways ? io.close : io.close_write
        end
      end
    end
  end
end
