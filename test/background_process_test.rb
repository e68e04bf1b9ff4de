# frozen_string_literal: true

require "test_helper"
require "open3"
require "rbconfig"
require "socket"

# The background, and the processes that there are: the end of one, and fork.
class BackgroundProcessTest < Minitest::Test
  include SpliceTest

  LIB = File.expand_path("../lib", __dir__)
  BACKGROUND = IO::Splice.background

  def setup
    super
    @descriptors += 8 # the idle pipes that are kept
  end

  HEAD = 'require "io/splice"; require "socket"; ours, theirs = UNIXSocket.pair; background = IO::Splice.background; '

  # What a program says and how it ends.
  ENDS = {
    "with_transfers_under_way" => ["background.copy_stream(ours, File::NULL)", "", 0],
    "after_a_drain" => [<<~RUBY, "9\n", 0],
      transfer = background.copy_stream(ours, File::NULL)
      at_exit { background.drain(30) && puts(transfer.value) }
      Thread.new { sleep 0.2; theirs.write("some more"); theirs.close }
    RUBY
    "by_exit_in_a_block" => ["background.copy_stream(File::NULL, File::NULL) { exit 3 }; sleep", "", 3],
    "by_exit_beside_a_block_that_sleeps" => [<<~RUBY, "", 0],
      go = Thread::Queue.new
      background.copy_stream(File::NULL, File::NULL) { go << 1; sleep }
      go.pop
    RUBY
    "by_an_exception_where_interrupts_are_held_off" => [<<~RUBY, "", 1],
      $stderr.reopen(File::NULL)
      Thread.handle_interrupt(Object => :never) { background.copy_stream(ours, File::NULL); raise "end" }
    RUBY
    "by_exec" => ['background.copy_stream(ours, File::NULL); exec("echo", "executed")', "executed\n", 0],
    "after_a_daemon" => [<<~RUBY, "5\n", 0],
      reader, writer = IO.pipe
      background.copy_stream(ours, File::NULL)
      fork do
        Process.daemon(true, true)
        writer.puts(IO::Splice.background.copy_stream("/proc/self/exe", File::NULL, 5).value)
        writer.close
      end
      puts reader.gets
    RUBY
    "after_a_ractor" => [<<~RUBY, "5\n", 0],
      puts(Ractor.new { IO::Splice.background.copy_stream("/proc/self/exe", File::NULL, 5).value }.take)
    RUBY
  }.freeze

  ENDS.each do |name, (program, said, status)|
    define_method("test_a_process_ends_#{name}") do
      command = ["timeout", "-k", "5", GUARD.to_s, RbConfig.ruby, "-W0", "-I", LIB, "-e", HEAD + program]
      output, ended = guarded(70) { Open3.capture2(*command) }
      assert_equal [said, status], [output, ended.exitstatus]
    end
  end

  def test_a_forked_child_has_none_of_its_parents_transfers_and_descriptors
    ours, theirs = UNIXSocket.pair
    transfer = IO::Splice.background.copy_stream(ours, File::NULL)
    report = in_child do
      theirs.close
      [transfer.done?, transfer.error.class, transfer.cancel.bytes, IO::Splice.background.size,
       sockets_of_this_process, IO::Splice.background.copy_stream("/proc/self/exe", File::NULL, 5).value]
    end
    assert_equal [true, IO::Splice::Cancelled, 0, 0, 0, 5], report
    theirs.write("goes on")
    theirs.close
    assert_equal(7, guarded { transfer.value })
  end

  def test_a_block_may_fork
    told = Thread::Queue.new
    IO::Splice.background.copy_stream(File::NULL, File::NULL) do
      told << in_child { IO::Splice.background.copy_stream("/proc/self/exe", File::NULL, 3).value }
    end
    assert_equal(3, guarded { told.pop })
    assert_equal(0, guarded { IO::Splice.background.copy_stream(File::NULL, File::NULL).value })
  end

  private

  def sockets_of_this_process
    Dir["/proc/self/fd/*"].count { |path| File.socket?(path) }
  end

  def in_child
    reader, writer = IO.pipe
    child = fork do
      writer.write(Marshal.dump(yield))
      writer.close
    ensure
      exit!(0)
    end
    writer.close
    Marshal.load(guarded { reader.read }) # rubocop:disable Security/MarshalLoad
  ensure
    reader.close
    Process.wait(child)
  end
end
