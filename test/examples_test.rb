# frozen_string_literal: true

require "test_helper"
require "digest"
require "fileutils"
require "pty"
require "rbconfig"
require "shellwords"

# Examples as programs of their own, among real servers, clients and shells.
module ExamplePrograms
  ROOT = File.expand_path("..", __dir__)
  # More than all the buffers on the way can hold, so that a reader who stops holds up everything.
  LARGE = Random.new(5).bytes(32_000_001).freeze
  LARGE_SHA256 = Digest::SHA256.hexdigest(LARGE)
  SMALL = "<h1>small</h1>\n"

  # What curl is to say.
  STATUS = "%{http_code}" # rubocop:disable Style/FormatStringToken
  CONNECTIONS = "%{num_connects} %{local_port}\n" # rubocop:disable Style/FormatStringToken

  NGINX = <<~CONF
    %<user>s
    daemon off;
    worker_processes 1;
    pid nginx.pid;
    error_log stderr;
    events { worker_connections 256; }
    http {
      access_log off;
      client_max_body_size 0;
      client_body_temp_path tmp;
      proxy_temp_path tmp;
      fastcgi_temp_path tmp;
      uwsgi_temp_path tmp;
      scgi_temp_path tmp;
      server {
        listen 127.0.0.1:%<port>d;
        root %<root>s;
        dav_methods PUT;
        location /echo { return 200 "$request_method $request_uri $http_x_some_thing $http_connection"; }
      }
    }
  CONF

  # A process and all that it starts.
  class Program
    attr_reader :pid

    def initialize(...) = @pid = Process.spawn(...)

    def wait
      @status ||= Process.wait2(pid).last # rubocop:disable Naming/MemoizedInstanceVariableName
    end

    def stop(signal = :KILL)
      Process.kill(signal, -pid) unless @status
      wait
    end
  end

  def setup
    super
    @programs = []
    @dir = Dir.mktmpdir
    # Where this runs in the background Ctrl-C is ignored, and what is started here would go on with that.
    @interrupt = trap(:INT, :DEFAULT)
  end

  def teardown
    super
    refute_match(/exception/i, log)
  end

  # Not in teardown, which is left out when the test run itself is ended.
  def run
    super
  ensure
    @programs&.each(&:stop)
    FileUtils.rm_rf(@dir) if @dir
    trap(:INT, @interrupt) if @interrupt
  end

  private

  def guarded(seconds = 30, &) = super

  def path(name) = File.join(@dir, name)

  # What all programs have said in passing.
  def log = File.exist?(path("log.err")) ? File.read(path("log.err")) : ""

  def example(name, *arguments)
    [RbConfig.ruby, "-I", File.join(ROOT, "lib"), File.join(ROOT, "examples", name), *arguments]
  end

  def start(*command, env: {}, **options)
    defaults = { chdir: @dir, pgroup: true, in: File::NULL, out: File::NULL, err: [path("log.err"), "a"] }
    program = Program.new({ "PATH" => "#{ENV.fetch("PATH")}:/usr/sbin:/sbin" }.merge(env),
                          *command, **defaults, **options)
    @programs << program
    program
  end

  # The program, and what it prints.
  def start_talking(*command, **options)
    reader, writer = pipe
    program = start(*command, **options, out: writer)
    writer.close
    [program, reader]
  end

  def execute(*command, **options)
    program, output = start_talking(*command, **options)
    [guarded { output.read }, guarded { program.wait }]
  end

  def needs(*commands)
    commands.each do |name|
      found = "#{ENV.fetch("PATH")}:/usr/sbin:/sbin".split(":").any? { |dir| File.executable?(File.join(dir, name)) }
      skip "#{name} is not installed" unless found
    end
  end

  def needs_gem(name, version)
    load = ["-e", "gem(*ARGV) && require(ARGV[0])", name, version]
    skip "the gem #{name} #{version} is not installed for this Ruby" unless quietly(RbConfig.ruby, *load)
  end

  def quietly(*command)
    guarded { system(*command, out: File::NULL, err: File::NULL) }
  end

  def make_files(dir = ".")
    FileUtils.mkdir_p(path(dir))
    File.binwrite(path("#{dir}/large"), LARGE)
    File.binwrite(path("#{dir}/small"), SMALL)
  end

  # One that refuses connections, at an address that nobody else can have meanwhile.
  def bound_socket
    socket, = closing(Socket.new(:INET, :STREAM))
    socket.bind(Addrinfo.tcp("127.0.0.1", 0))
    socket
  end

  def listening_socket = bound_socket.tap { |socket| socket.listen(100) }

  # It takes over a socket that listens already, so no port is to be guessed and nothing to be waited for.
  def nginx(listener)
    make_files("www")
    user = "user root;" if Process.euid.zero? # for anybody else it must not be there
    File.write(path("nginx.conf"), format(NGINX, user:, port: listener.local_address.ip_port, root: path("www")))
    FileUtils.mkdir_p(path("tmp"))
    number = listener.fileno
    start("nginx", "-p", @dir, "-c", "nginx.conf", env: { "NGINX" => "#{number};" }, number => number)
  end

  def curl_command(*arguments) = ["curl", "--silent", "--show-error", "--max-time", "25", *arguments]

  # What it has got. With `fails`, one of these is its status.
  def curl(*arguments, fails: [0])
    output, status = execute(*curl_command(*arguments))
    assert_includes fails, status.exitstatus, log
    output.b
  end

  # A client that has got the first byte, and nobody takes the next ones from it.
  def stopped_download(port)
    program, output = start_talking(*curl_command("--no-buffer", "http://127.0.0.1:#{port}/large"))
    output.binmode
    assert_equal(LARGE[0], guarded { output.read(1) })
    [program, output]
  end

  def sockets_of(program)
    Dir.glob("/proc/#{program.pid}/fd/*").count do |name|
      File.readlink(name).start_with?("socket:")
    rescue Errno::ENOENT
      false
    end
  end

  def until_sockets_are_closed(program, but)
    guarded { sleep 0.005 until sockets_of(program) <= but }
  end

  # Runs a pipeline in a directory with the files, and expects nothing or this on standard error.
  def shell(pipeline, says: /\A\z/)
    make_files unless File.exist?(path("large"))
    ruby = Shellwords.join([RbConfig.ruby, "-I", File.join(ROOT, "lib")])
    examples = Shellwords.escape(File.join(ROOT, "examples"))
    program = start("sh", "-c", pipeline.gsub("EXAMPLES") { "#{ruby} #{examples}" }, err: path("shell.err"))
    guarded { program.wait }
    assert_match says, File.read(path("shell.err"))
  end

  def assert_says(what, *command)
    errors, status = execute(*command, err: %i[child out])
    assert_match what, errors
    assert_equal 1, status.exitstatus
  end

  def assert_large(bytes)
    assert_equal LARGE.bytesize, bytes.bytesize
    assert_equal LARGE_SHA256, Digest::SHA256.hexdigest(bytes)
  end
