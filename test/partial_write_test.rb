# frozen_string_literal: true

require "test_helper"

# A call that ends in the middle says how many bytes are in, and those are a prefix of what it was given.
class TestPartialWrite < Minitest::Test
  Interrupted = Class.new(StandardError)
  PartialWrite = IO::Splice::PartialWrite
  WAITALL = IO::Splice::WAITALL
  ALL = 1 << 20
  MODES = { "nonblocking" => true, "blocking" => false }.freeze

  # What ends a call that waits, and the exception's class. Each gets the thread and the pipe that it waits for.
  ENDS = {
    "a_reader_that_leaves" => [Errno::EPIPE, ->(_, reader, _) { reader.close }],
    "a_close_in_another_thread" => [IOError, ->(_, _, writer) { writer.close }],
    "thread_raise" => [Interrupted, ->(thread, _, _) { thread.raise(Interrupted) }],
    "thread_raise_of_an_exception" => [Interrupted, ->(thread, _, _) { thread.raise(Interrupted.new("own")) }],
  }.freeze

  # vmsplice

  ENDS.to_a.product(MODES.to_a).each do |(way, (error, ending)), (mode, nonblock)|
    define_method :"test_#{way}_in_the_middle_tells_how_much_went_in_to_a_#{mode}_pipe" do
      reader, writer = pipe
      writer.nonblock = nonblock
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, pattern(ALL)) })
      read = guarded { reader.read(100_000) }
      guarded { Thread.pass while writable?(writer) }
      until_in_vmsplice(putting)
      read += duplicate_of(reader)
      ending.call(putting, reader, writer)
      raised = assert_raises(error) { guarded { putting.value } }

      assert_kind_of PartialWrite, raised
      assert_equal read.bytesize, raised.bytes_written
      assert_bytes pattern(raised.bytes_written), read
    end

    define_method :"test_#{way}_before_anything_went_in_to_a_#{mode}_pipe_is_no_partial_write" do
      reader, writer = pipe
      fill(writer)
      writer.nonblock = nonblock
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, [pattern(ALL), IO::Splice::Pages.new("more")]) })
      ending.call(putting, reader, writer)
      raised = assert_raises(error) { guarded { putting.value } }

      refute_kind_of PartialWrite, raised
      refute_respond_to raised, :bytes_written
    end
  end

  def test_a_broken_pipe_says_it_in_the_message_too
    reader, writer = pipe
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pattern(ALL)) })
    reader.close
    error = assert_raises(Errno::EPIPE) { guarded { putting.value } }

    assert_operator error.bytes_written, :>, 0
    assert_match(/vmsplice: after #{error.bytes_written} bytes/, error.message)
  end

  def test_errors_at_the_start_are_no_partial_writes
    reader, writer = pipe
    file = tempfile
    fill(writer)
    calls = { Errno::EAGAIN => -> { IO.vmsplice(writer, "x", IO::Splice::F_NONBLOCK) },
              Errno::EBADF => -> { IO.vmsplice(file, "x") },
              TypeError => -> { IO.vmsplice(writer, ["x", 1]) },
              IOError => -> { IO.vmsplice(reader, "x") } }

    calls.each { |error, call| refute_kind_of PartialWrite, assert_raises(error, &call) }
    reader.close
    refute_kind_of PartialWrite, assert_raises(Errno::EPIPE) { IO.vmsplice(writer, pattern(ALL)) }
  end

  def test_only_the_one_exception_is_marked
    reader, writer = pipe
    interrupted(writer, pattern(ALL))

    refute_includes Interrupted.ancestors, PartialWrite
    refute_kind_of PartialWrite, Interrupted.new
    refute_empty reader.readpartial(ALL)
  end

  def test_rescue_finds_it
    reader, writer = pipe
    putting = until_in_vmsplice(thread do
      IO.vmsplice(writer, pattern(ALL))
    rescue PartialWrite => e
      [:partial, e.bytes_written]
    rescue Errno::EPIPE
      :nothing
    end)
    guarded { Thread.pass while writable?(writer) }
    size = writer.pipe_size
    reader.close

    assert_equal([:partial, size], guarded { putting.value })
  end

  def test_the_rest_can_be_put_in_later
    reader, writer = pipe
    written = interrupted(writer, pattern(ALL)).bytes_written
    reading = thread { reader.read }
    rest = guarded { IO.vmsplice(writer, pattern(ALL).byteslice(written..)) }
    writer.close

    assert_equal ALL, written + rest
    assert_bytes(pattern(ALL), guarded { reading.value })
  end

  def test_the_end_of_one_piece_is_not_the_end_of_the_count
    pieces = (1..500).map { |size| [size, pattern(200_000).byteslice(size * (size - 1) / 2, size)] }
    kinds = { "strings" => ->(_, bytes) { bytes },
              "pages" => ->(_, bytes) { IO::Splice::Pages.new(bytes) },
              "both" => ->(size, bytes) { size.even? ? IO::Splice::Pages.new(bytes) : bytes },
              "to_str" => ->(_, bytes) { Struct.new(:to_str).new(bytes) } }
    kinds.each do |kind, make|
      reader, writer = pipe
      error = interrupted(writer, pieces.map { |size, bytes| make.call(size, bytes) })
      content = reader.readpartial(ALL)

      assert_equal content.bytesize, error.bytes_written, kind
      assert_bytes pattern(error.bytes_written), content, kind
    end
  end

  def test_the_middle_of_pages
    reader, writer = pipe
    body = IO::Splice::Pages.new(pattern(ALL))
    error = interrupted(writer, [body.slice(0, 100), body.slice(100, 300_000), body.slice(300_100)])
    content = reader.readpartial(ALL)

    assert_operator content.bytesize, :>, 4096
    assert_equal content.bytesize, error.bytes_written
    assert_bytes pattern(error.bytes_written), content
  end

  def test_exactly_at_the_end_of_a_piece
    reader, writer = pipe
    error = interrupted(writer, [pattern(writer.pipe_size), "more"])

    assert_equal writer.pipe_size, error.bytes_written
    assert_bytes pattern(writer.pipe_size), reader.readpartial(ALL)
  end

  def test_an_exception_from_another_thread_comes_through_as_it_is
    error = Interrupted.new("own")
    raised = interrupted(pipe.last, pattern(ALL), error)

    assert_same error, raised
    assert_equal "own", raised.message
    assert_kind_of PartialWrite, raised
  end

  def test_a_frozen_exception_comes_through_without_a_count
    reader, writer = pipe
    error = Interrupted.new("frozen").freeze
    raised = assert_raises(Interrupted) { signalled(-> { raise error }) { IO.vmsplice(writer, pattern(ALL)) } }

    assert_same error, raised
    assert_predicate raised, :frozen?
    refute_kind_of PartialWrite, raised
    assert_bytes pattern(writer.pipe_size), reader.readpartial(ALL)
  end

  # Calling it could let in an interrupt, which would be lost.
  def test_an_extend_of_the_exceptions_own_is_not_called
    own = Class.new(StandardError) { def extend(*) = raise("no") }.new("own")
    raised = interrupted(pipe.last, pattern(ALL), own)

    assert_same own, raised
    assert_kind_of PartialWrite, raised
  end

  def test_an_exception_that_is_no_standard_error_is_marked
    fatal = Class.new(Exception).new("not standard") # rubocop:disable Lint/InheritException
    reader, writer = pipe
    raised = interrupted(writer, pattern(ALL), fatal)

    assert_kind_of PartialWrite, raised
    assert_equal reader.readpartial(ALL).bytesize, raised.bytes_written
  end

  def test_io_timeout
    skip "no IO#timeout here" unless IO.method_defined?(:timeout=)

    reader, writer = pipe
    writer.timeout = 0.01
    error = assert_raises(IO::TimeoutError) { guarded { IO.vmsplice(writer, pattern(ALL)) } }
    assert_kind_of PartialWrite, error
    assert_bytes pattern(error.bytes_written), reader.readpartial(ALL)

    fill(writer)
    refute_kind_of PartialWrite, assert_raises(IO::TimeoutError) { guarded { IO.vmsplice(writer, "x") } }
  end

  def test_timeout_with_a_class
    error, content = timed_out(Interrupted)

    assert_instance_of Interrupted, error
    assert_kind_of PartialWrite, error
    assert_equal content.bytesize, error.bytes_written
    assert_bytes pattern(content.bytesize), content
  end

  def test_timeout_without_a_class_has_no_count_but_ends_the_call
    error, content = timed_out

    assert_instance_of Timeout::Error, error
    refute_kind_of PartialWrite, error
    assert_bytes pattern(content.bytesize), content
  end

  def test_timeout_before_anything_went_in
    [[Interrupted, Interrupted], [Timeout::Error, nil]].each do |error, given|
      _, writer = pipe
      fill(writer)
      raised = assert_raises(error) { Timeout.timeout(0.01, given) { IO.vmsplice(writer, pattern(ALL)) } }

      refute_kind_of PartialWrite, raised
    end
  end

  def test_thread_kill_ends_the_call_and_leaves_a_prefix
    MODES.each_value do |nonblock|
      reader, writer = pipe
      writer.nonblock = nonblock
      seen = :nothing
      putting = until_in_vmsplice(thread do
        IO.vmsplice(writer, [pattern(ALL), IO::Splice::Pages.new("more")])
      rescue Exception => e # rubocop:disable Lint/RescueException
        seen = e
      ensure
        seen = [seen, :ensured]
      end)
      putting.kill

      assert_nil(guarded { putting.value })
      assert_equal %i[nothing ensured], seen
      assert_bytes pattern(writer.pipe_size), reader.readpartial(ALL)
      assert_equal 5, IO.vmsplice(writer, "after")
      assert_equal "after", reader.readpartial(ALL)
    end
  end

  def test_a_throw_comes_through
    reader, writer = pipe
    caught = catch(:away) { signalled(-> { throw :away, "thrown" }) { IO.vmsplice(writer, pattern(ALL)) } }

    assert_equal "thrown", caught
    assert_bytes pattern(writer.pipe_size), reader.readpartial(ALL)
  end

  def test_an_error_in_a_signal_handler
    reader, writer = pipe
    error = assert_raises(Interrupted) { signalled(-> { raise Interrupted }) { IO.vmsplice(writer, pattern(ALL)) } }

    assert_kind_of PartialWrite, error
    assert_bytes pattern(error.bytes_written), reader.readpartial(ALL)
  end

  def test_an_exception_that_is_put_off_does_not_end_the_call
    reader, writer = pipe
    written = nil
    putting = thread do
      Thread.handle_interrupt(Interrupted => :never) { written = IO.vmsplice(writer, pattern(ALL)) }
    end
    until_in_vmsplice(putting).raise(Interrupted)

    assert_bytes(pattern(ALL), guarded { reader.read(ALL) })
    refute_kind_of PartialWrite, assert_raises(Interrupted) { guarded { putting.value } }
    assert_equal ALL, written
  end

  def test_the_counts_of_many_interrupted_calls_add_up
    cycle = pattern(ALL)
    twice = cycle * 2
    MODES.each_value do |nonblock|
      reader, writer = pipe
      writer.nonblock = nonblock
      stop = false
      consumer = thread { consume(reader, twice) }
      worker = thread { produce(writer, twice) { stop } }
      until_in_vmsplice(worker)
      200.times do
        sleep rand / 2000
        worker.raise(Interrupted)
      end
      stop = true
      total, partial = guarded { worker.value }

      assert_equal(total, guarded { consumer.value })
      assert_operator partial, :>, 0
    end
  end

  def test_fibers
    reader, writer = pipe
    errors = []
    guarded do
      thread do
        Fiber.set_scheduler(SelectScheduler.new)
        Fiber.schedule do
          Timeout.timeout(0.01, Interrupted) { IO.vmsplice(writer, pattern(ALL)) }
        rescue Interrupted => e
          errors << e
          begin
            Timeout.timeout(0.01, Interrupted) { IO.vmsplice(writer, "full") }
          rescue Interrupted => e
            errors << e
          end
        end
      end.join
    end

    assert_equal([true, false], errors.map { |error| error.is_a?(PartialWrite) })
    assert_bytes pattern(errors.first.bytes_written), reader.readpartial(ALL)
  end

  def test_ractors
    experimental = Warning[:experimental]
    Warning[:experimental] = false
    reader, writer = pipe
    ractor = Ractor.new(writer.fileno) do |number|
      IO.vmsplice(number, "r" * 200_000)
    rescue IO::Splice::PartialWrite => e
      [e.class, e.bytes_written]
    end
    guarded { Thread.pass while writable?(writer) }
    put = duplicate_of(reader)
    reader.close
    value = guarded { ractor.respond_to?(:value) ? ractor.value : ractor.take }

    assert_bytes "r" * put.bytesize, put
    assert_equal [Errno::EPIPE, put.bytesize], value
  ensure
    Warning[:experimental] = experimental
  end

  # splice and tee with WAITALL

  def test_splice_that_is_interrupted_between_two_pieces
    r, w = pipe
    file = tempfile
    moving = thread { IO.splice(r, nil, file, nil, 1000, WAITALL) }
    w << pattern(300)
    Thread.pass until until_in("splice", moving) && file.size == 300
    moving.raise(Interrupted)
    error = assert_raises(Interrupted) { guarded { moving.value } }

    assert_kind_of PartialWrite, error
    assert_equal 300, error.bytes_written
    assert_bytes pattern(300), file.pread(1000, 0)
  end

  def test_splice_whose_output_breaks
    file = tempfile(pattern(ALL))
    out, into = pipe
    moving = until_in("splice", thread { IO.splice(file, nil, into, nil, ALL, WAITALL) })
    moved = duplicate_of(out)
    out.close
    error = assert_raises(Errno::EPIPE) { guarded { moving.value } }

    assert_kind_of PartialWrite, error
    assert_equal moved.bytesize, error.bytes_written
    assert_bytes pattern(error.bytes_written), moved
    assert_equal error.bytes_written, file.pos
    assert_match(/splice: after #{error.bytes_written} bytes/, error.message)
  end

  def test_splice_whose_input_is_closed_by_another_thread
    r, w = pipe
    out, into = pipe
    w << pattern(300)
    moving = until_in("splice", thread { IO.splice(r, nil, into, nil, 1000, WAITALL) })
    r.close
    error = assert_raises(IOError) { guarded { moving.value } }

    assert_kind_of PartialWrite, error
    assert_equal 300, error.bytes_written
    assert_bytes pattern(300), out.readpartial(ALL)
  end

  def test_splice_whose_end_times_out
    skip "no IO#timeout here" unless IO.method_defined?(:timeout=)

    r, w = pipe
    out, into = pipe
    r.timeout = 0.01
    w << pattern(300)
    error = assert_raises(IO::TimeoutError) { guarded { IO.splice(r, nil, into, nil, 1000, WAITALL) } }

    assert_equal 300, error.bytes_written
    assert_bytes pattern(300), out.readpartial(ALL)
  end

  def test_splice_that_has_moved_nothing
    r, = pipe
    _, into = pipe
    [WAITALL, 0].each do |flags|
      moving = until_in("splice", thread { IO.splice(r, nil, into, nil, 1000, flags) })
      moving.raise(Interrupted)

      refute_kind_of PartialWrite, assert_raises(Interrupted) { guarded { moving.value } }
    end
  end

  def test_splice_that_is_killed
    r, w = pipe
    out, into = pipe
    w << pattern(300)
    moving = until_in("splice", thread { IO.splice(r, nil, into, nil, 1000, WAITALL) })
    moving.kill

    assert_nil(guarded { moving.value })
    assert_bytes pattern(300), (guarded { out.readpartial(ALL) })
  end

  def test_tee_in_the_middle
    { Interrupted => ->(thread, _) { thread.raise(Interrupted) },
      Errno::EPIPE => ->(_, out) { out.close } }.each do |error, ending|
      r, w = pipe
      out, into = pipe
      w << pattern(50_000)
      teeing = until_in("tee", thread { IO.tee(r, into, ALL, WAITALL) })
      duplicated = duplicate_of(out)
      ending.call(teeing, out)
      raised = assert_raises(error) { guarded { teeing.value } }

      assert_kind_of PartialWrite, raised
      assert_equal duplicated.bytesize, raised.bytes_written
      assert_bytes (pattern(50_000) * 2).byteslice(0, raised.bytes_written), duplicated
      assert_bytes pattern(50_000), r.readpartial(ALL)
    end
  end

  def test_tee_that_has_duplicated_nothing
    r, w = pipe
    _, into = pipe
    w << "content"
    fill(into)
    [WAITALL, 0].each do |flags|
      teeing = until_in("tee", thread { IO.tee(r, into, 100, flags) })
      teeing.raise(Interrupted)

      refute_kind_of PartialWrite, assert_raises(Interrupted) { guarded { teeing.value } }
    end
    assert_equal "content", r.readpartial(99)
  end

  private

  # What is in a pipe. It stays there.
  def duplicate_of(reader)
    out, into = pipe
    IO.tee(reader, into, reader.pipe_size)
    out.readpartial(ALL)
  end

  def interrupted(writer, data, error = Interrupted.new)
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, data) })
    putting.raise(error)
    assert_raises(error.class) { guarded { putting.value } }
  end

  # Runs the block, which vmsplices, and meanwhile the handler.
  def signalled(handler, &)
    before = trap(:USR1) { handler.call }
    signal = thread { until_in_vmsplice(Thread.main) && Process.kill(:USR1, Process.pid) }
    guarded(&)
  ensure
    guarded { signal.join }
    trap(:USR1, before)
  end

  # The error, and what was in the pipe then. The shorter times may be over before the call has begun.
  def timed_out(*error_class)
    [0.01, 0.1, 1, 10].each do |seconds|
      reader, writer = pipe
      error = assert_raises(*error_class, Timeout::Error) do
        Timeout.timeout(seconds, *error_class) { IO.vmsplice(writer, pattern(ALL)) }
      end
      content = reader.read_nonblock(ALL, exception: false)
      return error, content if content.is_a?(String)
    end
    flunk "the call never began"
  end

  # Returns how many bytes the calls said that they put in, and how many calls ended in the middle.
  def produce(writer, twice)
    total = partial = 0
    Thread.handle_interrupt(Interrupted => :never) do
      until yield
        Thread.handle_interrupt(Interrupted => :on_blocking) do
          total += IO.vmsplice(writer, twice.byteslice(total % ALL, rand(1..300_000)))
        rescue PartialWrite => e
          total += e.bytes_written
          partial += 1
        rescue Interrupted
          next
        end
      end
      writer.close
      return total, partial
    end
  rescue Interrupted
    [total, partial]
  end

  # Checks each byte and returns how many came.
  def consume(reader, twice)
    total = 0
    loop do
      sleep rand / 2000 if rand(5).zero?
      came = reader.readpartial(65_536)
      raise "wrong bytes after #{total}" if came != twice.byteslice(total % ALL, came.bytesize)

      total += came.bytesize
    end
  rescue EOFError
    total
  end
end
