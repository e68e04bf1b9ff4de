# frozen_string_literal: true

require_relative "errnos"
require_relative "run"
require_relative "strace"

module Inject
  # An answer to one call of a case.
  Shot = Struct.new(:case_, :call, :errno, :at) do
    def to_s = "#{case_.name}: #{call} #{at} answers #{errno}"
    def repeat = "--case #{case_.name.inspect} --only #{call} --errno #{errno} --at #{at}"
  end

  # A case in a child process under strace.
  class Trial
    GUARD = 30 # seconds, against hanging

    attr_reader :lines

    # `untrue`: see Inject.answers.
    def initialize(case_, shot = nil, untrue: false)
      @case = case_
      @untrue = untrue
      @shot = shot
      report, into = IO.pipe.each(&:binmode)
      @pid = fork { child(report, into) }
      into.close
      wait_until_ready(report)
      watch(report)
    ensure
      report.close
    end

    # What is wrong, or nil.
    def failure
      return if @said&.first == :right || rubys_own?

      @said ? @said.last : "the process ended: #{@status}#{", after #{GUARD} s" if @late}"
    end

    # Whether the call was answered with the error, and the kernel could have done it.
    def hit? = lines.any? { |line| line.injected && plausible?(line, @shot.errno) }

    def outcome = @said&.at(1)

    # The answers that can be given to the calls of this trial, and one more of each.
    def shots
      lines.group_by(&:call).slice(*ERRNOS.keys).flat_map do |call, all|
        skip = before(call)
        Inject.answers(call, @untrue && case_checks_ends?).flat_map do |errno|
          places(all, errno).map { |at| Shot.new(@case, call, errno, at + skip) }
        end
      end
    end

    private

    # A call of splice(2) says what that says.
    def case_checks_ends? = @case.name.match?(/copy_stream|tee_stream|relay/)

    # Which of these calls can be answered so, counted from 1.
    def places(lines, errno)
      hits = (1..lines.size).select { |at| plausible?(lines[at - 1], errno) }
      hits.any? ? hits << (hits.last + 1) : hits
    end

    def before(call) = @before.count { |line| line.call == call }

    def plausible?(line, errno) = !@case.never&.include?(line.call) && Inject.plausible?(line, errno, @ruby, @ends)

    # Ruby's own words when it has no memory left for itself.
    def rubys_own? = @said.nil? && @shot&.call == :mmap && @status.exitstatus == 1

    def wait_until_ready(report)
      report.wait_readable(GUARD) or Process.kill(:KILL, @pid)
      Process.wait(@pid, Process::WUNTRACED)
      @ruby, @ends = Marshal.load(report) # rubocop:disable Security/MarshalLoad -- the child's
    end

    def watch(report)
      strace = Strace.new(@pid, **(@shot ? { call: @shot.call, errno: @shot.errno, at: @shot.at } : {}))
      Process.kill(:CONT, @pid)
      @late = !report.wait_readable(GUARD)
      Process.kill(:KILL, @pid) if @late
      said = report.read
      @said = Marshal.load(said) unless said.empty? # rubocop:disable Security/MarshalLoad -- the child's
      @status = Process.wait2(@pid).last
      @before, @lines = strace.lines
    end

    def child(report, into)
      report.close
      $stderr.reopen(File::NULL)
      Thread.report_on_exception = false
      Thread.new { nil }.join # so that Ruby has opened what it needs for that
      rubys = open_descriptors
      run = Run.new(@case).tap { |case_run| tell(into, rubys, case_run) }
      Marshal.dump(verdict(run, rubys), into)
    ensure
      into.flush
      exit!(0)
    end

    def tell(into, rubys, run)
      ends = run.numbers.to_h { |number| [number, kind_of_end("/proc/self/fd/#{number}")] }
      Marshal.dump([rubys, ends], into)
      into.flush
    end

    def kind_of_end(path)
      return File.size?(path) ? :file : :empty if File.file?(path)

      File.socket?(path) ? :socket : :stream
    end

    def verdict(run, rubys)
      Process.kill(:STOP, Process.pid)
      Strace.mark
      run.call
      Strace.mark
      outcome = run.check(@shot)
      check_leftovers(open_descriptors - rubys)
      [:right, outcome]
    rescue StandardError, NoMemoryError => e
      [:wrong, "#{e.class}: #{e.message}"]
    end

    def check_leftovers(descriptors)
      raise Failed, "#{Thread.list.size - 1} threads are left" if Thread.list.size > 1
      raise Failed, "descriptors are left: #{descriptors}" if descriptors.size > Inject.kept(@case)
    end

    def open_descriptors
      Dir.children("/proc/self/fd").map(&:to_i).select { |number| File.exist?("/proc/self/fd/#{number}") }
    end
  end
end
