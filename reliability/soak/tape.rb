# frozen_string_literal: true

module Soak
  # Something is not as the contract has it.
  Wrong = Class.new(StandardError)

  # The bytes of all streams are cut from one tape. Each of its words is there once, so eight bytes tell which stream
  # they are of and where they stood in it.
  class Tape
    WORDS = 1 << 22
    SIZE = WORDS * 8
    MASK = (1 << 64) - 1
    FACTOR = 0x9E37_79B9_7F4A_7C15
    INVERSE = FACTOR.pow(-1 % (1 << 63), 1 << 64)
    KEPT = 4096

    def initialize
      @bytes = String.new(capacity: SIZE).b
      (0...WORDS).each_slice(65_536) do |words|
        @bytes << words.map { |word| (word * FACTOR) & MASK }.pack("Q>*")
      end
      @bytes.freeze
      @lock = Thread::Mutex.new
      @streams = []
      @next = 0
    end

    # The bytes of a stream that nobody else has.
    def cut(size, name)
      @lock.synchronize do
        @next = 0 if @next + size > SIZE
        @streams << [@next, size, name]
        @streams.shift if @streams.size > KEPT
        @bytes.byteslice(@next, size).tap { @next += (size + 7) / 8 * 8 }
      end
    end

    # In words, what is wrong with the bytes that came.
    def difference(expected, actual)
      at = first_difference(expected, actual)
      sizes = "#{actual.bytesize} bytes instead of #{expected.bytesize}, right up to #{at}"
      "#{sizes}: #{kind(expected, actual, at)}"
    end

    # By halves, since these are megabytes.
    def first_difference(expected, actual)
      low = 0
      high = [expected.bytesize, actual.bytesize].min
      while low < high
        middle = (low + high + 1) / 2
        expected.byteslice(low, middle - low) == actual.byteslice(low, middle - low) ? low = middle : high = middle - 1
      end
      low
    end

    private

    def kind(expected, actual, at)
      return "LOST, the last #{expected.bytesize - at} bytes" if at == actual.bytesize

      sample = actual.byteslice(at, 16)
      place = expected.index(sample)
      behind = actual.byteslice(at + 8, 16)
      return "CHANGED" if behind&.bytesize == 16 && behind == expected.byteslice(at + 8, 16)

      return foreign(actual, at) unless place && sample.bytesize >= 8
      return "REPEATED, #{place} to #{at} come again" if place < at

      later = actual.index(expected.byteslice(at, 16), at)
      later ? "REORDERED, #{at} to #{place} come at #{later}" : "LOST, #{at} to #{place}"
    end

    def foreign(actual, at)
      bytes = actual.byteslice(at, 24)
      (0..[bytes.bytesize - 8, 7].min).each do |shift|
        word = (bytes.byteslice(shift, 8).unpack1("Q>") * INVERSE) & MASK
        next unless word < WORDS

        place = (word * 8) - shift
        start, _, name = @streams.reverse.find { |from, size,| (from..(from + size)).cover?(place) }
        return "FOREIGN, of stream #{name} from #{place - start} on" if name
      end
      "FOREIGN, of no stream: #{bytes.unpack1("H*")}"
    end
  end
end
