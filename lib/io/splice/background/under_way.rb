# frozen_string_literal: true

class IO
  module Splice
    module Copying
      # Calls the blocks of transfers that have ended, one after another, in a Ruby thread.
      # @private
      class Teller
        def initialize(&told)
          @over = Thread::Queue.new
          @told = told
        end

        def <<(transfer)
          @over << transfer
        end

        def run
          return if @thread&.alive?

          over = @over
          @thread = Copying.thread { tell(over) }
        end

        # When no block is left to call. Later ones are for another thread, since this one is about to end.
        def stop
          @over << nil
          @over = Thread::Queue.new
          @thread = nil
        end

        def current? = @thread.equal?(Thread.current)

        private

        def tell(over)
          while (transfer = over.pop)
            begin
              transfer.tell
            ensure
              Copying.without_interrupts(&@told)
            end
          end
        end
      end

      # Waits for transfers that are under way.
      # @private
      module Waiting
        # The seconds after which a waiting thread notices that the thread it waits for was killed.
        LOOK = 1

        # Waits until all have ended and their blocks were called. A block cannot wait for later blocks.
        def wait_until_over(timeout)
          wait_until(timeout, -> { @changed }) do
            @teller.current? ? @transfers.empty? : @untold.zero?
          end
        end

        # Waits for signals until the block returns true; false after the timeout.
        def wait_until(timeout, signal)
          at = timeout && (now + timeout)
          loop do
            synchronize do
              return true if yield

              left = at && (at - now)
              return false if left && left <= 0

              signal.call.wait(@lock, [left, LOOK].compact.min)
            end
          end
        end

        private

        def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      end

      # The Ruby threads that look after transfers.
      # @private
      module Threads
        # The seconds that the threads stay when nothing is under way. With a second thread, each call that may block
        # costs more; but starting one costs more than a short transfer.
        LINGER = 5

        private

        def run_threads
          @reporter = Copying.thread { report(@engine, @teller) } unless @reporter&.alive? || @engine.over?
          @teller.run
        end

        # Restarts them if they were killed. If no thread can be had, those who wait try again.
        def rerun_threads
          run_threads
        rescue ThreadError
          nil
        end

        def report(engine, teller)
          loop do
            engine.wait_ended(LINGER)
            Copying.without_interrupts do
              ended = engine.take_ended
              @lock.synchronize do
                finish(ended, teller)
                return retire(teller) if ended.empty? && (@untold.zero? || engine.over?)
              end
            end
          end
        end

        # The next transfer that is taken over makes another thread.
        def retire(teller)
          @reporter = nil
          teller.stop if @untold.zero?
        end
      end

      # The transfers of a background that are under way. One Ruby thread collects those that have ended, and passes
      # them to the teller. In a forked child it starts anew.
      # @private
      class UnderWay
        include Waiting
        include Threads

        def initialize(threads)
          @threads = threads
          @lock = Thread::Mutex.new
          @closed = false
          start
        end

        def transfers = synchronize { @transfers.values }
        def stats = synchronize { @engine.stats }
        def closed? = @closed

        # Whether it is the engine of this process.
        def engine?(engine) = engine.equal?(@engine) && engine.of_this_process?

        def close(stop: false)
          synchronize do
            @closed = true
            stop ? @engine.stop : @engine.drain
          end
        end

        # Takes over everything or nothing: an interrupt comes before or after.
        def take_over(transfer, ends, close, inputs)
          Thread.handle_interrupt(Object => :on_blocking) do
            engine, token = expect
            handle = or_not { Copying.lend_decrypted(inputs) { yield engine, token } }
            Copying.without_interrupts do
              synchronize { note(transfer.begin(engine, handle, (ends unless close), inputs), token) }
              Copying.close_taken(transfer, ends) if close
            end
          end
          transfer
        end

        private

        def start
          @engine = Engine.new(@threads)
          @engine.drain if @closed
          @transfers = {}
          @untold = 0 # those that are taken over or about to be, until their blocks have been called
          @token = 0
          @reporter = nil
          @teller = Teller.new { told }
          @changed = Thread::ConditionVariable.new
        end

        def synchronize
          @lock.synchronize do
            start unless @engine.of_this_process?
            rerun_threads if @untold.positive?
            yield
          end
        end

        def expect
          synchronize do
            raise IOError, "closed background" if @closed

            run_threads # so that nothing is taken over when there are none to be had
            @untold += 1
            [@engine, @token += 1]
          end
        end

        def note(transfer, token)
          @transfers[token] = transfer
          rerun_threads
          @changed.broadcast
        end

        # Undoes the count of a transfer that was not taken over, because of an exception.
        def or_not
          handle = yield
        ensure
          Copying.without_interrupts { told } unless handle
        end

        def finish(ended, teller)
          ended.each do |token, *result|
            # It may have ended before {#take_over} has noted it.
            @changed.wait(@lock) until @transfers.key?(token)
            teller << @transfers.delete(token).tap { |transfer| transfer.finish(*result) }
          end
          @changed.broadcast unless ended.empty?
        end

        def told
          @lock.synchronize do
            @untold -= 1
            @teller.stop if @untold.zero? && @engine.over?
            @changed.broadcast
          end
        end
      end

      module_function

      # Does not inherit the interrupt mask of its creator: the end of the process is an interrupt too.
      def thread(&work)
        Thread.new { Thread.handle_interrupt(Object => :immediate, &work) }.tap do |thread|
          thread.name = "io_splice"
          thread.report_on_exception = false
        end
      end

      def resolve_for_background(*ends)
        check_for_background(*ends)
        resolve_tls(*ends)
      end

      # The background calls no methods: it takes only the directions of TLS that the kernel does.
      def check_for_background(src, *dsts)
        check_descriptor(src) unless kernel_reads?(src)
        dsts.each { |dst| check_descriptor(dst) unless kernel_writes?(dst) }
      end

      def check_descriptor(end_)
        return if descriptor?(end_)

        why = pages?(end_) ? "is not a file, pipe or socket" : "has its own methods to read and write"
        raise TypeError, "#{kind(end_)} cannot be used in the background, because it #{why}: " \
                         "use the call of the same name in IO::Splice"
      end

      # Raises for an invalid timeout, as Ruby does. A negative one has passed, as for Thread#join.
      def check_timeout(timeout)
        return if timeout.nil?

        is_real = timeout.is_a?(Numeric) && timeout.real?
        raise TypeError, "can't convert #{timeout.class} into time interval" unless is_real
        raise ArgumentError, "timeout: NaN given" if timeout.respond_to?(:nan?) && timeout.nan?
      end

      # The ends of a relay as the engine takes them, and its inputs.
      def relay_ends(*sides)
        sides = sides.map { |side| pair(side).tap { |input, output| check_for_background(input, output) } }
        inputs = sides.map(&:first)
        [sides.all? { |input, output| input.equal?(output) } ? inputs : sides.flatten(1), inputs]
      end

      # The background of this Ractor.
      def own_background
        ractor = Ractor.current
        background = ractor[:io_splice_background]
        return background if background && !background.closed?

        ractor[:io_splice_background] = Background.new
      end

      # Puts back what could not be delivered, if the input can take it.
      def put_back(input, bytes)
        tls?(input) ? unread_tls(input, bytes) : unread(input, bytes)
      rescue StandardError
        nil # the input is a path, a number or closed
      end

      # Closes what a transfer has taken over, and leaves the standard streams open.
      def close_taken(transfer, ends)
        ends.grep_v(String).each do |end_|
          io = end_.is_a?(Integer) ? IO.for_fd(end_, autoclose: end_ > 2) : end_
          io = io.to_io if tls?(io) # the transfer sends the close_notify, at its end
          next if io.fileno <= 2 || transfer.close_later(io)

          io.close
        rescue StandardError
          next # the transfer continues, whatever a custom close raises
        end
      end

      # As Ruby reports an exception that ends a thread.
      def report(transfer, exception)
        Thread.main.raise(exception) if Thread.abort_on_exception || exception.is_a?(SystemExit)
        return if exception.is_a?(SystemExit)

        $stderr.write("#{transfer.inspect}: its block raised:\n#{exception.full_message(highlight: false)}")
      end
    end
  end
end
