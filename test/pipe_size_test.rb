# frozen_string_literal: true

require "test_helper"

class TestPipeSize < Minitest::Test
  PAGE = IO::Splice::PAGE_SIZE

  def test_both_ends_tell_the_capacity_of_the_pipe
    reader, writer = pipe

    assert_equal IO::Splice::PIPE_CAPA, reader.pipe_size
    assert_equal IO::Splice::PIPE_CAPA, writer.pipe_size
  end

  def test_it_is_what_fits_into_the_pipe
    _, writer = pipe
    writer.pipe_size = 2 * PAGE

    assert_equal writer.pipe_size, fill(writer)
  end

  def test_a_capacity_can_be_set_at_either_end
    reader, writer = pipe

    writer.pipe_size = 4 * PAGE
    assert_equal 4 * PAGE, reader.pipe_size
    reader.pipe_size = 32 * PAGE
    assert_equal 32 * PAGE, writer.pipe_size
  end

  def test_a_capacity_is_rounded_up
    reader, writer = pipe

    { 0 => PAGE, 1 => PAGE, PAGE => PAGE, PAGE + 1 => 2 * PAGE, (4 * PAGE) + 1 => 8 * PAGE }.each do |asked, granted|
      writer.pipe_size = asked
      assert_equal granted, reader.pipe_size, "asked for #{asked}"
    end
  end

  def test_the_assignment_has_the_value_that_was_assigned
    _, writer = pipe

    assert_equal 5000, (writer.pipe_size = 5000)
  end

  def test_the_content_stays
    reader, writer = pipe
    writer << pattern(3 * PAGE)
    writer.pipe_size = 32 * PAGE
    writer.pipe_size = 4 * PAGE

    assert_equal pattern(3 * PAGE), reader.readpartial(1 << 20)
  end

  def test_a_fifo_has_a_capacity
    Dir.mktmpdir do |dir|
      path = File.join(dir, "fifo")
      File.mkfifo(path)
      File.open(path, File::RDWR) do |fifo|
        fifo.pipe_size = 2 * PAGE

        assert_equal 2 * PAGE, fifo.pipe_size
      end
    end
  end

  def test_what_is_no_pipe_has_no_capacity
    [tempfile, *unix_pair, *tcp_pair].each do |io|
      assert_match(/pipe_size/, assert_raises(Errno::EBADF) { io.pipe_size }.message)
      [PAGE, 1 << 40].each do |size|
        assert_match(/pipe_size/, assert_raises(Errno::EBADF) { io.pipe_size = size }.message)
      end
    end
  end

  def test_shrinking_below_the_content_is_refused
    reader, writer = pipe
    writer << pattern(3 * PAGE)

    assert_match(/pipe_size/, assert_raises(Errno::EBUSY) { writer.pipe_size = PAGE }.message)
    assert_equal IO::Splice::PIPE_CAPA, writer.pipe_size
    reader.readpartial(1 << 20)
    writer.pipe_size = PAGE
    assert_equal PAGE, reader.pipe_size
  end

  def test_a_capacity_that_is_negative_or_beyond_reason_is_refused
    _, writer = pipe

    negative = [-1, -PAGE, -(1 << 40), -(1 << 100)]
    beyond = [(1 << 31) + 1, 1 << 32, (1 << 32) + PAGE, 1 << 40, 1 << 64, 1 << 100]

    [*negative, *beyond].each do |size|
      message = assert_raises(Errno::EINVAL, size.to_s) { writer.pipe_size = size }.message
      assert_match(/pipe_size/, message)
    end
    assert_equal IO::Splice::PIPE_CAPA, writer.pipe_size
  end

  def test_a_user_without_privilege_may_have_so_much_and_no_more
    limit = File.read("/proc/sys/fs/pipe-max-size").to_i

    # A pipe counts for the user who made it.
    sizes = said_in_a_child do
      become_a_user
      _, writer = pipe
      allowed = (writer.pipe_size = limit) && writer.pipe_size
      assert_match(/ - pipe_size/, assert_raises(Errno::EPERM) { writer.pipe_size = 2 * limit }.message)
      [allowed, writer.pipe_size]
    end
    assert_equal [limit, limit], sizes
  end

  def test_what_is_no_integer_is_refused
    _, writer = pipe

    [nil, "4096", 4096.0, Object.new, [4096]].each do |wrong|
      assert_raises(TypeError, wrong.inspect) { writer.pipe_size = wrong }
    end
    assert_equal IO::Splice::PIPE_CAPA, writer.pipe_size
  end

  def test_a_closed_io_is_refused
    pipe.each do |io|
      io.close

      assert_equal "closed stream", assert_raises(IOError) { io.pipe_size }.message
      assert_equal "closed stream", assert_raises(IOError) { io.pipe_size = PAGE }.message
    end
  end

  def test_an_io_that_was_never_opened_is_refused
    io = IO.allocate

    assert_equal "uninitialized stream", assert_raises(IOError) { io.pipe_size }.message
    assert_equal "uninitialized stream", assert_raises(IOError) { io.pipe_size = PAGE }.message
  end
end
