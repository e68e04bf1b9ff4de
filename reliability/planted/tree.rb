# frozen_string_literal: true

require "fileutils"
require_relative "fault"

module Planted
  # A copy of the tree, in which faults are planted.
  class Tree
    PLACE = File.join(ROOT, "tmp/planted")
    PATH = File.join(PLACE, "tree")
    BUILD_LIMIT = 1800 # seconds
    NOTHING = /^(running 0 tests|0 runs,)/

    # The checks need a build that is soon there, not one that is fast.
    ENVIRONMENT = {
      "CARGO_TARGET_DIR" => File.join(PLACE, "target"), "CARGO_PROFILE_RELEASE_LTO" => "false",
      "CARGO_PROFILE_RELEASE_CODEGEN_UNITS" => "16", "CARGO_PROFILE_RELEASE_OPT_LEVEL" => "1",
      "CARGO_PROFILE_RELEASE_INCREMENTAL" => "true", "CARGO_PROFILE_DEV_DEBUG" => "0"
    }.freeze

    # What a command wrote, and how it ended: "passed", "failed" or "hung".
    Outcome = Struct.new(:log, :end) do
      def passed? = self.end == "passed"
      def to_s = passed? ? "passed" : "#{self.end}: #{reason}\n  #{log}"

      private

      # The first line that tells of a failure.
      def reason
        lines = File.readlines(log, chomp: true).map(&:scrub).reject(&:empty?)
        (lines.grep(/FAIL|panicked|GROWS|error\b/i).first || lines.last).to_s.strip
      end
    end

    def initialize(limit)
      @limit = limit
      FileUtils.mkdir_p(PATH)
      copy
    end

    def plant(fault)
      path = File.join(PATH, fault.file)
      source = File.read(path, encoding: "UTF-8")
      File.write(path, fault.planted(source))
      yield
    ensure
      File.write(path, source) if source
    end

    # Makes what a check needs.
    def build(check, log)
      return run("#{check} --no-run", log, BUILD_LIMIT) if check.start_with?("cargo test ")

      run("rake compile", log, BUILD_LIMIT)
    end

    def run(command, name, limit = @limit)
      log = File.join(PLACE, "#{name}.log")
      pid = spawn(ENVIRONMENT, command, chdir: PATH, pgroup: true, in: File::NULL, out: log, err: %i[child out])
      waiter = Process.detach(pid)
      return Outcome.new(log, "hung") unless waiter.join(limit)

      return Outcome.new(log, "failed") unless waiter.value.success?

      Outcome.new(log, File.read(log).match?(NOTHING) ? "ran no test" : "passed")
    ensure
      kill(pid, waiter)
    end

    private

    # Only what has changed, so that little has to be built.
    def copy
      files = listed.select { |file| File.file?(File.join(ROOT, file)) }
      (Dir.glob("**/*", File::FNM_DOTMATCH, base: PATH) - files).each { |file| remove(file) }
      files.each do |file|
        from, to = [ROOT, PATH].map { |directory| File.join(directory, file) }
        next if File.file?(to) && FileUtils.identical?(from, to)

        FileUtils.mkdir_p(File.dirname(to))
        FileUtils.cp(from, to)
        File.chmod(File.stat(from).mode, to)
      end
    end

    def listed = IO.popen(%w[git ls-files -z --cached --others --exclude-standard], chdir: ROOT) { _1.read.split("\0") }

    # What was built stays.
    def remove(file)
      path = File.join(PATH, file)
      File.unlink(path) if File.file?(path) && !file.match?(%r{\Atmp/|\.so\z})
    end

    def kill(pid, waiter)
      Process.kill(:KILL, -pid) if pid
    rescue Errno::ESRCH
      nil
    ensure
      waiter&.join
    end
  end
end
