# frozen_string_literal: true

require_relative "../support/ends"

module Soak
  STREAMS = %i[pipe pipe fifo unix tcp].freeze
  PIPES = %i[pipe fifo].freeze
  TCP = %i[tcp urgent errors].freeze
  CAPACITIES = [4096, 8192, 16_384, 65_536, 1 << 20].freeze

  module_function

  # A reading and a writing end in a random condition.
  def pair(kind, random)
    ends = Ends.pair(TCP.include?(kind) ? :tcp : kind)
    ends.each do |io|
      io.nonblock = false if random.rand(4).zero?
      io.sync = true
    end
    narrow(kind, *ends, random) if random.rand(2).zero?
    ends
  end

  def narrow(kind, reader, writer, random)
    return resize(writer, CAPACITIES.sample(random:)) if PIPES.include?(kind)

    # A segment on the loopback has up to 64 KiB.
    Ends.narrow(reader, writer, random.rand(1..4) * (TCP.include?(kind) ? 65_536 : 4096))
  end

  # The kernel may refuse, but it never gives less than was asked for.
  def resize(pipe, bytes)
    pipe.pipe_size = bytes
    raise Wrong, "pipe_size= #{bytes} has become #{pipe.pipe_size}" if pipe.pipe_size < bytes
  rescue Errno::EPERM, Errno::EBUSY
    nil
  end

  # Where a stream comes from: an IO that another task writes the stream into, or a file.
  class Source
    attr_reader :kind, :stream, :io

    # With `ahead`, Ruby has read the first bytes already.
    def initialize(kind, stream, tasks, ahead: false)
      @kind = kind
      @stream = stream
      @tasks = tasks
      kind == :file ? open_file : open_stream
      read_ahead if ahead && !stream.empty?
      @may_be_ahead = ahead
      feed unless kind == :file
    end

    def pipe? = PIPES.include?(kind)
    def file? = kind == :file

    # Bytes that Ruby has read ahead are passed over by a number.
    def number? = !@may_be_ahead

    def ahead? = @may_be_ahead
    def may_be_ahead! = @may_be_ahead ||= !file?

    # How many bytes have been taken, where that can be seen.
    def taken = file? && !io.closed? ? io.pos - @base : nil

    # What has not been taken: to the end, that is until the other side has written everything.
    def left
      io.nonblock = true unless file?
      io.read
    end

    def finish
      io.close
      @tasks.value_of(@feeder) if @feeder
    end

    private

    def open_file
      @base = random.rand(3).zero? ? random.rand(5000) : 0
      @io = Soak.lock(Ends.file(("-" * @base).b << stream))
      io.pos = @base
    end

    def open_stream
      @io, @writer = Soak.pair(kind, random)
      Soak.fill_error_queue(@io, @writer) if kind == :errors
      @tasks.far(@writer)
    end

    def read_ahead
      return io.ungetbyte(io.getbyte) if file?

      @fed_before = random.rand(1..[stream.bytesize, 100_000].min)
      io.ungetbyte(stream.byteslice(0, @fed_before))
    end

    def feed
      rest = stream.byteslice((@fed_before || 0)..)
      @urgent = UrgentWriter.new(@io, @writer, rest.bytesize, random) if kind == :urgent
      seed = random.rand(1 << 32)
      @feeder = @tasks.go { write(rest, Random.new(seed)) }
    end

    def write(bytes, random)
      most = [100, 5000, 70_000, 1 << 20].sample(random:)
      most = bytes.bytesize / 50 if bytes.bytesize > most * 200
      at = 0
      while at < bytes.bytesize
        size = random.rand(1..most)
        piece = bytes.byteslice(at, size)
        @urgent ? @urgent.write(piece, at) : @writer.write(piece)
        at += size
        sleep(random.rand * 0.001) if random.rand(20).zero?
      end
    rescue Errno::EPIPE, Errno::ECONNRESET
      raise unless io.closed?
    ensure
      @writer.close
    end

    def random = @tasks.random
  end

  # Where bytes go to: an IO that another task reads from, a file, or an object.
  class Target
    FILES = %i[file append].freeze
    OBJECTS = %i[stringio object].freeze

    # It has nothing but `write`.
    class Writer
      attr_reader :string

      def initialize = @string = String.new.b

      def write(bytes)
        @string << bytes
        bytes.bytesize
      end
    end

    attr_reader :kind, :io

    # With `before`, those bytes are in Ruby's write buffer.
    def initialize(kind, tasks, before: "", leave_after: nil)
      @kind = kind
      @tasks = tasks
      @leave_after = leave_after
      @base = 0
      open
      write_before(before) unless before.empty?
    end

    def pipe? = PIPES.include?(kind)
    def file? = FILES.include?(kind)
    def append? = kind == :append
    def object? = OBJECTS.include?(kind)
    def number? = !object? && !@before

    # How many bytes have come, where that can be seen.
    def come = file? && !io.closed? ? io.size - @base : nil

    # Whether the one that reads has left.
    def left? = !@leave_after.nil?

    # All that has come.
    def arrived
      return @arrived if @arrived
      return @arrived = io.string if object?
      return @arrived = file_content if file?

      io.close
      @arrived = @tasks.value_of(@drain)
    end

    def finish
      arrived
      io.close unless object?
      @keeper&.close
    end

    private

    def open
      case kind
      when :stringio then @io = StringIO.new(String.new.b)
      when :object then @io = Writer.new
      when *FILES then open_file
      else
        @reader, @io = Soak.pair(kind, random)
        Soak.fill_error_queue(@io, @reader) if kind == :errors
        @tasks.far(@reader)
        seed = random.rand(1 << 32)
        @drain = @tasks.go { drain(Random.new(seed)) }
      end
    end

    def open_file
      @base = random.rand(5000)
      file = Ends.file("-" * @base)
      file.seek(0, :END)
      @keeper = File.open("/proc/self/fd/#{file.fileno}", "rb")
      return @io = Soak.lock(file) unless append?

      @io = File.open("/proc/self/fd/#{file.fileno}", "ab")
      file.close
      Soak.lock(@io)
    end

    def write_before(bytes)
      @before = true
      @tasks.far(@io) unless file?
      io.sync = false
      io.write(bytes)
    end

    def file_content
      unless io.closed?
        io.flush
        end_ = @keeper.size
        raise Wrong, "a file ends at #{end_} and stands at #{io.pos}" unless append? || io.pos == end_
      end
      content = @keeper.read
      raise Wrong, "bytes before the position were overwritten" unless content.start_with?("-" * @base)

      content.byteslice(@base..)
    end

    def drain(random)
      arrived = String.new.b
      most = [300, 5000, 70_000, 1 << 20].sample(random:)
      until @leave_after && arrived.bytesize >= @leave_after
        arrived << @reader.readpartial(random.rand(1..most))
        most *= 2 if arrived.bytesize > most * 100
        sleep(random.rand * 0.001) if random.rand(20).zero?
      end
      arrived
    rescue EOFError
      arrived
    rescue Errno::ECONNRESET
      raise Wrong, "a connection was reset after #{arrived.bytesize} bytes"
    ensure
      @reader.close
    end

    def random = @tasks.random
  end
end
