# frozen_string_literal: true

module Bench
  # The least that a fiber scheduler can be.
  class Scheduler
    def initialize
      @readable = {}
      @writable = {}
    end

    def run
      until @readable.empty? && @writable.empty?
        IO.select(@readable.keys, @writable.keys).first(2).zip([@readable, @writable]) do |ios, waiting|
          ios.filter_map { |io| waiting.delete(io) }.each(&:resume)
        end
      end
    end
    alias close run

    def io_wait(io, events, _timeout)
      @readable[io] = Fiber.current if events.anybits?(IO::READABLE)
      @writable[io] = Fiber.current if events.anybits?(IO::WRITABLE)
      Fiber.yield
      [@readable, @writable].each { |waiting| waiting.delete(io) }
      events
    end

    def kernel_sleep(*) = nil
    def block(*) = raise("nothing here blocks")
    def unblock(*) = nil

    def fiber(&)
      Fiber.new(blocking: false, &).tap(&:resume)
    end
  end
end
