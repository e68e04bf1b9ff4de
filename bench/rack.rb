# frozen_string_literal: true

# How many small pages a Puma with five threads serves beside many slow downloads: with `IO::Splice::Rack::Sendfile`,
# alone, and with nginx in front of it, which sends the files (X-Accel-Redirect).
#
#   ruby bench/rack.rb [--downloads N] [--seconds N] [--rounds N] [--quick]
#
# wrk asks for the page. What downloads is a process of its own. All share this machine's processors.

require "fileutils"
require "tmpdir"
require_relative "harness"
require_relative "relay/proxies"

options = Bench.options({ downloads: 500, seconds: 5, rounds: 3 }, { downloads: 20, seconds: 1 }) do |parser|
  parser.on("--downloads N", Integer, "how many at once (500)")
  parser.on("--seconds N", Integer, "how long the page is asked for, each time (5)")
end
DOWNLOADS, SECONDS = options.values_at(:downloads, :seconds)
RATE = 100_000
DIRECTORY = Dir.mktmpdir("io_splice")
at_exit { FileUtils.rm_rf(DIRECTORY) if Process.pid == BENCH }
# None of them ends while the page is asked for.
FILE = File.join(DIRECTORY, "file").tap { |path| File.write(path, "x" * [8_000_000, 4 * SECONDS * RATE].max) }
PROGRAMS = File.expand_path("rack", __dir__)
LIB = File.expand_path("../lib", __dir__)
NGINX = <<~CONFIG
  daemon off;
  master_process off;
  pid %<directory>s/nginx.pid;
  error_log stderr crit;
  events { worker_connections 4096; }
  http {
    access_log off;
    client_body_temp_path %<directory>s/nginx-body;
    proxy_temp_path %<directory>s/nginx-proxy;
    sendfile on;
    upstream puma { server 127.0.0.1:%<puma>d; keepalive 8; }
    server {
      listen 127.0.0.1:%<port>d;
      location / { proxy_pass http://puma; proxy_http_version 1.1; proxy_set_header Connection ""; }
      location /files/ { internal; alias %<directory>s/; }
    }
  }
CONFIG

def puma(title, mode)
  command = ["sh", "-c", "exec env \"$@\" >/dev/null", "sh", "MODE=#{mode}", "FILE=#{FILE}", Bench.which("puma"),
             "-e", "production", "-I", LIB, "-t", "5:5", "-b", "tcp://127.0.0.1:0", File.join(PROGRAMS, "config.ru")]
  Peer.new(title, -> { command })
end

# nginx, behind it a Puma.
def nginx(title)
  command = lambda do
    behind = puma("Puma behind nginx", "nginx").tap(&:run)
    port = TCPServer.open("127.0.0.1", 0) { |free| free.local_address.ip_port }
    config = File.join(DIRECTORY, "nginx.conf")
    File.write(config, format(NGINX, directory: DIRECTORY, puma: behind.port, port:))
    [Bench.which("nginx"), "-p", DIRECTORY, "-c", config]
  end
  Peer.new(title, command)
end

# Pages a second.
def pages(peer)
  said = Bench.sh("wrk", "--threads", "1", "--connections", "4", "--duration", "#{SECONDS}s", "--timeout", "30s",
                  "http://127.0.0.1:#{peer.port}/", chdir: "/")
  said[%r{^Requests/sec:\s+([\d.]+)}, 1].to_f
end

def while_downloading(peer)
  program = [RbConfig.ruby, File.join(PROGRAMS, "downloads.rb"), peer.port, DOWNLOADS, RATE].map(&:to_s)
  IO.popen(program, "r+") do |downloads|
    downloads.gets == "ready\n" or abort "#{peer.title}: what downloads has failed"
    sleep 1 # until all are under way
    yield
  end
end

Pages = Struct.new(:alone, :beside, :kept)

def measure(peer)
  alone = pages(peer)
  beside = while_downloading(peer) { pages(peer) }
  Pages.new(alone, beside, beside / alone)
end

%w[puma wrk].each { |name| Bench.which(name) or abort "#{name} is not installed" }
PEERS = { gem: puma("Puma with IO::Splice::Rack::Sendfile", "gem"), puma: puma("Puma alone", "puma") } # rubocop:disable Style/MutableConstant
PEERS[:nginx] = nginx("nginx in front of Puma") if Bench.which("nginx")

results = Results.new("rack", options)
metrics = { alone: ["pages/s alone", "more", 0], beside: ["pages/s beside", "more", 0], kept: ["part kept", "more", 2] }
table = results.table("A small page of Puma beside slow downloads", peers: PEERS.transform_values(&:title), metrics:)
if table
  PEERS.each_value(&:run)
  turns = Turns.new
  PEERS.each { |key, peer| turns.peer(key) { measure(peer) } }
  table.add("#{DOWNLOADS} downloads of #{RATE / 1000} KB/s each", turns.run(options[:rounds]),
            goals: [Goal.new(metric: :kept, least: 0.9)])
  PEERS.each_value(&:stop)
end
results.finish
