# frozen_string_literal: true

require "test_helper"

class TestFullPartial < Minitest::Test
  def test_full_moves_exactly_the_length
    r, w = pipe
    file = tempfile("0123456789")
    assert_equal 6, IO::Splice.full(file, w, 6)
    assert_equal "012345", r.readpartial(100)
    assert_equal 6, file.pos
  end

  def test_full_waits_until_all_has_come
    r, w = pipe
    out, into = pipe
    copy = until_asleep(thread { IO::Splice.full(r, into, 6) })
    w.write("abc")
    assert_equal "abc", out.readpartial(100)
    assert_predicate copy, :alive?
    w.write("defghi")
    value = guarded { copy.value }
    assert_equal 6, value
    assert_equal "def", out.readpartial(100)
    assert_equal "ghi", r.readpartial(100)
  end

  def test_full_moves_more_than_a_pipe_holds
    r, w = pipe
    arrived = thread { r.read }
    assert_equal 1_000_000, (guarded { IO::Splice.full(tempfile(pattern(1_000_001)), w, 1_000_000) })
    w.close
    assert_equal pattern(1_000_000), guarded { arrived.value }.b
  end

  def test_full_raises_when_the_input_ends_first_after_moving_what_there_was
    r, w = pipe
    error = assert_raises(EOFError) { IO::Splice.full(tempfile("abc"), w, 4) }
    assert_includes error.message, "3 of 4"
    assert_equal "abc", r.readpartial(100)
  end

  def test_full_raises_when_there_is_nothing
    r, w = pipe
    assert_raises(EOFError) { IO::Splice.full(tempfile, w, 1) }
    assert_raises(IO::WaitReadable) { r.read_nonblock(1) }
  end

  def test_full_from_an_offset_leaves_the_position
    r, w = pipe
    file = tempfile("0123456789")
    assert_equal 3, IO::Splice.full(file, w, 3, 5)
    assert_equal "567", r.readpartial(100)
    assert_equal 0, file.pos
    assert_raises(EOFError) { IO::Splice.full(file, w, 3, 8) }
    assert_equal "89", r.readpartial(100)
    assert_equal 0, file.pos
  end

  def test_full_of_nothing
    r, w = pipe
    w.write("kept")
    assert_equal 0, IO::Splice.full(r, tempfile, 0)
    assert_equal "kept", r.readpartial(100)
  end

  def test_partial_moves_what_there_is
    r, w = pipe
    out, into = unix_pair
    w.write("some")
    assert_equal 4, IO::Splice.partial(r, into, 100)
    assert_equal "some", out.readpartial(100)
  end

  def test_partial_moves_no_more_than_the_length
    r, w = pipe
    file = tempfile("0123456789")
    assert_equal 4, IO::Splice.partial(file, w, 4)
    assert_equal "0123", r.readpartial(100)
    assert_equal 4, file.pos
  end

  def test_partial_waits_for_the_first_byte_only
    r, w = pipe
    out, into = pipe
    copy = until_asleep(thread { IO::Splice.partial(r, into, 100) })
    assert_predicate copy, :alive?
    w.write("ab")
    value = guarded { copy.value }
    assert_equal 2, value
    assert_equal "ab", out.readpartial(100)
  end

  def test_partial_is_nil_at_the_end_of_the_input
    r, w = pipe
    _, into = pipe
    w.write("last")
    w.close
    assert_equal 4, IO::Splice.partial(r, into, 100)
    assert_nil IO::Splice.partial(r, into, 100)
    assert_nil IO::Splice.partial(tempfile, into, 100)
  end

  def test_partial_from_an_offset_leaves_the_position
    r, w = pipe
    file = tempfile("0123456789")
    assert_equal 2, IO::Splice.partial(file, w, 100, 8)
    assert_equal "89", r.readpartial(100)
    assert_nil IO::Splice.partial(file, w, 100, 10)
    assert_equal 0, file.pos
  end

  def test_one_end_has_to_be_a_pipe
    a, b = unix_pair
    a.write("kept")
    %i[full partial].each do |call|
      assert_raises(Errno::EINVAL) { IO::Splice.public_send(call, b, tempfile, 4) }
      assert_raises(Errno::EINVAL) { IO::Splice.public_send(call, tempfile("abc"), tempfile, 4) }
    end
    assert_equal "kept", b.readpartial(100)
  end

  def test_wrong_arguments_are_refused
    r, w = pipe
    file = tempfile("abc")
    %i[full partial].each do |call|
      assert_raises(ArgumentError) { IO::Splice.public_send(call, file, w, -1) }
      assert_raises(ArgumentError) { IO::Splice.public_send(call, file, w, 1, -1) }
      assert_raises(TypeError) { IO::Splice.public_send(call, file, w, nil) }
      assert_raises(TypeError) { IO::Splice.public_send(call, file, w, 1, "1") }
      assert_raises(IOError) { IO::Splice.public_send(call, w, file, 1) }
      assert_raises(Errno::ESPIPE) { IO::Splice.public_send(call, r, file, 1, 1) }
    end
    assert_equal 0, file.pos
    assert_raises(IO::WaitReadable) { r.read_nonblock(1) }
  end

  def test_an_output_without_a_reader_is_an_error
    %i[full partial].each do |call|
      r, w = pipe
      r.close
      assert_raises(Errno::EPIPE) { IO::Splice.public_send(call, tempfile("abc"), w, 3) }
    end
  end

  def test_waiting_can_be_interrupted
    %i[full partial].each do |call|
      r, = pipe
      _, into = pipe
      copy = until_asleep(thread { IO::Splice.public_send(call, r, into, 6) })
      copy.raise(ArgumentError)
      assert_raises(ArgumentError) { guarded { copy.value } }
      copy = until_asleep(thread { IO::Splice.public_send(call, r, into, 6) })
      r.close
      assert_raises(IOError) { guarded { copy.value } }
    end
  end

  def test_bytes_that_come_while_it_looks_are_not_the_end
    20.times do
      r, w = pipe
      writer = in_a_thread do
        pattern(3000).each_char.each_slice(3) { |bytes| w.write(bytes.join) }
        w.close
      end
      file = tempfile

      assert_equal 3000, IO::Splice.full(r, file, 3000)
      assert_nil IO::Splice.partial(r, file, 1)
      file.rewind
      assert_bytes pattern(3000), file.read
      thread_value(writer)
    end
  end
end
