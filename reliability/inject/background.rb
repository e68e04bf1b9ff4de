# frozen_string_literal: true

require "io/splice"
require "tempfile"
require_relative "ends"
require_relative "errnos"
require_relative "verdict"

module Inject
  # A transfer in the background, in a process of its own all of whose threads are under strace(1). The n-th call of
  # each thread is answered with an error. Whatever comes, it comes to an end, and no byte is lost.
  class BackgroundTrial
    GUARD = 30 # seconds, against hanging

    # What is made for a transfer. What moves its bytes has cases of its own, in the foreground.
    ANSWERS = {
      epoll_create1: %w[EMFILE ENFILE ENOMEM], epoll_ctl: %w[ENOMEM ENOSPC], eventfd2: %w[EMFILE ENFILE ENOMEM],
      epoll_wait: %w[EINTR], epoll_pwait: %w[EINTR], epoll_pwait2: %w[EINTR],
      clone: %w[EAGAIN ENOMEM], clone3: %w[EAGAIN ENOMEM], fcntl: %w[EMFILE], pipe2: %w[EMFILE ENFILE],
      splice: %w[EINTR ENOMEM EIO EPIPE], sendfile: %w[EINTR ENOMEM EIO ENOSYS]
    }.freeze

    # Kinds of sources and targets, and the call.
    CASES = {
      "copy_stream of a file" => [%i[file], %i[unix], ->(it, (a), (b)) { it.copy_stream(a, b, close: false) }],
      "copy_stream of a socket" => [%i[late_unix], %i[tcp], ->(it, (a), (b)) { it.copy_stream(a, b, close: false) }],
      "copy_stream to a file" => [%i[pipe], %i[file], ->(it, (a), (b)) { it.copy_stream(a, b, close: false) }],
      "tee_stream" => [%i[late_unix], %i[pipe unix], ->(it, (a), all) { it.tee_stream(a, *all, close: false) }],
      "relay" => [%i[unix late_unix], %i[unix pipe],
                  ->(it, (a, b), (to_b, to_a)) { it.relay([a, to_a], [b, to_b], close: false) }],
    }.freeze

    # With `made`, the background is there before anything is answered.
    Shot = Struct.new(:name, :call, :errno, :made, :at) do
      def to_s = "background #{name}: #{call} #{at} answers #{errno}"
      def repeat = "--background #{name.inspect} --only #{call} --errno #{errno} --at #{at}"
    end

    attr_reader :failure, :outcome

    def initialize(shot)
      @shot = shot
      from, to, @call = CASES.fetch(shot.name)
      report, into = IO.pipe.each(&:binmode)
      pid = fork { child(report, into, from, to) }
      into.close
      Process.wait(pid, Process::WUNTRACED)
      watch(pid, report)
    ensure
      report.close
    end

    def hit? = @hit

    private

    def watch(pid, report)
      strace = follow(pid)
      Process.kill(:CONT, pid)
      late = !report.wait_readable(GUARD)
      Process.kill(:KILL, pid) if late
      said = report.read
      status = Process.wait2(pid).last
      @outcome, @failure = Marshal.load(said) unless said.empty? # rubocop:disable Security/MarshalLoad -- the child's
      @failure = "#{"hung, " if late}ended with #{status}" if said.empty?
      Process.wait(strace)
      @log.rewind
      @hit = @log.each_line.any? { |line| line.include?("INJECTED") }
    end

    def follow(pid)
      @log = Tempfile.create("strace").tap { |file| File.unlink(file.path) }
      said, into = IO.pipe
      answer = "#{@shot.call}:error=#{@shot.errno}:when=#{@shot.at}"
      strace = spawn("strace", "-f", "-e", "signal=none", "-e", "trace=#{@shot.call}", "-e", "inject=#{answer}",
                     "-o", "/proc/self/fd/3", "-p", pid.to_s, 3 => @log, err: into, in: File::NULL)
      into.close
      raise "strace: it did not attach" unless said.gets&.include?("attached")

      Thread.new { said.read }
      strace
    end

    def child(report, into, from, to)
      report.close
      $stderr.reopen(File::NULL)
      Thread.report_on_exception = false
      @sources = from.map { |kind| Source.new(kind) }
      @targets = to.map { |kind| Target.new(kind) }
      @made = IO::Splice::Background.new if @shot.made
      Process.kill(:STOP, Process.pid)
      @sources.each(&:start)
      Marshal.dump(verdict, into)
    ensure
      into.flush
      exit!(0)
    end

    # What came out, and what is wrong with it.
    def verdict
      value, error = transfer
      check(value, error)
      [error ? error.class.to_s : "done", nil]
    rescue StandardError, NoMemoryError => e
      [nil, "#{e.class}: #{e.message}, #{e.backtrace.first}#{" after #{error.inspect}" if error}"]
    end

    def transfer
      background = @made || IO::Splice::Background.new
      [@call.call(background, @sources.map(&:given), @targets.map(&:given)).value, nil]
    rescue SystemCallError, IOError, ThreadError => e
      [nil, e]
    ensure
      background&.close
    end

    def check(value, error)
      check_error(error) if error
      raise Failed, "done without an error, but not all: #{value}" if value && [*value].uniq != [PATTERN.bytesize]

      left = @sources.map(&:rest)
      ways = @sources.size == 1 ? @targets.map { 0 } : [0, 1]
      @targets.zip(ways) do |target, _way|
        raise Failed, "foreign or lost bytes" unless PATTERN.start_with?(target.arrived)
      end
      ways.uniq.each do |way|
        most = @targets.each_index.select { |at| ways[at] == way }.map { |at| @targets[at].arrived.bytesize }.max
        raise Failed, "lost: #{most} and #{left[way].bytesize}" unless PATTERN.byteslice(most..) == left[way]
      end
      check_next
    end

    def check_error(error)
      raise Failed, "raised #{error.inspect}" if @shot.errno == "EINTR" || !injected?(error)
    end

    # Without a thread it is EAGAIN, whatever the kernel says.
    def injected?(error)
      return error.is_a?(ThreadError) || error.is_a?(Errno::EAGAIN) if @shot.call.start_with?("clone")

      error.is_a?(Errno.const_get(@shot.errno))
    end

    # Nothing is broken.
    def check_next
      background = IO::Splice::Background.new
      copied = background.copy_stream("/proc/self/exe", File::NULL, 1000).value
      raise Failed, "the next has copied #{copied}" unless copied == 1000
    rescue SystemCallError, ThreadError => e
      raise Failed, "the next transfer: #{e.inspect}" unless injected?(e)
    ensure
      background&.close
    end
  end

  # Answers each call of each case, as long as there is one.
  class BackgroundWalk
    MOST = 40 # calls of a thread

    def initialize(options)
      @options = options
      @random = Random.new(options[:seed])
      @hits = Hash.new(0)
      @outcomes = Hash.new(0)
      @failures = 0
    end

    def run
      @options[:quick] ? sample : walk
      puts "in the background #{@hits.values.sum} calls were answered: #{@hits.map { _1.join(" ") }.join(", ")}"
      puts "outcomes: #{@outcomes.map { _1.join(" ") }.join(", ")}", "#{@failures} failures"
      @failures.zero? && @hits.any?
    end

    private

    def shots = all.select { |shot| wanted?(shot) }

    def all
      BackgroundTrial::CASES.keys.product(BackgroundTrial::ANSWERS.to_a).flat_map do |name, (call, errnos)|
        errnos.product([false, true]).map { |errno, made| BackgroundTrial::Shot.new(name, call, errno, made) }
      end
    end

    def wanted?(shot)
      { background: shot.name, only: shot.call.to_s, errno: shot.errno }.all? do |option, name|
        [nil, true, name].include?(@options[option])
      end
    end

    def walk
      shots.each do |shot|
        (@options[:at] ? [@options[:at]] : 1..MOST).each { |at| fire(shot, at) or break }
      end
    end

    # For about six seconds.
    def sample
      late = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 6
      shots.shuffle(random: @random).each do |shot|
        break if Process.clock_gettime(Process::CLOCK_MONOTONIC) > late

        fire(shot, @random.rand(1..3))
      end
    end

    # Whether there was such a call.
    def fire(shot, at)
      shot = shot.dup.tap { |one| one.at = at }
      trial = BackgroundTrial.new(shot)
      return false unless trial.hit?

      @hits[shot.call] += 1
      @outcomes[trial.outcome] += 1
      return true unless trial.failure

      @failures += 1
      puts "FAILED #{shot}\n  #{trial.failure}", "  again: ruby -Ilib reliability/inject.rb #{shot.repeat}"
      true
    end
  end
end
