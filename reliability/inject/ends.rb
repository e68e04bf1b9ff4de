# frozen_string_literal: true

require "fcntl"
require "io/nonblock"
require "io/wait"
require "socket"
require "tempfile"

module Inject
  # Bytes that tell where they stand.
  PATTERN = Array.new(12_500) { |number| [number].pack("Q>") }.join.freeze

  # Pairs of ends.
  module Pairs
    module_function

    # A reading and a writing end.
    def pair(kind)
      case kind
      when /narrow_(.*)/ then narrow(Regexp.last_match(1))
      when /blocking_(.*)/ then blocking(Regexp.last_match(1))
      when /pipe/ then IO.pipe.each(&:binmode)
      when /unix/ then UNIXSocket.pair
      when /tcp/ then tcp_pair
      end
    end

    # What holds little, so that a copy takes several turns.
    def narrow(kind) = pair(kind).each { |io| io.setsockopt(:SOCKET, :SNDBUF, 8192) }

    def blocking(kind) = pair(kind).each { |io| io.nonblock = false }

    def tcp_pair
      TCPServer.open("127.0.0.1", 0) do |server|
        client = TCPSocket.new("127.0.0.1", server.local_address.ip_port)
        [server.accept, client]
      end
    end

    def tempfile
      Tempfile.create("inject", binmode: true).tap { |file| File.unlink(file.path) }
    end
  end

  # Where bytes come from, and what is left of them.
  class Source
    HEAD = "read ahead\n"

    # What a call is given, and the bytes that it has.
    attr_reader :given, :bytes

    def initialize(kind)
      @bytes = PATTERN
      @kind = kind.to_s
      open
      @io.gets if @kind.start_with?("ahead_")
      @given = @kind.start_with?("number_") ? @io.fileno : @io
      @given = @path if @path
    end

    # The call begins; what is late comes a little afterwards.
    def start
      @start&.push(true)
    end

    def rest
      @io.read
    end

    def position
      @io.pos if @io.is_a?(File)
    end

    def numbers = [@io.fileno]

    def close
      @feeder&.join
      [@io, @far].each { |io| io&.close }
      File.unlink(@path) if @path
    end

    private

    def open
      case @kind
      when "proc" then open_proc
      when /path/ then open_path
      when /file/ then @io = Pairs.tempfile.tap { |file| fill(file) }
      else feed(*Pairs.pair(@kind))
      end
    end

    # Without a content that changes.
    def open_proc
      @bytes = File.binread("/proc/filesystems")
      @io = File.open("/proc/filesystems", "rb")
    end

    def open_path
      @path = Tempfile.create("inject") { |file| "#{file.path}.source" }
      @io = File.open(@path, "w+b").tap { |file| fill(file) }
    end

    def fill(file)
      file.write(all)
      file.rewind
    end

    def feed(reader, writer)
      @io = reader
      @far = writer
      @start = Thread::Queue.new if @kind.start_with?("late_")
      @feeder = Thread.new do
        @start&.pop && sleep(0.005)
        writer.write(all)
        writer.close
      rescue Errno::EPIPE, Errno::ECONNRESET
        nil
      end
    end

    def all = @kind.start_with?("ahead_") ? HEAD + @bytes : @bytes
  end

  # Where bytes go, and what has arrived.
  class Target
    attr_reader :given

    def initialize(kind)
      @kind = kind.to_s
      open
      @given = @kind.start_with?("number_") ? @io.fileno : @io
      @given = @path if @path
    end

    # Closes it.
    def arrived
      @arrived ||= @reader ? drained : File.binread(@path || "/proc/self/fd/#{@io.fileno}")
    end

    # Of a file: where it stands.
    def position
      @io.pos if @io.is_a?(File) && @path.nil?
    end

    def numbers = [@io.fileno]

    def close
      @reader&.join
      [@io, @far].each { |io| io&.close }
      File.unlink(@path) if @path
    end

    private

    def open
      case @kind
      when "full" then open_full
      when "gone" then open_gone
      when /path/ then open_path
      when /file|append/ then @io = Pairs.tempfile.tap { |file| append(file) if @kind == "append" }
      else collect(*Pairs.pair(@kind))
      end
    end

    def open_full
      @io = File.open("/dev/full", "ab")
      @io.sync = true
      @arrived = ""
    end

    def open_gone
      @io, far = UNIXSocket.pair
      far.close
      @arrived = ""
    end

    def open_path
      @path = Tempfile.create("inject") { |file| "#{file.path}.target" }
      @io = File.open(@path, "w+b")
    end

    def append(file)
      file.fcntl(Fcntl::F_SETFL, File::APPEND)
    end

    def collect(reader, writer)
      @io = writer
      @far = reader
      @reader = Thread.new { reader.read }
    end

    def drained
      @io.close
      @reader.value
    end
  end
end
