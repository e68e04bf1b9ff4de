# frozen_string_literal: true

require "pathname"
require "stringio"
require "support/copy_ends"

# What the tests of tee_stream share: all that can be its source or a target, and what the targets have afterwards.
module TeeEnds
  include CopyEnds

  MIB = 1 << 20
  STREAMS = %i[pipe tcp unix].freeze
  SOURCES = [*STREAMS, :file, :fifo, :path, :pathname, :number, :stringio, :readpartial, :read, :to_io].freeze
  TARGETS = [*STREAMS, :file, :append, :path, :pathname, :number, :stringio, :picky, :terminal, :to_io].freeze

  # It takes what is written to it in parts.
  class Picky
    attr_reader :string

    def initialize = @string = +"".b

    def write(bytes)
      part = bytes.byteslice(0, [bytes.bytesize, 70_001].min)
      @string << part
      part.bytesize
    end
  end

  # It raises when it has taken so many bytes.
  class Failing < Picky
    def initialize(limit, error)
      super()
      @limit = limit
      @error = error
    end

    def write(bytes)
      raise @error if @string.bytesize >= @limit

      super(bytes.byteslice(0, @limit - @string.bytesize))
    end
  end

  def setup
    super
    @dir = Dir.mktmpdir
    @paths = 0
  end

  def teardown
    super
  ensure
    FileUtils.remove_entry(@dir)
  end

  private

  # Among the targets are numbers, also in the last place.
  def tee_stream(src, *dsts, len: nil, &block)
    guarded { IO::Splice.tee_stream(src, *dsts, len:, &block) }
  end

  def path(content = "")
    "#{@dir}/#{@paths += 1}".tap { |path| File.binwrite(path, content) }
  end

  def source(kind, bytes)
    case kind
    when :path then path(bytes)
    when :pathname then Pathname(path(bytes))
    when :number then source(:tcp, bytes).fileno
    when :stringio then StringIO.new(bytes)
    when :readpartial, :read, :to_io then only(kind, bytes)
    when :fifo then fed(*fifo, bytes)
    else super
    end
  end

  # An object with that one method.
  def only(method, bytes)
    inner = method == :to_io ? source(:unix, bytes) : StringIO.new(bytes)
    Object.new.tap do |object|
      object.define_singleton_method(method) { |*args| method == :to_io ? inner : inner.public_send(method, *args) }
      object.define_singleton_method(:inner) { inner }
    end
  end

  # What a copy has left in a source.
  def rest(source)
    source = source.inner if source.respond_to?(:inner)
    source = IO.for_fd(source, "rb", autoclose: false) if source.is_a?(Integer)
    guarded { source.read }
  end

  # Targets, and for each what says what has arrived there.
  def targets(*kinds)
    kinds.map { |kind| target(kind) }.transpose
  end

  def target(kind)
    case kind
    when :append then appended
    when :path, :pathname
      path = path("what was there")
      [kind == :path ? path : Pathname(path), -> { File.binread(path) }]
    when :stringio then StringIO.new("".b).then { |io| [io, -> { io.string }] }
    when :picky then Picky.new.then { |object| [object, -> { object.string }] }
    when :number then target(:unix).then { |io, collect| [io.fileno, collect] }
    when :to_io then target(:pipe).then { |io, collect| [Struct.new(:to_io).new(io), collect] }
    when :fifo then stream_target(*fifo)
    when :terminal then stream_target(*terminal.each(&:binmode))
    else super
    end
  end

  def appended
    path = path("first ")
    file, = closing(File.open(path, "ab"))
    collect = lambda do
      file.close
      all = File.binread(path)
      assert all.start_with?("first ")
      all.byteslice(6..)
    end
    [file, collect]
  end

  def assert_all(expected, collects)
    collects.each_with_index { |collect, index| assert_bytes expected.b, collect.call.b, "target #{index}" }
  end

  # That the error names the target, and that the others have the same bytes. Returns how many.
  def assert_failed(error, target, place, collects, bytes = pattern(6 * MIB), equal: collects)
    assert_kind_of IO::Splice::PartialTee, error
    assert_same target, error.target
    counts = error.bytes_written
    others = counts.dup.tap { |all| all.delete_at(place) }
    assert_equal equal.size, others.size
    assert_equal [others.first] * others.size, others
    assert_operator counts[place], :<=, others.first
    assert_all bytes.byteslice(0, others.first), equal
    others.first
  end

  # That the error says what each of the targets has.
  def assert_tells(error, collects)
    assert_kind_of IO::Splice::PartialTee, error
    assert_equal assert_prefixes(collects), error.bytes_written
  end

  # That each of the targets has a prefix of the pattern. Returns how long they are.
  def assert_prefixes(collects)
    arrived = collects.map(&:call)
    arrived.each { |bytes| assert_bytes pattern(bytes.bytesize), bytes.b }
    arrived.map(&:bytesize)
  end
end
