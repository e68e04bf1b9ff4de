# frozen_string_literal: true

# What copies and relays of TLS cost beside Ruby's own, and beside a loop of reads and writes. Where the kernel encrypts
# (`IO::Splice.ktls`), it does that here too.
#
#   ruby bench/tls.rb [--mib MIB] [--rounds N] [--part NAME] [--quick]
#
# The far end of each connection is a process of its own; what counts is the processor time of this one.

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "openssl"
require "socket"
require "tempfile"
require_relative "harness"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

options = Bench.options({ mib: 64 }, { mib: 1 }) do |parser|
  parser.on("--mib MIB", Integer, "how much goes over each connection (64)")
end
BYTES = options[:mib] * MIB

def context
  @context ||= OpenSSL::SSL::SSLContext.new.tap do |context|
    context.key = OpenSSL::PKey::EC.generate("prime256v1")
    context.cert = OpenSSL::X509::Certificate.new.tap do |cert|
      cert.subject = cert.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      cert.public_key = context.key
      cert.serial = 1
      cert.not_before = Time.now - 60
      cert.not_after = Time.now + 36_000
      cert.sign(context.key, "SHA256")
    end
    context.options |= OpenSSL::SSL::OP_ENABLE_KTLS
  end
end

# A process at the far end that connects, and then sends all, or takes all.
def peer(port, tls:, sends:)
  fork do
    socket = TCPSocket.new("127.0.0.1", port)
    socket = OpenSSL::SSL::SSLSocket.new(socket).tap(&:connect) if tls
    portion = "x" * (256 * KIB)
    (BYTES / portion.bytesize).times { socket.write(portion) } if sends
    say_the_end(socket) if sends
    loop { socket.readpartial(256 * KIB, portion) }
  rescue EOFError, SystemCallError, OpenSSL::SSL::SSLError
    say_the_end(socket)
    exit!
  end
end

def say_the_end(socket)
  socket.is_a?(TCPSocket) ? socket.close_write : socket.__send__(:stop)
rescue SystemCallError
  nil
end

# A connection to such a peer.
def connected(tls:, sends:)
  TCPServer.open("127.0.0.1", 0) do |server|
    peer(server.local_address.ip_port, tls:, sends:)
    socket = server.accept
    tls ? OpenSSL::SSL::SSLSocket.new(socket, context).tap { |ssl| ssl.sync_close = true }.tap(&:accept) : socket
  end
end

# Nanoseconds of this process's processor time for each byte.
def cost
  GC.start
  start = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :nanosecond)
  yield
  (Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :nanosecond) - start) / 1e9 * GIB / BYTES
end

FILE = Tempfile.new.tap { |file| file.truncate(BYTES) }

def loop_between(from, to)
  buffer = +""
  loop { to.write(from.readpartial(64 * KIB, buffer)) }
rescue EOFError
  nil
end

COPIES = { gem: IO::Splice.method(:copy_stream), ruby: IO.method(:copy_stream), loop: method(:loop_between) }.freeze

def file_to_tls(copy)
  ssl = connected(tls: true, sends: false)
  cost { File.open(FILE.path) { |file| copy.call(file, ssl) } }.tap { ssl.close }
end

def tls_to_file(copy)
  ssl = connected(tls: true, sends: true)
  cost { File.open(File::NULL, "w") { |file| copy.call(ssl, file) } }.tap { ssl.close }
end

# The client sends all, and the server behind the proxy says nothing; or the other way round.
def proxy(kind, from_client:)
  ssl = connected(tls: true, sends: from_client)
  plain = connected(tls: false, sends: !from_client)
  from, to = from_client ? [ssl, plain] : [plain, ssl]
  cost { kind == :gem ? IO::Splice.relay(ssl, plain) : COPIES[kind].call(from, to) }
ensure
  [ssl, plain].each(&:close)
end

results = Results.new("tls", options, { OpenSSL: OpenSSL::OPENSSL_LIBRARY_VERSION })
probe = connected(tls: true, sends: false)
puts "the kernel: #{IO::Splice.ktls(probe).inspect} of #{probe.ssl_version}"
probe.close
table = results.table("Copies of TLS", peers: { gem: "io_splice", ruby: "Ruby's own", loop: "a loop in Ruby" },
                                       metrics: { cpu: ["CPU s a GiB", "less", 2] })
if table
  { "a file to TLS" => ->(kind) { file_to_tls(COPIES[kind]) },
    "TLS to /dev/null" => ->(kind) { tls_to_file(COPIES[kind]) },
    "TLS to TCP, a relay" => ->(kind) { proxy(kind, from_client: true) },
    "TCP to TLS, a relay" => ->(kind) { proxy(kind, from_client: false) } }.each do |name, work|
    turns = Turns.new
    COPIES.each_key { |kind| turns.peer(kind) { work.call(kind) } }
    turns.warm_up
    table.add(name, turns.run(options[:rounds]), goals: [Goal.new(metric: :cpu, beside: :ruby, most: 1.0)])
  end
end
Process.waitall
results.finish