end

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

  # The three of an idle proxy: the main thread, and two that come with the first relay.
  def test_has_no_thread_for_a_connection
    port, proxy = nginx_behind_proxy
    readers = Array.new(5) { stopped_download(port).last }
    guarded { sleep 0.005 until threads_of(proxy) <= 3 }
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
    shell "{ cat large | EXAMPLES/log_tee.rb; echo $? > status; } | head -c 1 > one", says: /\Alog_tee: Broken pipe/
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
    needs "puma"
    skip "puma is not installed for this Ruby" unless quietly(RbConfig.ruby, "-S", "puma", "--version")
    command = [RbConfig.ruby, "-I", File.join(ROOT, "lib"), "-S", "puma", "-b", "tcp://127.0.0.1:0", "-t", "1:1"]
    program, output = start_talking(*command, File.join(ROOT, "examples/rack_hijack.ru"),
                                    env: { "UPSTREAM" => "127.0.0.1:#{upstream.local_address.ip_port}" })
    line = guarded { output.each_line.find { |text| text.include?("Listening on") } }
    assert line, log
    [Integer(line[/:(\d+)$/, 1]), program]
  end

  def nginx_behind_puma
    needs "nginx", "curl"
    upstream = listening_socket
    nginx(upstream)
    puma(upstream)
  end

  def gem_for_cp = needs_gem("ruby-progressbar", ">= 1")
end
