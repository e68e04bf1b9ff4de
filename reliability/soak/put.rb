# frozen_string_literal: true

module Soak
  # A stream is put into a pipe from memory of all kinds, which is changed afterwards, and goes on from there.
  class Put < Operation
    GIFT = IO::Splice::F_GIFT
    MAPPED = IO::Buffer::MAPPED

    private

    def operate(way)
      @way = { raise: :counted, timeout: :counted, throw: :none, close_source: :close_target }.fetch(way, way)
      @way = :none if @way == :counted && !tasks.disturbances.include?(:counted)
      @stream = stream
      @gifts = []
      make_pipe
      @moved = 0
      @interruptions = random.rand(1..5)
      step until @moved.nil? || @ended || @moved == @stream.bytesize
      check
    ensure
      @gifts.each { |gift, _| gift.free unless gift.null? }
    end

    # Half of the time the bytes are spliced on, so that they arrive later than they leave.
    def make_pipe
      leave_after = random.rand(0..@stream.bytesize) if @way == :reset
      @target = target(one_of(PIPES), leave_after:) if leave_after || chance(2)
      return @io = @target.io if @target

      reader, @io = Soak.pair(one_of(PIPES), random)
      @ends.push(reader, @io)
      @target = target(one_of([*streams, :file]))
      @passing = tasks.go { IO::Splice.copy_stream(reader, @target.io) }
    end

    def step
      parts = cut(@stream.byteslice(@moved, random.rand(1..1_000_000)))
      data = parts.map(&:first)
      gift = data.any?(IO::Buffer) && data.grep(IO::Buffer).all? { |buffer| @gifts.any? { |it, _| it.equal?(buffer) } }
      flags = (gift ? GIFT : 0) | (chance(5) ? IO::Splice::F_NONBLOCK : 0)
      data = data.first if data.size == 1
      way = @interruptions.positive? || @way.match?(/close|reset/) ? @way : :none
      doing("#{@stream.bytesize} bytes, #{@moved} in; vmsplice of #{parts.map do |part, bytes|
                                                                      [part.class, bytes.bytesize]
                                                                    end}, " \
            "flags #{flags}, #{way}")
      io = chance(4) && way != :close_target ? @io.fileno : @io
      @io.timeout = 0.0005 * random.rand(1..20) if way == :io_timeout
      outcome = call("vmsplice", way, -> { @io.close }) do
        IO.vmsplice(io, data, flags)
      rescue Errno::EAGAIN
        flags.anybits?(IO::Splice::F_NONBLOCK) ? 0 : raise
      end
      account(outcome, way, parts, flags)
    end

    # Into parts, each with its bytes.
    def cut(bytes)
      pool = one_of([%i[string], %i[pages], %i[buffer], %i[gift], %i[string pages buffer], %i[string pages gift]])
      count = random.rand(1..8)
      cuts = [0, bytes.bytesize, *Array.new(count - 1) { random.rand(0..bytes.bytesize) }].sort
      cuts.each_cons(2).filter_map do |from, to|
        part = bytes.byteslice(from, to - from)
        [send(:"#{one_of(pool)}_of", part), part] unless from == to
      end
    end

    def string_of(bytes) = +bytes.b

    def pages_of(bytes)
      return IO::Splice::Pages.new(bytes) if chance(2)

      IO::Splice::Pages.new("<#{bytes}>".b).slice(1, bytes.bytesize)
    end

    def buffer_of(bytes)
      IO::Buffer.new(bytes.bytesize).tap { |buffer| buffer.set_string(bytes) }
    end

    def gift_of(bytes)
      buffer = IO::Buffer.new(bytes.bytesize, MAPPED)
      buffer.set_string(bytes)
      @gifts << [buffer, bytes]
      buffer
    end

    def account(outcome, way, parts, flags)
      expect(outcome, way)
      put = put_in(outcome)
      @interruptions -= 1 if outcome.kind != :value
      total = parts.sum { |_, bytes| bytes.bytesize }
      equal(total, put, "put in") if outcome.kind == :value && flags.nobits?(IO::Splice::F_NONBLOCK)
      gifts_given(parts, put) if flags.anybits?(GIFT) && put
      parts.each { |part, _| spoil(part) }
      @moved = put && (@moved + put)
      @ended = outcome.kind != :value && %i[close_target reset].include?(way)
      sleep(0.0005) if put&.zero?
    ensure
      @io.timeout = nil if way == :io_timeout
    end

    def put_in(outcome)
      return outcome.result if outcome.kind == :value
      return outcome.error.bytes_written if outcome.error.is_a?(IO::Splice::PartialWrite)

      outcome.counted || (outcome.kind == :gone && @way == :counted) ? 0 : nil
    end

    # Those of which all is in are empty, the others are what they were.
    def gifts_given(parts, put)
      parts.each do |part, bytes|
        if part.is_a?(IO::Buffer)
          if put >= bytes.bytesize
            raise Wrong, "a buffer that was given away is still there" unless part.null?
          else
            raise Wrong, "a buffer of which #{put} bytes went in is gone" if part.null?

            same(bytes, part.get_string, "a buffer of which #{put} of #{bytes.bytesize} bytes went in")
          end
        end
        put = [put - bytes.bytesize, 0].max
      end
    end

    # What is in the pipe does not notice.
    def spoil(part)
      case part
      when String then part.replace("Z" * part.bytesize)
      when IO::Buffer
        part.set_string("Z" * part.size) unless part.null?
        part.free unless part.null?
      end
    end

    def check
      @io.close
      passed = tasks.value_of(@passing) if @passing
      arrived = @target.arrived
      prefix(@stream, arrived, "what has come")
      equal(@moved, arrived.bytesize, "put in") if @moved && !@target.left?
      equal(passed, arrived.bytesize, "passed on") if passed
    ensure
      @target.finish
    end
  end
end
