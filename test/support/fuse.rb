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
  # `write`, `flush`.
  Entry = Struct.new(:content, :claims, :direct, :slow, keyword_init: true)

  HEADER = "LLQQLLLL"
  HEADER_SIZE = 40
  DIRECT_IO = 1
  MAX_WRITE = 128 << 10
  FATTR_SIZE = 8
  OPERATIONS = { 1 => :lookup, 2 => :forget, 3 => :getattr, 4 => :setattr, 14 => :open, 15 => :read, 16 => :write,
                 18 => :release, 25 => :flush, 26 => :init, 36 => :forget, 42 => :forget }.freeze

  # Whether one can be mounted here.
  def self.possible?
    Process.uid.zero? && File.exist?("/dev/fuse") && system("mount", "--version", out: File::NULL)
  end

  # Yields a mounted one, with files by these names.
  def self.mount(files)
    Dir.mktmpdir do |dir|
      fuse = new(dir, files)
      yield fuse
    ensure
      fuse&.unmount
    end
  end

  def initialize(dir, files)
    @dir = dir
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
    @names = files.keys
    @entries = files.values
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

  def answer(request)
    _, operation, unique, node = request.unpack(HEADER)
    body = request.byteslice(HEADER_SIZE..)
    operation = OPERATIONS[operation]
    return if operation == :forget

    error, reply = operation ? respond(operation, node, body) : [Errno::ENOSYS::Errno, ""]
    @device.syswrite([16 + reply.bytesize, -error, unique].pack("LlQ") + reply)
  rescue Errno::ENOENT
    nil
  end

  def respond(operation, node, body)
    entry = @entries[node - 2] if node > 1
    sleep(entry.slow.delete(operation) || 0) if @slow && entry&.slow
    [0, send(operation, node, entry, body)]
  rescue SystemCallError => e
    [e.errno, ""]
  end

  def init(*) = [7, 31, 0, 0, 16, 12, MAX_WRITE, 1, 0, 0, 0, *[0] * 7].pack("L4S2L2S2L8")

  def lookup(_node, _entry, body)
    index = @names.index(body.unpack1("Z*")) or raise Errno::ENOENT

    [index + 2, 0, 0, 0, 0, 0].pack("Q4L2") + attributes(index + 2)
  end

  # Nothing is remembered by the kernel: it asks each time.
  def getattr(node, *) = [0, 0, 0].pack("QL2") + attributes(node)

  def setattr(node, entry, body)
    valid, _, _, size = body.unpack("L2Q2")
    entry.content = entry.content.ljust(size, "\0").byteslice(0, size) if valid.anybits?(FATTR_SIZE)
    getattr(node)
  end

  def open(_node, entry, _body) = [0, entry.direct ? DIRECT_IO : 0, 0].pack("QL2")

  def read(_node, entry, body)
    _, offset, size = body.unpack("Q2L")
    entry.content.byteslice(offset, size) || ""
  end

  def write(_node, entry, body)
    _, offset, size = body.unpack("Q2L")
    entry.content = entry.content.ljust(offset, "\0")
    entry.content[offset, size] = body.byteslice(40, size)
    [size, 0].pack("L2")
  end

  def flush(*) = ""
  def release(*) = ""

  def attributes(node)
    entry = @entries[node - 2] if node > 1
    size = entry ? entry.claims || entry.content.bytesize : 0
    mode = entry ? 0o100666 : 0o040777
    [node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].pack("Q6L10")
  end
end
