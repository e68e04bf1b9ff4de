# frozen_string_literal: true

module Soak
  # A thousand signals a second, from a process of its own, to one thread after the other.
  class Signals
    RATE = 1000

    class << self
      attr_reader :handled

      def install
        @handled = 0
        process = Process.pid
        trap(:USR1) do
          @handled += 1
          error = @error
          @error = nil
          raise error if error && Process.pid == process # and not in a child that begins with this
        end
      end

      # The next handler raises it in the main thread.
      def raise_soon(error) = @error = error
      def disarm = @error = nil
    end

    def initialize
      target = Process.pid
      @pid = fork do
        trap(:USR1, "DEFAULT")
        trap(:TERM) { exit!(0) }
        send_all(target)
      ensure
        exit!(0)
      end
    end

    def stop
      Process.kill(:TERM, @pid)
      Process.wait(@pid)
    end

    private

    # As many as are due, since a sleep may be longer than it was asked to be.
    def send_all(target)
      start = now
      sent = 0
      while Process.ppid == target
        sleep 0.001
        threads = threads_of(target) if threads.nil? || (sent % 50).zero?
        [((now - start) * RATE).to_i - sent, 20].min.times do
          signal(threads.sample || target)
          sent += 1
        end
        start = now - (sent / RATE.to_f) if now - start > (sent / RATE.to_f) + 0.1
      end
    end

    # The kernel prefers the thread whose number is used.
    def signal(number)
      Process.kill(:USR1, number)
    rescue Errno::ESRCH
      nil
    end

    def threads_of(process)
      Dir.children("/proc/#{process}/task").map(&:to_i)
    rescue SystemCallError
      [process]
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end
end
