# frozen_string_literal: true

class IO
  module Splice
    # @private
    module Copying
      # A side of a relay that is read from: by methods, which wait for nobody.
      # @private
      class Input
        # As large as a record of TLS: what is written is sent at once then.
        PORTION = 16 << 10

        # @return [IO] what is waited for
        attr_reader :io

        def initialize(end_)
          @end = end_
          @io = Copying.io_to_wait_for(end_)
          @buffer = String.new
        end

        def tls? = Copying.tls?(@end)

        # Whether bytes may come from it by its descriptor.
        def works? = !tls? || Copying.kernel_reads?(@end)

        # Whether it has bytes that the kernel does not have any more.
        def decrypted? = tls? && Copying.decrypted?(@end)

        # @return [String, nil, Symbol] bytes, as long as it is not called again; nil at the end; or `:wait_readable` or
        #   `:wait_writable`
        def read
          return @end.read_nonblock(PORTION, @buffer, exception: false) if tls?
          return @io.read_nonblock(PORTION, @buffer, exception: false) unless @io.is_a?(BasicSocket)

          # It leaves the mode of a socket as it is, which Ruby's read_nonblock does not.
          bytes = Copying.read_ahead(@io)
          bytes = @io.recv_nonblock(PORTION, 0, @buffer, exception: false) if bytes.empty?
          bytes unless bytes == ""
        end

        # Puts bytes back that could not be delivered.
        def unread(bytes)
          return @io.ungetbyte(bytes) unless tls?

          Copying.take_back(@end)
          Copying.unread_tls(@end, bytes)
        rescue IOError
          nil # it is closed
        end
      end

      # A side of a relay that is written to: by methods, which wait for nobody.
      # @private
      class Output
        # @return [IO] what is waited for
        attr_reader :io

        def initialize(end_)
          @end = end_
          @io = Copying.io_to_wait_for(end_)
          (tls? ? end_ : @io).flush
        end

        def tls? = Copying.tls?(@end)

        # Whether bytes may go to it by its descriptor.
        def works? = !tls? || Copying.kernel_writes?(@end)

        # @return [Integer, Symbol] how many bytes it has taken, or `:wait_writable` or `:wait_readable`
        def write(bytes)
          return @end.write_nonblock(bytes, exception: false) if tls?
          return Copying.send_now(@io, bytes) || :wait_writable if @io.is_a?(BasicSocket)

          @io.write_nonblock(bytes, exception: false)
        end

        # Tells who reads that this is all. A close_notify that does not fit would be lost, so that waits for room.
        # @return [Boolean] whether it is told
        def tell_of_the_end
          return false unless @io.wait_writable(0)

          tell
          true
        rescue Errno::ENOTCONN
          true # it knows
        end

        private

        def tell
          return @end.__send__(:stop) if tls?

          @io.is_a?(BasicSocket) ? @io.shutdown(Socket::SHUT_WR) : Copying.pass_on_end(@end)
        end
      end

      # One direction of a relay with a TLS side: in the kernel where that encrypts for both ends, else by methods.
      # @private
      class Direction
        # How many steps it makes before the other direction has its turn.
        TURN = 32
        NOTHING = ""

        # @return [Array<Array(IO, Boolean)>] what it waits for, each with whether it is to be written to
        attr_reader :awaited

        # @return [Float, nil] how long it rests at most
        attr_reader :rest

        def initialize(src, dst)
          @ends = [src, dst]
          @input = Input.new(src)
          @output = Output.new(dst)
          @in_kernel = @input.works? && @output.works?
          @state = :open
          @bytes = 0
          @held = NOTHING
        end

        # @return [Integer] how many bytes have reached the output
        def bytes = @bytes + (@flow ? @flow.bytes : 0)

        def over? = @state == :over

        # Goes on for a while, as far as it goes at once.
        # @return [Boolean] whether something has moved
        def advance
          @awaited = []
          @rest = nil
          moved = TURN.times.take_while { move }.any?
          @waits_since = (@waits_since || Copying.now unless moved)
          moved
        end

        # When IO#timeout of the ends that it waits for is over, each with what is said then.
        def timeouts
          @awaited.filter_map do |io, to_write|
            timeout = io.timeout if io.respond_to?(:timeout)
            next unless timeout

            [@waits_since + timeout, "Timed out waiting for IO to become #{to_write ? "writable" : "readable"}!"]
          end
        end

        # Delivers what goes at once; the rest goes back.
        def abort
          @flow&.abort(@input.io, (@ends.last if @output.works?))
          deliver unless @held.empty?
        rescue SystemCallError, IOError, OpenSSL::SSL::SSLError
          nil # it is broken
        ensure
          @input.unread(@held)
        end

        private

        def move
          return @state == :ended && tell unless @state == :open
          return deliver unless @held.empty?
          return take(@input.read) if !@in_kernel || @input.decrypted?

          @flow ||= Flow.new(*@ends)
          run_flow
        end

        def run_flow
          case (paused = @flow.run(*@ends))
          when nil then end_of_flow
          when false then true
          else
            for_input, for_output, @rest = paused
            await(@input.io, false) if for_input
            await(@output.io, true) if for_output
            false
          end
        end

        # At a record that is not data, or at the end: what that is, OpenSSL says.
        def end_of_flow
          @bytes = bytes
          @flow = nil
          take(@input.tls? ? @input.read : nil)
        end

        def take(bytes)
          case bytes
          when Symbol then return await(@input.io, bytes == :wait_writable)
          when nil then @state = :ended
          else @held = bytes
          end
          true
        end

        def deliver
          written = @output.write(@held)
          return await(@output.io, written == :wait_writable) if written.is_a?(Symbol)

          @bytes += written
          @held = written == @held.bytesize ? NOTHING : @held.byteslice(written..)
          true
        end

        def tell
          return await(@output.io, true) unless @output.tell_of_the_end

          @state = :over
          true
        end

        def await(io, to_write)
          @awaited << [io, to_write]
          false
        end
      end

      # {Splice.relay} with an SSLSocket on a side, or on both.
      # @private
      class TLSRelay
        def initialize(a, b, idle_timeout)
          require "socket"
          (a_in, a_out), (b_in, b_out) = [a, b].map { |side| Copying.pair(side) }
          Copying.check_terms([false, idle_timeout, nil])
          @idle_timeout = idle_timeout
          @directions = [Direction.new(a_in, b_out), Direction.new(b_in, a_out)]
        end

        # @return [Array(Integer, Integer)] the bytes of each direction
        def run
          # An interrupt comes where it waits, and nowhere else.
          Thread.handle_interrupt(Object => :on_blocking) { relay }
          bytes
        rescue Exception => e # rubocop:disable Lint/RescueException -- it goes on, and tells how far this came
          raise Copying.mark(e, Relayed, :@bytes_relayed, bytes)
        end

        private

        def bytes = @directions.map(&:bytes)

        def relay
          @moved_at = Copying.now
          until (open = @directions.reject(&:over?)).empty?
            open.map(&:advance).any? ? moved : wait(open)
          end
          finished = true
        ensure
          Copying.without_interrupts { @directions.each(&:abort) } unless finished
        end

        def moved
          @moved_at = Copying.now
          Copying.wait_for_any([], 0.0) if Thread.pending_interrupt?
        end

        def wait(open)
          due = open.flat_map(&:timeouts)
          due << [@moved_at + @idle_timeout, "Timed out: no byte in either direction"] if @idle_timeout
          rests = open.filter_map(&:rest)
          rests << left_of(*due.min_by(&:first)) unless due.empty?
          Copying.wait_for_any(open.flat_map(&:awaited), rests.min)
        end

        def left_of(due, message)
          left = due - Copying.now
          left.positive? ? left : raise(TimeoutError, message)
        end
      end

      module_function

      def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

      def io_to_wait_for(end_)
        case end_
        when IO then end_
        when Integer then (socket?(end_) ? Socket : IO).for_fd(end_).tap { |io| io.autoclose = false }
        else IO.try_convert(end_) || raise(TypeError, "#{kind(end_)} is not an IO")
        end
      end

      def socket?(number) = IO.for_fd(number, autoclose: false).stat.socket?
    end
  end
end
