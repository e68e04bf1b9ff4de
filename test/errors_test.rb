# frozen_string_literal: true

require "test_helper"
require "delegate"
require "openssl"

class TestErrors < Minitest::Test
  def setup
    super
    @reader, @writer = pipe
    @onward, @into = pipe
    @writer << "content"
  end

  # The message names the call and gives the reason

  def test_neither_end_is_a_pipe
    here, = unix_pair

    [[tempfile("x"), tempfile], [here, tempfile], [tempfile("x"), here]].each do |input, output|
      check_splice(Errno::EINVAL, /splice: neither end is a pipe/, input, output)
    end
  end

  def test_both_ends_are_the_same_pipe
    check_splice(Errno::EINVAL, /splice: both ends are the same pipe/, @reader, @writer)
    check_tee(Errno::EINVAL, /tee: both ends are the same pipe/, @reader, @writer)
    nothing_moved
  end

  def test_a_target_in_append_mode
    Dir.mktmpdir do |dir|
      File.open(File.join(dir, "log"), "a") do |log|
        check_splice(Errno::EINVAL, /splice: .*append mode/, @reader, log)
        check_splice(Errno::EINVAL, /splice: .*append mode/, @reader, log.fileno)
        assert_equal 0, log.size
      end
    end
    nothing_moved
  end

  def test_a_source_in_append_mode_is_fine
    Dir.mktmpdir do |dir|
      File.open(File.join(dir, "log"), "a+") do |log|
        log.syswrite("logged")

        assert_equal 6, IO.splice(log, 0, @into, nil, 9)
      end
    end
    assert_equal "logged", @onward.readpartial(9)
  end

  def test_a_source_that_does_not_support_it
    Dir.mktmpdir do |dir|
      File.open(dir) { |directory| check_splice(SystemCallError, /splice: the input/, directory, @into) }
    end
  end

  def test_tee_on_no_pipe
    check_tee(Errno::EINVAL, /tee: the input is not a pipe/, tempfile("x"), @into)
    check_tee(Errno::EINVAL, /tee: the output is not a pipe/, @reader, tempfile)
    nothing_moved
  end

  def test_vmsplice_on_no_pipe
    check_vmsplice(Errno::EBADF, /vmsplice: the output is not a pipe/, tempfile)
    check_vmsplice(Errno::EBADF, /vmsplice: the output is not a pipe/, unix_pair.first)
  end

  def test_nobody_left_to_read
    @onward.close

    check_splice(Errno::EPIPE, /splice/, @reader, @into)
    check_tee(Errno::EPIPE, /tee/, @reader, @into)
    check_vmsplice(Errno::EPIPE, /vmsplice/, @into)
    assert_equal "content", @reader.readpartial(99)
  end

  def test_a_socket_that_nobody_reads
    here, there = unix_pair
    there.close

    check_splice(Errno::EPIPE, /splice/, @reader, here)
  end

  def test_a_reader_that_leaves_before_all_has_moved
    file = tempfile(pattern(300_000))
    splicing = thread { IO.splice(file, nil, @into, nil, 300_000, IO::Splice::WAITALL) }
    guarded { Thread.pass while writable?(@into) }
    @onward.close

    message = assert_raises(Errno::EPIPE) { guarded { splicing.value } }.message
    assert_match(/splice: after #{IO::Splice::PIPE_CAPA} bytes/, message)
    assert_equal IO::Splice::PIPE_CAPA, file.pos
  end

  # The kernel says the one or the other, depending on its version.
  def test_a_device_that_is_full
    full = closing(File.open("/dev/full", "w")).first

    [-> { IO.splice(@reader, nil, full, nil, 9) }, -> { IO.trysplice(@reader, nil, full, nil, 9) }].each do |call|
      assert_match(/splice/, assert_raises(Errno::ENOSPC, Errno::EINVAL, &call).message)
    end
    nothing_moved
  end

  def test_a_file_that_must_not_grow
    file = tempfile
    limits = Process.getrlimit(:FSIZE)
    before = trap("XFSZ", "IGNORE")
    Process.setrlimit(:FSIZE, 10_000, limits.last)

    check_splice(Errno::EFBIG, /splice/, @reader, file, nil, 10_000)
    assert_equal 3, IO.splice(@reader, nil, file, 9997, 9)
    Process.setrlimit(:FSIZE, *limits)
    assert_equal "tent", @reader.readpartial(9)
  ensure
    Process.setrlimit(:FSIZE, *limits)
    trap("XFSZ", before || "DEFAULT")
  end

  # The wrong direction

  def test_an_input_that_is_not_open_for_reading
    own_words = assert_raises(IOError) { @writer.read_nonblock(1) }.message

    check_splice(IOError, own_words, @writer, @into)
    check_tee(IOError, own_words, @writer, @into)
    check_splice(IOError, own_words, write_only_file, @into)
    nothing_moved
  end

  def test_an_output_that_is_not_open_for_writing
    own_words = assert_raises(IOError) { @reader.write("x") }.message

    check_splice(IOError, own_words, @reader, @onward)
    check_tee(IOError, own_words, @reader, @onward)
    check_vmsplice(IOError, own_words, @reader)
    File.open(__FILE__) { |file| check_splice(IOError, own_words, @reader, file) }
    nothing_moved
  end

  def test_an_integer_in_the_wrong_direction
    check_splice(Errno::EBADF, /splice: the input is not open for reading/, @writer.fileno, @into)
    check_tee(Errno::EBADF, /tee: the input is not open for reading/, @writer.fileno, @into)
    check_splice(Errno::EBADF, /splice: the output is not open for writing/, @reader, @onward.fileno)
    check_tee(Errno::EBADF, /tee: the output is not open for writing/, @reader, @onward.fileno)
    check_vmsplice(Errno::EBADF, /vmsplice: the output is not open for writing/, @reader.fileno)
    nothing_moved
  end

  def test_a_socket_shut_down_for_writing
    here, = unix_pair
    here.close_write

    check_splice(IOError, "not opened for writing", @reader, here)
    nothing_moved
  end

  # Closed, and never opened

  def test_a_closed_io_is_refused
    own_words = assert_raises(IOError) { pipe.first.tap(&:close).readpartial(1) }.message
    closed = pipe.each(&:close) << tempfile.tap(&:close) << unix_pair.first.tap(&:close)

    closed.each { |io| check_refused_at_both_ends(IOError, own_words, io) }
    nothing_moved
  end

  def test_an_io_that_was_never_opened_is_refused
    [IO, File, UNIXSocket].each do |kind|
      check_refused_at_both_ends(IOError, "uninitialized stream", kind.allocate)
    end
    nothing_moved
  end

  def test_an_io_whose_descriptor_is_closed_behind_its_back
    reader, writer = IO.pipe
    IO.for_fd(reader.fileno).close

    check_splice(Errno::EBADF, /splice/, reader, @into)
    check_tee(Errno::EBADF, /tee/, reader, @into)
  ensure
    writer.close
    assert_raises(Errno::EBADF) { reader.close }
  end

  # Sockets that encrypt

  def test_a_tls_socket_is_refused_because_the_bytes_would_leave_unencrypted
    [unix_pair, tcp_pair].each do |here, there|
      there << "plain"
      check_encrypting(OpenSSL::SSL::SSLSocket.new(here))
      assert_equal("plain", guarded { here.read(5) })
      assert_raises(IO::WaitReadable) { there.read_nonblock(1) }
    end
    nothing_moved
  end

  def test_a_subclass_of_a_tls_socket_is_refused
    check_encrypting(Class.new(OpenSSL::SSL::SSLSocket).new(unix_pair.first))
  end

  def test_a_delegator_to_a_tls_socket_is_refused
    socket = OpenSSL::SSL::SSLSocket.new(unix_pair.first)

    check_encrypting(SimpleDelegator.new(socket))
    check_encrypting(DelegateClass(OpenSSL::SSL::SSLSocket).new(socket))
    check_encrypting(SimpleDelegator.new(SimpleDelegator.new(socket)))
  end

  def test_a_wrapper_whose_to_io_is_a_tls_socket_is_refused
    wrapper = Struct.new(:to_io).new(OpenSSL::SSL::SSLSocket.new(unix_pair.first))

    check_refused_at_both_ends(TypeError, //, wrapper)
    nothing_moved
  end

  def test_the_bare_socket_and_a_delegator_to_it_are_not_refused
    here, there = unix_pair
    OpenSSL::SSL::SSLSocket.new(here)

    assert_equal 3, IO.splice(@reader, nil, here, nil, 3)
    assert_equal 4, IO.splice(@reader, nil, SimpleDelegator.new(here), nil, 9)
    assert_equal "content", there.readpartial(9)
  end

  # Both directions in one object

  def test_a_duplex_child_process_works_in_both_directions
    cat = closing(IO.popen("cat", "r+")).first

    assert_equal 7, IO.splice(@reader, nil, cat, nil, 9)
    assert_equal(7, guarded { IO.splice(cat, nil, @into, nil, 9) })
    assert_equal 7, IO.tee(@onward, cat, 9)
    assert_equal 3, IO.vmsplice(cat, "end")
    guarded { cat.wait_readable }
    assert_includes 7..10, IO.trytee(cat, @writer, 99)
    assert_equal :EAGAIN, IO.trysplice(pipe.first, nil, cat, nil, 9)
    cat.close_write
    assert_equal("contentend", guarded { cat.read })
    assert_raises(EOFError) { IO.splice(cat, nil, @into, nil, 9) }
    check_splice(IOError, "not opened for writing", @onward, cat)
    check_vmsplice(IOError, "not opened for writing", cat)
  end

  def test_a_duplex_socket_works_in_both_directions
    here, there = unix_pair

    assert_equal 7, IO.splice(@reader, nil, here, nil, 9)
    there << there.readpartial(9)
    assert_equal(7, guarded { IO.splice(here, nil, @into, nil, 9) })
    assert_equal "content", @onward.readpartial(9)
  end

  # Descriptors

  def test_errors_leave_no_descriptors_behind
    output = write_only_file
    input = tempfile
    other_thread = until_asleep(thread { Thread.stop })
    before = open_descriptors
    100.times do
      assert_raises(Errno::EINVAL) { IO.splice(input, nil, output, nil, 9) }
      assert_raises(Errno::EINVAL) { IO.splice(@reader, nil, @writer, nil, 9) }
      assert_raises(Errno::ESPIPE) { IO.splice(input, nil, @into, 0, 9) }
      assert_raises(Errno::EBADF) { IO.splice(@reader, nil, 1 << 20, nil, 9) }
      assert_raises(Errno::EBADF) { IO.splice(output.fileno, nil, @into, nil, 9) }
      assert_raises(IOError) { IO.splice(input, nil, @onward, nil, 9) }
      assert_raises(EOFError) { IO.splice(input, nil, @into, nil, 9) }
    end

    assert_equal before, open_descriptors
  ensure
    other_thread.kill.join
  end

  private

  def check_splice(error, words, input, output, off_in = nil, off_out = nil)
    check(error, words) { IO.splice(input, off_in, output, off_out, 9) }
    check(error, words) { IO.trysplice(input, off_in, output, off_out, 9) }
  end

  def check_tee(error, words, input, output)
    check(error, words) { IO.tee(input, output, 9) }
    check(error, words) { IO.trytee(input, output, 9) }
  end

  def check_vmsplice(error, words, output)
    check(error, words) { IO.vmsplice(output, "x") }
  end

  def check_refused_at_both_ends(error, words, end_)
    check_splice(error, words, end_, @into)
    check_splice(error, words, @reader, end_)
    check_tee(error, words, end_, @into)
    check_tee(error, words, @reader, end_)
    check_vmsplice(error, words, end_)
  end

  def check_encrypting(socket)
    check_refused_at_both_ends(TypeError, /unencrypted/, socket)
  end

  def check(error, words, &)
    raised = assert_raises(error) { guarded(&) }
    words.is_a?(String) ? assert_equal(words, raised.message) : assert_match(words, raised.message)
  end

  def nothing_moved
    assert_equal "content", @reader.readpartial(99)
    assert_raises(IO::WaitReadable) { @onward.read_nonblock(1) }
  end

  def write_only_file
    Dir.mktmpdir { |dir| closing(File.open(File.join(dir, "file"), "w")).first }
  end
end
