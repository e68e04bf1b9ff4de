# frozen_string_literal: true

require "test_helper"
require "io/splice/rack"
require "io/wait"
require "openssl"
require "pathname"
require "support/programs"

# What the middleware serves and what it lets pass, asked without a server.
class TestRack < Minitest::Test
  PAGE = "0123456789" * 10_000
  SIZE = PAGE.bytesize
  WHOLE = { "Content-Length" => SIZE.to_s }.freeze
  PART = { "Content-Range" => "bytes 10-99/#{SIZE}", "Content-Length" => "90" }.freeze

  # As an app has it.
  class Body
    attr_reader :to_path, :closed

    def initialize(path)
      @to_path = path
      @closed = 0
    end

    def each = yield("by itself")
    def close = @closed += 1
  end

  # As Rack::Files makes it of ranges.
  Ranges = Struct.new(:path, :ranges) do
    def each = yield("by itself")
  end

  # As that of a server which encrypts.
  class Encrypting
    attr_reader :said

    def write(bytes) = (@said ||= +"") << bytes
    def close = @closed = true
    def closed? = @closed
    def to_io = raise("around it")
  end

  def setup
    IO::Splice.background # which keeps its descriptors
    super
    @dir = Dir.mktmpdir
    @path = File.join(@dir, "page")
    File.write(@path, PAGE)
  end

  def teardown
    FileUtils.rm_rf(@dir)
    super
  end

  def test_serves_a_whole_file
    body = Body.new(@path)
    assert_equal PAGE, served(200, WHOLE, body)
    assert_equal 1, body.closed
  end

  def test_says_the_length_and_that_the_connection_is_closed
    headers = response(200, { "x" => "y", "Connection" => "keep-alive" }.freeze, Body.new(@path))[1]
    assert_equal({ "x" => "y", "content-length" => SIZE.to_s, "connection" => "close" },
                 headers.except("rack.hijack"))
    headers = response(200, WHOLE, Body.new(@path))[1]
    assert_equal WHOLE.merge("connection" => "close"), headers.except("rack.hijack")
  end

  def test_takes_headers_that_only_become_a_hash
    headers = Struct.new(:to_hash).new(WHOLE)
    assert_equal WHOLE.merge("connection" => "close"), response(200, headers, Body.new(@path))[1].except("rack.hijack")
  end

  def test_does_not_say_what_the_server_says_by_itself
    headers = response(200, WHOLE, Body.new(@path), env: { "HTTP_CONNECTION" => "Close" })[1]
    assert_equal WHOLE, headers.except("rack.hijack")
  end

  def test_does_not_let_a_server_keep_an_old_connection
    %w[HTTP_VERSION SERVER_PROTOCOL].each do |name|
      env = env(name => "HTTP/1.0", "HTTP_CONNECTION" => "Keep-Alive")
      headers = middleware(200, WHOLE, Body.new(@path)).call(env)[1]
      assert_equal WHOLE, headers.except("rack.hijack")
      assert_equal "close", env["HTTP_CONNECTION"]
    end
  end

  def test_serves_the_range_that_the_headers_name
    assert_equal PAGE[10..99], served(206, PART, Body.new(@path), min_size: 90)
    assert_equal PAGE[10..99], served(206, PART, Ranges.new(@path, [10..99]), min_size: 90)
    assert_equal PAGE[10..99], served("206", PART.except("Content-Length"), Body.new(@path), min_size: 90)
    headers = { "content-range" => "bytes 0-#{SIZE - 1}/#{SIZE}" }
    assert_equal PAGE, served(206, headers, Body.new(@path))
  end

  def test_serves_an_open_file
    assert_equal PAGE, served(200, {}, File.open(@path))
    file, = closing(File.open(@path))
    file.seek(10)
    assert_equal PAGE[10..99], served(206, PART, file, min_size: 90)
  end

  def test_serves_other_statuses_and_a_file_that_is_encoded_itself
    assert_equal PAGE, served(404, {}, Body.new(@path))
    assert_equal PAGE, served(200, WHOLE.merge("Content-Encoding" => "gzip"), Body.new(@path))
  end

  def test_lets_a_request_pass_that_cannot_be_served
    assert_passes(env: { "rack.hijack?" => false })
    assert_passes(env: { "rack.hijack?" => nil })
    assert_passes(env: { "REQUEST_METHOD" => "HEAD" })
    assert_passes(env: { "SERVER_PROTOCOL" => "HTTP/2" })
    assert_passes(env: { "puma.socket" => Encrypting.new })
    assert_passes(env: { "SERVER_SOFTWARE" => "WEBrick/1.8.1 (Ruby/3.1.2/2022-04-12)" })
  end

  def test_lets_a_response_pass_that_has_no_body_or_another
    [100, 101, 204, 205, 304].each { |status| assert_passes(status) }
    assert_passes(200, { "Transfer-Encoding" => "chunked" })
    assert_passes(200, { "Content-Encoding" => "gzip" })
    assert_passes(200, { "rack.hijack" => -> {} })
    assert_passes(200, [%w[a b]])
    assert_passes(200, {}, [PAGE])
    assert_passes(200, {}, ->(stream) { stream.close })
  end

  def test_lets_a_response_pass_that_is_not_the_file
    ["", "-1", "99", "0#{SIZE}", (SIZE + 1).to_s].each { |length| assert_passes(200, { "content-length" => length }) }
    assert_passes(206, WHOLE)
    assert_passes(200, PART)
    assert_passes(206, PART.merge("Content-Length" => "91"))
    ["bytes */#{SIZE}", "bytes 10-99/*", "bytes 10-99/#{SIZE + 1}", "bytes 99-10/#{SIZE}", "bytes 10-#{SIZE}/#{SIZE}",
     "lines 10-99/#{SIZE}"].each { |range| assert_passes(206, { "content-range" => range }) }
    assert_passes(206, PART, Ranges.new(@path, [10..98]))
    assert_passes(206, PART, Ranges.new(@path, [10..99, 200..300]))
    assert_passes(206, { "Content-Length" => "90" }, Ranges.new(@path, [10..99, 200..300]))
    assert_passes(200, WHOLE, Ranges.new(@path, [0..(SIZE - 1)]))
  end

  def test_lets_an_open_file_pass_that_is_not_shown_whole
    file, = closing(File.open(@path))
    file.seek(1)
    assert_passes(200, {}, file)
    file.rewind
    File.rename(@path, "#{@path}.old")
    assert_passes(200, {}, file)
    File.write(@path, PAGE)
    assert_passes(200, {}, file)
  end

  def test_lets_pass_what_is_no_regular_file
    File.mkfifo(fifo = File.join(@dir, "fifo"))
    ["/none", @dir, fifo, "/dev/zero", "/proc/self/status", "a\0b", "", nil, Pathname(@path)].each do |path|
      guarded { assert_passes(200, {}, Body.new(path)) }
    end
  end

  def test_a_fifo_is_not_opened
    File.mkfifo(fifo = File.join(@dir, "fifo"))
    assert_passes(200, {}, Body.new(fifo))
    assert_raises(Errno::ENXIO) { File.open(fifo, File::WRONLY | File::NONBLOCK) }
  end

  def test_lets_pass_what_is_small
    assert_passes(min_size: SIZE + 1)
    assert_equal PAGE, served(200, {}, Body.new(@path), min_size: SIZE)
    File.write(@path, "")
    assert_passes(min_size: 0)
  end

  def test_what_is_never_handed_over_is_closed
    body = Body.new(@path)
    *, in_background = response(200, WHOLE, body)
    assert_equal(["by itself"], in_background.to_enum.to_a)
    refute_respond_to in_background, :to_path
    2.times { in_background.close }
    assert_equal 1, body.closed
  end

  def test_writes_the_body_to_a_socket_without_a_descriptor
    socket = Encrypting.new
    body = Body.new(@path)
    _, headers, = response(200, WHOLE, body)
    headers["rack.hijack"].call(socket)
    assert_equal "by itself", socket.said
    assert_predicate socket, :closed?
    assert_equal 1, body.closed
  end

  def test_serves_without_a_descriptor_for_the_background
    in_a_child do
      client, server = UNIXSocket.pair
      _, headers, = response(200, WHOLE, Body.new(@path))
      with_free_descriptors(0) { headers["rack.hijack"].call(server) }
      assert_equal("by itself", guarded { client.read })
      assert_predicate server, :closed?
    end
  end

  def test_tells_of_the_end
    said = Thread::Queue.new
    client, server = closing(*UNIXSocket.pair)
    headers = response(200, WHOLE, Body.new(@path), env: { "PATH_INFO" => "/page" }) do |transfer, env|
      said << [transfer, env["PATH_INFO"]]
    end[1]
    client.close
    headers["rack.hijack"].call(server)
    transfer, path = guarded { said.pop }
    assert_kind_of SystemCallError, transfer.error
    assert_equal "/page", path
  end

  def test_a_file_that_grows
    client, server = closing(*UNIXSocket.pair)
    headers = response(200, WHOLE, Body.new(@path))[1]
    File.write(@path, "more", mode: "a")
    headers["rack.hijack"].call(server)
    assert_equal(PAGE, guarded { client.read })
  end

  def test_a_file_that_shrinks
    said = Thread::Queue.new
    client, server = closing(*UNIXSocket.pair)
    headers = response(200, WHOLE, Body.new(@path)) { |transfer| said << transfer.error }[1]
    File.truncate(@path, 10)
    headers["rack.hijack"].call(server)
    assert_equal(PAGE[0, 10], guarded { client.read })
    assert_kind_of(EOFError, guarded { said.pop })
  end

  def test_idle_timeout_and_rate
    said = Thread::Queue.new
    client, server = closing(*UNIXSocket.pair)
    File.write(@path, PAGE * 20)
    headers = response(200, {}, Body.new(@path), idle_timeout: 0.05) { |transfer| said << transfer }[1]
    headers["rack.hijack"].call(server)
    assert_kind_of IO::Splice::TimeoutError, guarded { said.pop }.error
    client.close

    client, server = closing(*UNIXSocket.pair)
    headers = response(200, {}, Body.new(@path), rate: 1_000) { |transfer| said << transfer }[1]
    headers["rack.hijack"].call(server)
    assert_operator guarded { client.readpartial(PAGE.bytesize * 20) }.bytesize, :<, PAGE.bytesize
    client.close
    guarded { said.pop }
  end

  def test_bad_arguments
    app = ->(_) {}
    { min_size: [nil, "1", 1.5], idle_timeout: ["1"], rate: ["1", 1.5] }.each do |name, values|
      values.each { |value| assert_raises(TypeError) { IO::Splice::Rack::Sendfile.new(app, name => value) } }
    end
    { min_size: [-1], idle_timeout: [0, -1.0], rate: [0, -1] }.each do |name, values|
      values.each { |value| assert_raises(ArgumentError) { IO::Splice::Rack::Sendfile.new(app, name => value) } }
    end
  end

  def test_an_exception_of_the_app_and_a_response_for_nobody
    app = IO::Splice::Rack::Sendfile.new(->(_) { raise IOError, "oh" })
    assert_equal("oh", assert_raises(IOError) { app.call(env) }.message)
    [nil, [], [-1, {}, []]].each do |nobody|
      assert_same nobody, IO::Splice::Rack::Sendfile.new(->(_) { nobody }).call(env)
    end
  end

  def test_rack_itself_finds_no_fault
    begin
      require "rack"
    rescue LoadError
      skip "the gem rack is not installed"
    end
    headers = { "content-type" => "text/plain", "content-length" => SIZE.to_s }
    app = Rack::Lint.new(middleware(200, headers, Body.new(@path)))
    env = Rack::MockRequest.env_for("/page", "rack.hijack?" => true, "rack.hijack" => -> {})
    status, headers, body = app.call(env)
    assert_equal 200, status
    assert_respond_to headers["rack.hijack"], :call
    body.close
  end

  private

  def env(more = {})
    { "rack.hijack?" => true, "REQUEST_METHOD" => "GET", "SERVER_PROTOCOL" => "HTTP/1.1", **more }
  end

  def middleware(*response, **options, &block)
    IO::Splice::Rack::Sendfile.new(->(_) { response }, **options, &block)
  end

  # What the middleware makes of one.
  def response(*response, env: {}, **options, &block)
    middleware(*response, **options, &block).call(env(env)).tap { |*, body| closing(Closing.new(body)) }
  end

  # At the end of the test a server has closed the body.
  Closing = Struct.new(:body) do
    def closed? = !body.respond_to?(:close) || body.is_a?(IO)
    def close = body.close
  end

  def served(*response, **options)
    client, server = closing(*UNIXSocket.pair)
    _, headers, body = response(*response, **options)
    headers.fetch("rack.hijack").call(server)
    assert_predicate server, :closed?
    body.close
    guarded { client.read }
  ensure
    client.close
  end

  def assert_passes(status = 200, headers = WHOLE, body = Body.new(@path), env: {}, min_size: 10)
    passed = [status, headers, body]
    assert_same passed, IO::Splice::Rack::Sendfile.new(->(_) { passed }, min_size:).call(env(env))
    assert_equal 0, body.closed if body.is_a?(Body)
  end
