# frozen_string_literal: true

require "test_helper"

class TestTee < Minitest::Test
  F_NONBLOCK = IO::Splice::F_NONBLOCK
  WAITALL = IO::Splice::WAITALL

  def test_it_duplicates_and_consumes_nothing
    reader, writer = pipe
    copy, into = pipe
    writer << pattern(9000)

    assert_equal 9000, IO.tee(reader, into, 1 << 20)
    assert_equal pattern(9000), copy.readpartial(1 << 20)
    assert_equal pattern(9000), reader.readpartial(1 << 20)
  end

  def test_trytee_duplicates_and_consumes_nothing
    reader, writer = pipe
    copy, into = pipe
    writer << pattern(9000)

    assert_equal 9000, IO.trytee(reader, into, 1 << 20)
    assert_equal pattern(9000), copy.readpartial(1 << 20)
    assert_equal pattern(9000), reader.readpartial(1 << 20)
  end

  def test_it_duplicates_no_more_than_asked_for
    reader, writer = pipe
    copy, into = pipe
    writer << "abcdef"

    assert_equal 2, IO.tee(reader, into, 2)
    assert_equal 3, IO.trytee(reader, into, 3)
    assert_equal "ababc", copy.readpartial(99)
    assert_equal "abcdef", reader.readpartial(99)
  end

  def test_the_copy_stays_when_the_original_is_consumed
    reader, writer = pipe
    copy, into = pipe
    writer << pattern(5000)
    IO.tee(reader, into, 5000)
    reader.readpartial(5000)
    writer << ("x" * 5000)

    assert_equal pattern(5000), copy.readpartial(5000)
  end

  def test_a_fifo_works_as_either_end
    Dir.mktmpdir do |dir|
      path = File.join(dir, "fifo")
      File.mkfifo(path)
      fifo = closing(File.open(path, File::RDWR)).first
      reader, writer = pipe
      fifo.syswrite("fifo")

      assert_equal 4, IO.tee(fifo, writer, 99)
      assert_equal "fifo", fifo.sysread(99)
      assert_equal 4, IO.tee(reader, fifo, 99)
      assert_equal "fifo", fifo.sysread(99)
    end
  end

  def test_the_end_of_the_input
    reader, writer = pipe
    _, into = pipe
    writer.close

    assert_raises(EOFError) { IO.tee(reader, into, 9) }
    assert_raises(EOFError) { IO.tee(reader, into, 9, F_NONBLOCK) }
    assert_nil IO.trytee(reader, into, 9)
  end

  def test_what_is_left_when_the_writer_has_gone_is_duplicated_before_the_end
    reader, writer = pipe
    copy, into = pipe
    writer << "rest"
    writer.close

    assert_equal 4, IO.tee(reader, into, 9)
    assert_equal 4, IO.trytee(reader, into, 9)
    reader.readpartial(9)
    assert_raises(EOFError) { IO.tee(reader, into, 9) }
    assert_equal "restrest", copy.readpartial(9)
  end

  def test_an_empty_input_would_block
    reader, writer = pipe
    _, into = pipe

    check_would_block(reader, into)
    writer << "x"
    assert_equal 1, IO.trytee(reader, into, 9)
  end

  def test_a_full_output_would_block
    reader, writer = pipe
    copy, into = pipe
    writer << "abc"
    fill(into)

    check_would_block(reader, into)
    copy.readpartial(1 << 20)
    assert_equal 3, IO.trytee(reader, into, 9)
    assert_equal "abc", reader.readpartial(9)
  end

  def test_pipes_in_blocking_mode_would_block_too
    reader, writer = pipe
    _, into = pipe
    [reader, writer, into].each { |io| io.nonblock = false }

    check_would_block(reader, into)
    writer << "abc"
    fill(into)
    into.nonblock = false
    check_would_block(reader, into)
    [reader, into].each { |io| refute_predicate io, :nonblock? }
  end

  def test_it_waits_for_input_whatever_mode_the_pipes_are_in
    reader, writer = pipe
    copy, into = pipe
    teeing = until_asleep(thread { IO.tee(reader, into, 9) })
    writer << "late"

    assert_equal(4, guarded { teeing.value })
    assert_equal "late", copy.readpartial(9)
  end

  def test_it_waits_for_room
    reader, writer = pipe
    copy, into = pipe
    writer << "late"
    filled = fill(into)
    teeing = until_asleep(thread { IO.tee(reader, into, 9) })

    assert_equal(filled, guarded { copy.read(filled) }.bytesize)
    assert_equal(4, guarded { teeing.value })
    assert_equal "late", copy.readpartial(9)
    assert_equal "late", reader.readpartial(9)
  end

  def test_a_full_output_makes_a_short_count
    reader, writer = pipe
    copy, into = pipe
    writer.pipe_size = 4 * into.pipe_size
    writer << pattern(2 * into.pipe_size)

    duplicated = guarded { IO.tee(reader, into, 1 << 20) }
    assert_includes 1..into.pipe_size, duplicated
    assert_equal pattern(duplicated), copy.readpartial(1 << 20)
    assert_equal pattern(2 * into.pipe_size), reader.readpartial(1 << 20)
  end

  def test_with_waitall_the_first_bytes_come_again
    reader, writer = pipe
    copy, into = pipe
    writer << "abc"

    assert_equal(7, guarded { IO.tee(reader, into, 7, WAITALL) })
    assert_equal "abcabca", copy.readpartial(99)
    assert_equal "abc", reader.readpartial(99)
  end

  def test_waitall_without_waiting_returns_what_there_was_room_for
    reader, writer = pipe
    copy, into = pipe
    writer << pattern(4096)

    assert_equal(into.pipe_size, guarded { IO.trytee(reader, into, 1 << 20, WAITALL) })
    assert_equal pattern(4096) * (into.pipe_size / 4096), copy.readpartial(1 << 20)
    assert_equal pattern(4096), reader.readpartial(1 << 20)
  end

  def test_nobody_left_to_read_is_a_broken_pipe
    reader, writer = pipe
    copy, into = pipe
    writer << "abc"
    copy.close

    assert_match(/tee/, assert_raises(Errno::EPIPE) { IO.tee(reader, into, 9) }.message)
    assert_raises(Errno::EPIPE) { IO.tee(reader, into, 9, F_NONBLOCK) }
    assert_raises(Errno::EPIPE) { IO.trytee(reader, into, 9) }
    assert_equal "abc", reader.readpartial(9)
  end

  def test_both_ends_of_the_same_pipe_are_refused
    reader, writer = pipe
    writer << "abc"

    check_refused("same pipe", reader, writer)
    assert_equal "abc", reader.readpartial(9)
  end

  def test_an_input_that_is_no_pipe_is_refused
    _, into = pipe
    [tempfile("abc"), unix_pair.first].each { |input| check_refused("input is not a pipe", input, into) }
  end

  def test_an_output_that_is_no_pipe_is_refused
    reader, writer = pipe
    writer << "abc"

    [tempfile, unix_pair.first].each { |output| check_refused("output is not a pipe", reader, output) }
    assert_equal "abc", reader.readpartial(9)
  end

  private

  def check_would_block(input, output)
    guarded do
      assert_raises(Errno::EAGAIN) { IO.tee(input, output, 9, F_NONBLOCK) }
      assert_equal :EAGAIN, IO.trytee(input, output, 9)
      assert_equal :EAGAIN, IO.trytee(input, output, 9, F_NONBLOCK)
    end
  end

  def check_refused(reason, input, output)
    %i[tee trytee].each do |name|
      message = assert_raises(Errno::EINVAL) { IO.public_send(name, input, output, 9) }.message
      assert_match(/tee/, message)
      assert_includes message, reason
    end
  end
end
