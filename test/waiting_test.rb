# frozen_string_literal: true

require "test_helper"

# A call without F_NONBLOCK waits, whatever the mode of its descriptors, and other threads run.
class TestWaiting < Minitest::Test
  include SteadyBuffers

  PIPES = %i[pipe fifo].freeze
  STREAMS = [*PIPES, :unix_pair, :tcp_pair].freeze
  ALL = [*STREAMS, :terminal].freeze
  MODES = { "nonblocking" => true, "blocking" => false }.freeze
  FORMS = { "an_io" => :itself, "a_number" => :fileno }.freeze

  # Makes a test of a method below for every kind of descriptor, in both modes and both forms.
  def self.test_each(name, kinds)
    kinds.product(MODES.to_a, FORMS.to_a) do |kind, (mode, nonblock), (form, as)|
      define_method(:"test_#{name}_a_#{mode}_#{kind}_given_as_#{form}") { send(name, kind, nonblock, as) }
    end
  end

  test_each :splice_waits_for_bytes_from, ALL
  test_each :splice_waits_for_room_in, ALL
  test_each :splice_hears_of_the_end_of, STREAMS
  test_each :tee_waits_for_bytes_from, PIPES
  test_each :tee_waits_for_room_in, PIPES
  test_each :tee_hears_of_the_end_of, PIPES
  test_each :vmsplice_waits_for_room_in, PIPES
  test_each :vmsplice_puts_in_all_that_is_too_much_for, PIPES
  test_each :all_calls_hear_of_the_last_reader_leaving, PIPES
  test_each :the_pipe_is_free_while_splice_waits_for_bytes_from, STREAMS
  test_each :the_pipe_is_free_while_splice_waits_for_room_in, STREAMS

  def splice_waits_for_bytes_from(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    r, w = pipe
    moved = in_a_thread { IO.splice(reader.public_send(as), nil, w.public_send(as), nil, 100) }
    assert_others_run_during(moved)
    writer << "some bytes"
    assert_equal 10, thread_value(moved)
    assert_equal "some bytes", r.read_nonblock(100)
    assert_equal nonblock, reader.nonblock?
  end

  def splice_waits_for_room_in(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    there = stuff(writer, nonblock)
    r, w = pipe
    w << "some bytes"
    moved = in_a_thread { IO.splice(r.public_send(as), nil, writer.public_send(as), nil, 10) }
    assert_others_run_during(moved)
    came = guarded { reader.read(there + 10) }
    assert_equal 10, thread_value(moved)
    assert_equal "ffsome bytes", came[-12..]
    assert_equal nonblock, writer.nonblock?
  end

  def splice_hears_of_the_end_of(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    _, into = pipe
    moved = in_a_thread { IO.splice(reader.public_send(as), nil, into.public_send(as), nil, 100) }
    assert_others_run_during(moved)
    writer.close
    assert_raises(EOFError) { thread_value(moved) }
  end

  def tee_waits_for_bytes_from(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    r, w = pipe
    duplicated = in_a_thread { IO.tee(reader.public_send(as), w.public_send(as), 100) }
    assert_others_run_during(duplicated)
    writer << "some bytes"
    assert_equal 10, thread_value(duplicated)
    assert_equal "some bytes", r.read_nonblock(100)
    assert_equal "some bytes", reader.readpartial(100)
  end

  def tee_waits_for_room_in(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    there = stuff(writer, nonblock)
    r, w = pipe
    w << "some bytes"
    duplicated = in_a_thread { IO.tee(r.public_send(as), writer.public_send(as), 100) }
    assert_others_run_during(duplicated)
    came = guarded { reader.read(there) }
    assert_equal "ff", came[-2..]
    assert_equal 10, thread_value(duplicated)
    assert_equal "some bytes", reader.readpartial(100)
    assert_equal "some bytes", r.readpartial(100)
  end

  def tee_hears_of_the_end_of(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    _, into = pipe
    duplicated = in_a_thread { IO.tee(reader.public_send(as), into.public_send(as), 100) }
    assert_others_run_during(duplicated)
    writer.close
    assert_raises(EOFError) { thread_value(duplicated) }
  end

  def vmsplice_waits_for_room_in(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    there = stuff(writer, nonblock)
    put = in_a_thread { IO.vmsplice(writer.public_send(as), ["some ", "bytes"]) }
    assert_others_run_during(put)
    came = guarded { reader.read(there + 10) }
    assert_equal 10, thread_value(put)
    assert_equal "ffsome bytes", came[-12..]
  end

  def vmsplice_puts_in_all_that_is_too_much_for(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    put = in_a_thread { IO.vmsplice(writer.public_send(as), pattern(1_000_000)) }
    assert_others_run_during(put)
    came = guarded { reader.read(1_000_000) }
    assert_equal pattern(1_000_000), came
    assert_equal 1_000_000, thread_value(put)
  end

  def all_calls_hear_of_the_last_reader_leaving(kind, nonblock, as)
    r, w = pipe
    w << "ready"
    calls = [->(full) { IO.splice(r, nil, full, nil, 100) }, ->(full) { IO.tee(r, full, 100) },
             ->(full) { IO.vmsplice(full, "more") }]
    calls.each do |call|
      reader, full = ends(kind, nonblock)
      stuff(full, nonblock)
      waiting = in_a_thread { call.call(full.public_send(as)) }
      assert_others_run_during(waiting)
      reader.close
      assert_raises(Errno::EPIPE) { thread_value(waiting) }
    end
    assert_equal "ready", r.read_nonblock(100)
  end

  def the_pipe_is_free_while_splice_waits_for_bytes_from(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    r, w = pipe
    moved = in_a_thread { IO.splice(reader.public_send(as), nil, w.public_send(as), nil, 100) }
    assert_others_run_during(moved)
    assert_raises(IO::EAGAINWaitReadable) { r.read_nonblock(1) }
    assert_equal 4, w.write_nonblock("mine")
    assert_equal "mine", r.read_nonblock(100)
    writer << "theirs"
    assert_equal 6, thread_value(moved)
    assert_equal "theirs", r.read_nonblock(100)
  end

  def the_pipe_is_free_while_splice_waits_for_room_in(kind, nonblock, as)
    reader, writer = ends(kind, nonblock)
    there = stuff(writer, nonblock)
    r, w = pipe
    w << "1"
    moved = in_a_thread { IO.splice(r.public_send(as), nil, writer.public_send(as), nil, 100) }
    assert_others_run_during(moved)
    assert_equal 1, w.write_nonblock("2")
    assert_equal "12", r.read_nonblock(100)
    assert_raises(IO::EAGAINWaitReadable) { r.read_nonblock(1) }
    w << "3"
    came = guarded { reader.read(there + 1) }
    assert_equal "ff3", came[-3..]
    assert_equal 1, thread_value(moved)
  end

  def test_waiting_costs_no_cpu
    silent, = pipe
    _, into = pipe
    ready, w = pipe
    w << "ready"
    _, full = pipe
    fill(full)
    silent_socket, = ends(:unix_pair, false)
    _, full_socket = ends(:tcp_pair, false)
    stuff(full_socket, false)
    calls = [-> { IO.splice(silent, nil, into, nil, 10) }, -> { IO.splice(silent_socket, nil, into, nil, 10) },
             -> { IO.splice(ready, nil, full, nil, 10) }, -> { IO.splice(ready, nil, full_socket, nil, 10) },
             -> { IO.tee(silent, into, 10) }, -> { IO.tee(ready, full, 10) }, -> { IO.vmsplice(full, "more") }]
    waiting = calls.map { |call| until_asleep(in_a_thread(&call)) }
    before = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
    sleep 0.5
    assert_operator Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - before, :<, 0.25
    assert waiting.all?(&:alive?)
  end

  def test_bytes_that_somebody_else_takes_do_not_end_the_wait_with_nothing
    r, w = pipe
    out, into = pipe
    moved = until_asleep(in_a_thread { IO.splice(r, nil, into, nil, 100) })
    20.times do
      w << "gone?"
      r.read_nonblock(5, exception: false)
    end
    w << "stays"
    assert_includes 1..100, thread_value(moved)
    assert_equal moved.value, out.read_nonblock(1000).bytesize
  end

  def test_splice_waits_first_for_its_input_and_then_for_its_output
    r, w = pipe
    out, full = pipe
    there = fill(full)
    moved = in_a_thread { IO.splice(r, nil, full, nil, 100) }
    assert_others_run_during(moved)
    w << "late"
    assert_others_run_during(moved)
    guarded { out.read(there) }
    assert_equal 4, thread_value(moved)
    assert_equal "late", out.read_nonblock(100)
  end

  def test_a_pipe_without_a_free_slot_is_full_with_few_bytes_in_it
    r, w = pipe
    out, full = pipe
    slots = IO::Splice::PIPE_CAPA / IO::Splice::PAGE_SIZE
    slots.times do
      w << "."
      IO.splice(r, nil, full, nil, 1)
    end
    w << "last"
    moved = in_a_thread { IO.splice(r, nil, full, nil, 100) }
    assert_others_run_during(moved)
    assert_equal ".", out.read_nonblock(1)
    assert_equal 4, thread_value(moved)
    assert_equal "#{"." * (slots - 1)}last", out.read_nonblock(100)
  end

  def test_waitall_waits_again_and_again
    r, w = pipe
    out, into = pipe
    moved = in_a_thread { IO.splice(r, nil, into, nil, 9, IO::Splice::WAITALL) }
    %w[one two six].each do |word|
      assert_others_run_during(moved)
      w << word
      came = guarded { out.read(3) }
      assert_equal word, came
    end
    assert_equal 9, thread_value(moved)
  end

  def test_vmsplice_says_how_much_went_in_before_the_last_reader_left
    reader, writer = pipe
    put = in_a_thread { IO.vmsplice(writer, pattern(100_000)) }
    assert_others_run_during(put)
    reader.close
    error = assert_raises(Errno::EPIPE) { thread_value(put) }
    assert_includes error.message, "after #{IO::Splice::PIPE_CAPA} bytes"
  end

  def test_the_timeout_of_an_io_ends_the_wait
    skip "IO#timeout came with Ruby 3.2" unless IO.method_defined?(:timeout=)
    silent, = pipe
    ready, w = pipe
    w << "ready"
    _, full = pipe
    fill(full)
    _, into = pipe
    [silent, full].each { |io| io.timeout = 0.01 }
    [-> { IO.splice(silent, nil, into, nil, 10) }, -> { IO.splice(ready, nil, full, nil, 10) },
     -> { IO.tee(silent, into, 10) }, -> { IO.tee(ready, full, 10) },
     -> { IO.vmsplice(full, "more") }].each do |call|
      assert_raises(IO::TimeoutError) { guarded { call.call } }
    end
    assert_equal "ready", ready.read_nonblock(100)
  end

  def teardown
    @threads&.each(&:kill)
    guarded { Thread.pass while @threads&.any?(&:alive?) }
    super
  end

  private

  # A reader and a writer, both in the wanted mode.
  def ends(kind, nonblock)
    send(kind).each { |io| io.nonblock = nonblock }
  end

  def stuff(writer, nonblock)
    fill_up(writer).tap { writer.nonblock = nonblock }
  end

  def assert_others_run_during(waiting)
    until_asleep(waiting)
    count = 0
    other = in_a_thread { loop { Thread.pass.then { count += 1 } } }
    guarded { Thread.pass until count > 100 }
    other.kill.join
    assert waiting.alive?, -> { "it did not wait: #{waiting.value}" }
  end
end
