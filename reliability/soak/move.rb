# frozen_string_literal: true

module Soak
  # One stream goes from a source to a target by any number of calls of all kinds. Calls are disturbed; afterwards what
  # has come and what is left are together the stream, and the counts are right.
  class Move < Operation
    MOST_CALLS = 40
    EXACT = %w[copy_stream full].freeze
    COPIES = %w[copy_stream core_copy_stream].freeze
    WAITALL = IO::Splice::WAITALL

    private

    def operate(way)
      @way = way
      @stream = stream
      make_ends
      @moved = @before
      @ended = false
      @interruptions = random.rand(1..4)
      (1..MOST_CALLS).each do |number|
        break if @ended

        step(number)
      end
      check
    end

    def make_ends
      from = one_of([*streams, :file])
      to = one_of(target_kinds)
      @before = written_before(to)
      leave_after = random.rand(0..@stream.bytesize) if @way == :reset
      @target = target(to, before: @stream.byteslice(0, @before), leave_after:)
      @source = source(from, @stream.byteslice(@before..), ahead: chance(6))
    end

    def target_kinds = [*streams, :file, :append]

    # What is in Ruby's write buffer when an IO is closed from another thread is lost by that.
    def written_before(kind)
      return 0 if Target::OBJECTS.include?(kind) || !%i[none counted].include?(@way) || !chance(3)

      [random.rand(0..5000), @stream.bytesize].min
    end

    def step(number)
      way = @interruptions.positive? || @way.to_s.match?(/close|reset/) ? @way : :none
      name, len, call = choose(number)
      io_timeout(way, @source, @target)
      doing("#{@source.stream.bytesize} bytes of #{@stream.bytesize} from #{@source.kind} to #{@target.kind}, " \
            "call #{number}: #{name} of #{len.inspect}, #{way}, #{@moved.inspect} moved")
      outcome = call(name, way, close(way), &call)
      no_io_timeout(@source, @target)
      account(name, len, outcome, way)
      @source.may_be_ahead! if COPIES.include?(name) && outcome.kind != :value
      @interruptions -= 1 if outcome.kind != :value
    end

    def close(way)
      case way
      when :close_source then -> { @source.io.close }
      when :close_target then -> { @target.io.close unless @target.object? }
      end
    end

    def choose(number)
      spliced = (@source.pipe? || @target.pipe?) && !@target.append? && !@target.object? && !@source.ahead?
      spliced = Soak.hostile?("urgent_calls") if spliced && @source.kind == :urgent
      return copy if !spliced || number == MOST_CALLS || chance(4)

      case random.rand(5)
      when 0 then splice(0)
      when 1 then splice(WAITALL)
      when 2 then try
      when 3 then partial
      else full
      end
    end

    def length = [random.rand(1..5000), random.rand(1..100_000), random.rand(1..2_000_000)].sample(random:)

    def from = number_or_io(@source, @way)
    def to = @target.object? ? @target.io : number_or_io(@target, @way)

    # A number has no place for what cannot be delivered.
    def copied_from = @way == :none || @source.file? ? from : @source.io

    def rest = @moved && (@stream.bytesize - @moved)

    def copy
      return core_copy if Soak.core_ext? && !@target.object? && chance(3)

      len = random.rand(0..rest + random.rand(2)) if rest && chance(2)
      input = copied_from
      output = to
      return ["copy_stream", len, -> { IO::Splice.copy_stream(input, output, len) }] if chance(2)

      so_far = -1
      ["copy_stream", len, lambda do
        moved = IO::Splice.copy_stream(input, output, len) do |bytes|
          raise Wrong, "the count goes from #{so_far} to #{bytes}" if bytes < so_far

          so_far = bytes
        end
        raise Wrong, "the last count is #{so_far}, the result #{moved}" if moved != so_far

        moved
      end]
    end

    def core_copy
      len = random.rand(0..rest + 10) if rest && chance(2)
      input = @source.io
      output = @target.io
      ["core_copy_stream", len, -> { IO.copy_stream(input, output, len) }]
    end

    def splice(flags)
      len = length
      input = from
      output = to
      flags |= one_of([0, IO::Splice::F_MOVE, IO::Splice::F_NONBLOCK])
      ["splice", len, lambda do
        IO.splice(input, nil, output, nil, len, flags)
      rescue Errno::EAGAIN
        flags.anybits?(IO::Splice::F_NONBLOCK) ? 0 : raise
      rescue EOFError => e
        raise if e.is_a?(IO::Splice::PartialWrite)
      end]
    end

    def try
      len = length
      input = from
      output = to
      flags = one_of([0, WAITALL])
      ["trysplice", len, lambda do
        moved = IO.trysplice(input, nil, output, nil, len, flags)
        moved == :EAGAIN ? 0 : moved
      end]
    end

    def partial
      len = length
      input = from
      output = to
      ["partial", len, -> { IO::Splice.partial(input, output, len) }]
    end

    def full
      len = rest ? random.rand(0..rest + random.rand(2)) : length
      input = from
      output = to
      ["full", len, -> { IO::Splice.full(input, output, len) }]
    end

    def account(name, len, outcome, way)
      moved = outcome.value
      case outcome.kind
      when :value then moved.nil? ? ended : moved_on(name, len, moved)
      when :error then failed(name, len, outcome, way)
      else @moved = nil
      end
      compare
      @ended = true if @source.io.closed? || (!@target.object? && @target.io.closed?)
      sleep(0.0005) if moved == 0 # rubocop:disable Style/NumericPredicate -- it may be an exception
    end

    def moved_on(name, len, bytes)
      raise Wrong, "#{name} says #{bytes} of #{len}" if len && (bytes > len || (EXACT.include?(name) && bytes < len))

      @moved &&= @moved + bytes
      ended if len.nil? || (name == "core_copy_stream" && bytes < len)
    end

    def ended
      @ended = true
      equal(@stream.bytesize, @moved, "moved at the end of the input") if @moved && @way != :close_source
    end

    def failed(name, len, outcome, way)
      error = outcome.error
      if error.is_a?(EOFError)
        raise error if len.nil? || (rest && rest >= len)

        @moved &&= @stream.bytesize
        return ended
      end
      expect(outcome, way)
      count(name, outcome)
      @ended = true if way == :reset
    end

    def count(name, outcome)
      bytes = outcome.error.is_a?(IO::Splice::PartialWrite) ? outcome.error.bytes_written : 0
      known = outcome.counted && !COPIES.include?(name)
      @moved = known && @moved ? @moved + bytes : nil
    end

    # A file tells by its position.
    def compare
      taken = @source.taken
      come = @target.come
      taken += @before if taken
      equal(@moved, taken, "the source's position") if @moved && taken
      equal(@moved, come, "the target's size") if @moved && come && @before.zero?
      @moved = taken || (come if @before.zero?) if @moved.nil?
    end

    def check
      arrived = @target.arrived
      prefix(@stream, arrived, "what has come")
      check_rest(arrived) unless @source.io.closed?
      equal(@moved, arrived.bytesize, "what has come") if @moved && !@target.left?
    ensure
      @source.finish
      @target.finish
    end

    def check_rest(arrived)
      left = @source.left
      return same(@stream, arrived + left, "what has come (#{arrived.bytesize}) and what is left") unless @target.left?

      start = @stream.bytesize - left.bytesize
      raise Wrong, "#{start} bytes are gone, and #{arrived.bytesize} had come" if start < arrived.bytesize

      same(@stream.byteslice(start..), left, "what is left")
      equal(@moved, start, "what has been taken") if @moved
    end
  end

  # The like, to objects that are written to.
  class MoveToObject < Move
    private

    # See FanOut#make_targets.
    def operate(way) = super(way == :handler ? :none : way)

    def target_kinds = Target::OBJECTS
  end
end
