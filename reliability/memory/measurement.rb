# frozen_string_literal: true

require_relative "../../test/support/select_scheduler"

module Memory
  GUARD = 7200 # seconds for a kind: only against hanging

  # One kind in a process of its own.
  class Measurement
    Sample = Struct.new(:memory, :mappings, :descriptors, :threads, :objects, :time, keyword_init: true)

    attr_reader :turns

    def initialize(kind, calls)
      @kind = kind
      @turns = [(calls * kind.share).round, 100].max
      @samples = take
    end

    def wrong
      return ["it did not end as it should"] unless @samples

      more = { "bytes" => [growth, @kind.bound], "mappings" => [mappings, 20], "descriptors" => [descriptors, 0],
               "threads" => [threads, 8], # as many as wait for a disk
               "objects a call" => [objects, @kind.objects ? @kind.objects + 0.01 : Float::INFINITY] }
      more.select { |_, (number, most)| number > most }.map { |what, (number, _)| "#{number.round(3)} #{what} more" }
    end

    def columns
      return [@kind.name, @turns, *["-"] * 7] unless @samples

      [@kind.name, @turns, (time * 1e9).round, *@samples.map { |sample| kib(sample.memory) }, kib(growth),
       format("%.2f", objects), @samples.last.descriptors]
    end

    private

    def growth = @samples[2].memory - @samples[1].memory
    def mappings = @samples[2].mappings - @samples[1].mappings
    def threads = @samples[2].threads - @samples[1].threads
    def descriptors = @samples[2].descriptors - @samples[1].descriptors
    def objects = @samples[2].objects.fdiv(@turns / 2)
    def time = @samples[2].time / (@turns / 2)
    def kib(bytes) = format("%d", bytes / 1024)

    def take
      reader, writer = IO.pipe
      pid = fork { work(reader, writer) }
      writer.close
      said = reader.read if reader.wait_readable(GUARD)
      Marshal.load(said) if said && !said.empty? # rubocop:disable Security/MarshalLoad -- it is our own child's
    ensure
      reader.close
      Process.kill(:KILL, pid)
      Process.wait(pid)
    end

    def work(reader, writer)
      reader.close
      in_place do
        samples = measure(@kind.prepare.call)
        writer.write(Marshal.dump(samples))
        exit!(0)
      end
    ensure
      exit!(1)
    end

    def in_place(&)
      return yield unless @kind.in_a_fiber

      Fiber.set_scheduler(scheduler = SelectScheduler.new)
      Fiber.schedule(&)
      scheduler.run
    end

    def measure(turn)
      [@turns / 10, @turns / 2, @turns / 2].map do |turns|
        before = spent
        @kind.in_a_fiber ? run_in_a_fiber(turn, turns) : run(turn, turns)
        time, objects = spent.zip(before).map { |now, then_| now - then_ }
        sample(time, objects)
      end
    end

    def spent
      [Process.clock_gettime(Process::CLOCK_MONOTONIC), GC.stat(:total_allocated_objects)]
    end

    def run(turn, turns)
      turn.call while (turns -= 1) >= 0
    end

    # Its scheduler keeps a record of all waits.
    def run_in_a_fiber(turn, turns)
      while (turns -= 1) >= 0
        turn.call
        Fiber.scheduler.io_waits.clear
      end
    end

    def sample(time, objects)
      sleep @kind.settle
      3.times { GC.start }
      Sample.new(memory: File.read("/proc/self/status")[/^RssAnon:\s+(\d+)/, 1].to_i * 1024,
                 mappings: File.foreach("/proc/self/maps").count, descriptors: Dir.children("/proc/self/fd").size - 1,
                 threads: Dir.children("/proc/self/task").size,
                 objects:, time:)
    end
  end
end
