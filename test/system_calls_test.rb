# frozen_string_literal: true

require_relative "test_helper"
require "open3"
require "tempfile"

# How many system calls a copy makes. Time differs from machine to machine; this does not, so it is what tells that a
# copy has become dearer. What only waits for the far end does not count, and the bounds leave room for other sizes of
# buffers.
class SystemCallsTest < Minitest::Test
  include SpliceTest

  MIB = 1 << 20
  COUNTED = File.expand_path("support/counted.rb", __dir__)
  COUNTED_CALLS = File.expand_path("support/counted_calls.rb", __dir__)
  COUNTED_SMALL = File.expand_path("support/counted_small.rb", __dir__)
  WAITS = %w[ppoll poll].freeze
  CLOCK = "clock_gettime" # a system call where the processor's own clock cannot be used, as in an emulated machine
  MEMORY = %w[mmap munmap mprotect madvise brk].freeze # of malloc(3), whenever it needs some
  # For 16 MiB. A new pipe has 64 KiB, so a copy from one or to one takes 256 at least. Each portion for a file is
  # reserved by lseek(2): without that, two writers of one open file overwrite each other. And a socket is asked how
  # much room it has before a large pipe is filled for it: what it does not take at once would pin memory.
  MOST = {
    "file to file" => 8, "file to pipe" => 600, "file to unix" => 140, "file to tcp" => 80,
    "pipe to file" => 860, "pipe to pipe" => 600, "pipe to unix" => 600, "pipe to tcp" => 600,
    "unix to file" => 300, "unix to pipe" => 600, "unix to unix" => 400, "unix to tcp" => 300,
    "tcp to file" => 140, "tcp to pipe" => 600, "tcp to unix" => 340, "tcp to tcp" => 160,
    "tee_stream of a file to a pipe, a socket and a file" => 480,
    "relay of TCP, one way" => 240
  }.freeze
  # Asking what the two ends are, and moving the bytes. A socket is asked whether it has messages: one that is cut is
  # lost.
  SMALL = {
    "file to file, 5 bytes" => 4, "file to unix, 5 bytes" => 4,
    "unix to file, 5 bytes" => 5, "unix to unix, 5 bytes" => 5
  }.freeze

  # All calls of a copy of 100 bytes, waiting included, and none for memory: those of `IO.copy_stream` with core_ext,
  # and those of Ruby's own (3.1 and 3.3). From /dev/null there is nothing to copy. What has ended is copied without a
  # length.
  SMALL_TARGETS = %w[file path /dev/null pipe unix tcp].freeze
  SMALL_COPIES = {
    "file" => [[3, 4], [5, 7], [3, 6], [3, 6], [3, 6], [3, 6]],
    "path" => [[5, 7], [7, 10], [5, 9], [5, 9], [5, 9], [5, 9]],
    "/dev/null" => [[2, 3], [4, 6], [2, 3], [2, 3], [2, 3], [2, 3]],
    "pipe" => [[3, 4], [5, 7], [3, 4], [3, 4], [3, 4], [3, 4]],
    "unix" => [[3, 4], [5, 7], [3, 4], [3, 4], [3, 4], [3, 4]],
    "tcp" => [[3, 4], [5, 7], [3, 4], [3, 4], [3, 4], [3, 4]],
    "ended pipe" => [[5, 5], [7, 8], [5, 5], [4, 5], [4, 5], [4, 5]],
    "ended unix" => [[4, 5], [6, 8], [4, 5], [4, 5], [4, 5], [4, 5]],
    "ended tcp" => [[4, 5], [6, 8], [4, 5], [4, 5], [4, 5], [4, 5]],
  }.freeze

  # Where one end of a splice is seen not to be a pipe, the other one is a pipe, or the kernel refuses the call.
  SINGLE_CALLS = {
    "file to pipe" => 2, "unix to pipe" => 2, "tcp to pipe" => 2,
    "pipe to file" => 2, "pipe to /dev/null" => 2, "pipe to unix" => 2, "pipe to tcp" => 2,
    "pipe to pipe" => 3
  }.freeze

  # On a busy machine the far end gives and takes less at a time, which makes more calls: the best of some runs counts.
  RUNS = 20
  # And on an emulated one so much less that the best of them takes up to three times as many.
  TIMES = SLOWNESS > 1 ? 3 : 1

  def test_a_copy_makes_no_more_system_calls_than_it_did
    best = {}
    bounds = MOST.transform_values { |most| most * TIMES }.merge(SMALL)
    too_many = []
    RUNS.times do
      runs = count(COUNTED, (16 * MIB).to_s, *too_many).transform_values { |calls| calls.except(*WAITS, CLOCK) }
      best.merge!(runs) { |_, *both| both.min_by { |calls| calls.values.sum } }
      too_many = bounds.keys.select { |name| best.fetch(name).values.sum > bounds[name] }
      break if too_many.empty?
    end
    assert_equal MOST.keys.sort + SMALL.keys.sort, best.keys.sort.partition { |name| MOST.key?(name) }.flatten
    bounds.each do |name, most|
      calls = best[name]
      assert_operator calls.values.sum, :<=, most, "#{name}: #{calls.sort_by { |_, count| -count }.to_h}"
    end
  end

  def test_a_small_copy_makes_no_more_system_calls_than_it_did_beside_rubys_own
    counted = count(COUNTED_SMALL).transform_values { |calls| calls.except(*MEMORY) }
    SMALL_COPIES.each do |from, numbers|
      SMALL_TARGETS.zip(numbers) do |to, (most, rubys)|
        ours, own = %w[copy_stream rubys_own].map { |method| counted.fetch("#{method} #{from} to #{to}") }
        said = "#{from} to #{to}: #{ours}, Ruby's own: #{own}"
        assert_operator ours.values.sum, :<=, most, said
        assert_operator ours.values.sum, :<=, own.values.sum + [most - rubys, 0].max, said
      end
    end
  end

  def test_a_single_call_asks_no_more_than_it_did
    counted = count(COUNTED_CALLS).transform_values { |calls| calls.except(*MEMORY) }
    assert_equal({ "tee" => 1 }, counted.delete("tee pipe to pipe"))
    assert_equal(%w[splice trysplice].product(SINGLE_CALLS.keys).map { |pair| pair.join(" ") }.sort, counted.keys.sort)
    counted.each do |name, calls|
      assert_operator calls.values.sum, :<=, SINGLE_CALLS.fetch(name[/ (.*)/, 1]), "#{name}: #{calls}"
    end
  end

  private

  # By kind of copy, and by name of the call.
  def count(*program)
    counted = {}
    current = nil
    traced(*program).each do |line|
      if (name = line[/\Awrite\(\d+, "begin (.+?)"/, 1]) then counted[name] = current = Hash.new(0)
      elsif line.match?(/\Awrite\(\d+, "end"/) then current = nil
      elsif current && (call = line[/\A\w+(?=\()/]) then current[call] += 1
      end
    end
    counted
  end

  def traced(*program)
    Tempfile.create("strace") do |log|
      output, status = Open3.capture2e("timeout", "--kill-after=5", GUARD.to_s, "strace", "-s", "200", "-o", log.path,
                                       RbConfig.ruby, "-I", File.expand_path("../lib", __dir__), *program)
      skip "strace is not installed" if status.exitstatus == 127
      skip "strace may not trace here" if output.include?("PTRACE")
      assert_predicate status, :success?, output
      return log.readlines
    end
  end
end
