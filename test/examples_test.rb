# frozen_string_literal: true

require "test_helper"
require "pty"
require "support/programs"

module ProxyTests
  include ExamplePrograms

  def test_brings_every_byte_of_a_download
    port, = nginx_behind_proxy
    assert_large curl("http://127.0.0.1:#{port}/large")
  end

  def test_brings_every_byte_of_an_upload
    port, = nginx_behind_proxy
    curl("-T", path("www/large"), "http://127.0.0.1:#{port}/uploaded")
    assert_large File.binread(path("www/uploaded"))
  end

  def test_keeps_a_connection_alive
    port, = nginx_behind_proxy
    urls = ["-o", "first", "http://127.0.0.1:#{port}/large", "-o", "second", "http://127.0.0.1:#{port}/small"]
    connections = curl("-w", CONNECTIONS, *urls).lines.map(&:split)
    assert_equal %w[1 0], connections.map(&:first)
    assert_equal 1, connections.map(&:last).uniq.size
    assert_large File.binread(path("first"))
    assert_equal SMALL, File.binread(path("second"))
  end

  def test_waits_for_a_slow_reader
    port, = nginx_behind_proxy
    assert_large curl("--limit-rate", "40M", "http://127.0.0.1:#{port}/large")
  end

  def test_serves_others_while_a_reader_has_stopped
    port, = nginx_behind_proxy
    _, rest = stopped_download(port)
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
    assert_large curl("http://127.0.0.1:#{port}/large")
    assert_large LARGE[0] + guarded { rest.read }
  end

  def test_goes_on_when_a_client_has_gone_away
    port, proxy = nginx_behind_proxy
    idle = sockets_of(proxy)
    download, = stopped_download(port)
    assert_operator sockets_of(proxy), :>, idle
    download.stop
    until_sockets_are_closed(proxy, idle)
    assert_large curl("http://127.0.0.1:#{port}/large")
  end

  def test_goes_on_when_a_client_leaves_without_a_word
    port, proxy = nginx_behind_proxy
    idle = sockets_of(proxy)
    client = TCPSocket.new("127.0.0.1", port)
    guarded { sleep 0.005 until sockets_of(proxy) == idle + 2 }
    client.close
    until_sockets_are_closed(proxy, idle)
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
  end

  def test_goes_on_when_the_backend_is_down_and_up_again
    needs "nginx", "curl"
    backend = bound_socket
    port, proxy = proxy(backend)
    idle = sockets_of(proxy)
    2.times { curl("http://127.0.0.1:#{port}/small", fails: [52, 56]) }
    until_sockets_are_closed(proxy, idle)
    assert_match(/refused/, log)
    backend.listen(100)
    nginx(backend)
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
  end

  def test_goes_on_when_the_backend_dies_in_the_middle
    needs "nginx", "curl"
    backend = listening_socket
    server = nginx(backend)
    port, = proxy(backend)
    download, rest = stopped_download(port)
    server.stop
    arrived = LARGE[0] + guarded { rest.read }
    assert_includes [18, 56], guarded { download.wait }.exitstatus
    assert_operator arrived.bytesize, :<, LARGE.bytesize
    assert LARGE.start_with?(arrived)
    nginx(backend)
    assert_large curl("http://127.0.0.1:#{port}/large")
  end

  def test_under_load
    needs "wrk"
    port, proxy = nginx_behind_proxy
    idle = sockets_of(proxy)
    result, status = execute("wrk", "-t2", "-c32", "-d1s", "--timeout", "20s", "http://127.0.0.1:#{port}/small")
    assert_predicate status, :success?
    assert_operator result[/(\d+) requests in/, 1].to_i, :>, 32, result
    refute_match(/Socket errors|Non-2xx/, result)
    until_sockets_are_closed(proxy, idle)
  end

  def test_ends_by_ctrl_c
    port, proxy = nginx_behind_proxy
    client = TCPSocket.new("127.0.0.1", port)
    closing(client).first.write("GET /small HTTP/1.1\r\nHost: here\r\n\r\n")
    assert_equal("HTTP/1.1 200 OK\r\n", guarded { client.gets })
    assert_predicate guarded { proxy.stop(:INT) }, :success?
    assert_operator guarded { client.read }, :end_with?, SMALL
    refute_match(/proxy/, log)
  end

  def test_says_how_to_use_it
    assert_says(/^usage/, *example("#{name_of_proxy}.rb", "0"))
  end

  private

  def proxy(backend)
    program, output = start_talking(*example("#{name_of_proxy}.rb", "0", "127.0.0.1:#{backend.local_address.ip_port}"))
    port = guarded { output.gets }
    assert_match(/\A\d+\n\z/, port.to_s, log)
    [Integer(port), program]
  end

  def nginx_behind_proxy
    needs "nginx", "curl"
    backend = listening_socket
    nginx(backend)
    proxy(backend)
  end
end

