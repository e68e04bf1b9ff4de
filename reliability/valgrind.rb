# frozen_string_literal: true

# Runs the tests, each file by itself, under valgrind's memcheck, with the processes that they start. An error is this
# gem's if io_splice.so is in its stack, or in that of the memory that it is about. Then a program of calls runs twice,
# the second time with more of them: memory of the gem's that is lost and has grown is a leak.
#
#     ruby -Ilib reliability/valgrind.rb [test/FILE_test.rb ...]
#
# Without files: all, and the leaks, which takes about an hour. `--leaks` is the name of the second part.
# Line numbers of Rust code take an extension that was compiled with CARGO_PROFILE_RELEASE_DEBUG=1 and
# CARGO_PROFILE_RELEASE_STRIP=none in the environment.
#
# What valgrind slows down (twenty to fifty times, and one thread at a time) may fail in tests for want of time. That is
# told and is no error here: the exit status is memcheck's verdict, on tests that came to their end.

require "rbconfig"
require "tmpdir"

ROOT = File.expand_path("..", __dir__)

# An error as valgrind reports it in XML.
class Report
  UNINITIALISED = %w[UninitCondition UninitValue].freeze
  Frame = Struct.new(:object, :function, :place)

  # @return [Array<Report>] also of a file whose process was killed in the middle of a report
  def self.read(path)
    File.read(path, encoding: "BINARY").scan(%r{<error>.*?</error>}m).map { |xml| new(xml) }
  end

  def initialize(xml)
    @xml = xml
    @what = text("what") || text("text")
    # Stacks and what stands between them, in order: the first stack is that of the error itself.
    parts = xml.scan(%r{<auxwhat>(.*?)</auxwhat>|<stack>(.*?)</stack>}m)
    @parts = parts.map { |said, stack| stack ? frames(stack) : said }
  end

  # Ruby's garbage collector looks for objects on a stack that was never wholly written to, and what it finds there
  # makes all that it then looks at depend on it. So where Ruby itself uses what is uninitialised, it is the gem's only
  # if the bytes come from memory that was allocated for the gem.
  def gems?
    uninitialised_for_ruby? ? from_the_heap? && gem_in?(stacks[1]) : stacks.any? { |stack| gem_in?(stack) }
  end

  def lost
    @xml[/<leakedblocks>(\d+)</, 1].to_i
  end

  # The same for the same error, wherever the libraries were loaded.
  def signature
    [kind, *stacks.first.map(&:to_a)]
  end

  def to_s
    lines = @parts.flat_map { |part| part.is_a?(String) ? ["  #{part}"] : part.map { |frame| line(frame) } }
    ["#{kind}: #{@what}", *lines].join("\n")
  end

  private

  def kind = text("kind")
  def text(tag, xml = @xml) = xml[%r{<#{tag}>(.*?)</#{tag}>}m, 1]
  def stacks = @parts.grep(Array)
  def from_the_heap? = @parts.include?("Uninitialised value was created by a heap allocation")
  def uninitialised_for_ruby? = UNINITIALISED.include?(kind) && libruby?(stacks.first.first)
  def libruby?(frame) = frame.object.match?(%r{/(libruby|ruby)[^/]*\z})

  # A place without a name in io_splice.so is none of its functions, but where valgrind lost its way on the stack.
  def gem_in?(stack)
    stack&.any? { |frame| frame.object.end_with?("/io_splice.so") && frame.function }
  end

  def frames(xml)
    xml.scan(%r{<frame>(.*?)</frame>}m).flatten.map do |frame|
      place = [text("file", frame), text("line", frame)].compact.join(":")
      Frame.new(text("obj", frame).to_s, text("fn", frame), place)
    end
  end

  def line(frame)
    "    #{frame.function || "???"} (#{[File.basename(frame.object), frame.place].reject(&:empty?).join(", ")})"
  end
end

# A program under valgrind, with all that it starts.
class Run
  GUARD = 5400 # seconds: only against hanging
  # A step from the stack of one fiber or thread to that of the next would pass for a large frame, if it is less than
  # 2 MB: then valgrind takes what is in between for new, or for gone.
  STACKS = { "RUBY_FIBER_MACHINE_STACK_SIZE" => "8388608", "RUBY_THREAD_MACHINE_STACK_SIZE" => "8388608" }.freeze
  OPTIONS = %W[
    --tool=memcheck --trace-children=yes --child-silent-after-fork=no --xml=yes --error-limit=no --num-callers=40
    --fair-sched=yes --suppressions=#{__dir__}/ruby.supp
  ].freeze

  attr_reader :output, :reports, :processes, :status

  def initialize(*options, program:)
    Dir.mktmpdir do |dir|
      # With a log file of its own, a forked child would have no XML of its own.
      @output = run(["valgrind", *OPTIONS, *options, "--xml-file=#{dir}/%p.xml",
                     RbConfig.ruby, "-I#{ROOT}/lib", "-I#{ROOT}/test", *program])
      files = Dir["#{dir}/*.xml"]
      @processes = files.size
      @reports = files.flat_map { |path| Report.read(path) }
    end
  end

  # What valgrind itself does not know.
  def complaints
    lines = output.lines.grep(/^(==|--)\d+\1.*(unhandled|WARNING|unimplemented|nrecognised)/)
    lines.map { |line| line.gsub(/(==|--)\d+\1/, "").strip }.tally
  end

  def gems = reports.select(&:gems?).uniq(&:signature)

  private

  def run(command)
    reader, writer = IO.pipe
    pid = spawn(STACKS, *command, %i[out err] => writer, in: File::NULL, pgroup: true)
    writer.close
    output = Thread.new { reader.read }
    wait(pid)
    kill(pid)
    output.value.scrub
  ensure
    kill(pid)
    reader.close
  end

  # Also what the tests left behind, which would keep the output open.
  def kill(pid)
    Process.kill(:KILL, -pid)
  rescue Errno::ESRCH
    nil
  end

  def wait(pid)
    deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + GUARD
    until (ended = Process.wait2(pid, Process::WNOHANG))
      sleep 0.2
      kill(pid) if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline
    end
    @status = ended.last
  end
end

# The tests of one file.
class Tests
  # With all the time in the world: a guard of a minute is too short here.
  START = <<~RUBY
    require "test_helper"
    SpliceTest.send(:remove_const, :GUARD)
    SpliceTest::GUARD = 1800
    load ARGV.shift
  RUBY

  # When a signal handler closes what its own thread waits for, Ruby 3.1 writes to the stack frame of that `close` after
  # an exception has ended it: `trap(:USR1) { r.close }; r.wait` does it, without this gem.
  WITHOUT = "/test_a_signal_handler_that_closes/"

  def initialize(path)
    @path = path
    @run = Run.new("--show-leak-kinds=none", "--track-origins=yes", program: ["-e", START, path, "--exclude", WITHOUT])
  end

  def clean? = @run.gems.empty? && !ran.nil?

  def to_s
    ["#{File.basename(@path)}: #{tally}", *notes, *@run.gems].join("\n")
  end

  private

  def ran = @run.output[/^\d+ runs, .*/]

  def tally
    errors = @run.reports.partition(&:gems?).map(&:size)
    "#{ran || "the tests did not end (#{@run.status})"}; #{@run.processes} processes, " \
      "#{errors.last} errors of Ruby's, #{errors.first} of the gem's"
  end

  def notes
    failed = @run.output.scan(/^ +\d+\) (?:Failure|Error):\n(.*)\n(.*)/).map { |test, why| "#{test} #{why[0, 150]}" }
    [*failed.map { |test| "  did not pass: #{test}" },
     *@run.complaints.map { |said, times| "  valgrind: #{said} (#{times} times)" }]
  end
end

# Memory that a call leaves behind.
class Leaks
  CALLS = [100, 300].freeze
  # So many of 200 calls more are no accident.
  GROWTH = 20

  def initialize
    few, many = CALLS.map { |calls| lost_after(calls) }
    @grown = many.select { |signature, report| report.lost - (few[signature]&.lost || 0) >= GROWTH }.values
  end

  def clean? = @grown.empty?

  def to_s
    ["leaks: #{@grown.size} kinds of memory are lost with each call", *@grown].join("\n")
  end

  private

  def lost_after(calls)
    run = Run.new("--leak-check=full", "--show-leak-kinds=definite", program: [__FILE__, "--calls", calls.to_s])
    run.status.success? or abort "the calls failed: #{run.output}"
    run.gems.to_h { |report| [report.signature, report] }
  end
end

# One call of each kind, and those that raise.
class Calls
  def initialize
    require "io/splice"
    require "socket"
    require "stringio"
    require "tempfile"
    @reader, @writer = IO.pipe
    @out, @into = IO.pipe
    @here, @there = UNIXSocket.pair
    @file = Tempfile.create("io_splice").tap { |file| File.unlink(file) }
    @file << ("x" * 10_000)
    @file.flush
  end

  def make
    system_calls
    vmsplice
    copies
    streams
    errors
    GC.start(full_mark: false)
  end

  private

  def system_calls
    @writer << ("bytes" * 3)
    IO.tee(@reader, @into, 5)
    IO.trytee(@reader, @into, 5)
    IO.splice(@reader, nil, @into, nil, 5, IO::Splice::WAITALL)
    IO.trysplice(@reader, nil, @into, nil, 5)
    IO.splice(@reader, nil, @here, nil, 5)
    @there.read(5) and @out.read(20)
  end

  def vmsplice
    pages = IO::Splice::Pages.new("p" * 5000)
    data = ["string", pages, pages.slice(1, 9), "l" * 10_000]
    data.each { |one| @out.read(IO.vmsplice(@into, one)) }
    @out.read(IO.vmsplice(@into, data))
    buffers
  end

  def buffers
    @out.read(IO.vmsplice(@into, IO::Buffer.new(100)))
    @out.read(IO.vmsplice(@into, IO::Buffer.new(16_384), IO::Splice::F_GIFT))
    IO::Splice::Pages.new(IO::Buffer.new(5000))
  end

  def copies
    IO::Splice.copy_stream(@file, @into, 5000, 0) { |bytes| bytes }
    IO::Splice.copy_stream(@out, @here, 5000)
    IO::Splice.copy_stream(@there, @into, 5000)
    IO::Splice.copy_stream(@out, StringIO.new, 5000)
    IO::Splice.copy_stream(StringIO.new("x" * 5000), @into)
    @out.read(5000)
  end

  def streams
    client, front = UNIXSocket.pair
    backend, server = UNIXSocket.pair
    [client, server].each { |far| far.write("bytes") && far.close_write }
    IO::Splice.relay(front, backend)
    IO::Splice.tee_stream(@file.tap(&:rewind), @into, @here, StringIO.new)
    @out.read(10_000) and @there.read(10_000)
  ensure
    [client, front, backend, server].each(&:close)
  end

  def errors
    raises(Errno::EAGAIN) { IO.splice(@reader, nil, @into, nil, 5, IO::Splice::F_NONBLOCK) }
    raises(Errno::EINVAL) { IO.splice(@file, 0, @here, nil, 5) }
    raises(TypeError) { IO.vmsplice(@into, ["string", 5]) }
    raises(EOFError) { IO::Splice.copy_stream(@file, @into, 5, 10_000) }
    raises(ArgumentError) { IO::Splice.relay(@here, [@there]) }
    interrupted { IO.vmsplice(@into, "l" * 100_000) }
    @out.read_nonblock(1_000_000)
    interrupted { IO::Splice.copy_stream(@there, @into) }
  end

  def raises(error)
    yield
    raise "no #{error}"
  rescue error
    nil
  end

  def interrupted(&)
    thread = Thread.new(&)
    Thread.pass until thread.stop?
    thread.kill.join
  end
end

if (calls = ARGV.index("--calls"))
  program = Calls.new
  ARGV[calls + 1].to_i.times { program.make }
  exit
end

all = ARGV.empty? ? [*Dir["#{ROOT}/test/*_test.rb"], "--leaks"] : ARGV
$stdout.sync = true
dirty = all.reject do |path|
  part = path == "--leaks" ? Leaks.new : Tests.new(path)
  puts part
  part.clean?
end
exit dirty.empty?
