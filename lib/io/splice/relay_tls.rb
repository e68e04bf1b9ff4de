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
          @is_tls = Copying.tls?(end_)
          @is_socket = @io.is_a?(BasicSocket)
          @buffer = String.new
        end

        def tls? = @is_tls

        # Whether bytes may come from it by its descriptor.
        def works? = !tls? || Copying.kernel_reads?(@end)

        # Whether it has bytes that the kernel does not have any more.
        def decrypted? = tls? && Copying.decrypted?(@end)

        # @return [String, nil, Symbol] bytes, as long as it is not called again; nil at the end; or `:wait_readable` or
        #   `:wait_writable`
        def read
          return @end.read_nonblock(PORTION, @buffer, exception: false) if @is_tls

          # Ruby's read_nonblock would change the mode of the descriptor.
          bytes = Copying.read_ahead(@io)
          return bytes unless bytes.empty?
          return Copying.read_now(@io, PORTION) unless @is_socket

          bytes = @io.recv_nonblock(PORTION, 0, @buffer, exception: false)
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
          @is_tls = Copying.tls?(end_)
          @is_socket = @io.is_a?(BasicSocket)
          (tls? ? end_ : @io).flush
        end

        def tls? = @is_tls

        # Whether bytes may go to it by its descriptor.
        def works? = !tls? || Copying.kernel_writes?(@end)

        # @return [Integer, Symbol] how many bytes it has taken, or `:wait_writable` or `:wait_readable`
        def write(bytes)
          return @end.write_nonblock(bytes, exception: false) if @is_tls

          Copying.write_now(@io, bytes) || :wait_writable
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

          @is_socket ? @io.shutdown(Socket::SHUT_WR) : Copying.pass_on_end(@end)
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
          @awaited = []
          @bytes = 0
          @held = NOTHING
        end

        # @return [Integer] how many bytes have reached the output
        def bytes = @bytes + (@flow ? @flow.bytes : 0)

        def over? = @state == :over

        # Whether it has to wait before it can go on.
        def waits? = !@awaited.empty? || !@rest.nil?

        # Goes on for a while, as far as it goes at once.
        # @return [Boolean] whether something has moved
        def advance
          steps = 0
          steps += 1 while steps < TURN && move
          @waits_since = Copying.now unless steps.zero? && @waits_since
          steps.positive?
        end

        # Ends its wait if one of these is what it waits for; nil is all, and a rest is over in any case.
        def go_on(ready)
          return unless ready.nil? || @rest || @awaited.intersect?(ready)

          @awaited = []
          @rest = nil
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
          return take(@input.read) unless @in_kernel && !@input.decrypted?

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

        # What was read is written at once.
        def take(bytes)
          case bytes
          when String
            @held = bytes
            deliver
          when Symbol then await(@input.io, bytes == :wait_writable)
          else @state = :ended
          end
        end

        def deliver
          written = @output.write(@held)
          case written
          when Symbol then return await(@output.io, written == :wait_writable)
          when @held.bytesize then @held = NOTHING
          else @held = @held.byteslice(written..)
          end
          @bytes += written
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
          advance until @directions.all?(&:over?)
          finished = true
        ensure
          Copying.without_interrupts { @directions.each(&:abort) } unless finished
        end

        def advance
          open = @directions.reject(&:over?)
          @moved_at = Copying.now if open.reject(&:waits?).map(&:advance).any?
          wait(open)
        end

        # Looks only whether somebody's wait is over, when not all have to wait.
        def wait(open)
          waiting = open.select(&:waits?)
          timeout = waiting.size < open.size ? 0.0 : patience(waiting)
          return if waiting.empty? && !Thread.pending_interrupt?

          ready = Copying.wait_for_any(waiting.flat_map(&:awaited), timeout)
          waiting.each { |direction| direction.go_on(ready) }
        end

        # How long it may take, in seconds; nil is for ever.
        def patience(waiting)
          due = waiting.flat_map(&:timeouts)
          due << [@moved_at + @idle_timeout, "Timed out: no byte in either direction"] if @idle_timeout
          rests = waiting.filter_map(&:rest)
          rests << left_of(*due.min_by(&:first)) unless due.empty?
          rests.min
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
