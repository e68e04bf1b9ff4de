# frozen_string_literal: true

require "open3"

# Tests that do not run while each call is checked (see test/types/hooks.rb), and why. What starts other processes,
# the programs of which are not checked, is left out as well.
UNCHECKED_FILES = {
  "background_process" => "other processes",
  "continuation" => "a continuation leaves and enters the checks again",
  "copy_interrupts" => "an exception may come between the end of a call and that of its check",
  "core_ext" => "other processes",
  "denied_calls" => "other processes",
  "descriptors_of_others" => "other processes",
  "examples" => "other processes",
  "faults" => "limits on memory and descriptors, which the checks need too",
  "fork" => "other processes",
  "fuse" => "other processes",
  "gc" => "GC.stress, and the number of objects",
  "gvl" => "other processes",
  "hostile_peers" => "long, and the calls are those of others",
  "interrupts" => "an exception may come between the end of a call and that of its check",
  "pipes" => "the number of pipes, of which calls that are left over have some",
  "rack" => "other processes",
  "ractor" => "RBS works in the main Ractor only",
  "shared_files" => "other processes",
  "shell" => "other processes",
  "vmsplice_memory" => "long, and the calls are those of vmsplice_test",
}.freeze
UNCHECKED_TESTS = {
  "ractor" => "RBS works in the main Ractor only",
  "no_objects" => "a check makes objects",
  "gc_stress|collected|grow" => "the garbage of the checks",
  "interrupt|random|moment|timeout|in_the_middle" =>
    "an exception may come between the end of a call and that of its check",
  "share_a_socket|changes_|duplicated_stay|4_gib|every_(byte|target)|large_stream|reader_that_goes|goes_away|slow" =>
    "long, and the calls are those of others",
  "method_missing" => "what answers by that has no methods for RBS to see",
  "wrong_number_of_arguments|tell_their_parameters" => "a check has parameters of its own",
  "to_be_had|without_descriptors" => "limits on descriptors, which the checks need too",
}.freeze

# How many processes the tests are divided among.
TYPE_SLICES = 4

namespace :types do
  desc "Check the signatures, and that they are those of the public API"
  task validate: :compile do
    ruby Gem.bin_path("rbs", "rbs"), "-I", "sig", "validate", "--silent"
    ruby "-Ilib", "test/types/complete.rb"
  end

  desc "Run tests with each call checked against its signature"
  task test: :compile do
    files = FileList["test/*_test.rb"].exclude(*UNCHECKED_FILES.keys.map { |name| "test/#{name}_test.rb" })
    # Most of it is waiting.
    slices = Array.new(TYPE_SLICES) { |at| files.each_slice(TYPE_SLICES).filter_map { |some| some[at] } }
    runs = slices.map do |slice|
      Thread.new do
        Open3.capture2e(RbConfig.ruby, *%w[-Ilib -Itest -r./test/types/hooks -e],
                        "ARGV.shift.split.each { |path| require path }", "--",
                        slice.map { |path| "./#{path}" }.join(" "), "--exclude", "/#{UNCHECKED_TESTS.keys.join("|")}/")
      end
    end
    failed = runs.map(&:value).reject { |output, status| puts(output) || status.success? }
    failed.empty? or abort "types: failures, see above"
  end
end

desc "Check the signatures, and the calls of the tests against them"
task types: %w[types:validate types:test]
