# frozen_string_literal: true

require "test_helper"
require "io/nonblock"
require "support/tls"
require "support/copy_ends"
require "support/select_scheduler"

# TLS connections of which the kernel does both directions, one or none: the same bytes arrive, and none in the clear.
class TestTLS < Minitest::Test
  include CopyEnds

  TLS12 = OpenSSL::SSL::TLS1_2_VERSION
  TLS13 = OpenSSL::SSL::TLS1_3_VERSION
  # With OpenSSL 3.0 the kernel does both directions of TLS 1.2 and one of TLS 1.3.
  WAYS = [[TLS12, true], [TLS13, true], [TLS12, false], [TLS13, false]].freeze
  LARGE = 1_000_000
  BACKGROUND = IO::Splice.background

  def setup
    super
    # A background that is still on the stack has descriptors of its own.
    @descriptors += 16
  end

  # What the kernel does

  def test_ktls_tells_which_directions_the_kernel_does
    each_way do |server, client, version, kernel|
      expected = { [TLS12, true] => %i[read write], [TLS13, true] => %i[write] }.fetch([version, kernel], [])
      expected = IO::Splice.ktls(server) if version == TLS13 && kernel && !IO::Splice.ktls(server).empty?
      expected = [] unless kernel_tls?
      assert_equal expected, IO::Splice.ktls(server)
      assert_empty IO::Splice.ktls(client)
      server.close
      assert_empty IO::Splice.ktls(server)
    end
  end

  def test_ktls_is_for_tls_sockets
    socket, = tcp_pair
    [socket, 0, nil, Object.new, SimpleDelegator.new(OpenSSL::SSL::SSLSocket.new(socket))].each do |other|
      assert_match(/is not an OpenSSL::SSL::SSLSocket/, assert_raises(TypeError) { IO::Splice.ktls(other) }.message)
    end
    assert_empty IO::Splice.ktls(OpenSSL::SSL::SSLSocket.new(socket))
  end

  # Before the handshake

  def test_before_the_handshake_nothing_leaves
    here, there = tcp_pair
    ssl = OpenSSL::SSL::SSLSocket.new(here, server_context)
    other, = tcp_pair
    calls = [-> { IO::Splice.copy_stream(StringIO.new("secret"), ssl) }, -> { IO::Splice.copy_stream(ssl, tempfile) },
             -> { IO::Splice.copy_stream(tempfile("secret"), ssl) }, -> { IO::Splice.relay(ssl, other) },
             -> { IO::Splice.relay(other, ssl) }, -> { IO::Splice.tee_stream(tempfile("secret"), ssl, other) }]
    calls.each { |call| assert_raises(OpenSSL::SSL::SSLError) { guarded { call.call } } }
    r, w = pipe
    w << "secret"
    assert_raises(TypeError) { BACKGROUND.copy_stream(tempfile("secret"), ssl) }
    assert_raises(TypeError) { IO.splice(r, nil, ssl, nil, 6) }
    assert_raises(IO::WaitReadable) { there.read_nonblock(1) }
  end

  # Copies

  def test_every_source_arrives_decrypted_and_whole
    sources = { file: -> { tempfile(pattern(LARGE)) }, pipe: -> { fed(*pipe, pattern(LARGE)) },
                tcp: -> { fed(*tcp_pair, pattern(LARGE)) }, object: -> { StringIO.new(pattern(LARGE)) } }
    each_way do |server, client|
      sources.each_value do |source|
        arrived = thread { client.read(LARGE) }
        assert_equal(LARGE, guarded { IO::Splice.copy_stream(source.call, server) })
        assert_bytes pattern(LARGE), thread_value(arrived)
      end
    end
  end

  def test_what_ruby_has_still_to_write_goes_first
    each_way do |server, client|
      server.sync = false
      server.write("first ")
      IO::Splice.copy_stream(tempfile("second"), server)
      server.flush
      assert_equal("first second", guarded { client.read(12) })
    end
  end

  def test_a_part_of_a_file_with_progress
    each_way do |server, client|
      seen = []
      assert_equal 5, IO::Splice.copy_stream(tempfile("0123456789"), server, 5, 2) { |bytes| seen << bytes }
      assert_equal("23456", guarded { client.readpartial(100) })
      assert_equal 5, seen.last
    end
  end

  def test_what_was_decrypted_goes_first_and_the_rest_stays
    each_way do |server, client|
      feeding = thread { client.write("line\n#{pattern(1000)}") && client.write("#{pattern(LARGE)[1000..]}rest") }
      assert_equal("line\n", guarded { server.gets })
      target = tempfile
      assert_equal(LARGE, guarded { IO::Splice.copy_stream(server, target, LARGE) })
      assert_bytes pattern(LARGE), written(target)
      assert_equal("rest", guarded { server.readpartial(100) })
      thread_value(feeding)
    end
  end

  def test_a_copy_ends_at_the_close_notify
    each_way do |server, client|
      feeding = thread { client.write(pattern(LARGE)) && client.__send__(:stop) }
      target = tempfile
      assert_equal(LARGE, guarded { IO::Splice.copy_stream(server, target) })
      assert_bytes pattern(LARGE), written(target)
      thread_value(feeding)
    end
  end

  def test_what_a_stopped_copy_holds_goes_back
    each_way do |server, client|
      out, target = tcp_pair
      filled = fill_up(target)
      client.write(pattern(100_000))
      copy = until_asleep(thread { IO::Splice.copy_stream(server, target) })
      copy.kill
      guarded { copy.join }
      check_whole(server, client, out, target, filled)
    end
  end

  def test_an_end_that_comes_too_soon_is_told
    each_way do |server, client|
      client.write("some") && client.__send__(:stop)
      assert_raises(EOFError) { guarded { IO::Splice.copy_stream(server, tempfile, 5) } }
    end
  end

  def test_a_connection_that_is_cut_is_an_error_after_what_has_come
    each_way do |server, client|
      # So that nothing is unread, and the end is no reset.
      drained(client)
      client.write(pattern(20_000))
      client.to_io.close
      target = tempfile
      assert_raises(OpenSSL::SSL::SSLError) { guarded { IO::Splice.copy_stream(server, target) } }
      assert_bytes pattern(20_000), written(target)
    end
  end

  def test_from_tls_to_tls
    each_way do |server, client, version, kernel|
      second, far = connection(version, kernel)
      feeding = thread { client.write(pattern(LARGE)) && client.__send__(:stop) }
      arrived = thread { far.read }
      assert_equal(LARGE, guarded { IO::Splice.copy_stream(server, second) })
      second.close
      assert_bytes pattern(LARGE), thread_value(arrived)
      thread_value(feeding)
    end
  end

  def test_tee_stream_to_tls_and_others
    each_way do |server, client|
      arrived = thread { client.read(LARGE) }
      target = tempfile
      assert_equal(LARGE, guarded { IO::Splice.tee_stream(tempfile(pattern(LARGE)), server, target) })
      assert_bytes pattern(LARGE), thread_value(arrived)
      assert_bytes pattern(LARGE), written(target)
    end
  end

  # The system calls

  def test_splice_takes_the_directions_that_the_kernel_does
    each_way do |server, client|
      r, w = pipe
      w << "hello"
      if IO::Splice.ktls(server).include?(:write)
        assert_equal 5, IO.splice(r, nil, server, nil, 5)
        assert_equal("hello", guarded { client.readpartial(5) })
      else
        assert_match(/encrypts/, assert_raises(TypeError) { IO.splice(r, nil, server, nil, 5) }.message)
      end
      client.write("there")
      if IO::Splice.ktls(server).include?(:read)
        assert_equal(5, guarded { IO.splice(server, nil, w, nil, 100) })
        client.write("line\nmore")
        assert_equal("line\n", guarded { server.gets })
        assert_match(/ahead/, assert_raises(IOError) { IO.splice(server, nil, w, nil, 100) }.message)
      else
        assert_raises(TypeError) { IO.splice(server, nil, w, nil, 100) }
      end
    end
  end

  # Relays

  def test_a_relay_from_tls_to_a_socket_and_back
    each_way do |server, client|
      front, backend = tcp_pair
      relay = thread { IO::Splice.relay(server, front) }
      check_both_ways(client, backend)
      client.__send__(:stop)
      assert_empty(guarded { backend.read })
      backend.write("last words")
      backend.close
      assert_equal("last words", guarded { client.read })
      assert_equal [LARGE, LARGE + 10], thread_value(relay)
      refute_predicate server, :closed?
    end
  end

  def test_a_relay_to_pipes_leaves_their_mode
    each_way do |server, client|
      input, near = pipe
      far, output = pipe
      [input, output].each { |end_| end_.nonblock = false }
      relay = thread { IO::Splice.relay(server, [input, output]) }
      [[near, client], [client, far]].each do |from, to|
        from.write(pattern(50_000))
        assert_bytes(pattern(50_000), guarded { to.read(50_000) })
      end
      refute([input, output].any?(&:nonblock?))
      near.close
      assert_empty(guarded { client.read })
      client.__send__(:stop)
      assert_empty(guarded { far.read })
      assert_equal [50_000, 50_000], thread_value(relay)
    end
  end

  def test_a_relay_between_two_tls_sides
    each_way do |server, client, version, kernel|
      second, far = connection(version, kernel)
      relay = thread { IO::Splice.relay(server, second) }
      check_both_ways(client, far)
      far.__send__(:stop)
      assert_empty(guarded { client.read })
      client.__send__(:stop)
      assert_empty(guarded { far.read })
      assert_equal [LARGE, LARGE], thread_value(relay)
    end
  end

  def test_a_relay_in_a_fiber
    each_way do |server, client|
      front, backend = tcp_pair
      relay = Thread.new do
        Fiber.set_scheduler(SelectScheduler.new)
        counted = nil
        Fiber.schedule { counted = IO::Splice.relay(server, front) }
        Fiber.scheduler.run
        counted
      end
      check_both_ways(client, backend)
      backend.close_write
      assert_empty(guarded { client.read })
      client.__send__(:stop)
      assert_equal [LARGE, LARGE], thread_value(relay)
    end
  end

  def test_a_relay_that_is_idle_ends
    each_way do |server, client|
      front, = tcp_pair
      client.write("hello")
      error = assert_raises(IO::Splice::TimeoutError) { guarded { IO::Splice.relay(server, front, idle_timeout: 0.2) } }
      assert_equal [5, 0], error.bytes_relayed
    end
  end

  def test_what_a_stopped_relay_holds_goes_back
    each_way do |server, client|
      front, backend = tcp_pair
      filled = fill_up(front)
      client.write(pattern(100_000))
      relay = until_asleep(thread { IO::Splice.relay(server, front) })
      relay.kill
      guarded { relay.join }
      check_whole(server, client, backend, front, filled)
    end
  end

  def test_a_peer_that_does_not_read_holds_up_its_own_direction_only
    each_way do |server, client|
      front, backend = tcp_pair
      relay = thread { IO::Splice.relay(server, front) }
      flooding = thread { client.write(pattern(LARGE)) until Thread.current[:enough] }
      5.times do
        backend.write("ping")
        assert_equal("ping", guarded { client.readpartial(4) })
      end
      flooding[:enough] = true
      reading = thread { loop { backend.readpartial(65_536) } }
      guarded { flooding.join }
      [relay, reading].each(&:kill).each(&:join)
    end
  end

  def test_a_relay_passes_on_that_a_connection_was_cut
    each_way do |server, client|
      drained(client)
      front, = tcp_pair
      client.write("hello")
      client.to_io.close
      error = assert_raises(OpenSSL::SSL::SSLError) { guarded { IO::Splice.relay(server, front) } }
      assert_equal [5, 0], error.bytes_relayed
    end
  end

  # In the background

  def test_a_file_in_the_background_ends_with_a_close_notify
    each_way do |server, client|
      file = tempfile(pattern(LARGE))
      if IO::Splice.ktls(server).include?(:write)
        transfer = BACKGROUND.copy_stream(file, server)
        assert_predicate server, :closed?
        assert_bytes(pattern(LARGE), guarded { client.read })
        assert_equal LARGE, transfer.value
      else
        assert_raises(TypeError) { BACKGROUND.copy_stream(file, server) }
        refute_predicate server, :closed?
      end
    end
  end

  def test_a_slow_peer_gets_the_close_notify_too
    each_way do |server, client|
      next unless IO::Splice.ktls(server).include?(:write)

      transfer = BACKGROUND.copy_stream(tempfile(pattern(LARGE)), server)
      sleep 0.1
      assert_bytes(pattern(LARGE), guarded { client.read })
      assert_equal LARGE, transfer.value
    end
  end

  def test_a_relay_in_the_background
    each_way do |server, client|
      front, backend = tcp_pair
      next assert_stays_the_callers(server) { BACKGROUND.relay(server, front) } unless both_in_kernel?(server)

      relay = BACKGROUND.relay(server, front)
      assert_predicate server, :closed?
      check_both_ways(client, backend)
      client.__send__(:stop)
      assert_empty(guarded { backend.read })
      backend.write("last words")
      backend.close
      assert_equal("last words", guarded { client.read })
      assert_equal([LARGE, LARGE + 10], guarded { relay.value })
    end
  end

  def test_a_relay_in_the_background_between_two_tls_sides
    each_way do |server, client, version, kernel|
      next unless both_in_kernel?(server)

      second, far = connection(version, kernel)
      relay = BACKGROUND.relay(server, second)
      check_both_ways(client, far)
      far.__send__(:stop)
      assert_empty(guarded { client.read })
      client.__send__(:stop)
      assert_empty(guarded { far.read })
      assert_equal([LARGE, LARGE], guarded { relay.value })
    end
  end

  def test_in_the_background_what_was_decrypted_goes_first
    in_kernel do |server, client|
      feeding = thread do
        client.write("line\n#{pattern(1000)}") && client.write(pattern(LARGE)[1000..]) && client.__send__(:stop)
      end
      assert_equal("line\n", guarded { server.gets })
      target = tempfile
      assert_equal(LARGE, guarded { BACKGROUND.copy_stream(server, target, close: false).value })
      assert_bytes pattern(LARGE), written(target)
      thread_value(feeding)
      # The end is still to be seen by who has the connection.
      assert_nil(guarded { server.read(1) })
    end
  end

  def test_what_the_background_does_not_take_stays_where_it_was
    in_kernel do |server, client|
      client.write("line\nrest")
      assert_equal("line\n", guarded { server.gets })
      assert_raises(SystemCallError, ArgumentError) { BACKGROUND.copy_stream(server, "/nowhere/at/all") }
      assert_raises(IOError) { BACKGROUND.relay(server, tcp_pair.first.tap(&:close)) }
      assert_equal("rest", guarded { server.readpartial(100) })
    end
  end

  def test_what_a_cancelled_transfer_holds_goes_back
    in_kernel do |server, client|
      out, target = tcp_pair
      filled = fill_up(target)
      client.write(pattern(100_000))
      transfer = BACKGROUND.copy_stream(server, target, close: false)
      sleep 0.1
      guarded { transfer.cancel.wait }
      check_whole(server, client, out, target, filled)
    end
  end

  def test_tee_stream_in_the_background_from_tls
    in_kernel do |server, client|
      feeding = thread { client.write(pattern(LARGE)) && client.__send__(:stop) }
      targets = [tempfile, tempfile]
      assert_equal(LARGE, guarded { BACKGROUND.tee_stream(server, *targets, close: false).value })
      targets.each { |target| assert_bytes pattern(LARGE), written(target) }
      thread_value(feeding)
    end
  end

  def test_in_the_background_a_connection_that_was_cut_is_an_error
    in_kernel do |server, client|
      drained(client)
      client.write("hello")
      client.to_io.close
      front, backend = tcp_pair
      error = guarded { BACKGROUND.relay(server, front).wait.error }
      assert_kind_of Errno::EPROTO, error
      assert_match(/a to b: .*without a close_notify/, error.message)
      assert_equal [5, 0], error.bytes_relayed
      assert_equal("hello", guarded { backend.read })
    end
  end

  # What is not data

  # Without the kernel OpenSSL can update its keys; through it that depends on the versions of both.
  def test_a_client_that_updates_its_keys
    [true, false].each { |kernel| check_copy_from(%w[one K two], TLS13, kernel, "one\ntwo\n", broken: kernel) }
  end

  # The tickets of TLS 1.3 are the first that a client gets.
  def test_a_client_gets_past_tickets
    calls = [->(client, target) { IO::Splice.copy_stream(client, target) },
             ->(client, target) { BACKGROUND.copy_stream(client, target, close: false).value }]
    [TLS12, TLS13].product(calls) do |version, call|
      client, server = closing(*tls_pair(tcp_pair, version:, kernel: :client))
      call = calls.first unless both_in_kernel?(client)
      feeding = thread { server.write(pattern(LARGE)) && server.__send__(:stop) }
      target = tempfile
      assert_equal(LARGE, guarded { call.call(client, target) })
      assert_bytes pattern(LARGE), written(target)
      thread_value(feeding)
    end
  end

  def test_a_client_that_wants_to_renegotiate
    [true, false].each { |kernel| check_copy_from(%w[one R], TLS12, kernel, "one\n", broken: true) }
  end

  def test_in_the_background_what_only_openssl_can_do_is_an_error
    with_client_of_openssl(TLS12, true) do |server, say|
      next unless both_in_kernel?(server)

      target = tempfile
      transfer = BACKGROUND.copy_stream(server, target, close: false)
      say.puts("one")
      guarded { sleep 0.01 until transfer.bytes == 4 }
      say.puts("R")
      assert_kind_of(Errno::EOPNOTSUPP, guarded { transfer.wait.error })
      assert_equal "one\n", written(target)
    end
  end

  # On the wire

  def test_nothing_is_on_the_wire_in_the_clear
    secret = "the secret " * 10_000
    WAYS.each do |version, kernel|
      tapped, taps = tapped_wire
      client, server = tls_pair(tapped, version:, kernel:)
      front, backend = tcp_pair
      reading = thread { client.read(3 * secret.bytesize) }
      IO::Splice.copy_stream(tempfile(secret), server)
      IO::Splice.copy_stream(fed(*pipe, secret), server)
      relay = thread { IO::Splice.relay(server, front) }
      backend.write(secret)
      assert_equal secret * 3, thread_value(reading)
      client.write(secret)
      assert_equal(secret, guarded { backend.read(secret.bytesize) })
      relay.kill
      guarded { relay.join }
      [client, server].each { |end_| end_.to_io.close }
      wire = taps.map { |tap| thread_value(tap) }.join
      assert_operator wire.bytesize, :>, 4 * secret.bytesize
      refute_includes wire, "the secret"
    end
  end

  private

  def each_way
    WAYS.each do |version, kernel|
      server, client = connection(version, kernel)
      yield server, client, version, kernel
    ensure
      [server, client].compact.each { |end_| end_.to_io.close }
    end
  end

  # The server's side of a connection, and what tells its client: lines, and commands (R: renegotiate, K: new keys).
  def with_client_of_openssl(version, kernel)
    acceptor = TCPServer.new("127.0.0.1", 0)
    client = IO.popen(["openssl", "s_client", { TLS12 => "-tls1_2", TLS13 => "-tls1_3" }[version], "-connect",
                       "127.0.0.1:#{acceptor.local_address.ip_port}", { %i[out err] => File::NULL }], "w")
    socket = guarded { acceptor.accept }
    server = OpenSSL::SSL::SSLSocket.new(socket, kernel ? kernel_context : server_context)
    guarded { server.accept }
    client.sync = true
    yield server, client
  ensure
    [acceptor, socket, client].compact.each(&:close)
  end

  # A client that is told these lines.
  def check_copy_from(lines, version, kernel, sent, broken:)
    with_client_of_openssl(version, kernel) do |server, say|
      target = tempfile
      copy = thread { IO::Splice.copy_stream(server, target) }
      tell(say, *lines)
      assert_copied_or_broken(copy, target, sent, broken:)
    end
  end

  # Each by itself, since a command is what a line is that is read alone.
  def tell(client, *lines)
    lines.each do |line|
      client.puts(line)
      sleep(0.2 * SLOWNESS)
    end
    client.close
  rescue Errno::EPIPE
    nil # it has given up
  end

  # All that was sent has arrived and the end was seen, or OpenSSL has said that it cannot go on, and what came before
  # that has arrived.
  def assert_copied_or_broken(copy, target, sent, broken:)
    thread_value(copy)
    assert_equal sent, written(target)
  rescue OpenSSL::SSL::SSLError => e
    assert broken, e.full_message
    assert sent.start_with?(written(target)), written(target)
  end

  # Where the kernel does both directions.
  def in_kernel(*versions)
    each_way do |server, client, version|
      wanted = versions.empty? || versions.include?(version)
      yield server, client if wanted && both_in_kernel?(server)
    end
  end

  def both_in_kernel?(server) = IO::Splice.ktls(server) == %i[read write]

  def assert_stays_the_callers(server, &)
    assert_raises(TypeError, &)
    refute_predicate server, :closed?
  end

  def connection(version, kernel)
    client, server = tls_pair(tcp_pair, version:, kernel:)
    [server, client]
  end

  # What has arrived and what is left to be read are together what was sent.
  def check_whole(server, client, out, target, filled)
    arriving = thread { out.read }
    client.__send__(:stop)
    rest = guarded { server.read }
    target.close
    assert_bytes pattern(100_000), thread_value(arriving).byteslice(filled..) + rest
  end

  # Whether this machine's kernel encrypts at all.
  def kernel_tls?
    return @kernel_tls unless @kernel_tls.nil?

    server, = connection(TLS12, true)
    @kernel_tls = !IO::Splice.ktls(server).empty?
  end

  def written(file)
    file.rewind
    file.read
  end

  # Takes the tickets that a server of TLS 1.3 sends first.
  def drained(client)
    client.read_nonblock(1, exception: false) while guarded { client.to_io.wait_readable(0.1 * SLOWNESS) }
  end

  def check_both_ways(one, other)
    writing = [one, other].map { |end_| thread { end_.write(pattern(LARGE)) } }
    reading = [one, other].map { |end_| thread { end_.read(LARGE) } }
    writing.each { |writer| thread_value(writer) }
    reading.each { |reader| assert_bytes pattern(LARGE), thread_value(reader) }
  end

  # Two sockets, and the threads that pass on and keep what goes from one to the other.
  def tapped_wire
    client, near = tcp_pair
    far, server = tcp_pair
    taps = [[near, far], [far, near]].map do |from, to|
      thread do
        kept = +""
        loop do
          bytes = from.readpartial(65_536)
          kept << bytes
          to.write(bytes)
        end
      rescue IOError, SystemCallError
        kept
      end
    end
    [[client, server], taps]
  end
end
