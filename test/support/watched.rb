# frozen_string_literal: true

require "io/wait"
require "minitest"
require "rbconfig"

# Tells at once what a run that is cut off would keep for its end: a failure, and a test that hangs, with what its
# threads do; that ends the run. The one who looks is another process: here the whole VM may stand still, and a thread
# more would change what is tested, since a call beside another thread takes another way.
module Watched
  GUARD = 300 * Integer(ENV.fetch("SLOWNESS", "1")) # seconds, of which each `guarded` has 60
  TELL = :PWR # the signal for it: nobody else's

  # For Minitest::Test.
  module Told
    def run
      Watched.begins("#{self.class}##{name}")
      super.tap { |result| warn "", result.to_s unless result.passed? || result.skipped? }
    end
  end

  class << self
    def begins(name)
      @names.puts(name) if @process == Process.pid
    end

    # Its own child it is not: tests wait for theirs.
    def watch
      @process = Process.pid
      reader, @names = IO.pipe
      @names.sync = true
      system("exec 4<&3; #{RbConfig.ruby} #{__FILE__} #{@process} <&4 3<&- 4<&- &", 3 => reader, exception: true)
      reader.close
      trap(TELL) { tell_threads }
    end

    # In the process that looks.
    def look_at(process, names)
      name = names.gets or return while names.wait_readable(GUARD)
      return unless name && File.exist?("/proc/#{process}")

      warn "", "#{name.chomp} is still running after #{GUARD} s", *stands_of(process)
      Process.kill(TELL, process)
      sleep 5
      Process.kill(:KILL, process)
    end

    private

    def tell_threads
      Thread.list.each { |thread| warn thread.inspect, *thread.backtrace.to_a.map { |line| "    #{line}" } }
    end

    # In which system calls the threads of the process, and its children, are.
    def stands_of(process)
      Dir["/proc/#{process}/task/*"].flat_map do |task|
        children = File.read("#{task}/children").split
        ["thread #{File.basename(task)}: system call #{File.read("#{task}/syscall").chomp}"] +
          children.map { |child| "child #{child}: #{File.read("/proc/#{child}/cmdline").tr("\0", " ")}" }
      rescue SystemCallError
        []
      end
    end
  end
end

if $PROGRAM_NAME == __FILE__
  Watched.look_at(ARGV.first.to_i, $stdin)
else
  Watched.watch
  Minitest::Test.prepend(Watched::Told)
end
