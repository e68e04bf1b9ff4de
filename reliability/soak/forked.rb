# frozen_string_literal: true

module Soak
  # A child that is forked while others are in the middle of their calls does operations of its own.
  class Forked < Operation
    private

    def operate(_way)
      return unless tasks.instance_of?(Tasks)

      seed = random.rand(1 << 32)
      reader, writer = IO.pipe
      @ends.push(reader, writer)
      pid = fork { child(seed, writer) }
      writer.close
      doing("a child, #{pid}")
      @statistics.called("fork")
      report = reader.read
      status = Process.wait2(pid).last
      raise Wrong, "a child ended with #{status}: #{report}" unless status.success? && report == "fine"
    rescue Errno::EAGAIN
      nil
    end

    # In a process whose other threads are gone, and with them whoever would wait for this one's signals.
    def child(seed, writer)
      Signals.disarm
      GC.stress = false
      guard = Thread.new do
        sleep Soak.guard
        writer.write("stuck\n", Process.pid.to_s, Soak.where_threads_are)
        exit!(1)
      end
      tasks = Tasks.new(Random.new(seed))
      operations = Operation.all.values_at("move", "tee", "put", "fan_out", "relayed", "offsets")
      2.times { operations.sample(random: tasks.random).new(tasks, @tape, Statistics.new, 200_000).run }
      guard.kill
      writer.write("fine")
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the parent is told
      writer.write(e.full_message(highlight: false))
    ensure
      exit!(1)
    end
  end
end
