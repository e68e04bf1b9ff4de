# frozen_string_literal: true

module Filesystems
  # What was tried with each file system, and what came out.
  class Tally
    # The columns of the table.
    WHATS = ["whole", "part", "append", "background", "splice", "holes", "1 TiB hole", "reflink", "full", "read-only"]
            .freeze

    def initialize(mounts)
      @mounts = mounts
      @counts = Hash.new { |counts, key| counts[key] = [0, 0] }
      @begin_at = now
      @copies = 0
      @failures = 0
    end

    attr_reader :failures

    # Yields, to get what is wrong with a copy, or nil. It counts for each of the file systems that it is about.
    def count(what, *names, title, &)
      wrong = attempt(&)
      @copies += 1
      @failures += 1 if wrong
      names.uniq.each { |name| @counts[[name, what]][wrong ? 1 : 0] += 1 }
      puts "  FAILED #{title}: #{wrong}" if wrong
    end

    # What is to be known of a file system, and is no failure.
    def note(text) = puts("  #{text}")

    def print
      kernel = File.read("/proc/sys/kernel/osrelease").chomp
      puts "", "| #{kernel} | #{WHATS.join(" | ")} |", "|#{" --- |" * (WHATS.size + 1)}"
      @mounts.each { |mount| puts "| #{[mount.name, *cells(mount)].join(" | ")} |" }
      puts "", "#{@copies} tries, #{@failures} failed, in #{(now - @begin_at).ceil} s"
    end

    private

    GUARD = 60 * Integer(ENV.fetch("SLOWNESS", "1"))

    def attempt(&)
      Timeout.timeout(GUARD, &)
    rescue StandardError => e
      "#{e.class}: #{e.message} (#{e.backtrace.grep(/filesystems/).first})"
    end

    def now = Process.clock_gettime(Process::CLOCK_MONOTONIC)

    def cells(mount)
      return [mount.why_not, *[""] * (WHATS.size - 1)] unless mount.there?

      WHATS.map do |what|
        passed, failed = @counts[[mount.name, what]]
        next "–" if (passed + failed).zero?

        failed.zero? ? passed.to_s : "#{failed} of #{passed + failed} FAILED"
      end
    end
  end
end