class TestExamplesTcpProxy < Minitest::Test
  include ProxyTests

  def name_of_proxy = "tcp_proxy"

  # Those that come with the first relay stay.
  def test_has_no_thread_for_a_connection
    port, proxy = nginx_behind_proxy
    readers = [stopped_download(port).last]
    sleep 0.5 # the thread that has connected ends
    threads = threads_of(proxy)
    readers.concat(Array.new(5) { stopped_download(port).last })
    guarded { sleep 0.005 until threads_of(proxy) <= threads }
    readers.each { |rest| assert_large LARGE[0] + guarded { rest.read } }
  end

  private

  # Ruby's own timer is none for a connection.
  def threads_of(program)
    Dir.children("/proc/#{program.pid}/task").count do |id|
      !File.read("/proc/#{program.pid}/task/#{id}/comm").include?("timer")
    rescue Errno::ENOENT
      false
    end
  end
end

class TestExamplesTcpProxyThreads < Minitest::Test
  include ProxyTests

  def name_of_proxy = "tcp_proxy_threads"
end

class TestExamplesTcpProxyAsync < Minitest::Test
  include ProxyTests

  def setup
    super
    needs_gem "async", ">= 2"
  end

  def name_of_proxy = "tcp_proxy_async"
end

class TestExamples < Minitest::Test
  include ExamplePrograms

  # rack_hijack.ru

  def test_rack_hijack_brings_every_byte
    port, puma = nginx_behind_puma
    idle = sockets_of(puma)
    assert_large curl("http://127.0.0.1:#{port}/large")
    assert_large curl("--limit-rate", "40M", "http://127.0.0.1:#{port}/large")
    until_sockets_are_closed(puma, idle)
  end

  def test_rack_hijack_passes_on_the_request
    port, = nginx_behind_puma
    url = "http://127.0.0.1:#{port}/echo/a%20b?c=d&e"
    assert_equal "GET /echo/a%20b?c=d&e some value close", curl("-H", "X-Some-Thing: some value", url)
    assert_match(%r{\AHTTP/1.1 200 OK\r\n.*Content-Length: #{LARGE.bytesize}\r\n}m,
                 curl("-I", "http://127.0.0.1:#{port}/large"))
    assert_match(/not found/i, curl("http://127.0.0.1:#{port}/none"))
  end

  def test_rack_hijack_holds_no_thread_of_puma
    port, = nginx_behind_puma
    readers = Array.new(3) { stopped_download(port).last }
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
    readers.each { |rest| assert_large LARGE[0] + guarded { rest.read } }
  end

  def test_rack_hijack_goes_on_when_a_client_has_gone_away
    port, puma = nginx_behind_puma
    idle = sockets_of(puma)
    download, = stopped_download(port)
    download.stop
    until_sockets_are_closed(puma, idle)
    assert_large curl("http://127.0.0.1:#{port}/large")
  end

  def test_rack_hijack_carries_another_protocol_both_ways
    upstream = listening_socket
    port, = puma(upstream)
    client, = closing(TCPSocket.new("127.0.0.1", port))
    client.write("GET /chat HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: shout\r\n" \
                 "Keep-Alive: timeout=5\r\n\r\n")
    server, = closing(guarded { upstream.accept.first })
    request = guarded { server.gets("\r\n\r\n") }
    assert_match(%r{\AGET /chat HTTP/1.1\r\n}, request)
    assert_match(/^connection: upgrade\r$/i, request)
    assert_match(/^upgrade: shout\r$/i, request)
    refute_match(/^(keep-alive|version):/i, request)
    server.write("HTTP/1.1 101 Switching Protocols\r\n\r\n")
    assert_equal("HTTP/1.1 101 Switching Protocols\r\n\r\n", guarded { client.gets("\r\n\r\n") })
    3.times do |number|
      client.write("hello #{number}\n")
      server.write(guarded { server.gets }.upcase)
      assert_equal("HELLO #{number}\n", guarded { client.gets })
    end
    client.close_write
    assert_nil(guarded { server.gets })
    server.write("bye")
    server.close
    assert_equal("bye", guarded { client.read })
  end

  def test_rack_hijack_without_an_upstream
    needs "curl"
    port, = puma(bound_socket)
    2.times { assert_match(/refused.*\n502\z/m, curl("-w", STATUS, "http://127.0.0.1:#{port}/small")) }
  end

  def test_rack_hijack_refuses_a_request_with_a_body
    port, = nginx_behind_puma
    assert_equal "405", curl("-d", "body", "-w", STATUS, "http://127.0.0.1:#{port}/small")
  end

  # log_tee.rb

  def test_log_tee_between_pipes
    shell "cat large | EXAMPLES/log_tee.rb one two | cat > three"
    %w[one two three].each { |name| assert_large File.binread(path(name)) }
  end

  def test_log_tee_between_files
    shell "EXAMPLES/log_tee.rb one < large > two"
    %w[one two].each { |name| assert_large File.binread(path(name)) }
  end

  def test_log_tee_appends
    shell "echo before | tee one two > three; cat large | EXAMPLES/log_tee.rb one two >> three"
    %w[one two three].each do |name|
      bytes = File.binread(path(name))
      assert_equal "before\n", bytes.slice!(0, 7)
      assert_large bytes
    end
  end

  def test_log_tee_of_several_writers_to_one_file
    shell "(for i in 1 2 3; do { seq -f $i:%g 20000 | EXAMPLES/log_tee.rb all > $i & }; done; wait)"
    lines = File.readlines(path("all"), chomp: true)
    assert_equal 60_000, lines.size
    %w[1 2 3].each { |name| assert_equal 20_000, File.readlines(path(name)).size }
  end

  def test_log_tee_passes_a_line_on_at_once
    lines, into = pipe
    out, back = pipe
    program = start(*example("log_tee.rb", "log"), in: lines, out: back)
    [lines, back].each(&:close)
    %W[one\n two\n].each do |line|
      into.write(line)
      assert_equal(line, guarded { out.gets })
    end
    guarded { sleep 0.005 until File.read(path("log")) == "one\ntwo\n" }
    into.close
    assert_predicate guarded { program.wait }, :success?
    assert_nil out.gets
  end

  def test_log_tee_goes_on_when_the_reader_has_left
    shell "{ cat large | EXAMPLES/log_tee.rb one two; echo $? > status; } | head -c 1 > three", says: /Broken pipe/
    %w[one two].each { |name| assert_large File.binread(path(name)) }
    assert_equal "1\n", File.read(path("status"))
  end

  def test_log_tee_goes_on_when_a_disk_is_full
    shell "{ cat large | EXAMPLES/log_tee.rb /dev/full one; echo $? > status; } | cat > two", says: /No space left/
    %w[one two].each { |name| assert_large File.binread(path(name)) }
    assert_equal "1\n", File.read(path("status"))
  end

  def test_log_tee_ends_when_no_output_is_left
    shell "{ cat large | EXAMPLES/log_tee.rb; echo $? > status; } | head -c 1 > one",
          says: /\Alog_tee: #<IO:<STDOUT>>: Broken pipe/
    assert_equal "1\n", File.read(path("status"))
  end

  def test_log_tee_takes_nothing_when_a_file_cannot_be_opened
    shell "cat small | { EXAMPLES/log_tee.rb one no/such/directory; cat > rest; }", says: /\Alog_tee: No such file/
    assert_equal SMALL, File.read(path("rest"))
  end

  # cp.rb

  def test_cp_copies_a_file
    gem_for_cp
    shell "chmod 640 large; mkdir there; EXAMPLES/cp.rb large there", says: /large: \|=+\|/
    assert_large File.binread(path("there/large"))
    assert_equal 0o640, File.stat(path("there/large")).mode & 0o777
    shell "EXAMPLES/cp.rb small there/large", says: /small/
    assert_equal SMALL, File.read(path("there/large"))
  end

  def test_cp_in_a_pipeline
    gem_for_cp
    shell "cat large | EXAMPLES/cp.rb /dev/stdin one", says: /stdin/
    shell "EXAMPLES/cp.rb large /dev/stdout | cat > two", says: /large/
    %w[one two].each { |name| assert_large File.binread(path(name)) }
  end

  def test_cp_of_a_file_whose_size_is_not_known
    gem_for_cp
    shell ": > empty; EXAMPLES/cp.rb empty one; EXAMPLES/cp.rb /proc/version two", says: /version/
    assert_equal "", File.read(path("one"))
    assert_equal File.read("/proc/version"), File.read(path("two"))
  end

  def test_cp_shows_on_a_terminal_how_far_it_is
    gem_for_cp
    make_files
    master, slave = closing(*PTY.open)
    program = start(*example("cp.rb", "large", "one"), in: slave, err: slave)
    slave.close
    shown = +""
    begin
      guarded { loop { shown << master.readpartial(1000) } }
    rescue Errno::EIO
      assert_match(/large\s.* 0%.*\r.*large =+ 100%/m, shown)
    end
    assert_predicate guarded { program.wait }, :success?
    assert_large File.binread(path("one"))
  end

  def test_cp_does_not_destroy_its_source
    gem_for_cp
    make_files
    assert_says(/\Acp.rb: small and .*same file/, *example("cp.rb", "small", "."))
    assert_says(/\Acp.rb: .* is a directory/, *example("cp.rb", @dir, "small"))
    assert_equal SMALL, File.read(path("small"))
  end

  def test_cp_says_what_is_wrong
    gem_for_cp
    make_files
    assert_says(/^usage/, *example("cp.rb", "small"))
    assert_says(/No space left/, *example("cp.rb", "large", "/dev/full"))
    assert_says(/\Acp.rb: No such file/, *example("cp.rb", "none", "one"))
  end

  private

  # With one thread, so that a request which held it would hold up the next one.
  def puma(upstream)
    start_puma(File.join(ROOT, "examples/rack_hijack.ru"),
               env: { "UPSTREAM" => "127.0.0.1:#{upstream.local_address.ip_port}" })
  end

  def nginx_behind_puma
    needs "nginx", "curl"
    upstream = listening_socket
    nginx(upstream)
    puma(upstream)
  end

  def gem_for_cp = needs_gem("ruby-progressbar", ">= 1")
end
