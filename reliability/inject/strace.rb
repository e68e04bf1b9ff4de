# frozen_string_literal: true

require "open3"
require "tempfile"

module Inject
  # The calls of one thread between two marks, as strace(1) saw them, one of which it may have answered itself.
  class Strace
    Line = Struct.new(:call, :arguments, :injected) do
      def descriptors
        poll = arguments.scan(/\bfd=(\d+)/).flatten
        poll = arguments.scan(/(?<=\A|, )\d+(?=,|\z)/).first(%i[splice tee].include?(call) ? 3 : 1) if poll.empty?
        poll.map(&:to_i)
      end
    end

    # What a process calls at both ends of what is looked at, and nobody else does.
    def self.mark = Process.getsid(0)
    MARK = "getsid"

    # Why it does not work here; nil if it does.
    def self.trouble
      _, said, status = Open3.capture3("strace", "-e", "inject=getppid:error=EPERM", "-o", File::NULL, "true")
      said.lines.first&.chomp || "strace fails: #{status}" unless status.success?
    rescue Errno::ENOENT
      "strace is not installed"
    end

    # Attaches to a process that is stopped.
    def initialize(pid, call: nil, errno: nil, at: nil)
      @log = Tempfile.create("strace").tap { |file| File.unlink(file.path) }
      said, into = IO.pipe
      @pid = spawn("strace", *arguments(call, errno, at), "-o", "/proc/self/fd/3", "-p", pid.to_s,
                   3 => @log, err: into, in: File::NULL)
      into.close
      @said = said
      attached = said.gets
      raise "strace: #{attached}" unless attached&.include?("attached")
    end

    # The calls before the first mark, and those between both, once the process has ended.
    def lines
      Process.wait(@pid)
      @log.rewind
      all = @log.each_line.filter_map { |line| parse(line) }
      first, last = all.each_index.select { |index| all[index].call == MARK.to_sym }
      first ? [all[0...first], all[first + 1...last]] : [all, []]
    ensure
      [@log, @said].each(&:close)
    end

    private

    def arguments(call, errno, at)
      return ["-e", "signal=none"] unless call

      ["-e", "signal=none", "-e", "trace=#{call},#{MARK}", "-e", "inject=#{call}:#{answer(errno)}:when=#{at}"]
    end

    def answer(errno) = errno == UNTRUE_END ? "retval=0" : "error=#{errno}"

    def parse(line)
      /\A(?<call>\w+)\((?<arguments>.*)/m =~ line or return
      Line.new(call.to_sym, arguments.sub(/\)\s+= .*/m, ""), line.include?("(INJECTED)"))
    end
  end
end
