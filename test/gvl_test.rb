# frozen_string_literal: true

require "test_helper"
require "io/nonblock"
require "support/kernel"

# Other threads run where the kernel makes a call wait, also for something that has nothing to do with this process.
class TestGvl < Minitest::Test
  include IO::Splice

  def test_others_run_while_trysplice_waits_for_the_lock_of_its_input
    while_held { |held, _, _, into| assert_equal 1, IO.trysplice(held, nil, into, nil, 5) }
  end

  def test_others_run_while_trysplice_waits_for_the_lock_of_its_output
    while_held { |_, held, from, _| assert_equal 5, IO.trysplice(from, nil, held, nil, 5) }
  end

  def test_others_run_while_splice_waits_for_the_lock_of_its_output
    while_held { |_, held, from, _| assert_equal 5, IO.splice(from, nil, held, nil, 5) }
  end

  def test_others_run_while_a_splice_of_numbers_waits_for_a_lock
    while_held { |_, held, from, _| assert_equal 5, IO.splice(from.fileno, nil, held.fileno, nil, 5, F_NONBLOCK) }
  end

  def test_others_run_while_trytee_waits_for_the_lock_of_its_input
    while_held { |held, _, _, into| assert_equal 1, IO.trytee(held, into, 5) }
  end

  def test_others_run_while_tee_waits_for_the_lock_of_its_output
    while_held { |_, held, from, _| assert_equal 5, IO.tee(from, held, 5) }
  end

  def test_others_run_while_vmsplice_waits_for_the_lock
    [0, F_NONBLOCK].each do |flags|
      while_held { |_, held, _, _| assert_equal 5, IO.vmsplice(held, "bytes", flags) }
      while_held { |_, held, _, _| assert_equal 6, IO.vmsplice(held, [Pages.new("by"), "tes!"], flags) }
    end
  end

  def test_others_run_while_what_ruby_holds_back_is_written_out
    while_held do |_, held, from, _|
      held.sync = false
      held << "first "
      assert_equal 5, IO.trysplice(from, nil, held, nil, 5)
    end
  end

  def test_others_run_while_the_capacity_is_asked_for_and_set
    while_held { |held, *| assert_operator held.pipe_size, :>, 0 }
    while_held { |_, held, *| assert_equal 131_072, held.pipe_size = 131_072 }
  end

  def test_others_run_while_a_long_string_becomes_pages
    bytes = "x" * (128 << 20)
    progress = counting
    before = progress.call
    assert_equal bytes.bytesize, Pages.new(bytes).bytesize
    assert_operator progress.call, :>, before
  end

  def test_what_a_thread_does_to_a_string_while_it_becomes_pages_is_not_seen
    bytes = "x" * (64 << 20)
    changing = thread { sleep(0.001) && bytes.setbyte(-1, 0x79) }
    assert_includes %w[xxxxxxxxxx xxxxxxxxxy], Pages.new(bytes).to_s[-10..]
    guarded { changing.join }
    assert_equal "xy", bytes[-2..]
  end

  def test_many_strings_are_those_that_the_call_was_made_with
    strings = Array.new(2000) { |i| [i].pack("Q>") * 1000 }
    before = strings.join
    reader, writer = pipe
    waiting = thread { IO.vmsplice(writer, strings) }
    until_asleep(waiting)
    strings.each { |string| string.setbyte(0, 0xff) }
    assert_equal(before, guarded { reader.read(before.bytesize) })
    assert_equal(before.bytesize, guarded { waiting.value })
  end

  def test_a_file_is_spliced_while_other_threads_are_busy
    @threads = Array.new(2) { thread { loop { nil } } }
    file = tempfile("hello")
    out, into = pipe
    5.times do
      assert_equal(5, guarded { IO.splice(file, 0, into, nil, 5) })
      assert_equal "hello", out.read(5)
    end
  end

  def teardown
    @threads&.each { |thread| thread.kill.join }
    super
  end

  private

  # Yields the ends of a pipe whose lock a child holds: it splices that into a socket that is full, until a thread of
  # this process, which runs meanwhile, has read from it. And two other pipes: one to take "bytes" from, one to fill.
  def while_held
    skip "the number of splice is not known here" unless SPLICE
    held, from, into = Array.new(3) { pipe }
    [held, from].each { |_, writer| writer << "bytes" }
    full, reader = unix_pair
    fill(full)
    full.nonblock = false
    @children = [fork { hold(held.first, full) }, fork { let_go_in_the_end(reader) }]
    until_held(@children.first)
    released = false
    helper = thread do
      20.times { sleep 0.01 }
      released = true
      reader.read_nonblock(1 << 20)
    end
    yield held.first, held.last, from.first, into.last
    assert released, "others stood still"
    guarded { helper.join }
  ensure
    @children&.each { |child| Process.kill(:KILL, child) && Process.wait(child) }
  end

  def hold(pipe, full)
    kernels_own_splice(pipe, full, 4)
  ensure
    sleep
  end

  # If all threads stand still, nobody else does it.
  def let_go_in_the_end(reader)
    sleep GUARD / 4
    reader.read_nonblock(1 << 20)
  ensure
    sleep
  end

  def until_held(child)
    guarded { sleep 0.01 until File.read("/proc/#{child}/syscall").start_with?("#{SPLICE} ") && asleep?(child) }
  end

  def asleep?(child) = File.read("/proc/#{child}/stat")[/\) (\w)/, 1] == "S"

  def counting
    count = 0
    counter = thread { loop { (count += 1) && sleep(0.0001) } }
    @threads = [*@threads, counter]
    until_asleep(counter)
    -> { count }
  end
end
