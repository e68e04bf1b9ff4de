# frozen_string_literal: true

# Runs files of tests side by side, since most of what a test does is waiting:
#
#   ruby test/side_by_side.rb test/tee_test.rb test/relay_test.rb [OPTIONS OF MINITEST]
#
# Each file runs in a process of its own, JOBS of them at a time, and all with one seed: that of SEED, or of --seed. A
# process that ends before its tests do is a failure, and so is a test that hangs. The exit status says whether all is
# well.

require "etc"
require "json"
require "rbconfig"
require "shellwords"
require "tmpdir"

ROOT = File.expand_path("..", __dir__)

def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

def in_seconds(time) = "#{time.round(1).to_s.rjust(6)} s"

# The process of a file.
class TestFile
  COMMAND = %w[-w -Ilib -Itest].freeze
  MORE = %w[-rsupport/strict -rsupport/told].freeze # warnings are errors, before the file is parsed
  GUARD = 300 * Integer(ENV.fetch("SLOWNESS", "1")) # seconds for a test, of which each `guarded` has 60

  attr_reader :path, :seconds, :results, :output

  def initialize(path, options, dir)
    @path = path
    @options = options
    @told, @output_path = %w[told output].map { |kind| File.join(dir, "#{path.tr("/", "-")}.#{kind}") }
    File.write(@told, "")
    @size = 0
    @begun = @moved = now
    @pid = spawn({ "TOLD" => @told, "N" => nil }, RbConfig.ruby, *COMMAND, *MORE, path, *options,
                 chdir: ROOT, in: File::NULL, %i[out err] => @output_path, pgroup: true)
  end

  # Whether it has ended. One that hangs is ended.
  def ended?
    return true if @status

    _, @status = Process.wait2(@pid, Process::WNOHANG)
    @status ? gather : end_if_it_hangs
    !@status.nil?
  end

  # Gives it a while to end.
  def end
    100.times { ended? ? return : sleep(0.05) }
    signal(:KILL)
    sleep 0.05 until ended?
  end

  def signal(name)
    Process.kill(name, -@pid)
  rescue Errno::ESRCH
    nil
  end

  def failures
    [*results.filter_map { |result| result["said"] if result["code"] != "S" }, *("Error:\n#{broken}" if broken)]
  end

  # What is wrong beside the tests that have failed.
  def broken
    return if @complete && @status.success?

    ["#{path}#{", in #{@at_work}" if @at_work}: #{@status.to_s.sub(/\Apid \d+ /, "")}", *@stands, output].join("\n")
  end

  def command = ["ruby", *COMMAND, path, *@options].shelljoin

  private

  def gather
    @seconds = now - @begun
    signal(:KILL) # what the tests have left behind
    @output = File.read(@output_path, encoding: "UTF-8").scrub
    told = File.readlines(@told, encoding: "UTF-8").map { |line| JSON.parse(line) }
    @complete = told.last == { "end" => true }
    @at_work = told.last&.fetch("begin", nil)
    @results = told.select { |line| line.key?("code") }
  end

  def end_if_it_hangs
    size = File.size(@told)
    @moved = now if size != @size
    @size = size
    return if now - @moved < GUARD

    @stands = ["still running after #{GUARD} s", *stands]
    Process.kill(:PWR, @pid) # it says where its threads are
    sleep 5
    signal(:KILL)
  end

  # In which system calls its threads are, and its children. The whole VM may stand still.
  def stands
    Dir["/proc/#{@pid}/task/*"].flat_map do |task|
      children = File.read("#{task}/children").split
      ["thread #{File.basename(task)}: system call #{File.read("#{task}/syscall").chomp}"] +
        children.map { |child| "child #{child}: #{File.read("/proc/#{child}/cmdline").tr("\0", " ")}" }
    rescue SystemCallError
      []
    end
  end
end

# All of them.
class SideBySide
  JOBS = Integer(ENV.fetch("JOBS") { 2 * Etc.nprocessors })
  SLOWEST = 10
  # It takes what all processes of a user share, which root's leave by becoming another user.
  ALONE = Process.euid.zero? ? [] : %w[test/pipe_memory_test.rb].freeze

  def initialize(paths, options)
    @paths = paths.uniq.sort_by { |path| -File.size(path) }
    @options = options
    @options += ["--seed", ENV.fetch("SEED") { rand(0xFFFF) }.to_s] if options.grep(/\A(-s|--seed)/).empty?
    @begun = now
    @running = []
    @ended = []
  end

  def run
    puts "Run options: #{@options.join(" ")}", ""
    Dir.mktmpdir { |dir| run_all(dir) }
  rescue SignalException => e
    @cut_off = e.class
  ensure
    report
  end

  def passed? = !@cut_off && @ended.all? { |file| file.failures.empty? }

  private

  def run_all(dir)
    alone, beside = @paths.partition { |path| ALONE.include?(path) }
    run_some(beside, JOBS, dir)
    run_some(alone, 1, dir)
  ensure
    @running.each { |file| file.signal(:TERM) }.each(&:end).dup.each { |file| ended(file) }
  end

  def run_some(paths, jobs, dir)
    until paths.empty? && @running.empty?
      @running << TestFile.new(paths.shift, @options, dir) while paths.any? && @running.size < jobs
      sleep 0.02
      @running.select(&:ended?).each { |file| ended(file) }
    end
  end

  def ended(file)
    @ended << @running.delete(file)
    puts "#{in_seconds(file.seconds)}  #{file.results.size.to_s.rjust(4)} runs  #{file.path}"
    puts file.output unless file.output.empty? || file.broken
    puts file.failures.flat_map { |said| ["", said.lines.first(5)] }, "" if file.failures.any? # in full at the end
  end

  def report
    results = @ended.flat_map(&:results)
    puts "", "The slowest:"
    slowest = results.max_by(SLOWEST) { |result| result["seconds"] }
    slowest.each { |result| puts "#{in_seconds(result["seconds"])}  #{result["name"]}" }
    puts "", "Finished in#{in_seconds(now - @begun)}#{", cut off by #{@cut_off}" if @cut_off}."
    report_skips(results)
    report_failures
    puts "", summary(results)
  end

  def report_skips(results)
    skipped = results.select { |result| result["code"] == "S" }.group_by { |result| result["said"].lines.drop(2).join }
    skipped.each { |reason, those| puts "", "Skipped: #{reason.strip}", *those.map { |result| "  #{result["name"]}" } }
  end

  def report_failures
    number = 0
    @ended.each do |file|
      file.failures.each { |said| puts "", "#{(number += 1).to_s.rjust(3)}) #{said}" }
      puts "", "Again: #{file.command}" if file.failures.any?
    end
  end

  def summary(results)
    failures, errors, skips = %w[F E S].map { |code| results.count { |result| result["code"] == code } }
    "#{results.size} runs, #{results.sum { |result| result["assertions"] }} assertions, #{failures} failures, " \
      "#{errors + @ended.count(&:broken)} errors, #{skips} skips"
  end
end

$stdout.sync = true
paths = ARGV.take_while { |argument| !argument.start_with?("-") }
all = SideBySide.new(paths, ARGV.drop(paths.size))
all.run
exit all.passed?
