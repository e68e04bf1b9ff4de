# frozen_string_literal: true

class IO
  module Splice
    module Copying
      # The transfers of a background that are under way, and the Ruby thread that tells of their ends. In a forked
      # child it begins anew.
      # @private
      class UnderWay
        # How long the thread stays when nothing is under way, in seconds: beside a second thread each call that may
        # block costs more.
        LINGER = 5

        def initialize(threads)
          @threads = threads
          @lock = Thread::Mutex.new
          @closed = false
          start
        end

        def transfers = synchronize { @transfers.values }
        def stats = synchronize { @engine.stats }
        def closed? = @closed

        # Whether that is the engine of this process.
        def engine?(engine) = engine.equal?(@engine) && engine.of_this_process?

        def close(stop: false)
          synchronize do
            @closed = true
            @engine.stop if stop
          end
        end

        # Nothing is taken over, or all of it: an interrupt comes before or after.
        def take_over(transfer, ends, close, inputs)
          Thread.handle_interrupt(Object => :on_blocking) do
            engine, token = synchronize { [@engine, @token += 1] }
            raise IOError, "closed background" if @closed

            handle = yield engine, token
            Copying.without_interrupts do
              synchronize { note(transfer.begin(engine, handle, close ? [] : ends, inputs), token) }
              Copying.close_taken(transfer, ends) if close
            end
          end
          transfer
        end

        # Waits until all are over and told of. From a block it cannot wait for its own.
        def wait_until_over(timeout)
          wait_until(timeout, -> { @changed }) { @unreported <= (@reporter.equal?(Thread.current) ? 1 : 0) }
        end

        # Waits for a signal, until a block says that it is enough; false after the timeout.
        def wait_until(timeout, signal)
          at = timeout && (now + timeout)
          synchronize do
            until yield
              left = at && (at - now)
              return false if left && left <= 0

              signal.call.wait(@lock, left)
            end
          end
          true
        end

        private

        def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

        def start
          @engine = Engine.new(@threads)
          @transfers = {}
          @unreported = 0
          @token = 0
          @reporter = nil
          @changed = Thread::ConditionVariable.new
        end

        def synchronize
          @lock.synchronize do
            start unless @engine.of_this_process?
            report if @unreported.positive? && !@reporter&.alive?
            yield
          end
        end

        def note(transfer, token)
          @transfers[token] = transfer
          @unreported += 1
          report unless @reporter&.alive?
          @changed.broadcast
        end

        def report
          @reporter = Thread.new { report_all }
          @reporter.name = "io_splice"
          @reporter.report_on_exception = false
        end

        def report_all
          engine = @engine
          loop do
            engine.wait_ended(LINGER)
            Copying.without_interrupts { finish(engine.take_ended) }.each { |transfer| tell(transfer) }
            @lock.synchronize do
              return @reporter = nil if @unreported.zero? && engine.stats.first.zero?
            end
          end
        end

        def finish(ended)
          @lock.synchronize do
            transfers = ended.map do |token, *result|
              # It may have ended before {#take_over} has noted it.
              @changed.wait(@lock) until @transfers.key?(token)
              @transfers.delete(token).tap { |transfer| transfer.finish(*result) }
            end
            @changed.broadcast
            transfers
          end
        end

        def tell(transfer)
          transfer.tell
        ensure
          @lock.synchronize do
            @unreported -= 1
            @changed.broadcast
          end
        end
      end

      module_function

      def resolve_for_background(*ends)
        ends.each { |end_| check_descriptor(end_) }
        resolve(*ends)
      end

      def check_descriptor(end_)
        return if descriptor?(end_)

        raise TypeError, "#{kind(end_)} has methods of its own to read and write: " \
                         "use the call of the same name in IO::Splice"
      end

      # The ends of a relay as the engine takes them, and its inputs.
      def relay_ends(*sides)
        sides = sides.map { |side| pair(side).each { |end_| check_descriptor(end_) } }
        inputs = sides.map(&:first)
        [sides.all? { |input, output| input.equal?(output) } ? inputs : sides.flatten(1), inputs]
      end

      # That of this Ractor.
      def own_background
        ractor = Ractor.current
        background = ractor[:io_splice_background]
        return background if background && !background.closed?

        ractor[:io_splice_background] = Background.new
      end

      # Closes what a transfer has taken over, and leaves the standard streams open.
      def close_taken(transfer, ends)
        ends.each do |end_|
          next if end_.is_a?(String)

          io = end_.is_a?(Integer) ? IO.for_fd(end_, autoclose: false) : end_
          next if io.fileno <= 2 || transfer.close_later(io)

          io.autoclose = true if end_.is_a?(Integer)
          io.close
        rescue StandardError
          next # the transfer goes on, whatever a close of its own raises
        end
      end

      # As Ruby reports what ends a thread.
      def report(transfer, exception)
        Thread.main.raise(exception) if Thread.abort_on_exception
        $stderr.write("#{transfer.inspect}: its block has raised:\n#{exception.full_message(highlight: false)}")
      end
    end
  end
end
