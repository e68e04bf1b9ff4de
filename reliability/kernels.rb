# frozen_string_literal: true

# Runs the tests of both floors on the kernel of this machine, for `rake kernels`:
#
#   ruby reliability/kernels.rb BINARIES test/splice_test.rb …
#
# The first is where the compiled tests of the core are; behind commas may stand what the names of those begin with that
# are wanted. In the end it says which tests were skipped and why, and what came out as a row of a table.

require "open3"
require "rbconfig"

ROOT = File.expand_path("..", __dir__)

# Shows what a command says as it comes; returns that and whether it has succeeded.
def run(*command, chdir: ROOT)
  Open3.popen2e(*command, chdir:) do |input, output, process|
    input.close
    output.binmode
    said = "".b
    until output.eof?
      part = output.readpartial(65_536)
      print part
      said << part
    end
    [said, process.value.success?]
  end
end

$stdout.sync = true
binaries, *wanted = ARGV.shift.split(",")
begin_at = Process.clock_gettime(Process::CLOCK_MONOTONIC)

core = Dir["#{ROOT}/#{binaries}/*"].map { |path| run(path, "--quiet", *wanted, chdir: "#{ROOT}/ext/io_splice_core") }
in_rust = core.map(&:first).join
in_ruby, ruby_passed = run(RbConfig.ruby, "test/side_by_side.rb", *ARGV)
minutes = ((Process.clock_gettime(Process::CLOCK_MONOTONIC) - begin_at) / 60).ceil
passed, failed, ignored = %w[passed failed ignored].map { |what| in_rust.scan(/(\d+) #{what}/).flatten.sum(&:to_i) }
puts "| #{File.read("/proc/sys/kernel/osrelease").chomp} | #{passed} passed, #{failed} failed, #{ignored} ignored | " \
     "#{in_ruby[/^\d+ runs, .*$/] || "not finished"} | #{minutes} min |"
exit ruby_passed && core.all?(&:last)
