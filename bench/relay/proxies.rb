# frozen_string_literal: true

# The proxies that are measured, and what runs them and their far ends.

require "io/wait"
require "socket"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

_, DESCRIPTORS = Process.getrlimit(:NOFILE)
Process.setrlimit(:NOFILE, DESCRIPTORS, DESCRIPTORS)

# All that was started and has not been waited for; none outlives this process, however it ends. Each is the first of
# a process group.
CHILDREN = [] # rubocop:disable Style/MutableConstant
BENCH = Process.pid
at_exit do
  next unless Process.pid == BENCH

  Process.kill(:KILL, *CHILDREN.map(&:-@)) if CHILDREN.any?
  CHILDREN.each { |pid| Process.wait(pid) }
end

CLIENT, LOOP = %w[client proxy].map { |name| Bench.compile("relay", name) }
SERVER = TCPServer.new("127.0.0.1", 0)
PORT = SERVER.local_address.ip_port

# A program that ends with this process, and what else it may start with its group.
def start(*command, **passing)
  spawn(CLIENT, "run", *command, pgroup: true, **passing).tap { |pid| CHILDREN << pid }
end

# What is at the far ends of a proxy did not get what it should.
Wrong = Class.new(StandardError)

def finish(pid, name)
  Process.wait(pid)
  CHILDREN.delete(pid)
  Process.last_status.success? or raise Wrong, "#{name}: what is at its far ends failed"
end

