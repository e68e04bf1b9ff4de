# frozen_string_literal: true

module Fuzz
  # The descriptors of this process: which are there, and whose they are.
  class Descriptors
    POOL = 8 # the gem keeps four empty pipes for the next copies

    def initialize
      @before = now
      @pool = {} # by number
      @identities = identities(@before)
    end

    # While the arguments of a case are still there: whether all that Ruby takes to be open is.
    def closed_by_others(builder)
      builder.ios.filter_map do |io|
        next if !(io in IO) || io.closed?

        io.fcntl(Fcntl::F_GETFD)
        nil
      rescue Errno::EBADF
        "the descriptor of #{io.class} #{io.fileno} was closed behind Ruby's back"
      rescue IOError
        nil
      end
    end

    # After a case is over. An interrupt while Ruby's File.open opens a file makes Ruby 3.1 forget the descriptor.
    def complaints(interrupted)
      open = now
      @pool.keep_if { |number, pipe| target(number) == pipe }
      return missing(open) if (open - @before - @pool.keys).empty?

      GC.start
      left_open(interrupted).map { |target| "a descriptor was left open: #{target}" } + missing(now)
    end

    # Whether those that were there before any case are still the same files.
    def identity_complaints
      now = identities(@identities.keys)
      changed = @identities.reject { |number, identity| now[number] == identity }
      changed.map { |number, identity| "the descriptor #{number} was #{identity}" }
    end

    private

    def now
      Dir.children("/proc/self/fd").map(&:to_i).select { |number| File.symlink?("/proc/self/fd/#{number}") }
    end

    def left_open(interrupted)
      left = (now - @before - @pool.keys).reject { |number| of_pool?(number) }
      @before |= left # so that it is told once
      left.map { |number| target(number) }.reject { |target| interrupted && target.start_with?("/") }
    end

    def missing(open)
      gone = @identities.keys - open
      gone.map { |number| "a descriptor of others was closed: #{@identities.delete(number)}" }
    end

    def of_pool?(number)
      pipe = target(number)
      @pool[number] = pipe if @pool.size < POOL && pipe.start_with?("pipe:")
    end

    def identities(numbers) = numbers.to_h { |number| [number, target(number)] }

    def target(number)
      File.readlink("/proc/self/fd/#{number}")
    rescue Errno::ENOENT
      "closed"
    end
  end
end
