# frozen_string_literal: true

module Soak
  # A stream in a pipe is duplicated into another and spliced on, piece by piece, as the README does it.
  class Tee < Operation
    private

    def operate(way)
      # What may come when the call has just returned, or close what is still to be used, is for others.
      @way = %i[none counted kill io_timeout].include?(way) ? way : { raise: :counted }.fetch(way, :none)
      whole = stream
      @source = source(one_of(PIPES), whole)
      @copy = target(one_of(PIPES))
      @target = target(one_of([*streams, :file]))
      @interruptions = random.rand(0..5)
      doing("#{whole.bytesize} bytes, #{@way}")
      known = catch(:unknown) { pass_on }
      check(whole, known)
    end

    # Returns how many bytes have been passed on, with a `:killed` if that is not known.
    def pass_on
      @moved = 0
      while (left = duplicated)
        left -= spliced(left) while left.positive?
        sleep(random.rand * 0.001) if chance(10)
      end
      @moved
    end

    def way
      (@interruptions -= 1).positive? ? @way : :none
    end

    # nil at the end.
    def duplicated
      len = random.rand(1..200_000)
      input = number_or_io(@source, @way)
      output = number_or_io(@copy, @way)
      try = chance(4)
      io_timeout(way = self.way, @source, @copy)
      outcome = call(try ? "trytee" : "tee", way) { try ? IO.trytee(input, output, len) : IO.tee(input, output, len) }
      no_io_timeout(@source, @copy)
      return nil if outcome.error.is_a?(EOFError) || (outcome.result.nil? && outcome.kind == :value)
      return wait if outcome.result == :EAGAIN

      known(outcome, way)
    end

    def wait
      sleep(0.0005)
      0
    end

    def spliced(len)
      flags = one_of([0, IO::Splice::WAITALL])
      input = number_or_io(@source, @way)
      output = number_or_io(@target, @way)
      io_timeout(way = self.way, @source, @target)
      outcome = call("splice", way) { IO.splice(input, nil, output, nil, len, flags) }
      no_io_timeout(@source, @target)
      known(outcome, way).tap { |bytes| @moved += bytes }
    end

    def known(outcome, way)
      expect(outcome, way)
      throw :unknown if outcome.kind == :gone && way == :kill
      return outcome.result || 0 unless outcome.error

      outcome.error.is_a?(IO::Splice::PartialWrite) ? outcome.error.bytes_written : 0
    end

    def check(whole, known)
      spliced = @target.arrived
      duplicated = @copy.arrived
      prefix(whole, duplicated, "what was duplicated")
      same(whole, spliced + @source.left, "what was spliced (#{spliced.bytesize}) and what is left")
      return unless known

      equal(known, spliced.bytesize, "spliced")
      equal(known, duplicated.bytesize, "duplicated")
    ensure
      [@source, @copy, @target].each(&:finish)
    end
  end

  # With WAITALL `tee` begins again when it has come to the end of what is there, or of the room.
  class TeeAll < Operation
    MARK = 16

    private

    def operate(way)
      way = :none unless way == :counted
      content = @tape.cut(random.rand(MARK..50_000), "tee_all")
      reader, writer = Soak.pair(:pipe, random)
      writer.pipe_size = 1 << 16 if writer.pipe_size < 1 << 16
      @ends.push(reader, writer)
      writer.write(content)
      target = target(:pipe)
      len = random.rand(0..1_000_000)
      doing("#{len} bytes of #{content.bytesize}, #{way}")
      outcome = call("tee WAITALL", way) { IO.tee(reader, target.io, len, IO::Splice::WAITALL) }
      expect(outcome, way)
      check(content, outcome, len, reader, writer, target)
    ensure
      target&.finish
    end

    def check(content, outcome, len, reader, writer, target)
      bytes = outcome.error.is_a?(IO::Splice::PartialWrite) ? outcome.error.bytes_written : outcome.result || 0
      equal(len, bytes, "duplicated") if outcome.kind == :value
      arrived = target.arrived
      equal(bytes, arrived.bytesize, "duplicated")
      pieces(arrived, content.byteslice(0, MARK)).each { |piece| begins(content, piece) }
      writer.close
      same(content, reader.read, "what was not consumed")
    end

    def pieces(arrived, mark)
      starts = [0]
      while (start = arrived.index(mark, starts.last + 1))
        starts << start
      end
      [*starts, arrived.bytesize].each_cons(2).map { |from, to| arrived.byteslice(from, to - from) }
    end

    # A last piece that is shorter than a mark has not been cut off.
    def begins(content, piece)
      return @statistics.checked(piece.bytesize) if content.start_with?(piece)

      cut = (1...MARK).find { |last| content.start_with?(piece[...-last]) && content.start_with?(piece[-last..]) }
      prefix(content, piece, "what was duplicated") unless cut
    end
  end
end
