# frozen_string_literal: true

require "test_helper"
require "fileutils"
require "stringio"

# What ends a wait, what does not, and that no byte is lost either way.
class TestInterrupts < Minitest::Test
  Interrupted = Class.new(StandardError)
  # A call that waits, the IO it waits for, its other IO, what lets the call go on to move "hello", and where
  # that arrives.
  Scene = Struct.new(:call, :waited_for, :other, :go_on, :result, keyword_init: true)
  SCENES = %i[
    splice_from_an_empty_pipe splice_from_an_empty_blocking_pipe splice_from_an_empty_blocking_socket
    splice_to_a_full_pipe splice_to_a_full_blocking_pipe splice_to_a_full_blocking_socket
    tee_from_an_empty_pipe tee_to_a_full_pipe vmsplice_to_a_full_pipe vmsplice_to_a_full_blocking_pipe
  ].freeze

  SCENES.each do |name|
    define_method(:"test_thread_raise_ends_#{name}") { raise_ends(send(name)) }
    define_method(:"test_thread_kill_ends_#{name}") { kill_ends(send(name)) }
    define_method(:"test_timeout_ends_#{name}") { timeout_ends(send(name)) }
    define_method(:"test_signals_do_not_end_#{name}") { signals_do_not_end(send(name)) }
    define_method(:"test_an_error_in_a_signal_handler_ends_#{name}") { handler_error_ends(send(name)) }
    (name.start_with?("vmsplice") ? %i[waited_for] : %i[waited_for other]).each do |which|
      define_method(:"test_closing_the_io_#{which}_ends_#{name}") { close_ends(send(name), which) }
      define_method(:"test_a_signal_handler_that_closes_the_io_#{which}_ends_#{name}") do
        closing_handler_ends(send(name), which)
      end
    end
  end

  def test_closing_the_input_ends_a_call_that_writes_out_what_ruby_has_for_the_output
    source, from = pipe
    into, target = pipe
    fill_up(target)
    target.sync = false
    target.write("unwritten")
    from << "hello"
    waiting = until_asleep(in_a_thread { IO.splice(source, nil, target, nil, 1) })
    source.close
    assert_raises(IOError) { thread_value(waiting) }
    into.read_nonblock(1 << 20)
    target.close
    assert_equal "unwritten", into.read
  end

  # What each of these calls does, again and again, when another thread raises something. Those that swallow it.
  SWALLOWED = <<~'RUBY'
    Thread.report_on_exception = false
    null = File.open(File::NULL, "r+")
    background = IO::Splice::Background.new
    calls = { ktls: -> { IO::Splice.ktls(nil) },
              copy_stream: -> { IO::Splice.copy_stream(StringIO.new("some"), null) },
              tee_stream: -> { IO::Splice.tee_stream(null, null) },
              background: -> { background.copy_stream(null, null, close: false).value } }
    swallowed = calls.reject do |name, call|
      50.times.all? do
        calling = Thread.new { loop { call.call rescue (raise unless $!.is_a?(TypeError)) } }
        sleep(0.001)
        calling.raise("stop")
        !!calling.join(10)
      rescue RuntimeError
        true
      end
    end
    print(swallowed.keys)
  RUBY
  private_constant :SWALLOWED

  # Ruby's own `defined?(A::B)`, for one, swallows it where there is no A.
  def test_no_interrupt_is_lost_in_a_call_that_does_not_wait
    assert_equal "[]", in_ruby(SWALLOWED, "-rstringio")
  end

  # An exception for such a number would let the interrupt in, which would be taken for it.
  def test_no_interrupt_is_lost_while_a_huge_number_is_looked_at
    lost = 20.times.count do
      enough = false
      started = Queue.new
      looking = in_a_thread { look_at_a_huge_number(started) until enough }
      started.pop
      looking.raise(Interrupted)
      enough = true unless looking.join(0.3) rescue Interrupted # rubocop:disable Style/RescueModifier
      enough
    end
    assert_equal 0, lost
  end

  # Ruby does not look for it again when a wait begins.
  def test_what_was_held_off_until_the_thread_blocks_ends_a_wait
    source, = pipe
    target = File.open(File::NULL, "w")
    { tee_stream: [source, target, target], copy_stream: [source, target], relay: [[source, target]] * 2 }
      .each { |name, ends| held_off_ends { IO::Splice.public_send(name, *ends) } }
    held_off_ends { IO::Splice.tee_stream(source.fileno, target, target) }
    path = File.join(Dir.mktmpdir, "fifo")
    File.mkfifo(path)
    held_off_ends { IO::Splice.copy_stream(path, target) }
  ensure
    target&.close
    path && FileUtils.rm_r(File.dirname(path))
  end

  # While a method of an object runs, interrupts are held off until it waits.
  def test_an_interrupt_while_an_object_computes_ends_what_it_waits_for_then
    source, = pipe
    target = Object.new
    target.define_singleton_method(:write) do |_|
      TestInterrupts.compute { IO::Splice.copy_stream(source, File::NULL) }
    end
    ends_what_follows { IO::Splice.tee_stream(StringIO.new("bytes"), target, File::NULL) }
  end

  # Goes on with the block when an interrupt has come.
  def self.compute
    Thread.current[:computing] = true
    nil until Thread.current.pending_interrupt?
    yield
  end

  def test_a_storm_of_signals_is_no_error
    source, from = pipe
    target, into = unix_pair
    feeding = in_a_thread { loop { from.write("x" * 100) } }
    draining = in_a_thread { loop { into.readpartial(100) } }
    on_signal(-> {}) do
      storm = fork_child { loop { Process.kill(:USR1, Process.ppid) } }
      guarded { 3000.times { IO.splice(source, nil, target, nil, 1000) } }
    ensure
      Process.kill(:KILL, storm)
      Process.wait(storm)
    end
    [feeding, draining].each { |thread| thread.kill.join }
  end

  def raise_ends(scene)
    waiting = until_asleep(in_a_thread(&scene.call))
    waiting.raise(Interrupted)
    assert_raises(Interrupted) { thread_value(waiting) }
    assert_nothing_lost(scene)
  end

  def kill_ends(scene)
    waiting = until_asleep(in_a_thread(&scene.call))
    waiting.kill
    assert_nil thread_value(waiting)
    assert_nothing_lost(scene)
  end

  def timeout_ends(scene)
    assert_raises(Interrupted) { guarded { Timeout.timeout(0.01, Interrupted, &scene.call) } }
    assert_nothing_lost(scene)
  end

  def signals_do_not_end(scene)
    handled = Thread::Queue.new
    on_signal(-> { handled << true }) do
      sender = in_a_thread do
        5.times do
          signal_the_main_thread
          handled.pop
        end
        until_asleep(Thread.main)
        scene.go_on.call
      end
      assert_equal 5, guarded(&scene.call)
      thread_value(sender)
    end
    assert_equal "hello", scene.result.read_nonblock(100)
  end

  def handler_error_ends(scene)
    on_signal(-> { raise Interrupted }) do
      sender = in_a_thread { signal_the_main_thread }
      assert_raises(Interrupted) { guarded(&scene.call) }
      thread_value(sender)
    end
    assert_nothing_lost(scene)
  end

  def close_ends(scene, which)
    waiting = until_asleep(in_a_thread(&scene.call))
    guarded { scene[which].close }
    assert_raises(IOError) { thread_value(waiting) }
    assert_predicate scene[which], :closed?
  end

  def closing_handler_ends(scene, which)
    number = scene[which].fileno
    on_signal(-> { scene[which].close }) do
      sender = in_a_thread { signal_the_main_thread }
      # Ruby 4's own close says so to the thread that waits.
      assert_raises(*(RUBY_VERSION < "4" ? [IOError] : [IOError, ThreadError])) { guarded(&scene.call) }
      thread_value(sender)
    end
    assert_predicate scene[which], :closed?
    close_what_ruby_left_open(number)
  end

  def test_closing_a_process_that_is_to_be_written_to_ends_the_wait
    r, = pipe
    IO.popen("cat", "r+") do |cat|
      waiting = until_asleep(in_a_thread { IO.splice(r, nil, cat, nil, 100) })
      guarded { cat.close_write }
      assert_raises(IOError) { thread_value(waiting) }
    end
  end

  def test_closing_an_unrelated_io_does_not_end_the_wait
    scene = splice_from_an_empty_pipe
    waiting = until_asleep(in_a_thread(&scene.call))
    IO.pipe.each(&:close)
    assert_predicate until_asleep(waiting), :alive?
    scene.go_on.call
    assert_equal 5, thread_value(waiting)
  end

  def test_all_threads_that_wait_for_an_io_hear_of_its_close
    r, = pipe
    _, into = pipe
    waiting = Array.new(10) { until_asleep(in_a_thread { IO.splice(r, nil, into, nil, 100) }) }
    guarded { r.close }
    waiting.each { |thread| assert_raises(IOError) { thread_value(thread) } }
  end

  def test_an_error_between_two_pieces_of_waitall_loses_nothing
    r, w = pipe
    out, into = pipe
    waiting = in_a_thread { IO.splice(r, nil, into, nil, 100, IO::Splice::WAITALL) }
    w << "first"
    came = guarded { out.readpartial(100) }
    until_asleep(waiting).raise(Interrupted)
    assert_raises(Interrupted) { thread_value(waiting) }
    w << "second"
    assert_equal 6, IO.splice(r, nil, into, nil, 100)
    assert_equal "firstsecond", came + out.read_nonblock(100)
  end

  INTERRUPTIONS = 1000

  %w[raise kill timeout].each do |way|
    define_method(:"test_a_thousand_times_#{way}_loses_no_byte_between_two_pipes") { pipes_survive(way) }
    define_method(:"test_a_thousand_times_#{way}_loses_no_byte_of_a_file") { file_survives(way) }
  end

  def pipes_survive(way)
    r, w = pipe
    out, into = pipe
    stop = false
    producer = in_a_thread { produce(w) { stop } }
    consumer = in_a_thread { consume(out) }
    INTERRUPTIONS.times do
      interrupt(way) { loop { IO.splice(r, nil, into, nil, rand(1..100_000)) } }
    end
    stop = true
    assert_raises(EOFError) { guarded { loop { IO.splice(r, nil, into, nil, 65_536) } } }
    into.close
    assert_equal thread_value(producer), thread_value(consumer)
    assert_operator consumer.value, :>, 0
  end

  def file_survives(way)
    file = tempfile(cycle)
    out, into = pipe
    consumer = in_a_thread { consume(out) }
    rounds = 0
    INTERRUPTIONS.times do
      interrupt(way) { loop { IO.splice(file, nil, into, nil, rand(1..10_000)) } }
      next unless file.pos == cycle.bytesize

      file.rewind
      rounds += 1
    end
    into.close
    assert_equal (rounds * cycle.bytesize) + file.pos, thread_value(consumer)
    assert_operator consumer.value, :>, 0
  end

  # In a process of its own, since it is the process that is at stake.
  def test_killing_a_thread_at_the_end_of_the_input_leaves_the_process_alive
    ended = tempfile
    _, into = pipe
    child = fork do
      $stderr.reopen(File::NULL)
      1000.times { kill_at_random { IO.splice(ended, nil, into, nil, 10) } }
      exit!(0)
    ensure
      exit!(1)
    end
    status = guarded(240) { Process.wait2(child).last }
    child = nil
    assert_predicate status, :success?, "a thousand killed threads: #{status}"
  ensure
    Process.kill(:KILL, child) && Process.wait(child) if child
  end

  def test_a_closed_input_never_makes_way_for_a_file_that_gets_its_number
    out, into = pipe
    moved = foreign = 0
    with_changing_files("g" * 4096, "b" * 4096, "r") do |current|
      moved += IO.splice(current, 0, into, nil, 4096)
      foreign += out.read_nonblock(4096).count("b")
    end
    assert_operator moved, :>, 0
    assert_equal 0, foreign
  end

  def test_a_closed_output_never_makes_way_for_a_file_that_gets_its_number
    r, w = pipe
    moved = 0
    foreign = with_changing_files("", "", "r+") do |current|
      w.write_nonblock("g", exception: false)
      moved += IO.splice(r, nil, current, 0, 1)
    end
    assert_operator moved, :>, 0
    assert_equal "", foreign
  end

  def teardown
    @threads&.each(&:kill)
    guarded { Thread.pass while @threads&.any?(&:alive?) }
    super
  end

  private

  def look_at_a_huge_number(started)
    started << true if started.empty?
    IO.vmsplice(1, "", 1 << 64)
  rescue Errno::EINVAL
    nil
  end

  def held_off_ends(&call)
    ends_what_follows { Thread.handle_interrupt(Object => :on_blocking) { TestInterrupts.compute(&call) } }
  end

  def ends_what_follows(&)
    thread = in_a_thread(&)
    Thread.pass until thread[:computing]
    thread.raise(Interrupted)
    assert_raises(Interrupted) { thread_value(thread) }
  end

  def splice_from_an_empty_pipe = splice_from(*pipe)
  def splice_from_an_empty_blocking_pipe = splice_from(*blocking(pipe))
  def splice_from_an_empty_blocking_socket = splice_from(*blocking(unix_pair))
  def splice_to_a_full_pipe = splice_to(*pipe)
  def splice_to_a_full_blocking_pipe = splice_to(*pipe) { |full| full.nonblock = false }
  def splice_to_a_full_blocking_socket = splice_to(*unix_pair) { |full| full.nonblock = false }
  def vmsplice_to_a_full_pipe = vmsplice_to(*pipe)
  def vmsplice_to_a_full_blocking_pipe = vmsplice_to(*pipe) { |full| full.nonblock = false }

  def splice_from(reader, writer)
    out, into = pipe
    Scene.new(call: proc { IO.splice(reader, nil, into, nil, 100) }, waited_for: reader, other: into,
              go_on: -> { writer << "hello" }, result: out)
  end

  def splice_to(reader, writer)
    there = fill(writer)
    yield writer if block_given?
    r, w = pipe
    w << "hello"
    Scene.new(call: proc { IO.splice(r, nil, writer, nil, 100) }, waited_for: writer, other: r,
              go_on: -> { reader.read(there) }, result: reader)
  end

  def tee_from_an_empty_pipe
    reader, writer = pipe
    out, into = pipe
    Scene.new(call: proc { IO.tee(reader, into, 100) }, waited_for: reader, other: into,
              go_on: -> { writer << "hello" }, result: out)
  end

  def tee_to_a_full_pipe
    scene = splice_to(*pipe)
    scene.call = proc { IO.tee(scene.other, scene.waited_for, 100) }
    scene
  end

  def vmsplice_to(reader, writer)
    there = fill(writer)
    yield writer if block_given?
    Scene.new(call: proc { IO.vmsplice(writer, "hello") }, waited_for: writer,
              go_on: -> { reader.read(there) }, result: reader)
  end

  def assert_nothing_lost(scene)
    again = until_asleep(in_a_thread(&scene.call))
    assert_predicate again, :alive?
    guarded { scene.go_on.call }
    assert_equal 5, thread_value(again)
    assert_equal "hello", scene.result.read_nonblock(100)
  end

  def on_signal(handler)
    before = trap(:USR1) { handler.call }
    yield
  ensure
    trap(:USR1, before)
  end

  def signal_the_main_thread
    until_asleep(Thread.main)
    Process.kill(:USR1, Process.pid)
  end

  # Ruby forgets the descriptor of an IO that is closed by a signal handler of the very thread that waits for it:
  # `wait_readable` leaves it open, too.
  def close_what_ruby_left_open(number)
    IO.for_fd(number).close
  rescue Errno::EBADF
    nil
  end

  # Ends the block from outside at a moment that nothing determines.
  def interrupt(way, &)
    moment = rand / 2000
    return Timeout.timeout(moment, Interrupted, &) if way == "timeout"

    worker = begun(&)
    sleep moment
    way == "raise" ? worker.raise(Interrupted) : worker.kill
    thread_value(worker)
  rescue Interrupted, EOFError
    nil
  end

  def begun
    begun = Thread::Queue.new
    worker = thread do
      begun << true
      yield
    end
    worker.tap { begun.pop }
  end

  def kill_at_random
    worker = begun do
      yield
    rescue EOFError
      retry
    end
    sleep rand / 2000
    worker.kill.join
  end

  def cycle
    @cycle ||= pattern(1 << 20)
  end

  def produce(writer)
    total = 0
    until yield
      sleep rand / 1000 if rand(20).zero?
      total += writer.write(cycle.byteslice(total % cycle.bytesize, rand(1..100_000)))
    end
    writer.close
    total
  end

  # Checks each byte and returns how many came.
  def consume(reader)
    total = 0
    twice = cycle * 2
    loop do
      sleep rand / 1000 if rand(20).zero?
      came = reader.readpartial(65_536)
      raise "wrong bytes after #{total}" if came != twice.byteslice(total % cycle.bytesize, came.bytesize)

      total += came.bytesize
    end
  rescue EOFError
    total
  end

  # Yields a file again and again, which meanwhile is closed, its number given to a foreign one, and opened anew.
  # Returns what is in the foreign one afterwards.
  def with_changing_files(content, foreign_content, mode, &)
    Dir.mktmpdir do |dir|
      paths = %w[good foreign].map { |name| File.join(dir, name) }
      paths.zip([content, foreign_content]) { |path, bytes| File.binwrite(path, bytes) }
      @current = File.open(paths.first, mode)
      user = in_a_thread { use_current(&) }
      reused = Array.new(1000) { |turn| change_current(*paths, mode, turn) }
      assert_includes reused, true
      @stop = true
      thread_value(user)
      @current.close
      File.binread(paths.last)
    end
  end

  def use_current
    until @stop
      begin
        yield @current
      rescue IOError
        Thread.pass
      end
    end
  end

  # Whether the foreign file got the number. Some of the good ones are open for longer, so that something moves.
  def change_current(good, foreign, mode, turn)
    number = @current.fileno
    @current.close
    reused = File.open(foreign, mode) do |file|
      Thread.pass
      file.fileno == number
    end
    @current = File.open(good, mode)
    (turn % 10).zero? ? sleep(0.0005) : Thread.pass
    reused
  end
end