end

# Puma serves files by the middleware, to real clients.
class TestRackPuma < Minitest::Test
  include ExamplePrograms

  RACKUP = <<~'RUBY'
    require "io/splice/rack"

    FileBody = Struct.new(:to_path) do
      def each
        File.open(to_path, "rb") { |file| yield file.read(60_000) until file.eof? }
      end

      def close = File.write("closed", "x", mode: "a")
    end

    use IO::Splice::Rack::Sendfile do |transfer, env|
      File.write("ended", "#{env["PATH_INFO"]} #{transfer.bytes} #{transfer.error.class}\n", mode: "a")
    end

    run(lambda do |env|
      case env["PATH_INFO"]
      when "/page" then [200, { "Content-Type" => "text/html" }, ["<h1>page</h1>\n"]]
      when "/begun" then [200, {}, [IO::Splice.background.stats[:begun].to_s]]
      when "/moved" then [304, {}, FileBody.new("www/large")]
      else [200, {}, FileBody.new(File.join("www", env["PATH_INFO"]))]
      end
    end)
  RUBY
  PAGE = "<h1>page</h1>\n"
  # More than the buffers of a connection hold whose client takes little.
  SOME = LARGE.byteslice(0, 12_000_000).freeze

  def test_every_byte_and_the_body_is_closed_once
    port, puma = serving
    idle = descriptors_of(puma)
    assert_large curl("http://127.0.0.1:#{port}/large")
    assert_large curl("--limit-rate", "40M", "http://127.0.0.1:#{port}/large")
    assert_equal "2", curl("http://127.0.0.1:#{port}/begun")
    until_ended(2)
    assert_equal ["/large #{LARGE.bytesize} NilClass\n"] * 2, File.readlines(path("ended"))
    assert_equal "xx", File.read(path("closed"))
    until_descriptors(puma, idle)
  end

  def test_slow_clients_hold_no_thread
    port, puma = serving(threads: 2)
    idle = descriptors_of(puma)
    clients = Array.new(5) { slow_client(port) }
    threads = threads_of(puma)
    clients.concat(Array.new(15) { slow_client(port) })
    assert_equal PAGE, curl("http://127.0.0.1:#{port}/page")
    assert_equal "20", curl("http://127.0.0.1:#{port}/begun")
    assert_operator threads_of(puma), :<=, threads + 5 # which Puma may have for itself
    reading = clients.map { |client| thread { client.read } }
    reading.each { |body| assert_equal SOME.hash, thread_value(body).hash }
    until_descriptors(puma, idle)
  end

  def test_says_that_the_connection_is_closed_and_closes_it
    port, = serving
    requests = { "1.1" => ["Accept: */*", "Connection: close"], "1.0" => ["Accept: */*", "Connection: Keep-Alive"] }
    requests.each do |version, fields|
      fields.each do |field|
        said, rest = ask(port, "GET /some HTTP/#{version}", "Host: here", field)
        assert_match(%r{\AHTTP/#{version} 200 OK\r\n}, said)
        assert_match(/^content-length: #{SOME.bytesize}\r\n/i, said)
        assert_equal (version == "1.1" ? ["close"] : []), said.scan(/^connection: (.+)\r/i).flatten
        assert_equal SOME.hash, rest.hash
      end
    end
  end

  def test_keeps_the_connection_of_what_passes_through
    port, = serving
    client, = closing(TCPSocket.new("127.0.0.1", port))
    2.times do
      client.write("HEAD /some HTTP/1.1\r\nHost: here\r\n\r\n")
      refute_match(/^connection:|^rack/i, guarded { client.gets("\r\n\r\n") })
      client.write("GET /page HTTP/1.1\r\nHost: here\r\n\r\n")
      assert_match(/^content-length: #{PAGE.bytesize}\r\n/i, guarded { client.gets("\r\n\r\n") })
      assert_equal(PAGE, guarded { client.read(PAGE.bytesize) })
      client.write("GET /moved HTTP/1.1\r\nHost: here\r\n\r\n")
      assert_match(/ 304 /, guarded { client.gets("\r\n\r\n") })
    end
    client.write("GET /some HTTP/1.1\r\nHost: here\r\n\r\n")
    guarded { client.gets("\r\n\r\n") }
    assert_equal(SOME.hash, guarded { client.read.hash })
  end

  def test_a_client_that_asks_for_more_before_it_has_got_all
    port, = serving
    said, rest = ask(port, "GET /some HTTP/1.1", "Host: here", more: "GET /page HTTP/1.1\r\nHost: here\r\n\r\n" * 10)
    assert_match(/^connection: close\r\n/i, said)
    assert_equal SOME.hash, rest.hash
  end

  def test_a_small_file_passes_through
    port, = serving
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
    assert_equal "0", curl("http://127.0.0.1:#{port}/begun")
  end

  def test_clients_that_leave_in_the_middle
    port, puma = serving
    idle = descriptors_of(puma)
    3.times { slow_client(port).close }
    3.times do
      client = slow_client(port)
      client.setsockopt(Socket::Option.linger(true, 0))
      client.close
    end
    until_ended(6)
    assert_empty(File.readlines(path("ended")).grep_v(/Errno::(EPIPE|ECONNRESET)/))
    until_descriptors(puma, idle)
    assert_large curl("http://127.0.0.1:#{port}/large")
  end

  def test_a_client_of_a_file_that_shrinks_notices
    port, puma = serving
    idle = descriptors_of(puma)
    download, rest = stopped_download(port)
    File.truncate(path("www/large"), LARGE.bytesize - 1)
    arrived = LARGE[0] + guarded { rest.read }
    assert_includes [18, 56], guarded { download.wait }.exitstatus # partial file, connection reset
    assert_operator arrived.bytesize, :<, LARGE.bytesize
    assert LARGE.start_with?(arrived)
    until_ended(1)
    assert_match(/EOFError$/, File.read(path("ended")))
    until_descriptors(puma, idle)
  end

  def test_a_client_of_a_file_that_grows_gets_what_it_was
    port, = serving
    download, rest = stopped_download(port)
    File.write(path("www/large"), "more", mode: "a")
    assert_large LARGE[0] + guarded { rest.read }
    assert_predicate guarded { download.wait }, :success?
  end

  def test_a_file_that_is_deleted_is_sent
    port, = serving
    _, rest = stopped_download(port)
    File.delete(path("www/large"))
    assert_large LARGE[0] + guarded { rest.read }
  end

  def test_what_puma_encrypts_passes_through
    certificate
    port, = serving(bind: "ssl://127.0.0.1:0?key=#{path("key")}&cert=#{path("cert")}")
    assert_large curl("--insecure", "https://127.0.0.1:#{port}/large")
    assert_equal "0", curl("--insecure", "https://127.0.0.1:#{port}/begun")
  end

  # rack_sendfile.ru

  def test_rack_files
    port, = example_server
    url = "http://127.0.0.1:#{port}/large"
    assert_large curl(url)
    assert_equal SMALL, curl("http://127.0.0.1:#{port}/small")
    assert_equal "404", curl("-o", "none", "-w", STATUS, "http://127.0.0.1:#{port}/none")
    head = curl("-I", url)
    assert_match(/^content-length: #{LARGE.bytesize}\r\n/i, head)
    refute_match(/^connection:/i, head)
    modified = head[/^last-modified: (.+)\r/i, 1]
    assert_equal "304", curl("-w", STATUS, "-H", "If-Modified-Since: #{modified}", url)
  end

  def test_rack_files_of_a_part
    port, = example_server
    url = "http://127.0.0.1:#{port}/large"
    head, part = curl("-i", "-r", "1000-31999999", url).split("\r\n\r\n", 2)
    assert_match(%r{^content-range: bytes 1000-31999999/#{LARGE.bytesize}\r$}i, head)
    assert_match(/^connection: close\r?$/i, head)
    assert_equal LARGE.byteslice(1000..31_999_999).hash, part.hash
    assert_equal LARGE.byteslice(-70_000..).hash, curl("-r", "-70000", url).hash
    assert_equal LARGE[5..9], curl("-r", "5-9", url)
    assert_equal 2, curl("-r", "5-9,20-100000", url).scan(/^content-range: bytes/i).size
    assert_equal "416", curl("-o", "none", "-w", STATUS, "-r", "40000000-", url)
  end

  def test_the_example_waits_for_downloads_at_its_end
    port, puma = example_server
    _, rest = stopped_download(port)
    Process.kill(:TERM, puma.pid)
    assert_large LARGE[0] + guarded { rest.read }
    guarded { puma.wait }
  end

  private

  def serving(**options)
    needs "curl"
    make_files("www")
    File.binwrite(path("www/some"), SOME)
    File.write(path("config.ru"), RACKUP)
    start_puma(path("config.ru"), **options)
  end

  def example_server
    needs "curl"
    needs_gem "rack", ">= 2"
    make_files("www")
    start_puma(File.join(ROOT, "examples/rack_sendfile.ru"), env: { "DIRECTORY" => path("www") })
  end

  # One that has got the head, takes no more, and has room for little.
  def slow_client(port)
    client, = closing(Socket.new(:INET, :STREAM))
    client.setsockopt(:SOCKET, :RCVBUF, 10_000)
    client.connect(Addrinfo.tcp("127.0.0.1", port))
    client.write("GET /some HTTP/1.1\r\nHost: here\r\n\r\n")
    guarded { client.gets("\r\n\r\n") }
    client
  end

  # The head of an answer, and all that follows.
  def ask(port, *request, more: "")
    client, = closing(TCPSocket.new("127.0.0.1", port))
    client.write([*request, "\r\n"].join("\r\n"), more)
    [guarded { client.gets("\r\n\r\n") }, guarded { client.read }]
  end

  def threads_of(program) = Dir.children("/proc/#{program.pid}/task").size

  # Its connections and files.
  def descriptors_of(program)
    Dir.glob("/proc/#{program.pid}/fd/*").count do |name|
      File.readlink(name).start_with?("socket:", path("www"))
    rescue Errno::ENOENT
      false
    end
  end

  def until_descriptors(program, idle)
    guarded { sleep 0.005 until descriptors_of(program) <= idle }
  end

  def until_ended(count)
    guarded { sleep 0.005 until File.exist?(path("ended")) && File.readlines(path("ended")).size >= count }
  end

  def certificate
    key = OpenSSL::PKey::RSA.new(2048)
    name = OpenSSL::X509::Name.parse("/CN=here")
    certificate = OpenSSL::X509::Certificate.new
    certificate.version = 2
    certificate.serial = 1
    certificate.subject = certificate.issuer = name
    certificate.public_key = key.public_key
    certificate.not_before = Time.now - 3600
    certificate.not_after = Time.now + 3600
    certificate.sign(key, OpenSSL::Digest.new("SHA256"))
    File.write(path("key"), key.to_pem)
    File.write(path("cert"), certificate.to_pem)
  end
end
