# frozen_string_literal: true

require "stringio"
require "test_helper"
require "support/copy_ends"
require "support/fuse"

# Files of a file system that is slow, stuck, or lies about their size.
class TestFuse < Minitest::Test
  include CopyEnds

  SIZE = 300_000
  SLOW = 4 # seconds for one operation, in which others run

  def setup
    super
    skip "this takes root and /dev/fuse" unless Fuse.possible?
  end

  def test_every_call_lets_others_run_while_the_size_is_asked_for
    with_slow_files(calls_of_a_source, :getattr, pattern(SIZE)) do |name, call, file|
      moved = call.call(file)

      refute_empty moved, name
      assert_bytes pattern(moved.bytesize), moved, name
    end
  end

  %i[getattr write flush].each do |operation|
    define_method("test_copies_to_a_file_let_others_run_in_its_#{operation}") do
      # What is flushed by a close of Ruby's own is its own affair.
      calls = calls_of_a_target.select { |name,| operation != :flush || name.include?("path") }
      with_slow_files(calls, operation, "") do |name, call, file|
        call.call(file)

        assert_bytes pattern(SIZE), File.binread(file.path), name
      end
    end
  end

  def test_a_stuck_file_system_holds_up_nobody_else
    Fuse.mount("file" => entry, "target" => entry("")) do |fuse|
      fuse.stop
      copies = [in_a_thread { to_a_pipe { |w| IO::Splice.copy_stream(fuse.path("file"), w) } },
                in_a_thread { IO::Splice.copy_stream(tempfile(pattern(SIZE)), fuse.path("target")) }]
      assert_bytes pattern(SIZE), (to_a_pipe { |w| IO::Splice.copy_stream(tempfile(pattern(SIZE)), w) })
      copies.each { |copy| assert_predicate until_settled(copy), :alive? }
      fuse.continue
      assert_bytes pattern(SIZE), thread_value(copies.first)
      assert_equal SIZE, thread_value(copies.last)
      assert_bytes pattern(SIZE), File.binread(fuse.path("target"))
    end
  end

  def test_a_stuck_file_holds_up_nobody_in_the_background
    Fuse.mount("file" => entry(direct: true), "target" => entry("", direct: true)) do |fuse|
      mine = IO::Splice::Background.new
      far, near = UNIXSocket.pair.each { |socket| closing(socket) }
      begin_stuck(mine, fuse, near)
      20.times { relay_a_word(mine) }
      assert_equal(SIZE, guarded { mine.copy_stream(tempfile(pattern(SIZE)), File::NULL).value })
      cancelled, idle, from, to = @stuck
      assert_instance_of(IO::Splice::Cancelled, guarded { cancelled.cancel.wait.error })
      assert_kind_of(IO::Splice::TimeoutError, guarded { idle.wait.error })
      fuse.continue
      assert_bytes(pattern(SIZE), guarded { far.read })
      assert_equal([SIZE, SIZE], guarded { [from.value, to.value] })
      assert_bytes pattern(SIZE), File.binread(fuse.path("target"))
      mine.close
    end
  end

  def test_a_background_with_a_stuck_file_closes_at_once
    Fuse.mount("file" => entry(direct: true)) do |fuse|
      mine = IO::Splice::Background.new
      transfer = mine.copy_stream(fuse.path("file"), File::NULL, **RATE)
      guarded { sleep(0.001) until transfer.bytes.positive? }
      fuse.stop
      sleep 0.3
      guarded(10) { mine.close }
      assert_instance_of IO::Splice::Cancelled, transfer.error
      assert_equal [0, 1, 1], mine.stats.values_at(:under_way, :begun, :cancelled)
    ensure
      fuse.continue
    end
  end

  def test_a_copy_from_a_stuck_file_can_be_killed_when_it_goes_on
    Fuse.mount("file" => entry) do |fuse|
      file = File.open(fuse.path("file"))
      closing(file)
      out, into = pipe
      fuse.stop
      copy = until_settled(in_a_thread { IO::Splice.copy_stream(file, into) })
      copy.kill
      fuse.continue
      join_stopped(copy)
      into.close
      arrived = guarded { out.read }
      assert_bytes pattern(SIZE).byteslice(0, arrived.bytesize), arrived
      assert_equal arrived.bytesize, file.pos
      file.close
    end
  end

  def test_a_file_that_claims_to_be_empty_is_copied_whole
    lies(0) { |arrived, to| assert_bytes pattern(SIZE), arrived, to }
  end

  def test_a_file_that_claims_less_than_it_has_is_copied_whole
    lies(SIZE / 3) { |arrived, to| assert_bytes pattern(SIZE), arrived, to }
  end

  def test_a_file_that_claims_more_than_it_has_ends_where_it_ends
    lies(SIZE * 3) { |arrived, to| assert_bytes pattern(SIZE), arrived, to }
  end

  # As a network has it, or a cache that is written back later, when the disk is full: only close(2) tells.
  def test_what_a_file_system_says_only_at_the_close_is_raised
    calls_that_close.each do |name, call|
      Fuse.mount("full" => entry("", fails: { flush: Errno::ENOSPC })) do |fuse|
        error = assert_raises(Errno::ENOSPC, name) { guarded { call.call(tempfile(pattern(SIZE)), fuse.path("full")) } }
        assert_match(/close/, error.message, name)
      end
    end
  end

  def test_a_failed_close_does_not_hide_why_the_copy_has_failed
    Fuse.mount("full" => entry("", fails: { flush: Errno::ENOSPC, write: Errno::EDQUOT }, direct: true)) do |fuse|
      calls_that_close.each do |name, call|
        assert_raises(Errno::EDQUOT, name) { guarded { call.call(tempfile(pattern(SIZE)), fuse.path("full")) } }
      end
    end
  end

  private

  def calls_that_close
    background = lambda do |source, target|
      mine = IO::Splice::Background.new
      mine.copy_stream(source, target).value
    ensure
      mine.close
    end
    { "copy_stream" => ->(source, path) { IO::Splice.copy_stream(source, path) },
      "copy_stream of an object" => ->(source, path) { IO::Splice.copy_stream(StringIO.new(source.read), path) },
      "tee_stream" => ->(source, path) { IO::Splice.tee_stream(source, path, File::NULL) },
      "in the background" => background,
      "in the background, an IO" => ->(source, path) { background.call(source, File.open(path, "r+b")) } }
  end

  RATE = { rate: SIZE }.freeze

  # Begins, and stops the disk in the middle: a copy that is to be cancelled, one that is idle, one to a socket, and one
  # to the disk itself.
  def begin_stuck(background, fuse, socket)
    source = tempfile(pattern(SIZE))
    path, target = %w[file target].map { |name| fuse.path(name) }
    @stuck = [background.copy_stream(path, File::NULL, **RATE),
              background.copy_stream(path, File::NULL, **RATE, idle_timeout: 0.3),
              background.copy_stream(path, socket, **RATE), background.copy_stream(source, target, **RATE)]
    guarded { sleep(0.001) until @stuck.all? { |transfer| transfer.bytes.positive? } }
    fuse.stop
  end

  def relay_a_word(background)
    client, front = UNIXSocket.pair
    back, server = UNIXSocket.pair
    transfer = background.relay(front, back)
    client.write("word")
    assert_equal("word", guarded { server.readpartial(9) })
    [client, server].each(&:close)
    assert_equal([4, 0], guarded { transfer.value })
  end

  def entry(content = pattern(SIZE), **how) = Fuse::Entry.new(content: content.b, **how)

  # Each call is made with a file of its own, all at once, and none keeps this thread from running. They begin when all
  # is mounted: what is forked to mount waits in its exec(2) for the slow files that are open by then.
  def with_slow_files(calls, operation, content, files = [], &block)
    return others_run(calls.zip(files).map { |(name, call), file| -> { block.call(name, call, file) } }) if
      files.size == calls.size

    Fuse.mount("file" => entry(content, slow: { operation => SLOW })) do |fuse|
      File.open(fuse.path("file"), "r+b") do |file|
        fuse.be_slow
        with_slow_files(calls, operation, content, [*files, file], &block)
      end
    end
  end

  def others_run(calls)
    calling = calls.map { |call| in_a_thread(&call) }
    longest = 0
    last = clock
    guarded do
      while calling.any?(&:alive?)
        sleep 0.01
        longest = [longest, clock - last].max
        last = clock
      end
    end
    calling.each { |thread| thread_value(thread) }
    assert_operator longest, :<, SLOW / 2, "for so many seconds nobody else ran"
  end

  def to_a_pipe
    r, w = IO.pipe
    arrived = Thread.new { r.read }
    yield w
    w.close
    arrived.value.b
  ensure
    [r, w].each(&:close)
  end

  def calls_of_a_source
    { "splice" => ->(file) { to_a_pipe { |w| IO.splice(file, nil, w, nil, SIZE) } },
      "trysplice" => ->(file) { to_a_pipe { |w| IO.trysplice(file, nil, w, nil, SIZE) } },
      "full" => ->(file) { to_a_pipe { |w| IO::Splice.full(file, w, SIZE) } },
      "partial" => ->(file) { to_a_pipe { |w| IO::Splice.partial(file, w, SIZE) } },
      "copy_stream" => ->(file) { to_a_pipe { |w| IO::Splice.copy_stream(file, w) } },
      "copy_stream of a path" => ->(file) { to_a_pipe { |w| IO::Splice.copy_stream(file.path, w) } },
      "tee_stream" => ->(file) { to_a_pipe { |w| IO::Splice.tee_stream(file, w, File::NULL) } },
      "relay" => ->(file) { to_a_pipe { |w| relay_of(file, w) } } }
  end

  def relay_of(file, into)
    near, far = UNIXSocket.pair
    null = File.open(File::NULL, "w")
    far.close_write
    relay = Thread.new { IO::Splice.relay([file, null], near) }
    IO.copy_stream(far, into)
    thread_value(relay)
  ensure
    [near, far, null].each(&:close)
  end

  def calls_of_a_target
    source = -> { tempfile(pattern(SIZE)) }
    { "copy_stream" => ->(file) { IO::Splice.copy_stream(source.call, file) },
      "copy_stream to a path" => ->(file) { IO::Splice.copy_stream(source.call, file.path) },
      "tee_stream" => ->(file) { IO::Splice.tee_stream(source.call, file, File::NULL) },
      "tee_stream to a path" => ->(file) { IO::Splice.tee_stream(source.call, file.path, File::NULL) } }
  end

  def clock = Process.clock_gettime(Process::CLOCK_MONOTONIC)

  def lies(size)
    Fuse.mount("file" => entry(claims: size, direct: true)) do |fuse|
      yield to_a_pipe { |w| IO::Splice.copy_stream(fuse.path("file"), w) }, "a pipe"
      target = tempfile
      IO::Splice.copy_stream(fuse.path("file"), target)
      target.rewind
      yield target.read, "a file"
      near, far = UNIXSocket.pair
      arrived = in_a_thread { far.read }
      IO::Splice.copy_stream(fuse.path("file"), near)
      near.close
      yield thread_value(arrived), "a socket"
      far.close
    end
  end
end
