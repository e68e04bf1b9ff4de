# frozen_string_literal: true

require_relative "background/transfer"
require_relative "background/under_way"

class IO
  module Splice
    # The error of a transfer that was cancelled by {Transfer#cancel} or {Background#close}, or that belongs to the
    # parent of a forked process.
    Cancelled = Class.new(IOError)

    # The background of this process, created at its first use. A forked child and a Ractor have their own.
    #
    # @example
    #   here, there = UNIXSocket.pair
    #   IO::Splice.background.copy_stream("/proc/self/status", there)
    #   here.read(5) # => "Name:"
    #
    # @return [Background] with one native thread; {Background#initialize} makes one with more
    # @raise [Errno::EMFILE, Errno::EAGAIN] if there is no descriptor or thread for it
    # @see https://man7.org/linux/man-pages/man7/epoll.7.html epoll(7)
    def self.background
      return Copying.own_background unless Ractor.current.equal?(Ractor.main)

      BACKGROUND_LOCK.synchronize { Copying.own_background }
    end

    BACKGROUND_LOCK = Thread::Mutex.new
    private_constant :BACKGROUND_LOCK

    # Runs copies and relays in the background, on its own native threads. Each thread runs any number of them, and
    # waits for all of them together with epoll. While bytes move, no Ruby thread, fiber or GVL is needed. It is made
    # for thousands of slow clients, tunnels and proxies.
    #
    # **Ends** are IOs, Integers, paths, and an `SSLSocket` if the kernel does TLS in the direction that is used: see
    # {Splice.ktls}. A relay needs both directions. At the end, such an output gets a close_notify; an input that ends
    # without one is Errno::EPROTO, and a record that only OpenSSL could answer is an error. Any other object with its
    # own methods to read or write raises TypeError: use the call of the same name in {Splice} for it.
    #
    # **Ownership.** With `close: true`, the default, the transfer owns the ends. Bytes that Ruby has read ahead are
    # sent first, and bytes that it still has to write are written. The IO objects are closed when the call returns; one
    # of `IO.popen` is closed when the transfer has ended, because its close waits for the process. The connections are
    # closed when the transfer has ended. A TCP connection stays open until its peer has everything, or has accepted
    # nothing for 30 seconds: a reset would make the peer lose the rest. With `close: false` the caller keeps the ends,
    # and must not use them until the transfer has ended; then they are positioned right after the last byte that was
    # moved. When a call raises, nothing was taken over or closed.
    #
    # **A block** is called once with the {Transfer} when it has ended, also when it has failed. Blocks run one after
    # another in a Ruby thread of the background. An exception in a block is reported to standard error, like the
    # exception of a thread, and affects no other transfer.
    #
    # No transfer holds up another: neither a peer that never reads nor a file on a disk that is stuck does. A forked
    # child has none of its parent's transfers and keeps none of their descriptors. The end of the process ends the
    # transfers; to wait for them, write `at_exit { IO::Splice.background.drain(10) }`.
    #
    # The guide "Thousands at once" has a proxy, a download server, and what many connections need.
    #
    # @example A proxy of any number of connections, in one thread
    #   def serve(server, upstream)
    #     loop { IO::Splice.background.relay(server.accept, upstream.call, idle_timeout: 60) }
    #   end
    #
    # @see https://man7.org/linux/man-pages/man7/epoll.7.html epoll(7)
    class Background
      # Starts the threads.
      #
      # @example
      #   background = IO::Splice::Background.new(threads: 2)
      #   background.close
      #
      # @param threads [Integer] how many native threads share the transfers
      # @return [Background] with no transfers
      # @raise [ArgumentError] if `threads` is less than 1 or more than 1024
      # @raise [TypeError] if it is not an Integer
      # @raise [Errno::EMFILE, Errno::EAGAIN] if there is no descriptor or thread for it
      def initialize(threads: 1)
        raise TypeError, "threads: #{threads.class} given, expected an Integer" unless threads.is_a?(Integer)
        raise ArgumentError, "threads: #{threads} given, expected 1 to 1024" unless threads.between?(1, 1024)

        @under_way = Copying::UnderWay.new(threads)
      end

      # rubocop:disable Metrics/ParameterLists -- those of the call that waits, and the options of a transfer

      # Begins a copy, as {Splice.copy_stream} makes it, and returns at once.
      #
      # @example A download that takes no thread
      #   File.write("page", "hello")
      #   client, server = UNIXSocket.pair
      #   transfer = IO::Splice.background.copy_stream("page", server)
      #   transfer.value # => 5
      #   client.read    # => "hello"
      #
      # @param src [IO, Integer, String, #to_path, #to_io] the source
      # @param dst [IO, Integer, String, #to_path, #to_io] the target
      # @param len [Integer, nil] how many bytes; nil: to the end
      # @param src_offset [Integer, nil] the byte of the file to begin with; nil: begin at its position
      # @param close [Boolean] whether the transfer owns the ends, and closes them
      # @param idle_timeout [Numeric, nil] the seconds without a byte after which it ends with {TimeoutError}
      # @param rate [Integer, nil] the most bytes a second
      # @yieldparam transfer [Transfer] the transfer, when it has ended
      # @return [Transfer] the copy under way
      # @raise [TypeError] if an end has its own methods to read or write, or an argument has the wrong type
      # @raise [IOError] if the background is closed, or as {Splice.copy_stream}
      # @raise [SystemCallError, ArgumentError, RangeError] as {Splice.copy_stream}
      # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
      # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
      def copy_stream(src, dst, len = nil, src_offset = nil, close: true, idle_timeout: nil, rate: nil, &block)
        Copying.check_copy(len, src_offset)
        Copying.check_terms([!close, idle_timeout, rate])
        ends = Copying.resolve_for_background(src, dst)
        transfer = Transfer.new(@under_way, :copy_stream, len, &block)
        @under_way.take_over(transfer, ends, close, ends.first(1)) do |engine, token|
          Copying.open_ends(ends, src_offset) do |input, output|
            engine.copy_stream(token, [!close, idle_timeout, rate], input, output, len, src_offset)
          end
        end
      end

      # Begins a relay, as {Splice.relay} makes it, and returns at once.
      #
      # @example
      #   client, front = UNIXSocket.pair
      #   back, server = UNIXSocket.pair
      #   transfer = IO::Splice.background.relay(front, back, idle_timeout: 60)
      #   client.write("hello")
      #   server.readpartial(5) # => "hello"
      #   [client, server].each(&:close)
      #   transfer.value        # => [5, 0]
      #
      # With `close: false` the end of a direction is not passed on to a pipe, which stays open for the caller; it is to
      # a socket. For a process that waits for the end of its input, use `close: true`.
      #
      # @param a [IO, Integer, #to_io, Array] a socket, or a pair of an input and an output
      # @param b [IO, Integer, #to_io, Array] the other side
      # @param close (see #copy_stream)
      # @param idle_timeout [Numeric, nil] the seconds without a byte in either direction after which it ends
      # @param rate [Integer, nil] the most bytes a second in each direction
      # @yieldparam (see #copy_stream)
      # @return [Transfer] the relay under way
      # @raise [TypeError, IOError, SystemCallError, ArgumentError, RangeError] as {#copy_stream}
      # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
      # @see https://man7.org/linux/man-pages/man2/shutdown.2.html shutdown(2)
      def relay(a, b, close: true, idle_timeout: nil, rate: nil, &block)
        ends, inputs = Copying.relay_ends(a, b)
        transfer = Transfer.new(@under_way, :relay, &block)
        @under_way.take_over(transfer, ends, close, inputs) do |engine, token|
          engine.relay(token, [!close, idle_timeout, rate], *ends)
        end
      end

      # Begins a copy to several outputs, as {Splice.tee_stream} makes it, and returns at once.
      #
      # @example
      #   here, there = UNIXSocket.pair
      #   transfer = IO::Splice.background.tee_stream("/proc/self/exe", "copy", there, len: 4)
      #   here.read      # => "\x7FELF"
      #   transfer.value # => 4
      #
      # @param src (see #copy_stream)
      # @param dsts [Array<IO, Integer, String, #to_path, #to_io>] the targets
      # @param len [Integer, nil, false] how many bytes, as for {Splice.tee_stream}
      # @param close (see #copy_stream)
      # @param idle_timeout (see #copy_stream)
      # @param rate (see #copy_stream)
      # @yieldparam (see #copy_stream)
      # @return [Transfer] the copy under way
      # @raise [TypeError, IOError, SystemCallError, ArgumentError, RangeError] as {#copy_stream}
      # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
      def tee_stream(src, *dsts, len: false, close: true, idle_timeout: nil, rate: nil, &block)
        len = Copying.check_targets(dsts, len)
        Copying.check_copy(len, nil)
        Copying.check_terms([!close, idle_timeout, rate])
        ends = Copying.resolve_for_background(src, *dsts)
        transfer = Transfer.new(@under_way, :tee_stream, len, dsts, &block)
        @under_way.take_over(transfer, ends, close, ends.first(1)) do |engine, token|
          Copying.open_ends(ends, nil) do |input, *outputs|
            engine.tee_stream(token, [!close, idle_timeout, rate], len, input, *outputs)
          end
        end
      end

      # rubocop:enable Metrics/ParameterLists

      # @example
      #   IO::Splice::Background.new.size # => 0
      #
      # @return [Integer] how many transfers are under way
      def size
        transfers.size
      end

      # @example
      #   IO::Splice::Background.new.transfers # => []
      #
      # @return [Array<Transfer>] those under way
      def transfers
        @under_way.transfers
      end

      # Counts since it was created. It is cheap: ask as often as you like.
      #
      # @example
      #   File.write("page", "hello")
      #   background = IO::Splice::Background.new
      #   background.copy_stream("page", "copy").wait
      #   background.stats # => { under_way: 0, begun: 1, done: 1, cancelled: 0, failed: 0, bytes: 5 }
      #
      # @return [Hash{Symbol => Integer}] `:under_way`, `:begun`, `:done`, `:cancelled` and `:failed` transfers (those
      #   whose {Transfer#value} raises), and `:bytes` that have reached an output
      def stats
        %i[under_way begun done cancelled failed bytes].zip(@under_way.stats).to_h
      end

      # Takes no more transfers, and waits for those under way and for their blocks. The threads and descriptors of the
      # background are released soon after the last transfer has ended.
      #
      # @example
      #   background = IO::Splice::Background.new
      #   background.drain(10) # => true
      #
      # @param timeout [Numeric, nil] the seconds to wait, none if negative; nil: without limit
      # @return [Boolean] whether all have ended
      # @raise [TypeError] if `timeout` is not a number
      # @raise [ArgumentError] if it is NaN
      def drain(timeout = nil)
        Copying.check_timeout(timeout)
        @under_way.close
        @under_way.wait_until_over(timeout)
      end

      # Ends all transfers with {Cancelled}, waits until their blocks have been called, and takes no more.
      #
      # @example
      #   background = IO::Splice::Background.new
      #   background.close
      #   background.closed? # => true
      #
      # @return [nil] when all have ended
      def close
        @under_way.close(stop: true)
        @under_way.wait_until_over(nil)
        nil
      end

      # @example
      #   IO::Splice::Background.new.closed? # => false
      #
      # @return [Boolean] whether it takes no more transfers
      def closed?
        @under_way.closed?
      end

      # @example
      #   IO::Splice::Background.new.inspect # => "#<IO::Splice::Background 0 under way>"
      #
      # @return [String] the class, and how many transfers are under way
      def inspect
        "#<#{self.class} #{size} under way#{", closed" if closed?}>"
      end
    end
  end
end
