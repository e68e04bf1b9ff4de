# frozen_string_literal: true

require "test_helper"
require "rbconfig"

# F_NONBLOCK and the try… calls never block, also on descriptors in blocking mode. Each call is made in a child
# process: one that blocks may hold the GVL, and then nothing in its own process could end it.
class TestNonblocking < Minitest::Test
  include IO::Splice
  include SteadyBuffers

  PIPES = %i[pipe fifo].freeze
  STREAMS = [*PIPES, :unix_pair, :tcp_pair].freeze
  ALL = [*STREAMS, :terminal, :terminal_from_the_other_side].freeze

  # Makes a test of a method below for every kind of descriptor, given as an IO and as a number.
  def self.test_each(name, kinds)
    kinds.product(%i[itself fileno]) do |kind, as|
      form = as == :itself ? "an_io" : "a_number"
      define_method(:"test_#{name}_a_blocking_#{kind}_given_as_#{form}") { send(name, kind, as) }
    end
  end

  test_each :splice_does_not_wait_for_bytes_from, ALL
  test_each :splice_does_not_wait_for_room_in, ALL
  test_each :splice_does_not_wait_for_room_for_all_in, ALL
  test_each :splice_does_not_block_on_the_ready, ALL
  test_each :tee_does_not_wait_for_bytes_from, PIPES
  test_each :tee_does_not_wait_for_room_in, PIPES
  test_each :tee_does_not_wait_for_room_for_all_in, PIPES
  test_each :vmsplice_does_not_wait_for_room_in, PIPES
  test_each :vmsplice_does_not_wait_for_room_for_all_in, PIPES

  def splice_does_not_wait_for_bytes_from(kind, as)
    reader, = blocking(send(kind))
    _, into = blocking(pipe)
    assert_would_block reader, IO::EAGAINWaitReadable do
      [IO.trysplice(reader.public_send(as), nil, into.public_send(as), nil, 100),
       error_of { IO.splice(reader.public_send(as), nil, into.public_send(as), nil, 100, F_NONBLOCK) }]
    end
  end

  def splice_does_not_wait_for_room_in(kind, as)
    _, full, = stuffed(kind)
    r, w = blocking(pipe)
    w << "ready"
    assert_would_block full, IO::EAGAINWaitWritable do
      [IO.trysplice(r.public_send(as), nil, full.public_send(as), nil, 100),
       error_of { IO.splice(r.public_send(as), nil, full.public_send(as), nil, 100, F_NONBLOCK) }]
    end
    assert_equal "ready", r.read_nonblock(100)
  end

  def splice_does_not_wait_for_room_for_all_in(kind, as)
    reader, nearly_full, left = nearly_stuffed(kind)
    r, w = pipe
    w.pipe_size = 1 << 20
    w.write_nonblock(pattern(1 << 20))
    blocking([r])
    moved = said_in_a_child { IO.trysplice(r.public_send(as), nil, nearly_full.public_send(as), nil, 1 << 20) }
    assert_includes 1...(1 << 20), moved
    refute_predicate nearly_full, :nonblock?
    came = guarded { reader.read(left + moved) }
    assert_equal pattern(moved), came[left..]
    assert_equal pattern(1 << 20)[moved, 10], r.read_nonblock(10)
  end

  def splice_does_not_block_on_the_ready(kind, as)
    reader, writer = blocking(send(kind))
    r, w = blocking(pipe)
    out, into = blocking(pipe)
    w << "bytes"
    answers = said_in_a_child do
      to = IO.trysplice(r.public_send(as), nil, writer.public_send(as), nil, 100)
      from = 0
      # A terminal hands on what it is given a little later, and maybe in parts.
      while from < 5 && reader.wait_readable
        from += IO.trysplice(reader.public_send(as), nil, into.public_send(as), nil, 100)
      end
      [to, from]
    end
    assert_equal [5, 5], answers
    assert_equal "bytes", out.read_nonblock(100)
    refute(reader.nonblock? || writer.nonblock?)
  end

  def tee_does_not_wait_for_bytes_from(kind, as)
    reader, = blocking(send(kind))
    _, into = blocking(pipe)
    assert_would_block reader, IO::EAGAINWaitReadable do
      [IO.trytee(reader.public_send(as), into.public_send(as), 100),
       error_of { IO.tee(reader.public_send(as), into.public_send(as), 100, F_NONBLOCK) }]
    end
  end

  def tee_does_not_wait_for_room_in(kind, as)
    _, full, = stuffed(kind)
    r, w = blocking(pipe)
    w << "ready"
    assert_would_block full, IO::EAGAINWaitWritable do
      [IO.trytee(r.public_send(as), full.public_send(as), 100),
       error_of { IO.tee(r.public_send(as), full.public_send(as), 100, F_NONBLOCK) }]
    end
  end

  def tee_does_not_wait_for_room_for_all_in(kind, as)
    reader, nearly_full, left = nearly_stuffed(kind)
    r, w = blocking(pipe)
    w << pattern(65_536)
    duplicated = said_in_a_child { IO.trytee(r.public_send(as), nearly_full.public_send(as), 65_536) }
    assert_includes 1...65_536, duplicated
    refute_predicate nearly_full, :nonblock?
    came = guarded { reader.read(left + duplicated) }
    assert_equal pattern(duplicated), came[left..]
  end

  def vmsplice_does_not_wait_for_room_in(kind, as)
    _, full, = stuffed(kind)
    error = said_in_a_child { error_of { IO.vmsplice(full.public_send(as), "more", F_NONBLOCK) } }
    assert_equal IO::EAGAINWaitWritable, error
    refute_predicate full, :nonblock?
  end

  def vmsplice_does_not_wait_for_room_for_all_in(kind, as)
    reader, nearly_full, left = nearly_stuffed(kind)
    put = said_in_a_child { IO.vmsplice(nearly_full.public_send(as), [pattern(1 << 20)], F_NONBLOCK) }
    assert_includes 1...(1 << 20), put
    refute_predicate nearly_full, :nonblock?
    came = guarded { reader.read(left + put) }
    assert_equal pattern(put), came[left..]
  end

  { pipe: "a_pipe", fifo: "a_fifo", unix_pair: "a_unix_socket", tcp_pair: "a_tcp_socket" }.each do |kind, name|
    define_method :"test_an_inherited_stdin_that_is_#{name}_in_blocking_mode_does_not_block" do
      reader, writer = blocking(send(kind))
      script = <<~RUBY
        _, into = IO.pipe
        p $stdin.nonblock?, IO.trysplice($stdin, nil, into, nil, 100), IO.trysplice(0, nil, into, nil, 100)
        p $stdin.nonblock?
      RUBY
      assert_equal "false\n:EAGAIN\n:EAGAIN\nfalse\n", spawned(script, in: reader)
      writer << "bytes"
      assert_equal "bytes", reader.readpartial(100)
    end
  end

  def test_two_sockets_in_blocking_mode_are_refused_and_not_waited_for
    sockets = [unix_pair.first, unix_pair.first].each { |socket| socket.nonblock = false }
    source, target = sockets
    assert_raises(Errno::EINVAL) { IO.trysplice(source, nil, target, nil, 10) }
    assert_raises(Errno::EINVAL) { guarded { IO.splice(source, nil, target, nil, 10) } }
  end

  def test_an_inherited_stdout_in_blocking_mode_does_not_block
    reader, full, = stuffed(:unix_pair)
    script = <<~RUBY
      r, w = IO.pipe
      w << "ready"
      $stderr.puts IO.trysplice(r, nil, $stdout, nil, 100).inspect, $stdout.nonblock?
    RUBY
    r, w = pipe
    child = spawn(RbConfig.ruby, "-I", LIB, "-rio/splice", "-rio/nonblock", "-e", script, out: full, err: w)
    w.close
    assert_equal ":EAGAIN\nfalse\n", answer_of(child, r)
    assert_equal "f", reader.read_nonblock(1)
  end

  # The mode belongs to the socket and not to a process.
  def test_two_processes_that_share_a_socket_find_it_in_blocking_mode_afterwards
    sockets = Array.new(200) { blocking(unix_pair) }
    sockets.each { |_, there| there << ("x" * 1000) }
    go, start = pipe
    children = Array.new(2) { fork { drain(sockets, go, start) } }
    start.close
    statuses = guarded { children.map { |child| Process.wait2(child).last } }
    children.clear
    assert statuses.all?(&:success?)
    assert_empty sockets.map(&:first).select(&:nonblock?)
  ensure
    children&.each { |child| Process.kill(:KILL, child) && Process.wait(child) }
  end

  %i[unix tcp].each do |kind|
    define_method "test_a_blocking_#{kind}_socket_keeps_its_bytes_when_the_pipe_has_no_reader" do
      near, far = blocking(kind == :unix ? unix_pair : tcp_pair)
      far.write("kept")
      reader, writer = pipe
      reader.close
      assert_raises(Errno::EPIPE) { IO.splice(near, nil, writer, nil, 10) }
      assert_raises(Errno::EPIPE) { IO.trysplice(near, nil, writer, nil, 10) }
      assert_raises(Errno::EPIPE) { IO::Splice.partial(near, writer, 10) }
      assert_equal "kept", near.readpartial(10)
    end
  end

  private

  def drain(sockets, go, start)
    start.close
    go.read
    out, into = IO.pipe
    sockets.each do |here,|
      out.readpartial(1) until IO.trysplice(here, nil, into, nil, 1) == :EAGAIN
    end
    exit!(0)
  ensure
    exit!(1)
  end

  def terminal_from_the_other_side
    terminal.reverse
  end

  # A reader, its full writer in blocking mode, and how much is in between.
  def stuffed(kind)
    reader, full = send(kind)
    total = fill_up(full)
    [reader, *blocking([full]), total]
  end

  # The same, but with some room.
  def nearly_stuffed(kind)
    reader, nearly_full, total = stuffed(kind)
    taken = 0
    taken += reader.readpartial([4096, total - taken].min).bytesize until writable?(nearly_full)
    [reader, nearly_full, total - taken]
  end

  def error_of
    yield
  rescue SystemCallError => e
    e.class
  end

  # The error is one that is rescued as `Errno::EAGAIN` and by the end that is not ready, as that of `read_nonblock` is.
  def assert_would_block(io, error, &)
    assert_equal [:EAGAIN, error], said_in_a_child(&)
    refute_predicate io, :nonblock?
  end

  def spawned(script, **redirections)
    r, w = pipe
    child = spawn(RbConfig.ruby, "-I", LIB, "-rio/splice", "-rio/nonblock", "-e", script, out: w, **redirections)
    w.close
    answer_of(child, r)
  end

  def answer_of(child, reader)
    flunk "it blocks" unless reader.wait_readable(SpliceTest::GUARD)
    reader.read
  ensure
    Process.kill(:KILL, child)
    Process.wait(child)
  end
end
