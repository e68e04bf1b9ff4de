# frozen_string_literal: true

require "test_helper"
require "io/nonblock"
require "minitest/mock"
require "support/copy_ends"

# A process forks while its threads are in the middle of calls.
class TestFork < Minitest::Test
  include CopyEnds

  TOO_SLOW = "too slow here for so many pipes at once"

  def test_a_child_can_make_all_calls_while_the_parent_waits
    with_waits_in_all_calls do |_, finish|
      assert_equal(all_calls_as_said, said_in_a_child { all_calls })
      finish.call
    end
  end

  def test_the_waits_of_the_parent_go_on
    with_waits_in_all_calls do |waiting, finish|
      children = Array.new(3) { started_child { sleep } }
      waiting.each { |thread| assert_predicate until_asleep(thread), :alive? }
      finish.call
      assert_equal [5] * waiting.size, waiting.map(&:value)
      children.each { |child| assert_predicate end_child(child), :signaled? }
    end
  end

  def test_a_child_can_wait_for_its_parent
    r, w = pipe
    out, into = pipe
    child = started_child { IO.splice(r, nil, into, nil, 5, IO::Splice::WAITALL) }
    IO.splice(tempfile("from the parent"), nil, w, nil, 5)
    assert_predicate guarded { Process.wait2(child).last }, :success?
    assert_equal "from ", out.read_nonblock(100)
  end

  def test_a_thread_of_the_child_waits_and_is_interrupted
    r, = pipe
    _, into = pipe
    said = said_in_a_child do
      waiting = until_asleep(thread { IO.splice(r, nil, into, nil, 100) })
      r.close
      begin
        waiting.value
      rescue IOError => e
        e.class
      end
    end
    assert_equal IOError, said
    refute_predicate r, :closed?
  end

  def test_a_fork_from_a_thread_that_leaves_others_in_calls_works
    with_waits_in_all_calls do |_, finish|
      said = thread { said_in_a_child { all_calls } }
      assert_equal(all_calls_as_said, guarded { said.value })
      finish.call
    end
  end

  # A splice of a file holds duplicates of its descriptors while it runs. A child that kept one would keep
  # the reader from seeing the end.
  def test_a_child_keeps_no_descriptor_of_a_call_in_the_parent_open
    100.times do
      r, w = IO.pipe
      file = tempfile("x" * 65_536)
      children = forked_during_splices(file, r, w) { [r, w, file].each(&:close) }
      w.close
      guarded { r.read }
      assert_predicate r, :eof?
      r.close
      file.close
    ensure
      children&.each { |child| end_child(child) }
    end
  end

  def test_a_child_has_no_second_descriptor_of_what_the_parent_splices
    file = tempfile("x" * 65_536)
    r, w = pipe
    ours = [file, r, w].map { |io| link(io.fileno) }
    found = while_splicing(file, r, w) do
      Array.new(50) { said_in_a_child { all_links.count { |link| ours.include?(link) } } }
    end
    assert_equal [3], found.uniq
  end

  def test_a_child_keeps_no_pipe_of_any_number_of_relays
    with_stalled_relays(300) do |own|
      assert_operator own.size, :>, 256
      assert_equal([], said_in_a_child { all_links & own })
    end or skip TOO_SLOW
  end

  def test_a_child_keeps_no_file_of_any_number_of_copies
    file = Tempfile.new
    file.write("x" * 1_000_000)
    file.flush
    sockets = Array.new(300) { unix_pair }
    copies = sockets.map { |into, _| until_asleep(thread { IO::Splice.copy_stream(file.path, into) }) }
    opened = -> { all_links.count(file.path) }
    assert_equal 301, opened.call
    assert_equal(1, said_in_a_child { opened.call })
    assert_equal(1, said_in_a_child { said_in_a_child { opened.call } })
    sockets.each { |_, from| assert_equal 1_000_000, guarded { from.read(1_000_000) }.bytesize }
    assert_equal([1_000_000] * 300, guarded { copies.map(&:value) })
  ensure
    file.close!
  end

  def test_a_daemon_keeps_no_pipe
    said = said_by_child do |say|
      with_stalled_relays(10) do |own|
        Process.daemon(true, true) # and the process that had the relays is gone
        say.call(all_links & own)
      end or say.call(nil)
    end
    said or skip TOO_SLOW
    assert_equal [], said
  end

  def test_a_process_that_popen_forks_keeps_no_pipe
    with_stalled_relays(10) do |own|
      IO.popen("-") do |io|
        unless io
          puts (all_links & own).size
          $stdout.flush
          exit!
        end
        assert_equal("0\n", guarded { io.read })
      end
    end or skip TOO_SLOW
  end

  def test_fork_can_be_wrapped_by_an_alias
    with_alias_of_fork do |calls|
      with_stalled_relays(10) { |own| assert_equal([], said_in_a_child { all_links & own }) } or skip TOO_SLOW
      assert_equal 1, calls.call
    end
  end

  def test_fork_can_be_stubbed
    Process.stub(:_fork, 12_345) { assert_equal 12_345, fork }
    with_stalled_relays(10) { |own| assert_equal([], said_in_a_child { all_links & own }) } or skip TOO_SLOW
  end

  private

  # Yields the links of the pipes that relays have for themselves, with bytes in them that nobody takes yet.
  def with_stalled_relays(count)
    relays = Array.new(count) { unix_pair.then { |pair| Stalled.new(unix_pair, pair, fill(pair.first)) } }
    relays.each { |relay| until_asleep(relay.thread) }
    before = all_links
    relays.each { |relay| relay.near << "there" }
    own = pipes_at_once(count, before)
    yield own if own
    assert_equal([["there", [5, 0]]] * count, guarded { relays.map(&:finish) })
    own
  end

  # A relay gives its pipe back after a second, which on a slow machine may be before the last one has got its own: nil.
  def pipes_at_once(count, before)
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    guarded do
      loop do
        own = (all_links - before).grep(/pipe:/)
        return own if own.size >= count
        return if SLOWNESS > 1 && Process.clock_gettime(Process::CLOCK_MONOTONIC) - start > 20

        Thread.pass
      end
    end
  end

  # A relay whose output is full.
  class Stalled
    attr_reader :near, :thread

    def initialize((near, front), (back, far), filled)
      @near = near
      @far = far
      @filled = filled
      @thread = Thread.new { IO::Splice.relay(front, back) }
    end

    # What has arrived, and what the relay says.
    def finish
      @near.close_write
      @far.read(@filled)
      @far.close_write
      [@far.read, @thread.value]
    end
  end

  # Yields how often fork went through a wrapper of the kind that instrumentation uses.
  def with_alias_of_fork
    calls = 0
    Process.singleton_class.class_eval do
      alias_method :_fork_without_counting, :_fork
      remove_method :_fork
      define_method(:_fork) { _fork_without_counting.tap { calls += 1 } }
    end
    yield -> { calls }
  ensure
    Process.singleton_class.class_eval do
      remove_method :_fork
      alias_method :_fork, :_fork_without_counting
      remove_method :_fork_without_counting
    end
  end

  def all_calls_as_said
    [5, 5, 5, 5, :EAGAIN, nil, "bytesbytes", 4]
  end

  def all_calls
    r, w = IO.pipe
    out, into = IO.pipe
    said = [IO.vmsplice(w, "bytes"), IO.tee(r, into, 100), IO.trytee(r, into, 5), IO.splice(r, nil, into, nil, 100)]
    out.read(5)
    said << IO.trysplice(r, nil, into, nil, 100)
    w.close
    said << IO.trysplice(r, nil, into, nil, 100) << out.read(10)
    said << File.open("/proc/self/exe") { |file| IO.splice(file, 0, into, nil, 4) }
  end

  # Yields threads that wait in every call, and what makes them go on, each with 5 bytes.
  def with_waits_in_all_calls
    r, w = pipe
    tee_r, tee_w = pipe
    out, full = pipe
    there = fill(full)
    socket, peer = unix_pair.each { |io| io.nonblock = false }
    _, into = pipe
    waiting = [-> { IO.splice(r, nil, into, nil, 5) }, -> { IO.splice(socket, nil, into, nil, 5) },
               -> { IO.tee(tee_r, into, 5) }, -> { IO.vmsplice(full, "bytes") }].map { |call| thread(&call) }
    waiting.each { |thread| until_asleep(thread) }
    yield waiting, -> { [w, peer, tee_w].each { |io| io << "bytes" } && out.read(there) }
    guarded { waiting.each(&:join) }
  ensure
    waiting.each(&:kill)
  end

  def while_splicing(file, reader, writer)
    stop = false
    splicing = thread do
      until stop
        IO.splice(file, 0, writer, nil, 65_536)
        reader.read_nonblock(65_536)
      end
    end
    yield
  ensure
    stop = true
    guarded { splicing.join }
  end

  def forked_during_splices(file, reader, writer)
    while_splicing(file, reader, writer) do
      sleep rand / 1000
      [started_child do
        yield
        sleep
      end]
    end
  end

  def link(number)
    File.readlink("/proc/self/fd/#{number}")
  rescue Errno::ENOENT
    nil
  end

  def all_links
    Dir.children("/proc/self/fd").map { |number| link(number) }
  end

  def started_child
    fork do
      yield
      exit!(0)
    ensure
      exit!(1)
    end
  end

  def end_child(child)
    Process.kill(:KILL, child)
    Process.wait2(child).last
  end

  # As said_in_a_child, of a process that says it itself, by the block's argument.
  def said_by_child
    r, w = IO.pipe
    say = lambda do |said|
      w << Marshal.dump(said)
      w.close
      exit!(0)
    end
    child = started_child do
      yield say
    rescue StandardError => e
      say.call(e.full_message)
    end
    w.close
    flunk "the child hangs" unless r.wait_readable(SpliceTest::GUARD)
    Marshal.load(r.read) # rubocop:disable Security/MarshalLoad
  ensure
    r.close
    end_child(child)
  end
end
