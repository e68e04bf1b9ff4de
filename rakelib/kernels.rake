# frozen_string_literal: true

require "English"
require "json"
require "open3"

# Debian's kernels, from the oldest that the gem is said to work on to the newest, each in an emulated machine: see
# bin/with-kernel.
KERNELS = %w[5.10 6.1 6.12 sid].freeze

# The tests of both floors on such a kernel.
module Kernels
  extend Rake::FileUtilsExt

  # Where the compiled tests of the core are taken from.
  BINARIES = "tmp/kernels"
  # They run real servers and clients, some against a clock.
  REAL_SERVERS = FileList["test/{examples,rack}_test.rb"]
  # The calls, the kinds of end, and TLS by the kernel.
  QUICK = FileList["test/{splice,tee,vmsplice,pipe_size,targets,errors,nonblocking,tls}_test.rb"]
  QUICK_CORE = %w[splice:: tee:: vmsplice ready:: refusal:: pool:: background::].freeze

  module_function

  # Compiled here: there it would take an hour.
  def compile_core
    rm_rf BINARIES, verbose: false
    mkdir_p BINARIES, verbose: false
    built, status = Open3.capture2(*%w[cargo test --quiet --package io_splice_core --no-run --message-format=json])
    status.success? or abort "the tests of the core do not compile"
    built.each_line.filter_map { |line| JSON.parse(line)["executable"] }.each do |path|
      cp path, File.join(BINARIES, File.basename(path).sub(/-\h+\z/, "")), verbose: false
    end
  end

  # A row of the table, and whether all passed.
  def test(version, quick:)
    tests = quick ? QUICK : FileList["test/**/*_test.rb"] - REAL_SERVERS
    core = quick ? [BINARIES, *QUICK_CORE].join(",") : BINARIES
    said = "".b
    # With four files at a time two processors would be busy for two thirds of the time.
    jobs = quick ? [] : %w[env JOBS=8]
    IO.popen(["bin/with-kernel", "--limit", "7200", "--add", BINARIES, version,
              *jobs, "ruby", "reliability/kernels.rb", core, *tests], "rb") do |output|
      until output.eof?
        part = output.readpartial(65_536)
        print part
        said << part
      end
    end
    row = said[/^\| .*/]&.chomp || "| #{version} | not finished |"
    [row, $CHILD_STATUS.success?]
  end
end

desc "Run the tests of both floors on other kernels: `rake kernels`, `rake 'kernels[6.1]'`, `rake 'kernels[6.1,quick]'`"
task(kernels: :compile) do |_, args|
  $stdout.sync = true
  quick = args.extras.include?("quick")
  versions = args.extras - ["quick"]
  Kernels.compile_core
  rows = (versions.empty? ? KERNELS : versions).map { |version| Kernels.test(version, quick:) }
  puts "", "| kernel | core | Ruby | |", "| --- | --- | --- | --- |", rows.map(&:first)
  rows.all?(&:last) or abort "there are failures"
end
