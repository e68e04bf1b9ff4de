# frozen_string_literal: true

module Soak
  # An operation that is stuck for so many seconds is a failure: generous, since machines are shared.
  GUARD = 60

  class << self
    attr_writer :guard

    def guard = @guard ||= GUARD
    def core_ext? = IO::Splice.const_defined?(:CoreExt)
    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    # Where each thread of a process is, in Ruby, if it is this one, and in the kernel.
    def where_threads_are(process = Process.pid)
      [*(ruby_threads if process == Process.pid), *kernel_threads(process)].join("\n")
    end

    private

    def ruby_threads
      Thread.list.map { |thread| "#{thread.inspect}\n  #{thread.backtrace&.first(20)&.join("\n  ")}" }
    end

    def kernel_threads(process)
      Dir.glob("/proc/#{process}/task/*").map do |task|
        %w[comm wchan syscall stack].map { |name| "#{name}: #{read(File.join(task, name))}" }.unshift(task).join("\n  ")
      end
    end

    def read(path)
      File.read(path).strip.gsub("\n", "\n    ")
    rescue SystemCallError => e
      e.class
    end
  end

  # Some seconds of operations at random in one process, all at once, and with all that may disturb them.
  class Round
    KINDS = %w[threads threads mixed fibers].freeze
    FIBERS = 6

    # With `only`, the name and the seed of an operation, that is all there is.
    def initialize(kind:, seed:, seconds:, threads:, tape:, report:, only: nil, except: [],
                   compact: true)
      @kind = kind
      @seed = seed
      @random = Random.new(seed)
      @seconds = seconds
      @threads = threads
      @tape = tape
      @report = report
      @only = only
      @compact = compact
      @names = Operation.usable - ["forked", *except]
      @running = {}
      @failures = Thread::Queue.new
    end

    def run
      warm_up
      signals = Signals.new
      @kind == "long" ? run_long : run_once
      signals.stop
    rescue Wrong => e
      fail_with("round #{@kind}", e.message)
    ensure
      @watchdog&.kill
    end

    private

    def warm_up
      Soak.forks = forks?
      Thread.report_on_exception = false
      Warning[:experimental] = false
      trap(:QUIT) { warn Soak.where_threads_are }
      require "io/splice/core_ext" if @random.rand(4).zero?
      Signals.install
      fill_the_pool
      IO::Splice.background.copy_stream(File::NULL, File::NULL).wait
      Timeout.timeout(10) { nil }
      @watchdog = watchdog
      GC.start
      @descriptors = descriptors
      @threads_before = threads
    end

    # The gem keeps a few idle pipes for the next copies.
    def fill_the_pool
      pairs = Array.new(8) { UNIXSocket.pair + UNIXSocket.pair }
      copies = pairs.map { |_, source, target, _| Thread.new { IO::Splice.copy_stream(source, target) } }
      Thread.pass until copies.all?(&:stop?)
      sleep 0.05
      pairs.each { |peer,| peer.close }
      copies.each(&:join)
      pairs.flatten.each(&:close)
    end

    def run_once
      work(@seconds, nil)
      check_leaks
    end

    # One process for all the time, whose memory is looked at.
    def run_long
      memory = Memory.new
      end_ = Soak.now + @seconds
      until Soak.now >= end_ || @stop
        work(2, 200_000)
        check_leaks
        memory.measure
      end
      return if @stop

      @report.puts(JSON.generate("memory" => "KiB after warming up and at the end: #{memory.check}"))
    end

    def work(seconds, largest)
      @statistics = []
      @deadline = Soak.now + seconds
      noise = Thread.new { make_noise(Random.new(@random.rand(1 << 32))) }
      workers = start_workers(largest)
      work_at(MainTasks, largest, @random.rand(1 << 32)) unless @kind == "fibers"
      workers.each(&:join)
      noise.join
      tell
    end

    def start_workers(largest)
      schedulers = { "fibers" => 2, "mixed" => 1, "long" => 1 }.fetch(@kind, 0)
      seeds = Array.new(@threads) { @random.rand(1 << 32) }
      seeds.each_with_index.map do |seed, index|
        next Thread.new { work_in_fibers(largest, seed) } if index < schedulers

        Thread.new { work_at(Tasks, largest, seed) } unless @kind == "fibers"
      end.compact
    end

    # In a child of Ruby 3.1 the stacks of threads that were in a fiber are used by new threads, and still marked.
    def forks? = RUBY_VERSION >= "3.3" || @kind == "threads"

    def work_in_fibers(largest, seed)
      Fiber.set_scheduler(Soak.scheduler(seed))
      FIBERS.times { |number| Fiber.schedule { work_at(FiberTasks, largest, seed + number) } }
    end

    def work_at(tasks, largest, seed)
      random = Random.new(seed)
      statistics = Statistics.new
      @statistics << statistics
      operate(tasks, statistics, largest, *(@only || choose(random))) until @stop || Soak.now > @deadline
    end

    # Moves are most of what there is to know, and children are dear.
    def choose(random)
      name = "forked" if random.rand(40).zero? && forks?
      name ||= random.rand(3).zero? && @names.include?("move") ? "move" : @names.sample(random:)
      [name, random.rand(1 << 32)]
    end

    def operate(tasks, statistics, largest, name, seed)
      operation = Operation.all.fetch(name).new(tasks.new(Random.new(seed)), @tape, statistics, largest)
      @running[operation] = Soak.now
      operation.run
    rescue Wrong => e
      fail_with("#{name}:#{seed} (#{tasks})", e.message)
    rescue Stop, Timeout::Error => e
      fail_with("#{name}:#{seed} (#{tasks})", "an interrupt came out where none was sent to: #{e.full_message}")
    ensure
      @running.delete(operation)
    end

    def fail_with(what, text)
      @stop = true
      @report.puts(JSON.generate("failure" => "#{what}: #{text}".scrub.slice(0, 10_000)))
    end

    def tell
      total = Statistics.new
      @statistics.each { |statistics| total.add(statistics.to_h) }
      total.interruptions["signals"] += Signals.handled - (@signals_told || 0)
      @signals_told = Signals.handled
      @report.puts(JSON.generate("statistics" => total.to_h))
    end

    def make_noise(random)
      until @stop || Soak.now > @deadline
        sleep(random.rand * 0.05)
        case random.rand(12)
        when 0..3 then GC.start
        when 4 then GC.compact if @compact && GC.respond_to?(:compact)
        when 5 then GC.start(full_mark: false)
        # Newer Rubies collect for so long that beside a thousand signals a second nothing else runs.
        when 6 then stress(random) if RUBY_VERSION < "3.2"
        else Array.new(100) { "x" * random.rand(10_000) }
        end
      end
    end

    def stress(random)
      GC.stress = true
      sleep(random.rand * 0.005)
    ensure
      GC.stress = false
    end

    def watchdog
      Thread.new do
        Thread.current.report_on_exception = true
        loop do
          sleep 1
          stuck = @running.to_a.find { |_, since| Soak.now - since > Soak.guard } or next
          fail_with("stuck", "#{stuck.first.does}\n#{Soak.where_threads_are}")
          @report.flush
          exit!(1)
        end
      end
    end

    def check_leaks
      return if @stop

      20.times do
        GC.start
        break if descriptors <= @descriptors && threads <= @threads_before

        sleep 0.1
      end
      if descriptors > @descriptors
        raise Wrong, "#{descriptors - @descriptors} descriptors were left open, among these: #{descriptor_names}"
      end
      raise Wrong, "threads were left: #{Soak.where_threads_are}" if threads > @threads_before
    end

    # Those of a background stay for a while.
    def threads = Thread.list.count { |thread| thread.name != "io_splice" }

    def descriptors = Dir.children("/proc/self/fd").size

    def descriptor_names
      Dir.children("/proc/self/fd").filter_map do |number|
        File.readlink("/proc/self/fd/#{number}")
      rescue Errno::ENOENT
        nil
      end.tally
    end
  end
end
