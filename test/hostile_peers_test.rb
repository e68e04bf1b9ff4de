# frozen_string_literal: true

require_relative "test_helper"
require "socket"
require "tmpdir"
require "io/wait"
require_relative "support/copy_ends"

# What peers and error queues make splice(2) and poll(2) say, and is not so.
class HostilePeersTest < Minitest::Test
  include CopyEnds

  # The urgent bytes are marked by `!`. One stays in the stream when another takes its place before it was stepped over.
  URGENT = {
    "in the middle" => [["before", "!", "after"], "beforeafter"],
    "at the very start" => [["!", "after"], "after"],
    "at the end" => [["before", "!"], "before"],
    "in several places" => [["one", "!", "two", "!", "three", "!", "four"], "onetwothreefour"],
    "between large pieces" => [["a" * 300_000, "!", "b" * 300_000], ("a" * 300_000) + ("b" * 300_000)],
    "alone" => [["!"], ""],
  }.freeze
  SO_TIMESTAMPING = 37
  # Software time stamps of what is sent, in the error queue, where nobody reads them.
  TX_STAMPS = [2 | 16 | 128].pack("i")

  ADDRESSES = { "IPv4" => "127.0.0.1", "IPv6" => "::1" }.freeze

  URGENT.each do |where, (pieces, expected)|
    %i[path file pipe unix tcp].each do |to|
      define_method("test_an_urgent_byte_#{where.tr(" ", "_")}_is_stepped_over_on_the_way_to_a_#{to}") do
        each_connection do |near, far, what|
          sending(far, pieces)
          received = copied_to(to) { |target| IO::Splice.copy_stream(near, target) }
          received.delete!("!") if pieces.count("!") > 1
          assert_bytes expected, received, what
        end
      end
    end
  end

  def test_an_urgent_byte_that_is_inline_stays_where_it_is
    each_connection do |near, far, what|
      near.setsockopt(:SOCKET, :OOBINLINE, true)
      sending(far, %w[before ! after])
      assert_bytes "before!after", copied_to(:pipe) { |target| IO::Splice.copy_stream(near, target) }, what
    end
  end

  def test_a_length_counts_no_urgent_byte
    each_connection do |near, far, what|
      sending(far, %w[before ! after])
      received = copied_to(:unix) { |target| assert_equal 8, IO::Splice.copy_stream(near, target, 8) }
      assert_bytes "beforeaf", received, what
      assert_bytes "ter", near.read, what
    end
  end

  def test_numbers_step_over_an_urgent_byte_too
    each_connection do |near, far, what|
      sending(far, %w[before ! after])
      received = copied_to(:path) do |path|
        File.open(path, "w") { |file| IO::Splice.copy_stream(near.fileno, file.fileno) }
      end
      assert_bytes "beforeafter", received, what
    end
  end

  def test_every_target_of_a_tee_gets_what_is_behind_an_urgent_byte
    each_connection do |near, far, what|
      sending(far, %w[before ! after])
      files = Array.new(3) { tempfile_path }
      assert_equal 11, IO::Splice.tee_stream(near, *files), what
      files.each { |file| assert_bytes "beforeafter", File.binread(file), what }
    end
  end

  def test_a_relay_passes_on_what_is_behind_an_urgent_byte_in_both_directions
    each_connection do |near, far, what|
      back, server = closing(*UNIXSocket.pair)
      relay = in_a_thread { IO::Splice.relay(near, back, idle_timeout: GUARD) }
      ["request", "!", " and more"].each { |piece| send_piece(far, piece) }
      far.close_write
      assert_bytes "request and more", guarded { server.read }, what
      server.write("answer")
      server.close
      assert_bytes "answer", guarded { far.read }, what
      assert_equal [16, 6], thread_value(relay), what
    end
  end

  def test_an_urgent_byte_and_a_peer_that_stays_do_not_keep_the_processor_busy
    each_connection do |near, far, what|
      ["before", "!", "after"].each { |piece| send_piece(far, piece) }
      path = tempfile_path
      copy = in_a_thread { IO::Splice.copy_stream(near, path) }
      guarded { sleep 0.01 until File.size(path) == 11 }
      assert_idle(what)
      far.close
      assert_equal 11, thread_value(copy), what
    end
  end

  # In a process of its own, whose processor time is its alone.
  def test_in_the_background_an_urgent_byte_does_not_keep_the_processor_busy_and_what_follows_arrives
    said = in_ruby(<<~'RUBY', "-rsocket")
      server = TCPServer.new("127.0.0.1", 0)
      sides = Array.new(2) do
        far = TCPSocket.new("127.0.0.1", server.local_address.ip_port)
        [far, server.accept]
      end
      (client, front), (upstream, back) = sides
      IO::Splice.background.relay(front, back)
      3.times do
        client.send("!", Socket::MSG_OOB)
        sleep(0.1)
      end
      before = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
      sleep(1)
      puts Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - before < 0.5
      client.write("what follows")
      client.close_write
      puts upstream.read.delete("!")
    RUBY
    assert_equal "true\nwhat follows\n", said
  end

  def test_an_idle_relay_beside_an_urgent_byte_times_out
    each_connection do |near, far, what|
      ["before", "!"].each { |piece| send_piece(far, piece) }
      back, = closing(*UNIXSocket.pair)
      error = assert_raises(IO::Splice::TimeoutError, what) do
        guarded { IO::Splice.relay(near, back, idle_timeout: 0.2) }
      end
      assert_equal [6, 0], error.bytes_relayed
    end
  end

  def test_an_idle_relay_from_a_blocking_socket_times_out_behind_an_urgent_byte
    each_connection do |near, far, what|
      near.nonblock = false
      %w[before ! after].each { |piece| send_piece(far, piece) }
      back, peer = closing(*UNIXSocket.pair)
      error = assert_raises(IO::Splice::TimeoutError, what) do
        guarded { IO::Splice.relay(near, back, idle_timeout: 0.5) }
      end
      assert_equal [11, 0], error.bytes_relayed, what
      assert_equal "beforeafter", peer.readpartial(100), what
    end
  end

  %i[copy_stream tee_stream].each do |call|
    define_method("test_other_fibers_run_beside_a_blocking_socket_with_an_urgent_byte_in_#{call}") do
      each_connection do |near, far, what|
        near.nonblock = false
        %w[before ! after].each { |piece| send_piece(far, piece) }
        path = tempfile_path
        ticks = 0
        with_scheduler do
          Fiber.schedule { IO::Splice.public_send(call, near, path) }
          Fiber.schedule do
            20.times { sleep(0.01) && ticks += 1 }
            far.close_write
          end
        end
        assert_equal ["beforeafter", 20], [File.binread(path), ticks], what
      end
    end
  end

  def test_an_error_queue_that_nobody_reads_does_not_keep_the_processor_busy
    each_connection do |near, far, what|
      with_error_queue(near)
      path = tempfile_path
      copy = in_a_thread { IO::Splice.copy_stream(near, path) }
      until_asleep(copy)
      assert_idle(what)
      far.write("late")
      far.close_write
      assert_equal 4, thread_value(copy), what
      assert_bytes "late", File.binread(path)
    end
  end

  def test_an_error_queue_does_not_keep_an_idle_relay_from_its_timeout
    each_connection do |near, _, what|
      with_error_queue(near)
      back, = closing(*UNIXSocket.pair)
      assert_raises(IO::Splice::TimeoutError, what) { guarded { IO::Splice.relay(near, back, idle_timeout: 0.2) } }
    end
  end

  def test_other_fibers_run_beside_a_blocking_socket_with_an_error_queue
    each_connection do |near, far, what|
      with_error_queue(near)
      near.nonblock = false
      path = tempfile_path
      ticks = 0
      copied = nil
      with_scheduler do
        Fiber.schedule { copied = IO::Splice.copy_stream(near, path) }
        Fiber.schedule do
          20.times { sleep(0.001) && ticks += 1 }
          far.close_write
        end
      end
      assert_equal [20, 0], [ticks, copied], what
    end
  end

  def test_a_full_output_with_an_error_queue_does_not_keep_the_processor_busy
    each_connection do |near, far, what|
      with_error_queue(near)
      reader, writer = closing(*IO.pipe)
      feeder = in_a_thread { writer.write("x" * 30_000_000) && writer.close }
      copy = in_a_thread { IO::Splice.copy_stream(reader, near) && near.close_write }
      until_settled(copy)
      assert_idle(what)
      assert_equal 30_000_000 + 2, guarded { far.read.bytesize }, what
      [feeder, copy].each { |thread| thread_value(thread) }
    end
  end

  def test_other_fibers_run_beside_a_socket_that_stalls
    each_connection do |near, far, what|
      ["before", "!"].each { |piece| send_piece(far, piece) }
      path = tempfile_path
      ticks = 0
      copied = nil
      with_scheduler do
        Fiber.schedule { copied = IO::Splice.copy_stream(near, path) }
        Fiber.schedule do
          20.times { sleep(0.001) && ticks += 1 }
          far.close
        end
      end
      assert_equal [20, 6], [ticks, copied], what
    end
  end

  # A serial line: with VMIN 0 and VTIME, read(2) says 0 after a silence, and poll(2) says nothing.

  def test_a_terminal_ends_after_the_silence_that_it_is_set_to
    %i[pipe unix path].each do |to|
      [0, 2].each do |tenths|
        controller, line = serial_line(tenths)
        controller.write("some bytes")
        guarded { sleep 0.001 until line.ready? } if tenths.zero?
        assert_bytes "some bytes", copied_to(to) { |target| IO::Splice.copy_stream(line, target) }, "#{tenths} to #{to}"
      end
    end
  end

  def test_a_terminal_in_a_tee_a_relay_and_a_fiber_ends_after_a_silence
    _, line = serial_line(1)
    assert_equal(0, guarded { IO::Splice.tee_stream(line, tempfile_path, tempfile_path) })
    path = tempfile_path
    with_scheduler { Fiber.schedule { line.close if IO::Splice.copy_stream(line, path).zero? } }
    assert_predicate line, :closed?
  end

  # Sockets with messages

  def test_messages_larger_than_a_pipe_arrive_whole_in_a_stream
    %i[path pipe unix tcp].each do |to|
      near, far = closing(*UNIXSocket.pair(:SEQPACKET))
      sizes = [100_000, 1, 70_000, 65_536]
      sizes.each { |size| far.write(pattern(size)) }
      far.close
      received = copied_to(to) { |target| IO::Splice.copy_stream(near, target) }
      assert_bytes sizes.map { |size| pattern(size) }.join, received, "to #{to}"
    end
  end

  def test_a_relay_between_sockets_with_messages_keeps_their_bounds
    near, far = closing(*UNIXSocket.pair(:SEQPACKET))
    back, server = closing(*UNIXSocket.pair(:SEQPACKET))
    relay = in_a_thread { IO::Splice.relay(near, back) }
    [100_000, 1, 70_000].each do |size|
      far.write(pattern(size))
      assert_equal(size, guarded { server.recv(1 << 20).bytesize })
    end
    [far, server].each(&:close)
    thread_value(relay)
  end

  def test_a_message_that_is_longer_than_what_is_wanted_is_not_cut
    near, far = closing(*UNIXSocket.pair(:SEQPACKET))
    far.write("x" * 1000)
    reader, writer = closing(*IO.pipe)
    assert_raises(Errno::EMSGSIZE) { guarded { IO::Splice.copy_stream(near, writer, 100) } }
    writer.close
    assert_equal ["", "x" * 1000], [reader.read, near.recv(2000)]
  end

  def test_a_stream_goes_to_a_socket_with_messages_in_messages_that_fit
    receiver = closing(UDPSocket.new).first
    receiver.bind("127.0.0.1", 0)
    sender = closing(UDPSocket.new).first
    sender.connect(*receiver.addr.values_at(3, 1))
    reader, writer = closing(*IO.pipe)
    writer.pipe_size = 1 << 20
    writer.write(pattern(150_000))
    writer.close
    assert_equal(150_000, guarded { IO::Splice.copy_stream(reader, sender) })
    received = "".b
    received << guarded { receiver.recv(1 << 20) } while received.bytesize < 150_000
    assert_bytes pattern(150_000), received
  end

  private

  def each_connection
    ADDRESSES.each do |name, address|
      server = begin
        TCPServer.new(address, 0)
      rescue SystemCallError
        next # there is no IPv6 here
      end
      far = TCPSocket.new(address, server.addr[1])
      near = server.accept
      closing(server, far, near)
      yield near, far, name
    end
  end

  # Each piece leaves by itself, so that the mark is where it should be.
  def send_piece(socket, piece)
    socket.setsockopt(:TCP, :NODELAY, true)
    piece == "!" ? socket.send(piece, Socket::MSG_OOB) : socket.write(piece)
  end

  def sending(socket, pieces)
    in_a_thread do
      pieces.each { |piece| send_piece(socket, piece) }
      socket.close
    end
  end

  def serial_line(tenths)
    controller, line = closing(*PTY.open)
    system("stty", "raw", "-echo", "min", "0", "time", tenths.to_s, in: line, exception: true)
    line.nonblock = false
    [controller, line]
  end

  def with_error_queue(socket)
    socket.setsockopt(Socket::SOL_SOCKET, SO_TIMESTAMPING, TX_STAMPS)
    socket.write("hi")
    guarded { sleep 0.001 until error_queued?(socket) }
  end

  # poll(2) says POLLERR, and so select(2) that it is readable, though nothing can be read.
  def error_queued?(socket)
    socket.wait_readable(0) && socket.read_nonblock(1, exception: false) == :wait_readable
  end

  def tempfile_path
    (@directory ||= Dir.mktmpdir).then { |directory| File.join(directory, "file#{Dir.children(directory).size}") }
                                 .tap { |path| File.write(path, "") }
  end

  def teardown
    FileUtils.remove_entry(@directory) if @directory
    super
  end

  # A copy that does not move uses next to nothing: bounded far above what it takes, and far below a whole processor.
  def assert_idle(what)
    before = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
    sleep 0.5
    used = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - before
    assert_operator used, :<, SLOWNESS > 1 ? 0.25 : 0.1, "#{what}: seconds of the processor in half a second"
  end

  # Yields a target of that kind, and returns what reached its far end.
  def copied_to(kind, &)
    return to_file(kind, &) if %i[path file].include?(kind)

    output, far_end = target_pair(kind)
    reader = in_a_thread { far_end.read }
    guarded { yield output }
    output.close
    thread_value(reader)
  end

  def to_file(kind, &)
    path = tempfile_path
    guarded { kind == :path ? yield(path) : File.open(path, "w", &) }
    File.binread(path)
  end

  def target_pair(kind)
    case kind
    when :pipe then closing(*IO.pipe).reverse
    when :unix then closing(*UNIXSocket.pair)
    when :tcp
      server = closing(TCPServer.new("127.0.0.1", 0)).first
      closing(TCPSocket.new("127.0.0.1", server.addr[1]), server.accept)
    end
  end
end
