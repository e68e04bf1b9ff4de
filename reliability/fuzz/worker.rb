# frozen_string_literal: true

require_relative "descriptors"
require_relative "oracle"
require_relative "runner"

module Fuzz
  # A child process that runs a batch of cases. It tells of each before it begins, and of what was wrong.
  class Worker
    LARGEST = 2 << 20 # no file may become larger

    # @param directory [String] a place of its own
    # @param told [Hash<Symbol, IO>] `now` for the number of the case that runs, `stderr`, and `results`
    def initialize(directory, told)
      @told = told
      confine(directory)
      @runner = Runner.new
      IO::Splice.background.copy_stream(File::NULL, File::NULL, 0).wait # so that its descriptors are there
      @descriptors = Descriptors.new
      @threads = threads
    end

    def run(cases)
      cases.each_with_index do |kase, index|
        @told[:now].pwrite(index.to_s.ljust(8), 0)
        kind, complaints = examine(kase)
        tidy(index)
        complaints.concat(@descriptors.identity_complaints) if (index % 50).zero?
        @told[:results].write("#{JSON.generate([index, kind, complaints.map(&:scrub)])}\n")
      end
    end

    private

    def confine(directory)
      Dir.chdir(directory)
      prepare_files
      trap("XFSZ", "IGNORE")
      Process.setrlimit(:FSIZE, LARGEST)
      Process.setrlimit(:CORE, 0)
      Thread.report_on_exception = false
      redirect
    end

    def redirect
      $stdin.reopen(File::NULL)
      $stdout.reopen(File::NULL, "w")
      $stderr.reopen(@told[:stderr])
      $stderr.sync = true
    end

    def prepare_files
      { "read" => Ends::WORDS, "large" => "0123456\n" * 30_000, "nothing" => "", "both" => "both " * 1000,
        Values::MAPPED => "m" * 20_000 }.each { |name, content| File.write(name, content) }
      File.mkfifo("fifo")
      File.write("unreadable", "")
      File.chmod(0, "unreadable")
      File.symlink("loop", "loop")
    end

    # @return [Array] what came of it, and what was wrong
    def examine(kase)
      builder = Builder.new(kase)
      outcome = @runner.run(kase, builder)
      complaints = Oracle.complaints(kase, builder, outcome)
      complaints.concat(@descriptors.closed_by_others(builder)) unless kase.closes_others?
      kinds = outcome.kinds # now: to tell it may inspect an object, which may make an end
      builder.dispose
      [kinds, complaints + around(kase, Oracle.interrupted?(outcome))]
    rescue StandardError => e
      builder.dispose
      [["not made", "#{e.class} #{e.backtrace.first(3)}"], around(kase, true)]
    end

    # What a case must leave as it was.
    def around(kase, interrupted)
      complaints = @descriptors.complaints(interrupted)
      said = take_stderr
      complaints << "standard error: #{said}" unless said.empty? || kase.arguments.include?(2) # which is its number
      complaints << "#{threads - @threads} threads more than before" if threads != @threads
      complaints
    end

    # Those of the background come and go.
    def threads = Thread.list.count { |thread| thread.name != "io_splice" }

    def take_stderr
      @told[:stderr].pread(@told[:stderr].size, 0).scrub[0, 600].tap { @told[:stderr].truncate(0) }
    end

    def tidy(index)
      GC.start if (index % 100).zero?
      GC.compact if (index % 400).zero? && GC.respond_to?(:compact)
    end
  end
end
