# frozen_string_literal: true

require "stringio"

# Objects with the methods that a copy calls, and no more.
module Objects
  # Gives bytes in pieces of its own size, as the block makes them if there is one. What comes back goes first.
  class Reader
    attr_reader :rest, :asked

    def initialize(bytes, piece = nil, &make)
      @rest = bytes.dup
      @piece = piece
      @make = make
      @asked = []
    end

    def readpartial(most, buffer)
      @asked << most
      raise EOFError, "end" if @rest.empty?

      piece = @rest.slice!(0, @piece || most)
      @make ? @make.call(piece, buffer) : buffer.replace(piece)
    end

    def ungetbyte(bytes)
      @rest = bytes + @rest
    end
  end

  # Takes what the block says of each piece, or all, and keeps it as it is then and the String itself.
  class Writer
    attr_reader :taken, :kept

    def initialize(&take)
      @take = take
      @taken = "".b
      @kept = []
    end

    def write(bytes)
      @kept << bytes
      count = @take ? @take.call(bytes) : bytes.bytesize
      @taken << bytes.byteslice(0, [count, bytes.bytesize].min) if count.is_a?(Integer) && count.positive?
      count
    end
  end

  SIZES = [0, 1, 10, 100, 5000, 20_000, 32_768, 65_536, 200_000].freeze

  private

  OBJECTS = %i[stringio object pieces].freeze
  SOURCES = [*OBJECTS, :file, :pipe, :read_ahead].freeze

  # A source of each kind, and what is left in it.
  def sources(bytes, kinds = SOURCES)
    kinds.each do |kind|
      source = source_of(kind, bytes)
      yield kind, source, -> { rest(source) }
    end
  end

  def source_of(kind, bytes)
    case kind
    when :stringio then StringIO.new(bytes)
    when :object then Reader.new(bytes)
    when :pieces then Reader.new(bytes, 777)
    when :file then tempfile(bytes)
    when :pipe then fed(*pipe, bytes)
    # Ruby has read the beginning ahead.
    when :read_ahead then fed(*pipe, "line\n#{bytes}").tap(&:gets)
    end
  end

  def rest(source) = source.respond_to?(:rest) ? source.rest : guarded { source.read.b }
end
