# frozen_string_literal: true

begin
  require "fiddle"
rescue LoadError
  nil # Ruby 4 may come without it
end

module Fuzz
  # Descriptors of files that only the C library makes.
  module Specials
    CALLS = {
      "eventfd" => [3, 0o2004000], "semaphore" => [3, 0o2004001], "epoll_create1" => [0o2000000],
      "inotify_init1" => [0o2004000], "timerfd_create" => [1, 0o2004000], "memfd_create" => ["fuzz", 1],
      "pidfd_open" => [Process.pid, 0]
    }.freeze
    NAMES = [*CALLS.keys, "signalfd"].freeze

    def make_special(name)
      number = defined?(Fiddle) ? Specials.number(name) : -1
      own(number.negative? ? File.open("/dev/null", "r+") : IO.for_fd(number))
    end

    def self.number(name)
      return function("signalfd", 3).call(-1, "\0" * 128, 0o2004000) if name == "signalfd"

      args = CALLS.fetch(name)
      function(name == "semaphore" ? "eventfd" : name, args.size, text: args.first.is_a?(String)).call(*args)
    rescue Fiddle::DLError
      -1
    end

    def self.dup2(from, onto)
      defined?(Fiddle) && function("dup2", 2).call(from.fileno, onto.fileno)
    end

    def self.function(name, count, text: false)
      @functions ||= {}
      @functions[name] ||= begin
        types = [Fiddle::TYPE_INT] * count
        types[0] = Fiddle::TYPE_VOIDP if text
        types[1] = Fiddle::TYPE_VOIDP if name == "signalfd"
        Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], types, Fiddle::TYPE_INT)
      end
    end
    private_class_method :function
  end
end
