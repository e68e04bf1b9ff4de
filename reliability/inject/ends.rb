# frozen_string_literal: true

require "fcntl"
require "io/nonblock"
require "io/wait"
require_relative "../support/ends"

module Inject
  # Bytes that tell where they stand.
  PATTERN = Array.new(12_500) { |number| [number].pack("Q>") }.join.freeze

  # What the kind says in front of its name: `narrow_` for what holds little, so that a copy takes several turns.
  def self.pair(kind)
    Ends.pair(kind[/pipe|unix|tcp/]).tap do |ends|
      Ends.narrow(*ends, 8192) if kind.include?("narrow_")
      ends.each { |io| io.nonblock = false } if kind.include?("blocking_")
    end
  end

  # What sources and targets have in common.
  class End
    # What a call is given.
    attr_reader :given

    def initialize(kind)
      @kind = kind.to_s
      open
      @given = @path || (@kind.start_with?("number_") ? @io.fileno : @io)
    end

    # The descriptors that the call works on.
    def numbers = [@io.fileno]

    def close
      @other_side&.join
      [@io, @far].each { |io| io&.close }
      File.unlink(@path) if @path
    end

    private

    def open_path
      @path = Tempfile.create("inject") { |file| "#{file.path}.#{self.class}" }
      @io = File.open(@path, "w+b")
    end
  end

  # Where bytes come from, and what is left of them.
  class Source < End
    HEAD = "read ahead\n"

    # What it has for the call.
    attr_reader :bytes

    def initialize(kind)
      @bytes = PATTERN
      super
      @io.gets if @kind.start_with?("ahead_")
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

    private

    def open
      case @kind
      when "proc" then open_proc
      when /path/ then fill(open_path)
      when /file/ then @io = Ends.file(all)
      else feed(*Inject.pair(@kind))
      end
    end

    # Without a content that changes.
    def open_proc
      @bytes = File.binread("/proc/filesystems")
      @io = File.open("/proc/filesystems", "rb")
    end

    def fill(file)
      file.write(all)
      file.rewind
    end

    def feed(reader, writer)
      @io = reader
      @far = writer
      @start = Thread::Queue.new if @kind.start_with?("late_")
      @other_side = Thread.new do
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
  class Target < End
    # Closes it.
    def arrived
      @arrived ||= @other_side ? drained : File.binread(@path || "/proc/self/fd/#{@io.fileno}")
    end

    # Of a file: where it stands.
    def position
      @io.pos if @io.is_a?(File) && @path.nil?
    end

    private

    def open
      case @kind
      when "full" then open_full
      when "gone" then open_gone
      when /path/ then open_path
      when "append" then (@io = Ends.file).fcntl(Fcntl::F_SETFL, File::APPEND)
      when /file|append/ then @io = Ends.file
      else collect(*Inject.pair(@kind))
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

    def collect(reader, writer)
      @io = writer
      @far = reader
      @other_side = Thread.new { reader.read }
    end

    def drained
      @io.close
      @other_side.value
    end
  end
end