# A proxy: `command` is told of its listening socket, if it takes one, and `config` is its standard input.
Peer = Struct.new(:title, :command, :config, :version) do
  attr_reader :port, :pid

  def run
    return listen_by_itself if command.arity.zero?

    listener = TCPServer.new("127.0.0.1", 0)
    @port = listener.local_address.ip_port
    input, text = IO.pipe
    text.write(config.call(listener.fileno)) if config
    text.close
    @pid = start(*command.call(listener.fileno).map(&:to_s), in: input, listener => listener)
  ensure
    [listener, input].each { |io| io&.close }
  end

  def stop
    return unless pid

    Process.kill(:KILL, -pid)
    Process.wait(pid)
    CHILDREN.delete(pid)
    @pid = nil
  end

  # Nanoseconds of the processor, those of its children too. The clock of another process has such a number (see
  # clock_getcpuclockid(3)); it is exact, and knows the threads that have ended.
  def cpu
    Bench.nanoseconds((~pid << 3) | 2) + (by_children * 1_000_000_000 / Etc.sysconf(Etc::SC_CLK_TCK))
  rescue Errno::EINVAL
    abort "#{title}: it has ended"
  end

  # As above, once it is done with what it is at and takes no more; at the end of connections without children.
  def settled_cpu(ended: false)
    before = cpu
    loop do
      sleep 0.005
      children = ended && children?
      now = cpu
      return now if now == before && !children

      before = now
    end
  end

  # From now on {peak} is the most memory that it has; see proc(5).
  def forget_peak = File.write("/proc/#{pid}/clear_refs", "5")

  # Resident memory in KiB, now and at most.
  def memory = status("VmRSS")
  def peak = status("VmHWM")
  def threads = status("Threads")

  # Its proportional share of memory in KiB; see proc(5).
  def share = File.read("/proc/#{pid}/smaps_rollup")[/^Pss:\s*(\d+)/, 1].to_i

  # How many descriptors it has of each kind.
  def descriptors
    links.filter_map { |link| link[/\A\w+(:\[\w+\])?/]&.sub(/:\[\d+\]/, "") }.tally
  end

  private

  # What its descriptors are; see proc(5).
  def links
    Dir["/proc/#{pid}/fd/*"].filter_map do |path|
      File.readlink(path)
    rescue Errno::ENOENT
      nil # closed meanwhile
    end
  end

  def status(name) = File.read("/proc/#{pid}/status")[/^#{name}:\s*(\d+)/, 1].to_i

  def listen_by_itself
    @pid = start(*command.call, in: File::NULL)
    sleep 0.01 until (@port = listening_port)
  end

  def listening_port
    sockets = links.filter_map { |link| link[/\Asocket:\[(\d+)\]/, 1] }
    lines = File.readlines("/proc/net/tcp").map(&:split)
    lines.find { |line| line[3] == "0A" && sockets.include?(line[9]) }&.then { |line| line[1].split(":").last.hex }
  end

  # In the kernel's ticks.
  def by_children
    stat(pid)[13, 2].sum(&:to_i)
  end

  def children?
    command.arity.zero? && Dir["/proc/[0-9]*/stat"].any? { |path| stat(path[/\d+/])[1].to_i == pid }
  end

  # The fields from the third on.
  def stat(pid)
    File.read("/proc/#{pid}/stat").rpartition(")").last.split
  rescue Errno::ENOENT, Errno::ESRCH
    []
  end
end

# It is read from standard input, so there is no file to be left behind.
HAPROXY = <<~CONFIG
  global
    nbthread 1
    maxconn 4608
    %<settings>s
  defaults
    mode tcp
    %<options>s
    timeout connect 60s
    timeout client 60s
    timeout server 60s
  listen relay
    bind fd@%<listener>d
    server server 127.0.0.1:%<port>d
CONFIG

def ruby(mode)
  ->(listener) { [RbConfig.ruby, File.expand_path("proxy.rb", __dir__), mode, listener, PORT] }
end

# With splice-auto it decides by itself, and here it decides not to; see peers.md.
def haproxy(program, title, settings, options)
  config = ->(listener) { format(HAPROXY, listener:, port: PORT, settings:, options:) }
  Peer.new(title, ->(_) { [program, "-q", "-db", "-f", "/dev/stdin"] }, config, [program, "-v"])
end

# All that are installed.
def peers
  go = Bench.compile_go("relay", "proxy")
  proxy, socat = %w[haproxy socat].map { |name| Bench.which(name) }
  all = {
    gem: Peer.new("io_splice", ruby("threads")),
    fibers: Peer.new("io_splice, fibers", ruby("fibers")),
    background: Peer.new("io_splice, in the background", ruby("background")),
    c: Peer.new("loop in C", ->(listener) { [LOOP, listener, PORT] }),
  }
  all[:go] = Peer.new("Go's io.Copy", ->(listener) { [go, listener, PORT] }, nil, %w[go version]) if go
  if proxy
    all[:haproxy] = haproxy(proxy, "HAProxy", "", "option splice-auto")
    all[:splicing] = haproxy(proxy, "HAProxy, splicing", "tune.pipesize #{MIB}",
                             "option splice-request\n  option splice-response")
  end
  if socat
    command = -> { [socat, "-t600", "-b262144", "TCP4-LISTEN:0,bind=127.0.0.1,fork", "TCP4:127.0.0.1:#{PORT}"] }
    all[:socat] = Peer.new("socat", command, nil, [socat, "-V"])
  end
  all[:ruby] = Peer.new("IO.copy_stream", ruby("copy_stream"))
  all
end

# Starts proxies and waits until each has relayed something.
def running(peers)
  peers.each_value do |peer|
    peer.run
    far_ends(peer, "stream", 1, 1, 1, 0, 1)
    peer.settled_cpu(ended: true)
  end
  yield
ensure
  peers.each_value(&:stop)
end

# Runs the far ends of a proxy: when all is connected, the first block; until they say what they found out,
# the second, again and again; then the third. Returns what they say.
def far_ends(peer, does, *arguments, between: nil, meanwhile: nil, afterwards: nil, port: peer.port)
  input, go = IO.pipe
  said, says = IO.pipe
  arguments = [does, port, SERVER.fileno, *arguments].map(&:to_s)
  CHILDREN << (pid = spawn(CLIENT, *arguments, pgroup: true, in: input, out: says, SERVER => SERVER))
  [input, says].each(&:close)
  said.gets == "ready\n" or finish(pid, peer.title)
  between&.call
  go.puts
  loop do
    meanwhile&.call
    break if said.wait_readable(meanwhile && 0.05)
  end
  numbers = said.read.split.map(&:to_i)
  afterwards&.call
  go.close
  finish(pid, peer.title)
  numbers
ensure
  [go, said].each(&:close)
end

# What the proxy itself took of the processor, and what its far ends say. `open`: what closing costs does not count.
def with_cpu(peer, *arguments, open: false)
  before = after = 0
  tries ||= 0
  numbers = far_ends(peer, *arguments, between: -> { before = peer.settled_cpu },
                                       afterwards: -> { after = peer.settled_cpu if open })
  after = peer.settled_cpu(ended: true) unless open
  [numbers, after - before]
rescue Wrong => e
  # HAProxy 2.6 with splicing ends a connection too early now and then. The gem must not.
  raise if peer.title.start_with?("io_splice") || (tries += 1) == 3

  warn "#{e.message}; once more"
  retry
end
