# frozen_string_literal: true

module Soak
  # For an operation of which a part runs in a forked child. `forks?` says whether it may.
  module WithChild
    private

    # In some Rubies not where there are fibers.
    def forks? = tasks.instance_of?(Tasks) && Soak.forks?

    # Forks a child that does what the block does with tasks of its own, and raises what is wrong there.
    def in_child(&)
      seed = random.rand(1 << 32)
      reader, writer = IO.pipe
      @ends.push(reader, writer)
      pid = fork { child(seed, writer, &) }
      writer.close
      @statistics.called("fork")
      report = reader.read
      status = Process.wait2(pid).last
      raise Wrong, "a child, #{pid}, ended with #{status}: #{report}" unless status.success? && report == "fine"
    rescue Errno::EAGAIN
      nil
    end

    # In a process whose other threads are gone, and with them whoever would wait for this one's signals.
    def child(seed, writer)
      Signals.disarm
      GC.stress = false
      check_pipes if Soak.hostile?("child")
      guard = Thread.new do
        sleep Soak.guard
        writer.write("stuck\n", Process.pid.to_s, Soak.where_threads_are)
        exit!(1)
      end
      yield Tasks.new(Random.new(seed))
      guard.kill
      writer.write("fine")
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the parent is told
      writer.write(e.full_message(highlight: false))
    ensure
      exit!(1)
    end

    def check_pipes
      pipes = Soak.pipes_of_nobody
      raise Wrong, "a forked child has #{pipes.size} pipes of its parent's copies: #{pipes.first(5)}" if pipes.any?
    end
  end

  # A child that is forked while others are in the middle of their calls does operations of its own.
  class Forked < Operation
    include WithChild

    private

    def operate(_way)
      return unless tasks.instance_of?(Tasks)

      operations = Operation.all.values_at("move", "tee", "put", "fan_out", "relayed", "offsets", "background_copy")
      doing("a child")
      in_child do |tasks|
        2.times { operations.sample(random: tasks.random).new(tasks, @tape, Statistics.new, 200_000).run }
      end
    end
  end

  # However many copies are under way, a forked child has none of their pipes.
  class Crowd < Operation
    include WithChild

    COPIES = 140

    private

    def operate(_way)
      return unless forks?

      target, = UNIXSocket.pair.each { |socket| @ends << socket }
      nil while target.write_nonblock("x" * 4096, exception: false) != :wait_writable
      copies = Array.new(COPIES) { stuck_copy(target) }
      Thread.pass until copies.all?(&:stop?)
      doing("a child beside #{COPIES} copies")
      in_child { nil }
    ensure
      copies&.each(&:kill)&.each(&:join)
    end

    def stuck_copy(target)
      source, peer = UNIXSocket.pair.each { |socket| @ends << socket }
      peer.write("bytes")
      Thread.new { IO::Splice.copy_stream(source, target) }
    end
  end
end
