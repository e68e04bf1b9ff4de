# frozen_string_literal: true

require "test_helper"
require "support/kernel"
require "etc"

class TestSplice < Minitest::Test
  F_NONBLOCK = IO::Splice::F_NONBLOCK
  WAITALL = IO::Splice::WAITALL

  def test_both_homes_are_the_same
    [IO, IO::Splice].each do |home|
      reader, writer = pipe
      onward, into = pipe

      assert_equal 5, home.vmsplice(writer, "hello")
      assert_equal 5, home.tee(reader, into, 9)
      assert_equal 4, home.trytee(reader, into, 4)
      assert_equal 2, home.splice(reader, nil, into, nil, 2)
      assert_equal 3, home.trysplice(reader, nil, into, nil, 9)
      assert_equal "hellohellhello", onward.readpartial(99)
    end
  end

  def test_including_the_module_gives_private_methods
    includer = Class.new do
      include IO::Splice

      def through(input, output) = splice(input, nil, output, nil, 9)
    end.new
    reader, writer = pipe
    onward, into = pipe
    writer << "hello"

    assert_equal 5, includer.through(reader, into)
    assert_equal "hello", onward.readpartial(9)
    %i[splice trysplice tee trytee vmsplice].each do |name|
      assert_includes includer.class.private_instance_methods, name
      assert_raises(NoMethodError) { includer.public_send(name) }
    end
  end

  def test_either_name_loads_it
    ["io/splice", "io_splice"].each do |name|
      script = "require #{name.inspect}; print IO::Splice::VERSION, ' ', IO.respond_to?(:trysplice)"
      command = [RbConfig.ruby, "-I", LIB, "-e", script]

      assert_equal "#{IO::Splice::VERSION} true", IO.popen(command, &:read)
    end
  end

  def test_the_constants
    assert_equal 1, IO::Splice::F_MOVE
    assert_equal 2, IO::Splice::F_NONBLOCK
    assert_equal 4, IO::Splice::F_MORE
    assert_equal 8, IO::Splice::F_GIFT
    assert_equal 4096, IO::Splice::PIPE_BUF
    assert_equal pipe.first.pipe_size, IO::Splice::PIPE_CAPA
    assert_equal Etc.sysconf(Etc::SC_PAGESIZE), IO::Splice::PAGE_SIZE
    assert_equal 1031, IO::Splice::F_SETPIPE_SZ
    assert_equal 1032, IO::Splice::F_GETPIPE_SZ
    assert_match(/\A5\.\d+\.\d+/, IO::Splice::VERSION)
    assert_predicate IO::Splice::VERSION, :frozen?
  end

  def test_waitall_is_a_bit_of_its_own
    kernel = IO::Splice::F_MOVE | IO::Splice::F_NONBLOCK | IO::Splice::F_MORE | IO::Splice::F_GIFT

    assert_kind_of Integer, WAITALL
    assert_equal 0, WAITALL & kernel
    assert_operator WAITALL, :>, 0
  end

  def test_the_constants_for_fcntl_work_with_fcntl
    reader, = pipe

    assert_equal reader.pipe_size, reader.fcntl(IO::Splice::F_GETPIPE_SZ)
    assert_equal 8192, reader.fcntl(IO::Splice::F_SETPIPE_SZ, 8192)
    assert_equal 8192, reader.pipe_size
  end

  # Files

  def test_a_file_to_a_pipe_moves_the_position
    file = tempfile(pattern(5000))
    reader, writer = pipe

    assert_equal 3000, IO.splice(file, nil, writer, nil, 3000)
    assert_equal 3000, file.pos
    assert_equal 2000, IO.splice(file, nil, writer, nil, 3000)
    assert_equal 5000, file.pos
    assert_equal pattern(5000), reader.readpartial(9000)
  end

  def test_a_file_with_an_offset_keeps_its_position
    file = tempfile(pattern(5000))
    file.pos = 7
    reader, writer = pipe

    assert_equal 1000, IO.splice(file, 1234, writer, nil, 1000)
    assert_equal pattern(5000)[1234, 1000], reader.readpartial(9000)
    assert_equal 7, file.pos
    assert_equal 10, IO.trysplice(file, 0, writer, nil, 10)
    assert_equal pattern(10), reader.readpartial(9000)
    assert_equal 7, file.pos
  end

  def test_a_pipe_to_a_file_moves_the_position
    file = tempfile
    reader, writer = pipe
    writer << pattern(3000)

    assert_equal 1000, IO.splice(reader, nil, file, nil, 1000)
    assert_equal 1000, file.pos
    assert_equal 2000, IO.splice(reader, nil, file, nil, 9000)
    assert_equal 3000, file.pos
    assert_equal pattern(3000), file.pread(9000, 0)
  end

  def test_a_pipe_to_a_file_with_an_offset_keeps_the_position
    file = tempfile("0123456789")
    file.pos = 3
    reader, writer = pipe
    writer << "abcdef"

    assert_equal 4, IO.splice(reader, nil, file, 5, 4)
    assert_equal 2, IO.trysplice(reader, nil, file, 12, 9)
    assert_equal "01234abcd9\0\0ef", file.pread(99, 0)
    assert_equal 3, file.pos
  end

  # Pipes and FIFOs

  def test_a_pipe_to_a_pipe
    reader, writer = pipe
    onward, into = pipe
    writer << pattern(20_000)

    assert_equal 12_345, IO.splice(reader, nil, into, nil, 12_345)
    assert_equal 7655, IO.splice(reader, nil, into, nil, 1 << 20)
    assert_equal pattern(20_000), onward.readpartial(1 << 20)
  end

  def test_a_fifo_as_input_and_as_output
    reader, writer = fifo
    onward, into = pipe
    into << pattern(3000)

    assert_equal 3000, IO.splice(onward, nil, writer, nil, 9000)
    assert_equal 3000, IO.splice(reader, nil, into, nil, 9000)
    assert_equal pattern(3000), onward.readpartial(9000)
  end

  # Sockets

  def test_a_tcp_socket_to_a_pipe
    check_socket_to_pipe(*tcp_pair)
  end

  def test_a_unix_socket_to_a_pipe
    check_socket_to_pipe(*unix_pair)
  end

  def test_a_pipe_to_a_tcp_socket
    check_pipe_to_socket(*tcp_pair)
  end

  def test_a_pipe_to_a_unix_socket
    check_pipe_to_socket(*unix_pair)
  end

  # Devices

  def test_a_terminal_to_a_pipe
    master, slave = terminal
    reader, writer = pipe
    slave << "from the slave"

    assert_equal 14, IO.splice(master, nil, writer, nil, 99)
    master << "from the master"
    assert_equal 15, IO.splice(slave, nil, writer, nil, 99)
    assert_equal "from the slavefrom the master", reader.readpartial(99)
  end

  def test_a_pipe_to_a_terminal
    master, slave = terminal
    reader, writer = pipe
    writer << "onetwo"

    assert_equal 3, IO.splice(reader, nil, slave, nil, 3)
    assert_equal 3, IO.splice(reader, nil, master, nil, 9)
    assert_equal "one", master.read(3)
    assert_equal "two", slave.read(3) # which may come bit by bit
  end

  def test_a_terminal_that_is_hung_up_is_an_input_error
    master, slave = terminal
    _, writer = pipe
    slave.close

    assert_match(/splice/, assert_raises(Errno::EIO) { IO.splice(master, nil, writer, nil, 9) }.message)
    assert_raises(Errno::EIO) { IO.trysplice(master, nil, writer, nil, 9) }
  end

  def test_zeroes_from_the_zero_device
    zero = closing(File.open("/dev/zero")).first
    reader, writer = pipe
    begin
      assert_equal 7, kernels_own_splice(zero, writer, 7)
    rescue Errno::EINVAL # Linux before 6.5
      assert_raises(Errno::EINVAL) { IO.splice(zero, nil, writer, nil, 3000) }
      assert_raises(Errno::EINVAL) { IO.trysplice(zero, nil, writer, nil, 10) }
      return
    end

    assert_equal 3000, IO.splice(zero, nil, writer, nil, 3000)
    assert_equal 10, IO.trysplice(zero, nil, writer, nil, 10)
    assert_equal "\0" * 3017, reader.readpartial(9000)
  end

  def test_the_null_device_takes_all
    null = closing(File.open(File::NULL, "w")).first
    reader, writer = pipe
    writer << pattern(3000)

    assert_equal 2990, IO.splice(reader, nil, null, nil, 2990)
    assert_equal 10, IO.trysplice(reader, nil, null, nil, 20)
    assert_equal :EAGAIN, IO.trysplice(reader, nil, null, nil, 1)
  end

  # The end of the input

  def test_the_end_of_a_file
    check_end_of_input(tempfile)
  end

  def test_an_offset_at_or_beyond_the_end_of_a_file
    file = tempfile("12345")
    _, writer = pipe

    [5, 6, 1 << 40].each do |offset|
      assert_raises(EOFError) { IO.splice(file, offset, writer, nil, 1) }
      assert_nil IO.trysplice(file, offset, writer, nil, 1)
    end
    assert_equal 1, IO.trysplice(file, 4, writer, nil, 9)
  end

  def test_the_end_of_a_pipe
    reader, writer = pipe
    writer.close

    check_end_of_input(reader)
  end

  def test_the_end_of_a_pipe_comes_after_what_is_in_it
    reader, writer = pipe
    onward, into = pipe
    writer << "rest"
    writer.close

    assert_equal 4, IO.splice(reader, nil, into, nil, 9)
    assert_raises(EOFError) { IO.splice(reader, nil, into, nil, 9) }
    assert_equal "rest", onward.readpartial(9)
  end

  def test_the_end_of_a_fifo
    reader, writer = fifo
    writer.close

    check_end_of_input(reader)
  end

  def test_the_end_of_a_socket
    [unix_pair, tcp_pair].each do |here, there|
      there.close_write
      guarded { here.wait_readable }

      check_end_of_input(here)
    end
  end

  def test_the_end_of_a_socket_in_blocking_mode
    [unix_pair, tcp_pair].each do |here, there|
      here.nonblock = false
      there.close_write
      guarded { here.wait_readable }

      check_end_of_input(here)
    end
  end

  # Would block

  def test_an_empty_pipe_would_block
    reader, writer = pipe

    check_would_block_on_input(reader)
    writer << "x"
    assert_equal 1, IO.trysplice(reader, nil, pipe.last, nil, 9)
  end

  def test_an_empty_pipe_in_blocking_mode_would_block
    reader, writer = pipe
    [reader, writer].each { |io| io.nonblock = false }

    check_would_block_on_input(reader)
    refute_predicate reader, :nonblock?
  end

  def test_an_empty_fifo_in_blocking_mode_would_block
    reader, writer = fifo
    [reader, writer].each { |io| io.nonblock = false }

    check_would_block_on_input(reader)
  end

  def test_an_empty_socket_would_block
    [unix_pair, tcp_pair].each { |here, _| check_would_block_on_input(here) }
  end

  def test_an_empty_socket_in_blocking_mode_would_block
    [unix_pair, tcp_pair].each do |here, there|
      here.nonblock = false

      check_would_block_on_input(here)
      refute_predicate here, :nonblock?
      there << "x"
      guarded { here.wait_readable }
      assert_equal 1, IO.trysplice(here, nil, pipe.last, nil, 9)
      refute_predicate here, :nonblock?
    end
  end

  def test_a_silent_terminal_would_block
    master, slave = terminal
    [master, slave].each { |io| check_would_block_on_input(io) }
  end

  def test_a_full_pipe_would_block
    reader, writer = pipe
    fill(writer)

    check_would_block_on_output(writer)
    reader.readpartial(1 << 20)
    assert_equal 4, IO.trysplice(tempfile("room"), nil, writer, nil, 9)
  end

  def test_a_full_pipe_in_blocking_mode_would_block
    _, writer = pipe
    fill(writer)
    writer.nonblock = false

    check_would_block_on_output(writer)
    refute_predicate writer, :nonblock?
  end

  def test_a_full_socket_would_block
    [unix_pair, tcp_pair].each do |here, _|
      fill_up(here)

      check_would_block_on_pipe_to(here)
    end
  end

  def test_a_full_socket_in_blocking_mode_would_block
    [unix_pair, tcp_pair].each do |here, _|
      fill_up(here)
      here.nonblock = false

      check_would_block_on_pipe_to(here)
      refute_predicate here, :nonblock?
    end
  end

  def test_a_socket_in_blocking_mode_stays_so_after_a_splice
    here, there = unix_pair
    [here, there].each { |io| io.nonblock = false }
    reader, writer = pipe
    writer << "through"

    assert_equal 7, IO.splice(reader, nil, here, nil, 9)
    assert_equal 7, IO.splice(there, nil, writer, nil, 9)
    assert_equal "through", reader.readpartial(9)
    refute_predicate here, :nonblock?
    refute_predicate there, :nonblock?
  end

  def test_a_full_pipe_takes_nothing_from_the_file
    file = tempfile(pattern(100))
    _, writer = pipe
    fill(writer)

    assert_equal :EAGAIN, IO.trysplice(file, nil, writer, nil, 100)
    assert_equal 0, file.pos
  end

  # Short counts and WAITALL

  def test_without_waitall_a_full_pipe_makes_a_short_count
    file = tempfile(pattern(200_000))
    reader, writer = pipe

    moved = guarded { IO.splice(file, nil, writer, nil, 200_000) }
    assert_includes 1..writer.pipe_size, moved
    assert_equal moved, file.pos
    assert_equal pattern(moved), reader.readpartial(1 << 20)
  end

  def test_waitall_moves_exactly_what_is_asked_for
    file = tempfile(pattern(300_000))
    reader, writer = pipe
    reading = thread { reader.read(250_000) }

    assert_equal(250_000, guarded { IO.splice(file, nil, writer, nil, 250_000, WAITALL) })
    assert_equal(pattern(250_000), guarded { reading.value })
    assert_equal 250_000, file.pos
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end

  def test_waitall_from_an_offset_goes_on_behind_what_has_moved
    file = tempfile(pattern(300_000))
    file.pos = 11
    reader, writer = pipe
    reading = thread { reader.read(200_000) }

    assert_equal(200_000, guarded { IO.splice(file, 5000, writer, nil, 200_000, WAITALL) })
    assert_equal(pattern(300_000)[5000, 200_000], guarded { reading.value })
    assert_equal 11, file.pos
  end

  def test_waitall_to_an_offset_goes_on_behind_what_has_moved
    file = tempfile
    reader, writer = pipe
    writing = thread { writer.write(pattern(200_000)) }

    assert_equal(200_000, guarded { IO.splice(reader, nil, file, 1000, 200_000, WAITALL) })
    assert_equal(200_000, guarded { writing.value })
    assert_equal "\0" * 1000, file.pread(1000, 0)
    assert_equal pattern(200_000), file.pread(300_000, 1000)
    assert_equal 0, file.pos
  end

  def test_waitall_goes_on_over_an_empty_input
    reader, writer = pipe
    onward, into = pipe
    splicing = thread { IO.splice(reader, nil, into, nil, 9, WAITALL) }

    %w[abc def ghijk].each do |piece|
      until_asleep(splicing)
      assert_predicate splicing, :alive?
      writer << piece
    end
    assert_equal(9, guarded { splicing.value })
    assert_equal "abcdefghi", onward.readpartial(99)
    assert_equal "jk", reader.readpartial(99)
  end

  def test_waitall_from_a_socket_to_a_pipe
    here, there = tcp_pair
    reader, writer = pipe
    writing = thread { there.write(pattern(300_000)) }
    reading = thread { reader.read(300_000) }

    assert_equal(300_000, guarded { IO.splice(here, nil, writer, nil, 300_000, WAITALL) })
    assert_equal(pattern(300_000), guarded { reading.value })
    assert_equal(300_000, guarded { writing.value })
  end

  def test_waitall_at_the_end_of_the_input_is_a_short_count_and_then_the_end
    file = tempfile("12345")
    reader, writer = pipe
    onward, into = pipe
    writer << "abc"
    writer.close

    [[file, 5], [reader, 3]].each do |input, count|
      assert_equal(count, guarded { IO.splice(input, nil, into, nil, 99, WAITALL) })
      assert_raises(EOFError) { IO.splice(input, nil, into, nil, 99, WAITALL) }
      assert_nil IO.trysplice(input, nil, into, nil, 99, WAITALL)
    end
    assert_equal "12345abc", onward.readpartial(99)
  end

  def test_waitall_without_waiting_returns_what_moved
    reader, writer = pipe
    onward, into = pipe

    assert_raises(Errno::EAGAIN) { IO.splice(reader, nil, into, nil, 9, WAITALL | F_NONBLOCK) }
    assert_equal :EAGAIN, IO.trysplice(reader, nil, into, nil, 9, WAITALL)
    writer << "abc"
    assert_equal(3, guarded { IO.splice(reader, nil, into, nil, 9, WAITALL | F_NONBLOCK) })
    writer << "defg"
    assert_equal(4, guarded { IO.trysplice(reader, nil, into, nil, 9, WAITALL) })
    assert_equal "abcdefg", onward.readpartial(99)
  end

  def test_waitall_without_waiting_stops_at_a_full_pipe
    file = tempfile(pattern(200_000))
    reader, writer = pipe

    moved = guarded { IO.trysplice(file, nil, writer, nil, 200_000, WAITALL) }
    assert_equal writer.pipe_size, moved
    assert_equal moved, file.pos
    assert_equal pattern(moved), reader.readpartial(1 << 20)
  end

  private

  def check_socket_to_pipe(here, there)
    reader, writer = pipe
    there << pattern(3000)

    moved = guarded { IO.splice(here, nil, writer, nil, 1000) }
    assert_includes 1..1000, moved
    moved += guarded { IO.splice(here, nil, writer, nil, 9000) } while moved < 3000
    assert_equal 3000, moved
    assert_equal pattern(3000), reader.readpartial(9000)
  end

  def check_pipe_to_socket(here, there)
    reader, writer = pipe
    writer << pattern(3000)

    assert_equal(1000, guarded { IO.splice(reader, nil, here, nil, 1000) })
    assert_equal(2000, guarded { IO.splice(reader, nil, here, nil, 9000) })
    assert_equal(pattern(3000), guarded { there.read(3000) })
  end

  def check_end_of_input(input)
    reader, writer = pipe

    guarded do
      assert_raises(EOFError) { IO.splice(input, nil, writer, nil, 9) }
      assert_raises(EOFError) { IO.splice(input, nil, writer, nil, 9, F_NONBLOCK) }
      assert_nil IO.trysplice(input, nil, writer, nil, 9)
    end
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end

  def check_would_block_on_input(input)
    _, writer = pipe
    check_would_block(input, writer)
  end

  def check_would_block_on_output(writer)
    reader, source = pipe
    source << "abc"
    [tempfile("abc"), reader].each { |input| check_would_block(input, writer) }
  end

  def check_would_block_on_pipe_to(socket)
    reader, writer = pipe
    writer << "abc"
    check_would_block(reader, socket)
    assert_equal "abc", reader.readpartial(9)
  end

  def check_would_block(input, output)
    guarded do
      assert_raises(Errno::EAGAIN) { IO.splice(input, nil, output, nil, 9, F_NONBLOCK) }
      assert_equal :EAGAIN, IO.trysplice(input, nil, output, nil, 9)
      assert_equal :EAGAIN, IO.trysplice(input, nil, output, nil, 9, F_NONBLOCK)
    end
  end
end
