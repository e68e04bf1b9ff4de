# frozen_string_literal: true

require "io/wait"
require "tmpdir"

# A file system of the test's own (FUSE), whose files are slow, or lie about their size. A child process serves it, and
# when that is stopped, the file system is stuck.
#
# @see https://man7.org/linux/man-pages/man4/fuse.4.html fuse(4)
class Fuse
  # A file: what it holds, how much it claims to hold, and whether the page cache is passed by. `slow` says how many
  # seconds the next of these operations takes, once the file system is told to be slow: `getattr`, `open`, `read`,
  # `write`, `flush`. `fails` says which of them fail, and with what exception.
  Entry = Struct.new(:content, :claims, :direct, :slow, :fails, :mode, keyword_init: true)

  HEADER = "LLQQLLLL"
  HEADER_SIZE = 40
  DIRECT_IO = 1
  MAX_WRITE = 128 << 10
  FATTR_SIZE = 8
  SIZE_MAX = 1 << 30 # of what is in its memory
  OPERATIONS = { 1 => :lookup, 2 => :forget, 3 => :getattr, 4 => :setattr, 8 => :mknod, 10 => :unlink, 14 => :open,
                 15 => :read, 16 => :write, 18 => :release, 20 => :fsync, 25 => :flush, 26 => :init, 35 => :create,
                 36 => :interrupt, 42 => :batch_forget }.freeze
  WITHOUT_REPLY = %i[forget batch_forget interrupt].freeze
  ROOT = 1

  # Whether one can be mounted here.
  def self.possible?
    Process.uid.zero? && File.exist?("/dev/fuse") && system("mount", "--version", out: File::NULL)
  end

  # Yields a mounted one, with files by these names.
  def self.mount(files = {})
    Dir.mktmpdir do |dir|
      fuse = new(dir, files)
      yield fuse
    ensure
      fuse&.unmount
    end
  end

  # With `jitter`, each operation takes a while at times, up to so many seconds. With `direct`, the files that are made
  # there pass the page cache by. `room` says how many bytes they may have in all.
  def initialize(dir, files = {}, jitter: nil, direct: false, room: Float::INFINITY)
    @dir = dir
    @jitter = jitter
    @direct = direct
    @room = room
    @device = File.open("/dev/fuse", "r+b")
    options = "fd=3,rootmode=40000,user_id=0,group_id=0,allow_other"
    system("mount", "-i", "-t", "fuse", "-o", options, "io_splice", dir, 3 => @device, exception: true)
    alive, @alive = IO.pipe
    @pid = fork { serve(files, alive) }
    [@device, alive].each(&:close)
  end

  def path(name) = File.join(@dir, name)

  def be_slow = Process.kill(:USR1, @pid)
  def stop = Process.kill(:STOP, @pid)
  def continue = Process.kill(:CONT, @pid)

  def unmount
    continue
    system("umount", "--lazy", @dir)
    @alive.close
    Process.wait(@pid)
  end

  private

  # In the child process.
  def serve(files, alive)
    @alive.close
    trap(:USR1) { @slow = true }
    @names = {}
    @nodes = {}
    files.each { |name, entry| add(name, entry) }
    loop do
      ready, = IO.select([@device, alive])
      break if ready.include?(alive)

      answer(@device.sysread(MAX_WRITE + 4096))
    rescue Errno::ENOENT # what was asked was interrupted
      nil
    end
  ensure
    exit!(0) # ENODEV: it is not mounted any more
  end

  def add(name, entry)
    @last = (@last || ROOT) + 1
    @nodes[@last] = entry
    @names[name] = @last
  end

  def answer(request)
    _, operation, unique, node = request.unpack(HEADER)
    operation = OPERATIONS[operation]
    error, reply = operation ? respond(operation, node, request.byteslice(HEADER_SIZE..)) : [Errno::ENOSYS::Errno, ""]
    return if WITHOUT_REPLY.include?(operation)

    @device.syswrite([16 + reply.bytesize, -error, unique].pack("LlQ") + reply)
  rescue Errno::ENOENT
    nil
  end

  def respond(operation, node, body)
    entry = @nodes[node]
    sleep(rand * @jitter) if @jitter && rand(20).zero?
    sleep(entry.slow.delete(operation) || 0) if @slow && entry&.slow
    raise entry.fails[operation] if entry&.fails&.key?(operation)

    [0, send(operation, node, entry, body)]
  rescue SystemCallError => e
    [e.errno, ""]
  end

  def init(*) = [7, 31, 0, 0, 16, 12, MAX_WRITE, 1, 0, 0, 0, *[0] * 7].pack("L4S2L2S2L8")

  def lookup(_node, _entry, body)
    found(@names[body.unpack1("Z*")] || raise(Errno::ENOENT))
  end

  def found(node) = [node, 0, 0, 0, 0, 0].pack("Q4L2") + attributes(node)

  def create(_node, _entry, body)
    mode, name = body.unpack("x4Lx8Z*")
    node = add(name, Entry.new(content: "".b, mode:, direct: @direct))
    found(node) + opened(@nodes[node])
  end

  def mknod(_node, _entry, body)
    mode, name = body.unpack("Lx12Z*")
    found(add(name, Entry.new(content: "".b, mode:, direct: @direct)))
  end

  def unlink(_node, _entry, body)
    @names.delete(body.unpack1("Z*"))
    ""
  end

  # What has no name any more goes when the kernel has forgotten it.
  def forget(node, *)
    @nodes.delete(node) unless @names.value?(node)
  end

  def batch_forget(_node, _entry, body)
    body.byteslice(8..).unpack("Q*").each_slice(2) { |node,| forget(node) }
  end

  def interrupt(*) = nil

  # Nothing is remembered by the kernel: it asks each time.
  def getattr(node, *) = [0, 0, 0].pack("QL2") + attributes(node)

  def setattr(node, entry, body)
    valid, _, _, size = body.unpack("L2Q2")
    raise Errno::EFBIG if valid.anybits?(FATTR_SIZE) && size > SIZE_MAX

    entry.content = entry.content.ljust(size, "\0").byteslice(0, size) if valid.anybits?(FATTR_SIZE)
    getattr(node)
  end

  def open(_node, entry, _body) = opened(entry)
  def opened(entry) = [0, entry.direct ? DIRECT_IO : 0, 0].pack("QL2")

  def read(_node, entry, body)
    _, offset, size = body.unpack("Q2L")
    entry.content.byteslice(offset, size) || ""
  end

  def write(_node, entry, body)
    _, offset, size = body.unpack("Q2L")
    grows_by = [offset + size - entry.content.bytesize, 0].max
    raise Errno::ENOSPC if @nodes.each_value.sum { |node| node.content.bytesize } + grows_by > @room

    entry.content = entry.content.ljust(offset, "\0") if offset > entry.content.bytesize
    entry.content[offset, size] = body.byteslice(40, size)
    [size, 0].pack("L2")
  end

  def flush(*) = ""
  def fsync(*) = ""
  def release(*) = ""

  def attributes(node)
    entry = @nodes[node]
    size = entry ? entry.claims || entry.content.bytesize : 0
    mode = entry ? entry.mode || 0o100666 : 0o040755
    [node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].pack("Q6L10")
  end
end
