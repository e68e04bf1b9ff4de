# frozen_string_literal: true

require "test_helper"
require "fcntl"
require "minitest/mock"
require "socket"
require "stringio"
require "tempfile"

# What is handed over to the background, and how it ends.
class BackgroundTest < Minitest::Test
  include SpliceTest

  BACKGROUND = IO::Splice.background

  def setup
    super
    # Up to four idle pipes are kept, and a background that is still on the stack has descriptors of its own.
    @descriptors += 16
  end

  def test_a_file_goes_to_a_socket_and_both_ends_are_closed
    file = tempfile(pattern(300_000))
    client, server = sockets
    told = Thread::Queue.new
    transfer = background.copy_stream(file, server) { |ended| told << ended }
    assert_predicate file, :closed?
    assert_predicate server, :closed?
    assert_bytes(pattern(300_000), guarded { client.read })
    assert_same(transfer, guarded { told.pop })
    assert_equal(300_000, guarded { transfer.value })
    assert_equal [300_000, true, nil], [transfer.bytes, transfer.done?, transfer.error]
    assert_empty background.transfers
  end

  def test_paths_lengths_and_offsets
    path = tempfile(pattern(5000)).path
    target = tempfile("x" * 9000).path
    assert_equal(1000, guarded { background.copy_stream(path, target, 1000, 500).value })
    assert_bytes pattern(5000)[500, 1000], File.binread(target)
  end

  def test_what_ruby_has_read_ahead_goes_first_and_what_it_has_to_write_is_written
    client, front = sockets
    back, server = sockets
    client.write("line\nmore")
    assert_equal "line\n", front.gets
    back.sync = false
    back.write("unwritten ")
    transfer = background.relay(front, back)
    client.write(" and more")
    client.close_write
    assert_equal("unwritten more and more", guarded { server.read })
    server.write("answer")
    server.close
    assert_equal("answer", guarded { client.read })
    assert_equal([13, 6], guarded { transfer.value })
  end

  def test_every_target_gets_every_byte
    client, server = sockets
    target = tempfile.path
    transfer = background.tee_stream(tempfile(pattern(200_000)), server, target)
    assert_bytes(pattern(200_000), guarded { client.read })
    assert_equal(200_000, guarded { transfer.value })
    assert_bytes pattern(200_000), File.binread(target)
  end

  def test_ends_that_stay_the_callers_are_left_right_behind_what_was_moved
    client, server = sockets
    source = tempfile(pattern(100_000))
    modes = [source, server].map { |io| io.fcntl(Fcntl::F_GETFL) }
    transfer = background.copy_stream(source, server, 60_000, close: false)
    assert_bytes(pattern(60_000), guarded { client.read(60_000) })
    assert_equal(60_000, guarded { transfer.value })
    assert_equal 60_000, source.pos
    assert_equal(modes, [source, server].map { |io| io.fcntl(Fcntl::F_GETFL) })
    server.write("still open")
    assert_equal("still open", guarded { client.readpartial(99) })
  end

  def test_what_was_not_delivered_of_a_cancelled_transfer_can_be_read_again
    source, feed = sockets
    target, reader = sockets
    transfer = background.copy_stream(source, target, close: false)
    sent = fill(feed)
    wait_until { transfer.bytes.positive? }
    feed.close
    transfer.cancel
    assert_instance_of(IO::Splice::Cancelled, guarded { transfer.wait.error })
    target.close
    assert_bytes(pattern(sent), guarded { reader.read + source.read })
  end

  def test_a_file_that_stays_the_callers_keeps_its_locks
    file = File.open(tempfile("locked").path, "r+")
    lock = [Fcntl::F_WRLCK, IO::SEEK_SET, 0, 0, 0].pack("s!s!x4q!q!ix4")
    file.fcntl(Fcntl::F_SETLK, lock)
    guarded { background.copy_stream(file, tempfile, close: false).value }
    child = fork do
      File.open(file.path, "r+") { |other| other.fcntl(Fcntl::F_SETLK, lock) }
    rescue Errno::EAGAIN, Errno::EACCES
      exit!(7)
    ensure
      exit!(1)
    end
    assert_equal(7, guarded { Process.wait2(child).last.exitstatus })
  end

  BAD = {
    "an object as source" => ->(it) { [TypeError, [StringIO.new("x"), it]] },
    "nil as target" => ->(it) { [TypeError, [it, nil]] },
    "a negative length" => ->(it) { [ArgumentError, [it, File::NULL, -1]] },
    "a negative offset" => ->(it) { [ArgumentError, [it, File::NULL, 1, -1]] },
    "no rate" => ->(it) { [ArgumentError, [it, "new"], { rate: 0 }] },
    "a rate of the wrong kind" => ->(it) { [TypeError, [it, "new"], { rate: 1.5 }] },
    "a negative timeout" => ->(it) { [ArgumentError, [it, "new"], { idle_timeout: -1 }] },
    "a missing file" => ->(it) { [Errno::ENOENT, ["missing", it]] },
    "a directory that is missing" => ->(it) { [Errno::ENOENT, [it, "missing/new"]] },
    "a source that is not open for reading" => ->(it) { [IOError, [File.open(File::NULL, "w"), it]] },
    "a file to itself" => ->(_) { [ArgumentError, [Tempfile.create.path] * 2] },
  }.freeze

  BAD.each do |name, make|
    define_method("test_#{name.tr(" ", "_")}_is_told_of_at_once_and_nothing_is_taken_over") do
      Dir.mktmpdir do |directory|
        Dir.chdir(directory) do
          ours, theirs = sockets
          error, arguments, options = make.call(ours)
          assert_raises(error) { background.copy_stream(*arguments, **options.to_h) }
          theirs.write("open")
          assert_equal("open", guarded { ours.readpartial(9) })
          assert_empty Dir.children(".")
        end
      end
    end
  end

  def test_a_closed_io_is_told_of
    ours, = sockets
    ours.close
    assert_raises(IOError) { background.copy_stream(ours, File::NULL) }
    assert_raises(IOError) { background.relay(ours, ours) }
  end

  def test_an_input_that_ends_too_soon_is_an_error
    error = assert_raises(EOFError) { guarded { background.copy_stream(tempfile("abc"), File::NULL, 10).value } }
    assert_includes error.message, "3 of 10"
  end

  def test_what_ends_too_soon_counts_as_failed
    mine = IO::Splice::Background.new
    mine.copy_stream(tempfile("abc"), File::NULL, 10)
    mine.tee_stream(tempfile("abc"), File::NULL, File::NULL, len: 4)
    mine.copy_stream(tempfile("abc"), File::NULL, 3)
    mine.tee_stream(tempfile("abc"), File::NULL, File::NULL, len: 0)
    assert(guarded { mine.drain })
    assert_equal({ under_way: 0, begun: 4, done: 2, cancelled: 0, failed: 2, bytes: 9 }, mine.stats)
  end

  def test_a_full_disk_is_an_error
    transfer = background.copy_stream(tempfile("abc"), "/dev/full")
    assert_instance_of(Errno::ENOSPC, guarded { transfer.wait.error })
    assert_raises(Errno::ENOSPC) { transfer.value }
  end

  def test_a_reader_that_is_gone_is_an_error
    client, server = sockets
    client.close
    error = guarded { background.copy_stream("/dev/zero", server).wait.error }
    assert_kind_of SystemCallError, error
  end

  def test_a_silence_that_is_too_long_is_an_error
    front, = sockets
    back, = sockets
    transfer = background.relay(front, back, idle_timeout: 0.05)
    assert_instance_of(IO::Splice::TimeoutError, guarded { transfer.wait.error })
    assert_equal [0, 0], transfer.error.bytes_relayed if transfer.error.is_a?(IO::Splice::Relayed)
  end

  def test_it_takes_as_long_as_the_rate_says
    client, server = sockets
    start = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    transfer = background.copy_stream("/dev/zero", server, 30_000, rate: 20_000)
    assert_equal(30_000, guarded { client.read.bytesize })
    assert_operator Process.clock_gettime(Process::CLOCK_MONOTONIC) - start, :>, 0.5
    guarded { transfer.value }
  end

  def test_a_wait_ends_after_its_timeout_and_by_an_interrupt
    ours, theirs = sockets
    transfer = background.copy_stream(ours, File::NULL)
    assert_nil transfer.wait(0.01)
    assert_raises(Timeout::Error) { Timeout.timeout(0.05) { transfer.wait } }
    refute_predicate transfer, :done?
    theirs.close
    assert_same(transfer, guarded { transfer.wait })
  end

  def test_a_timeout_that_is_none_is_told_of_and_one_that_has_passed_does_not_wait
    mine = IO::Splice::Background.new
    ours, = sockets
    done = mine.copy_stream(File::NULL, File::NULL).wait
    under_way = mine.copy_stream(ours, File::NULL)
    calls = [done.method(:wait), under_way.method(:wait), mine.method(:drain)]
    wrong = [[TypeError, "x"], [TypeError, :x], [TypeError, 1i], [ArgumentError, Float::NAN]]
    calls.product(wrong) do |call, (error, given)|
      assert_raises(error) { guarded { call.call(given) } }
    end
    refute_predicate mine, :closed?
    [-1, 0, -Float::INFINITY, 1r / 1000].each { |passed| assert_nil(guarded { under_way.wait(passed) }) }
    [-1, 10**400, Float::INFINITY].each { |any| assert_same(done, guarded { done.wait(any) }) }
    refute(guarded { mine.drain(-1) })
    mine.close
  end

  def test_what_a_block_raises_is_reported_and_harms_nobody
    _, err = capture_io do
      background.copy_stream(File::NULL, File::NULL) { raise "out of a block" }
      background.copy_stream(File::NULL, File::NULL) { throw :nowhere }
      told = Thread::Queue.new
      background.copy_stream(File::NULL, File::NULL) { told << 1 }
      guarded { told.pop }
    end
    assert_includes err, "out of a block"
    assert_includes err, "nowhere"
  end

  def test_a_block_that_waits_holds_up_nobody_who_waits
    go = Thread::Queue.new
    background.copy_stream(File::NULL, File::NULL) { go.pop }
    assert_equal(0, guarded { background.copy_stream(File::NULL, File::NULL).value })
    go << 1
  end

  def test_a_block_may_wait_for_its_own_transfer_begin_another_and_drain
    mine = IO::Splice::Background.new
    told = Thread::Queue.new
    mine.copy_stream(File::NULL, File::NULL) do |transfer|
      other = mine.copy_stream(File::NULL, File::NULL) { told << :other }
      told << [transfer.wait.equal?(transfer), other.value, mine.drain]
    end
    assert_equal([[true, 0, true], :other], guarded { Array.new(2) { told.pop } })
  end

  def test_after_a_drain_nothing_is_taken_over
    mine = IO::Splice::Background.new(threads: 2)
    ours, theirs = sockets
    transfer = mine.copy_stream(ours, File::NULL)
    refute mine.drain(0.01)
    assert_predicate mine, :closed?
    assert_raises(IOError) { mine.copy_stream("/dev/zero", File::NULL) }
    assert_equal [transfer], mine.transfers
    theirs.close
    assert(guarded { mine.drain })
    assert_equal [1, 1], mine.stats.values_at(:begun, :done)
  end

  def test_it_has_no_descriptor_and_no_thread_when_the_last_has_ended_after_a_drain_or_a_close
    { drain: [1, 0], close: [0, 1] }.each do |way, counts|
      here, there = UNIXSocket.pair
      there.close
      background.copy_stream(here, File::NULL).wait # whose threads and pipe stay
      GC.start # other tests have left some to it
      before = [Dir.children("/proc/self/fd"), own_threads]
      mine = IO::Splice::Background.new(threads: 3)
      ours, theirs = UNIXSocket.pair
      transfer = mine.copy_stream(ours, File::NULL)
      theirs.close if way == :drain
      guarded { mine.public_send(way) }
      theirs.close
      wait_until { (Dir.children("/proc/self/fd") - before.first).empty? && own_threads <= before.last }
      assert_equal counts, mine.stats.values_at(:done, :cancelled)
      assert_predicate transfer, :done?
    end
  end

  def test_a_close_ends_all
    mine = IO::Splice::Background.new
    transfers = Array.new(10) { mine.copy_stream(sockets.first, File::NULL) }
    guarded { mine.close }
    assert_equal [IO::Splice::Cancelled], transfers.map { |transfer| transfer.error.class }.uniq
    assert_raises(IO::Splice::Cancelled) { transfers.first.value }
  end

  def test_without_a_thread_of_rubys_nothing_is_taken_over
    mine = IO::Splice::Background.new
    ours, theirs = sockets
    none = ->(*) { raise ThreadError, "can't create Thread" }
    IO::Splice.const_get(:Copying).stub(:thread, none) do
      assert_raises(ThreadError) { mine.copy_stream(ours, File::NULL) { flunk } }
    end
    refute_predicate ours, :closed?
    assert_equal [0, 0], [mine.size, mine.stats[:begun]]
    theirs.write("still here")
    assert_equal("still here", guarded { ours.readpartial(99) })
    assert(guarded { mine.drain })
  end

  def test_a_block_is_called_though_the_threads_were_about_to_end
    threads = IO::Splice.const_get(:Copying)::Threads
    linger = threads.send(:remove_const, :LINGER)
    threads.const_set(:LINGER, 0.0003)
    mine = IO::Splice::Background.new
    told = Thread::Queue.new
    500.times do |number|
      sleep(number % 10 * 0.0001)
      mine.copy_stream(File::NULL, File::NULL) { told << number }
      assert_equal(number, guarded(10) { told.pop })
    end
    guarded { mine.drain }
  ensure
    threads.send(:remove_const, :LINGER)
    threads.const_set(:LINGER, linger)
  end

  def test_whoever_waits_is_told_though_the_threads_are_killed
    mine = IO::Splice::Background.new
    ours, theirs = sockets
    before = Thread.list
    transfer = mine.copy_stream(ours, File::NULL)
    waiting = Thread.new { transfer.wait }
    wait_until { waiting.stop? }
    (Thread.list - before - [waiting]).each(&:kill).each(&:join)
    theirs.close
    assert_same(transfer, guarded { waiting.value })
    mine.close
  end

  def test_an_interrupt_comes_before_a_transfer_is_taken_over_or_after
    mine = IO::Splice::Background.new
    path = tempfile("some").path
    20.times do
      worker = Thread.new { loop { mine.copy_stream(path, File::NULL) } }
      sleep(0.005)
      worker.raise("stop")
      assert_raises(RuntimeError) { guarded { worker.join } }
    end
    assert(guarded { mine.drain })
    assert_equal mine.stats[:begun], mine.stats[:done]
  end

  def test_a_pipe_is_told_of_the_end_when_it_is_given_away_and_stays_open_when_it_is_lent
    [true, false].each do |close|
      client, front = sockets
      reader, writer = IO.pipe.each { |io| @to_close << io }
      transfer = background.relay(front, [File.open(File::NULL), writer], close:)
      client.write("all")
      client.close_write
      assert_equal([3, 0], guarded { transfer.value })
      assert_equal close, writer.closed?
      writer.write(" and more") unless close
      writer.close
      assert_equal(close ? "all" : "all and more", guarded { reader.read })
    end
  end

  def test_many_relays_at_once_keep_every_byte
    mine = IO::Splice::Background.new(threads: 2)
    relays = Array.new(200) do |number|
      client, front = UNIXSocket.pair
      back, server = UNIXSocket.pair
      [client, server, mine.relay(front, back), pattern(3000 + number)]
    end
    clients, servers, transfers, bytes = relays.transpose
    clients.zip(bytes) { |client, one| client.write(one) && client.close_write }
    servers.zip(bytes) do |server, one|
      assert_bytes(one, guarded { server.read })
      server.write(one.reverse)
      server.close
    end
    bytes.zip(clients) { |one, client| assert_bytes(one.reverse, guarded { client.read }) }
    transfers.zip(bytes) { |transfer, one| assert_equal([one.bytesize] * 2, guarded { transfer.value }) }
    clients.each(&:close)
    mine.close
  end

  def test_short_transfers_leave_nothing_behind
    path = tempfile("some").path
    guarded { 2000.times.map { background.copy_stream(path, File::NULL) }.each(&:value) }
    assert_equal 0, background.size
  end

  def test_those_that_never_read_and_those_that_send_byte_by_byte_hold_up_nobody
    never = Array.new(5) { sockets.tap { |_, server| background.copy_stream("/dev/zero", server) } }
    slow = sockets
    background.copy_stream(slow.first, File::NULL)
    trickle = Thread.new { loop { slow.last.write("x") && sleep(0.001) } }
    client, server = sockets
    background.copy_stream(tempfile(pattern(3_000_000)), server)
    assert_bytes(pattern(3_000_000), guarded { client.read })
  ensure
    trickle&.kill&.join
    never.to_a.map(&:first).each(&:close)
    slow&.last&.close
    wait_until { background.size.zero? }
  end

  private

  def background = BACKGROUND

  def own_threads = Thread.list.count { |thread| thread.name == "io_splice" }

  def sockets = UNIXSocket.pair.each { |socket| @to_close << socket }

  def tempfile(content = "")
    Tempfile.create("background", binmode: true).tap do |file|
      @to_close << file
      file << content
      file.rewind
    end
  end

  def fill(socket)
    sent = 0
    loop { sent += socket.write_nonblock(pattern(sent + 10_000)[sent..]) }
  rescue IO::WaitWritable
    sent
  end

  def wait_until
    guarded { sleep(0.005) until yield }
  end
end
