# frozen_string_literal: true

module Soak
  # Parts of a file go by their offsets, in any order, and no position moves.
  class Offsets < Operation
    private

    def operate(_way)
      stream = self.stream
      input = Ends.file(stream)
      output = Ends.file
      @ends.push(input, output, *(pipe = Soak.pair(:pipe, random)))
      positions = [input, output].map { |file| file.pos = random.rand(0..stream.bytesize) }
      parts(stream.bytesize).each { |at, size| move(input, output, pipe, at, size) }
      equal(positions, [input.pos, output.pos], "positions")
      output.rewind
      same(stream, output.read, "the file")
      copy_part(input, stream)
      equal(positions.first, input.pos, "the position after a copy from an offset")
    end

    def parts(size)
      cuts = [0, size, *Array.new(random.rand(6)) { random.rand(0..size) }].sort
      cuts.each_cons(2).map { |from, to| [from, to - from] }.shuffle(random:)
    end

    def move(input, output, (reader, writer), at, size)
      doing("#{size} bytes at #{at}")
      filler = tasks.go { fill(input, writer, at, size) }
      to = at
      while to < at + size
        outcome = call("splice off_out", :none) { IO.splice(reader, nil, output, to, at + size - to) }
        raise outcome.error if outcome.error

        to += outcome.value
      end
      equal(size, tasks.value_of(filler), "spliced from an offset")
    end

    def fill(input, writer, at, size)
      moved = 0
      return IO::Splice.full(input, writer, size, at) if size.even?

      moved += IO.splice(input, at + moved, writer, nil, size - moved) while moved < size
      moved
    end

    def copy_part(input, stream)
      at = random.rand(0..stream.bytesize)
      len = random.rand(0..stream.bytesize - at)
      way = tasks.disturbances.sample(random:)
      way = :none if way == :io_timeout
      target = target(one_of([*streams, :file, :append]), leave_after: (random.rand(0..len) if way == :reset))
      doing("copy_stream of #{len} bytes at #{at} to #{target.kind}, #{way}")
      way = :none if way == :close_source
      outcome = call("copy_stream src_offset", way, -> { target.io.close }) do
        IO::Splice.copy_stream(input, target.io, len, at)
      end
      expect(outcome, way)
      arrived = target.arrived
      prefix(stream.byteslice(at, len), arrived, "what has come")
      equal(len, arrived.bytesize, "copied") if outcome.kind == :value && !target.left?
    ensure
      target&.finish
    end
  end
end
