# frozen_string_literal: true

require "digest"
require "fileutils"
require "rbconfig"
require "shellwords"
require "tmpdir"

# Examples as programs of their own, among real servers, clients and shells.
module ExamplePrograms
  ROOT = File.expand_path("../..", __dir__)
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

  # Its port and the program.
  def start_puma(rackup, threads: 1, bind: "tcp://127.0.0.1:0", env: {})
    needs "puma"
    skip "puma is not installed for this Ruby" unless quietly(RbConfig.ruby, "-S", "puma", "--version")
    command = [RbConfig.ruby, "-I", File.join(ROOT, "lib"), "-S", "puma", "-b", bind, "-t", "#{threads}:#{threads}"]
    program, output = start_talking(*command, rackup, env:)
    line = guarded { output.each_line.find { |text| text.include?("Listening on") } }
    assert line, log
    [Integer(line[/:(\d+)(?=$|\?)/, 1]), program]
  end

  def curl_command(*arguments) = ["curl", "--silent", "--show-error", "--max-time", SpliceTest::GUARD.to_s, *arguments]

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
