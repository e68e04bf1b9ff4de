# frozen_string_literal: true

module SpliceTest
  # What a test raises in a thread, to stop it.
  Stop = Class.new(StandardError)

  # A thread of the test's own, which reports its failure only through `value`.
  def thread(&) = Thread.new(&)

  # One that the test's teardown waits for, or kills.
  def in_a_thread(&)
    thread(&).tap { |thread| (@threads ||= []) << thread }
  end

  def thread_value(thread)
    guarded { thread.value }
  end

  # Waits for the end of a thread that the test has stopped, in whatever way.
  def join_stopped(thread)
    guarded { thread.join }
  rescue Stop, IOError
    nil
  end

  # Returns once the thread waits in the kernel or elsewhere. While other threads live each call lets go of the GVL for
  # a moment, which looks like a wait: so it is looked at more than once.
  def until_asleep(thread)
    seen = 0
    guarded do
      until seen == 4
        seen = thread.stop? ? seen + 1 : 0
        seen.zero? ? Thread.pass : sleep(0.0005)
      end
    end
    thread
  end

  # Returns once the thread has been waiting for some time.
  def until_settled(thread)
    seen = 0
    guarded do
      until seen == 20 * SLOWNESS
        seen = thread.stop? ? seen + 1 : 0
        sleep 0.001
      end
    end
    thread
  end

  # Returns once the copy or relay of a thread waits for its output: with the bytes of the source, or for leave to take
  # them.
  def until_taken(source, thread)
    until_asleep(thread)
    tries = 0
    Thread.pass while readable?(source) && (tries += 1) < 1000
    thread
  end

  # Returns once the thread has been asleep for a while in that call itself, and not in some finalizer before it. While
  # other threads live, each attempt is without the GVL too, and looks like a wait.
  def until_in(call, thread)
    guarded do
      until_settled(thread)
      until_settled(thread) until thread.backtrace.to_a.first.to_s.match?(/\b#{call}'\z/)
    end
    thread
  end

  def until_in_vmsplice(thread) = until_in("vmsplice", thread)
end
