# frozen_string_literal: true

require "test_helper"
require "fcntl"
require "io/console"
require "io/nonblock"
require "pty"
require "support/copy_ends"

# What belongs to others stays as it is: the mode of an open file, the locks of a process, its last descriptors.
class TestDescriptorsOfOthers < Minitest::Test
  include IO::Splice
  include CopyEnds

  Interrupted = Class.new(StandardError)
  LOCK = [Fcntl::F_WRLCK, IO::SEEK_SET, 0, 0, 0].pack("ssqql")

  def setup
    super
    @idle = thread { sleep }
  end

  def teardown
    @idle.kill.join
    super
  end

  def test_the_locks_of_a_file_survive_a_splice_from_it_and_to_it
    locked = locked_file("hello" * 10)
    out, into = pipe
    assert_equal 5, IO.splice(locked, 0, into, nil, 5)
    assert_locked locked
    assert_equal 5, IO.splice(out, nil, locked, 0, 5)
    assert_locked locked
    assert_equal 5, IO.splice(locked.fileno, 0, into, nil, 5)
    assert_locked locked
  end

  def test_the_locks_of_a_file_survive_copies
    locked = locked_file("hello" * 10)
    out, into = pipe
    IO::Splice.copy_stream(locked, into, 10)
    IO::Splice.tee_stream(locked, into, into, len: 5)
    IO::Splice.copy_stream(out, locked, 10)
    IO::Splice.partial(locked, into, 5)
    assert_locked locked
  end

  { raise: ->(thread) { thread.raise(Interrupted) }, kill: :kill.to_proc }.each do |name, interrupt|
    define_method(:"test_the_locks_of_a_file_survive_copies_that_#{name}_interrupts") do
      assert_locks_survive(interrupt)
    end
  end

  def test_the_locks_of_a_file_survive_a_copy_that_a_throw_ends
    locked = locked_file(pattern(1 << 20))
    _, full = pipe
    old = trap(:USR1) { throw :enough, :thrown }
    signal = thread { until_asleep(Thread.main) && Process.kill(:USR1, Process.pid) }
    thrown = guarded { catch(:enough) { IO::Splice.tee_stream(locked, full, full) } }
    assert_equal :thrown, thrown
    assert_locked locked
    signal.join
  ensure
    trap(:USR1, old)
  end

  def test_the_mode_of_a_blocking_socket_never_changes
    here, there = unix_pair
    assert_mode_stays(here, there)
    assert_mode_stays(*tcp_pair)
  end

  def test_the_mode_of_a_blocking_terminal_never_changes
    master, slave = closing(*PTY.open).each(&:raw!)
    assert_mode_stays(master, slave)
    assert_mode_stays(slave, master)
  end

  def test_the_last_descriptor_is_not_needed
    file = tempfile("hello")
    out, into = pipe
    here, there = unix_pair.each { |socket| socket.nonblock = false }
    there << "world"
    with_free_descriptors(0) do
      assert_equal 5, IO.splice(file, nil, into, nil, 5)
      assert_equal 5, IO.splice(out, nil, file, 0, 5)
      assert_equal 5, IO.splice(here, nil, into, nil, 5)
      assert_equal 5, IO.splice(out, nil, here, nil, 5)
      assert_equal 65_536, into.pipe_size
      assert_equal 5, IO.vmsplice(into, "bytes")
    end
  end

  private

  def locked_file(content)
    tempfile(content).tap { |file| file.fcntl(Fcntl::F_SETLK, LOCK) }
  end

  # Nobody asks a process for its own locks.
  def assert_locked(file)
    child = fork_child do
      other = File.open("/proc/#{Process.ppid}/fd/#{file.fileno}", "r+")
      other.fcntl(Fcntl::F_SETLK, LOCK)
      raise "the lock is gone"
    rescue Errno::EAGAIN, Errno::EACCES
      nil
    end
    assert_predicate guarded { Process.wait2(child).last }, :success?, "the lock is gone"
  end

  def assert_locks_survive(interrupt)
    locked = locked_file(pattern(1 << 20))
    [->(full) { IO::Splice.tee_stream(locked, full, full) }, ->(full) { IO::Splice.copy_stream(locked, full) },
     ->(full) { IO.splice(locked, 0, full, nil, 1 << 20, WAITALL) }].each do |copy|
      _, full = pipe
      copying = until_asleep(thread { copy.call(full) })
      interrupt.call(copying)
      guarded { copying.join } rescue Interrupted # rubocop:disable Style/RescueModifier
      assert_locked locked
    end
  end

  # Another process looks at the mode all the time.
  def assert_mode_stays(one, other)
    [one, other].each { |io| io.nonblock = false }
    answer, tell = pipe
    stop, go_on = pipe
    watcher = fork_child { watch(one, stop, go_on, tell) }
    tell.close
    answer.wait_readable(GUARD)
    ends = [pipe, pipe]
    guarded { 1000.times { move(one, other, *ends) } }
    go_on.close
    assert_equal "[false]", guarded { answer.read }[1..]
    assert_predicate guarded { Process.wait2(watcher).last }, :success?
  end

  def watch(io, stop, go_on, tell)
    go_on.close
    tell << " "
    seen = []
    seen |= [io.nonblock?] until stop.wait_readable(0)
    tell << seen.inspect
  end

  def move(one, other, (from, bytes), (out, into))
    bytes << "bytes"
    IO.trysplice(from, nil, one, nil, 5)
    other.wait_readable && other.readpartial(5)
    other << "bytes"
    one.wait_readable && IO.trysplice(one, nil, into, nil, 5)
    out.readpartial(5)
  end
end
