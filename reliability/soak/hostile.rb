# frozen_string_literal: true

module Soak
  # What peers and neighbours do that nobody promises not to do, and what is looked at then: `--hostile KIND`.
  HOSTILE = {
    "urgent" => "urgent bytes in what comes by TCP, for copy_stream, tee_stream and relay",
    "urgent_calls" => "the same for splice, full and partial",
    "errors" => "sockets with an error queue that nobody reads",
    "stalls" => "ends at which nothing moves, whatever poll(2) says: timeouts come all the same",
    "shared" => "several writers of one open file, in threads and in a child process",
    "portions" => "several readers of one open file",
    "ends" => "the modes and the POSIX locks of the ends, which nothing changes",
    "peers" => "a hundred peers that reset, stall or send urgent bytes, beside as many good ones in the background",
    "child" => "what a forked child has of the gem's",
    "fuse" => "files that are slow, and at times stuck (this takes root)",
  }.freeze

  class << self
    attr_writer :hostile, :forks

    def hostile?(kind) = @hostile.include?(kind)

    # Whether an operation in a thread may fork.
    def forks? = @forks

    def streams
      [*STREAMS, *(:urgent if hostile?("urgent") || hostile?("urgent_calls")), *(:errors if hostile?("errors"))]
    end
  end

  # Sends a stream by TCP with something urgent in it, which read(2) passes over, or delivers at its place.
  class UrgentWriter
    # Either one byte comes besides, at the start, in the middle or at the end; or, with SO_OOBINLINE, several bytes of
    # the stream itself are urgent.
    def initialize(reader, writer, size, random)
      @writer = writer
      @inline = size.positive? && random.rand(2).zero?
      reader.setsockopt(:SOCKET, :OOBINLINE, @inline)
      last = @inline ? size - 1 : size
      @places = Array.new(@inline ? random.rand(1..4) : 1) { [0, last, random.rand(0..last)].sample(random:) }.uniq.sort
    end

    # What stands at that place of the stream.
    def write(bytes, at)
      from = at
      while (place = due(at, at + bytes.bytesize))
        @writer.write(bytes.byteslice(from - at, place - from)) if place > from
        @writer.send(@inline ? bytes.byteslice(place - at, 1) : "!", Socket::MSG_OOB)
        from = @inline ? place + 1 : place
      end
      @writer.write(bytes.byteslice((from - at)..))
    end

    private

    def due(from, to)
      place = @places.first
      @places.shift if place && place >= from && (@inline ? place < to : place <= to)
    end
  end

  module_function

  # Locks the whole of a file, as databases do. The lock goes when any descriptor of the file is closed in this process.
  def lock(file)
    file.fcntl(Fcntl::F_SETLK, [Fcntl::F_WRLCK, IO::SEEK_SET, 0, 0, 0].pack("ssx4qqix4")) if hostile?("ends")
    file
  end

  # Of each end that is open: whether it is in blocking mode, and whether this process has a lock on it.
  def conditions(ends)
    return {} unless hostile?("ends")

    locks = File.readlines("/proc/locks").map(&:split)
    ends.grep(IO).filter_map do |io|
      [io, [io.fcntl(Fcntl::F_GETFL) & (File::NONBLOCK | File::APPEND), locks.any? { |lock| of?(lock, io.stat) }]]
    rescue IOError # closed
      nil
    end.to_h
  end

  # Whether a line of /proc/locks tells of a lock that this process has on a file.
  def of?(lock, stat)
    place = [stat.dev_major, stat.dev_minor].map { |number| number.to_s(16).rjust(2, "0") }.push(stat.ino).join(":")
    lock.include?("POSIX") && lock.include?(place) && lock.include?(Process.pid.to_s)
  end

  # Pipes of which both ends are open here and belong to no IO: those of the gem. (Of one that somebody closes just now
  # there is an end, too.)
  def pipes_of_nobody
    owned = ObjectSpace.each_object(IO).filter_map do |io|
      io.fileno
    rescue IOError # closed, or not initialized yet
      nil
    end
    links = (Dir.children("/proc/self/fd").map(&:to_i) - owned).filter_map do |number|
      File.readlink("/proc/self/fd/#{number}")
    rescue Errno::ENOENT
      nil
    end
    links.grep(/\Apipe:/).tally.select { |_, ends| ends > 1 }.keys
  end

  SO_TIMESTAMPING = 37
  # SOF_TIMESTAMPING_TX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE, SOF_TIMESTAMPING_OPT_TSONLY
  TIME_STAMPS = (1 << 1) | (1 << 4) | (1 << 11)

  # From here on poll(2) says POLLERR for the near one: it has been told when its byte was sent.
  def fill_error_queue(near, far)
    near.setsockopt(Socket::SOL_SOCKET, SO_TIMESTAMPING, TIME_STAMPS)
    near.syswrite("x")
    far.readpartial(1)
  end
end
