# frozen_string_literal: true

require "fcntl"
require "stringio"
require_relative "../support/ends"
require_relative "states"

module Fuzz
  # Recipes for what has a descriptor. All of it is made for one case, and closed after it.
  module Ends
    F_DUPFD_CLOEXEC = 1030 # which the older Rubies do not know
    NUMBERS = 400 # where raw descriptors begin, so that the kernel gives none of their numbers to anything else
    WORDS = "content, and a second line\nof it"

    def make_reader(state = "empty", number = 0) = pipe(state, number).first

    def make_writer(state = "empty", number = 0) = pipe(state, number).last

    def pipe(state, number)
      @made[[:pipe, state, number]] ||= ready(state, *IO.pipe)
    end

    # A FIFO that is open for both.
    def make_fifo(state = "empty", number = 0)
      return own(File.open("fifo", File::RDWR | File::NONBLOCK)) unless States::ALL.key?(state)

      name = "fifo-#{state}-#{number}" # what one has put in is in the way of another
      File.mkfifo(name) unless File.exist?(name)
      fifo = File.open(name, File::RDWR | File::NONBLOCK | File::BINARY).tap { |file| file.sync = true }
      ready(%w[data full blocking].include?(state) ? state : "empty", fifo, fifo).first
    end

    def make_socket(type = "UNIX", state = "empty", number = 0) = pair(type, state, number).first

    def make_peer(type = "UNIX", state = "empty", number = 0) = pair(type, state, number).last

    def pair(type, state, number)
      @made[[:pair, type, state, number]] ||= ready(state, *::Ends.pair(type.downcase))
    end

    def ready(state, reader, writer)
      own(reader)
      own(writer)
      States::ALL.fetch(state).call(reader, writer)
      [reader, writer]
    end

    # Sockets that nothing can go through.
    def make_idle_socket(kind, number = 0)
      socket = own(Socket.new(number.odd? ? :UNIX : :INET, kind == "DGRAM" ? :DGRAM : :STREAM, 0))
      if kind == "LISTENING"
        socket.bind(number.odd? ? Addrinfo.unix("listening#{@ios.size}") : Addrinfo.tcp("127.0.0.1", 0))
        socket.listen(1)
        File.unlink("listening#{@ios.size}") if number.odd?
      end
      socket
    end

    FILES = {
      "r" => %w[read rb], "rt" => ["read", "r:UTF-16LE:UTF-8"], "large" => %w[large rb], "r+" => ["both", "r+b"],
      "empty" => %w[nothing rb], "w" => %w[written wb], "a" => %w[log ab], "a+" => ["log", "a+b"],
      "dir" => [".", "r"], "direct" => ["read", 0o40000], "O_PATH" => ["read", 0o10000000],
      "null" => ["/dev/null", "r+"], "zero" => ["/dev/zero", "r+"], "full" => ["/dev/full", "r+"],
      "urandom" => ["/dev/urandom", "r"], "status" => ["/proc/self/status", "r"], "maps" => ["/proc/self/maps", "r"],
      "mem" => ["/proc/self/mem", "r"], "fd" => ["/proc/self/fd", "r"], "sys" => ["/sys/kernel/mm/ksm/run", "r"]
    }.freeze

    def make_file(kind, _number = 0)
      path, mode = FILES.fetch(kind)
      own(File.open(path, mode))
    end

    def make_ahead_file(bytes)
      own(File.open("large", "rb")).tap { |file| file.read(bytes) }
    end

    def make_far_file(position)
      own(File.open("both", "r+b")).tap { |file| file.seek(position) }
    end

    def make_tty(side, state = "empty")
      master, slave = @made[[:tty, state]] ||= ::Ends.terminal.each { |io| own(io) }
      state == "data" && master.syswrite("typed\n")
      side == "master" ? master : slave
    end

    def make_popen = own(IO.popen("cat", "r+"))

    def make_closed(end_) = make(end_).tap { |io| close(io) if io.respond_to?(:close) }

    # What is stuck would have to write first.
    def make_half_closed(end_, half)
      io = make(end_)
      end_.include?("stuck") ? close(io) : io.public_send("close_#{half}")
      io
    end

    # A number of its own, because the callee may close it.
    def make_number(end_)
      io = make(end_)
      number = io.fcntl(F_DUPFD_CLOEXEC, NUMBERS)
      @numbers << number
      number
    end

    def make_for_fd(end_)
      io = own(IO.for_fd(make_number(end_)))
      @numbers.pop
      io
    end

    def make_subclass(end_)
      (@subclass = Class.new(IO) { def to_io = self }) unless @subclass
      number = make_number(end_)
      @numbers.pop
      own(@subclass.for_fd(number))
    end

    def make_allocated(name) = Object.const_get(name).allocate

    def make_standard(name) = { "in" => $stdin, "out" => $stdout }.fetch(name)

    def make_dir = own(Dir.new("."))

    def make_tempfile = own(Tempfile.new("fuzz", "."))
  end
end
