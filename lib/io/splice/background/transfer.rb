# frozen_string_literal: true

class IO
  module Splice
    # A copy or a relay in the background, begun by {Background}. Any thread may ask it, wait for it and cancel it. It
    # goes on if you do not keep it.
    #
    # @example
    #   here, there = UNIXSocket.pair
    #   transfer = IO::Splice.background.copy_stream("/proc/self/exe", there, 1000)
    #   here.read.size # => 1000
    #   transfer.value # => 1000
    #   transfer.error # => nil
    #
    # @see https://man7.org/linux/man-pages/man7/epoll.7.html epoll(7)
    class Transfer
      # @private
      def initialize(under_way, kind, len = nil, targets = nil, &block)
        @under_way = under_way
        @kind = kind
        @block = block
        # There may be thousands of relays, which have none of these: a variable takes memory even if it is nil.
        @len = len if len
        @targets = targets if targets
      end

      # @example
      #   here, there = UNIXSocket.pair
      #   transfer = IO::Splice.background.copy_stream(there, "copy")
      #   transfer.bytes # => 0
      #
      # @return [Integer, Array(Integer, Integer)] the bytes that have reached the output so far; for a relay, from a to
      #   b and from b to a
      def bytes
        bytes = @delivered || @handle.bytes
        @kind == :relay ? bytes.first(2) : bytes.max
      end

      # @example
      #   here, there = UNIXSocket.pair
      #   IO::Splice.background.copy_stream(there, "copy").done? # => false
      #
      # @return [Boolean] whether it has ended
      def done?
        !@delivered.nil? || abandon?
      end

      # Waits until it has ended. Interrupts end the wait, not the transfer.
      #
      # @example
      #   here, there = UNIXSocket.pair
      #   transfer = IO::Splice.background.copy_stream(there, "copy")
      #   transfer.wait(0.01)               # => nil
      #   here.close
      #   transfer.wait.equal?(transfer)    # => true
      #
      # @param timeout [Numeric, nil] the seconds to wait, none if negative; nil: without limit
      # @return [Transfer, nil] itself; nil after the timeout
      # @raise [TypeError] if `timeout` is not a number
      # @raise [ArgumentError] if it is NaN
      def wait(timeout = nil)
        Copying.check_timeout(timeout)
        self if done? || @under_way.wait_until(timeout, -> { @ended ||= Thread::ConditionVariable.new }) { done? }
      end

      # Waits until it has ended, and raises what the call of the same name in {Splice} would raise.
      #
      # @example
      #   File.write("page", "hello")
      #   IO::Splice.background.copy_stream("page", "copy").value # => 5
      #
      # @return [Integer, Array(Integer, Integer)] {#bytes}
      # @raise [Cancelled] if it was cancelled
      # @raise [TimeoutError] after `idle_timeout`
      # @raise [EOFError, IOError, SystemCallError] as the call of the same name
      def value
        wait
        raise error if error

        bytes
      end

      # @example
      #   here, there = UNIXSocket.pair
      #   transfer = IO::Splice.background.copy_stream(there, "copy").cancel
      #   transfer.wait.error.class # => IO::Splice::Cancelled
      #
      # @return [Exception, nil] what {#value} raises; nil while it is under way, and if it has succeeded
      def error
        abandon?
        @error
      end

      # Ends it with {Cancelled}, unless it has ended. Returns at once; {#wait} waits for the end. Bytes in flight are
      # delivered if the output takes them at once.
      #
      # @example
      #   here, there = UNIXSocket.pair
      #   IO::Splice.background.copy_stream(there, "copy").cancel.wait.done? # => true
      #
      # @return [Transfer] itself
      def cancel
        @handle.cancel
        self
      end

      # @example
      #   File.write("page", "hello")
      #   transfer = IO::Splice.background.copy_stream("page", "copy").wait
      #   transfer.inspect # => "#<IO::Splice::Transfer copy_stream, 5 bytes, done>"
      #
      # @return [String] the call, the bytes and the state
      def inspect
        state = error ? error.class : { true => "done", false => "under way" }[done?]
        "#<#{self.class} #{@kind}, #{Array(bytes).join(" and ")} bytes, #{state}>"
      end

      # For pattern matching.
      #
      # @example
      #   File.write("page", "hello")
      #   copied = case IO::Splice.background.copy_stream("page", "copy").wait
      #            in { done: true, error: nil, bytes: } then bytes
      #            end
      #   copied # => 5
      #
      # @param keys [Array<Symbol>, nil] those that the pattern asks for; nil: all
      # @return [Hash{Symbol => Object}] `:kind` (`:copy_stream`, `:relay` or `:tee_stream`), `:bytes` as {#bytes},
      #   `:done` as {#done?}, and `:error` as {#error}
      # @raise [TypeError] if `keys` is neither an Array nor nil
      def deconstruct_keys(keys)
        is_list = keys.nil? || keys.is_a?(Array)
        raise TypeError, "wrong argument type #{keys.class} (expected Array or nil)" unless is_list

        done = done? # before the rest, which may change until then
        all = { kind: @kind, done:, error:, bytes: }
        keys ? all.slice(*keys) : all
      end

      # @private
      def begin(engine, handle, ends, inputs)
        @engine = engine
        @handle = handle
        return self unless ends

        @ends = ends # kept from the garbage collector while in use
        @inputs = inputs
        self
      end

      # An IO whose close would wait is closed when the transfer has ended.
      # @private
      def close_later(io)
        (@closing ||= []) << io if io.to_io.pid
      end

      # @private
      def finish(error, delivered, unread)
        release_ends(unread)
        @error = error ? partial(error, delivered) : short(delivered)
        name_target if @targets && @error.is_a?(PartialTee)
        @delivered = delivered
        @ended&.broadcast
      end

      # @private
      def tell
        @closing&.each { |io| Thread.new { io.close } }
        @block&.call(self)
      rescue Exception => e # rubocop:disable Lint/RescueException -- no other transfer may be affected
        Copying.report(self, e)
      end

      private

      # Those that stay the caller's get back what could not be delivered.
      def release_ends(unread)
        return unless @ends

        @inputs.zip(unread) { |input, bytes| Copying.put_back(input, bytes) unless bytes.empty? }
        @ends = @inputs = nil
      end

      def short(delivered)
        copied = delivered.max
        return unless @len && copied < @len
        return Copying.ended_early(copied, @len) unless @targets

        Copying.tee_ended_early(copied, @len, @targets.size)
      end

      def partial(error, delivered)
        @kind == :copy_stream ? Copying.partial_write(error, delivered.max) : error
      end

      # The index becomes the target as it was given.
      def name_target
        @error.instance_variable_set(:@target, @error.target && @targets[@error.target])
      end

      # In a forked child it has ended: it belongs to the parent.
      def abandon?
        return false if @delivered || @under_way.engine?(@engine)

        @error = Cancelled.new("the transfer belongs to the process that this one was forked from")
        @delivered = [0, 0]
        true
      end
    end
  end
end
