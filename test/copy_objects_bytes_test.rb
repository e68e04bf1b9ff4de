# frozen_string_literal: true

require "test_helper"
require "delegate"
require "support/copy_ends"
require "support/objects"

# The bytes that objects are given and give, in whatever Strings, pieces and encodings.
class TestCopyObjectsBytes < Minitest::Test
  include CopyEnds
  include Objects

  def test_every_size_from_every_source_to_every_target
    SIZES.each do |size|
      sources(pattern(size)) do |kind, source|
        target = Writer.new
        assert_equal size, copy_stream(source, target), "#{size} from #{kind}"
        assert_bytes pattern(size), target.taken
        refute target.kept.any?(&:empty?)
      end
      sources(pattern(size)) do |kind, source|
        target = StringIO.new("".b)
        assert_equal size, copy_stream(source, target), "#{size} from #{kind}"
        assert_bytes pattern(size), target.string
      end
      %i[pipe unix tcp blocking_pipe blocking_unix file].each do |to|
        sources(pattern(size), OBJECTS) { |_, source| copy_to_descriptor(to, source, size) }
      end
    end
  end

  def test_each_portion_is_a_string_of_its_own
    changes = [
      :itself, :freeze, :clear, :upcase!, ->(bytes) { bytes.replace("other") }, ->(bytes) { bytes << "more" },
      ->(bytes) { bytes.force_encoding("UTF-16LE") }, ->(bytes) { bytes.setbyte(0, 0) }
    ].map(&:to_proc)
    changes.each do |change|
      sources(pattern(200_000)) do |kind, source|
        copies = []
        target = Writer.new do |bytes|
          copies << bytes.b
          change.call(bytes)
          copies.last.bytesize
        end
        assert_equal 200_000, copy_stream(source, target), kind
        assert_bytes pattern(200_000), copies.join
        assert_equal target.kept.size, target.kept.uniq(&:object_id).size
      end
    end
  end

  def test_strings_that_are_kept_stay_as_they_are
    SIZES.each do |size|
      sources(pattern(size)) do |kind, source|
        target = Writer.new
        copy_stream(source, target)
        assert_bytes pattern(size), target.kept.join.b, kind
      end
    end
  end

  def test_what_is_given_is_binary
    text = "äöü" * 5000
    given = [
      nil, ->(piece, _) { piece.force_encoding("UTF-8") }, ->(piece, _) { piece.force_encoding("UTF-16LE").freeze },
      ->(piece, buffer) { buffer.replace(piece).force_encoding("UTF-8") }
    ]
    given.each do |make|
      target = Writer.new
      copy_stream(Reader.new(text.b, 1001, &make), target)
      assert_equal [Encoding::BINARY], target.kept.map(&:encoding).uniq
      assert_bytes text.b, target.taken
    end
  end

  def test_a_stringio_in_any_encoding_that_knows_ascii_gets_the_bytes_as_they_are
    ascii_then_not = ("a" * 40_000) + ("äöü" * 20_000) + ("b" * 40_000)
    %w[UTF-8 ISO-8859-1 Shift_JIS US-ASCII ASCII-8BIT].each do |encoding|
      [ascii_then_not.b, pattern(100_000), "\xFF".b * 50_000].each do |bytes|
        sources(bytes) do |kind, source|
          target = StringIO.new(String.new(encoding:))
          assert_equal bytes.bytesize, copy_stream(source, target), "#{encoding} from #{kind}"
          assert_bytes bytes, target.string.b
          assert_equal encoding, target.string.encoding.name
          assert_equal bytes.dup.force_encoding(encoding).valid_encoding?, target.string.valid_encoding?
        end
      end
    end
  end

  def test_a_stringio_subclass_is_used_through_its_own_methods
    from = Class.new(StringIO) { def readpartial(*) = super.tr("a", "b") }
    to = Class.new(StringIO) { def write(bytes) = super(bytes.upcase).then { bytes.bytesize } }
    [100, 100_000].each do |size|
      target = to.new
      assert_equal size, copy_stream(from.new("a" * size), target)
      assert_equal "B" * size, target.string
    end
    target = StringIO.new
    target.define_singleton_method(:write) { |bytes| super(bytes.downcase) }
    copy_stream(StringIO.new("A" * 100_000), target)
    assert_equal "a" * 100_000, target.string
  end

  # What a source gives

  SubString = Class.new(String)

  {
    "its own string" => ->(piece, _) { piece },
    "a frozen string" => ->(piece, _) { piece.freeze },
    "a string of a subclass" => ->(piece, _) { SubString.new(piece) },
    "the buffer, frozen" => ->(piece, buffer) { buffer.frozen? ? piece : buffer.replace(piece).freeze },
    "something else, and fills the buffer" => lambda do |piece, buffer|
      buffer.replace(piece)
      :something
    end,
    "the middle of a string" => ->(piece, _) { "before #{piece} behind".byteslice(7, piece.bytesize) },
  }.each do |name, make|
    define_method(:"test_a_source_that_gives_#{name.tr(" ,", "_")}") do
      [10, 7000, 30_000].each do |piece|
        [Writer.new, StringIO.new("".b)].each do |target|
          assert_equal 100_000, copy_stream(Reader.new(pattern(100_000), piece, &make), target)
          assert_bytes pattern(100_000), target.is_a?(Writer) ? target.taken : target.string
        end
        copy_to_descriptor(:unix, Reader.new(pattern(100_000), piece, &make), 100_000)
      end
    end
  end

  def test_a_source_that_gives_the_same_string_again_and_again
    string = +"".b
    make = ->(piece, _) { string.replace(piece) }
    target = Writer.new
    assert_equal 100_000, copy_stream(Reader.new(pattern(100_000), 30_000, &make), target)
    assert_bytes pattern(100_000), target.kept.join
  end

  def test_a_source_that_changes_its_string_while_it_is_written
    source = Reader.new(pattern(100_000), 10_000) { |piece, _| @string = piece }
    target = Writer.new do |bytes|
      @string.replace("changed" * 5000)
      [bytes.bytesize, 4000].min
    end
    assert_equal 100_000, copy_stream(source, target)
    assert_bytes pattern(100_000), target.taken
  end

  def test_what_is_given_beyond_the_length_goes_back
    [Writer.new, StringIO.new("".b), tempfile].each do |target|
      source = Reader.new(pattern(100_000), 40_000)
      assert_equal 50_000, copy_stream(source, target, 50_000)
      taken = target.is_a?(Writer) ? target.taken : target.tap(&:rewind).read
      assert_bytes pattern(50_000), taken.b
      assert_bytes pattern(100_000).byteslice(50_000..), source.rest
    end
  end

  def test_an_object_is_asked_for_no_more_than_is_wanted
    source = Reader.new(pattern(100_000))
    copy_stream(source, Writer.new, 40_000)
    assert_equal 40_000, source.asked.sum
    assert_bytes pattern(100_000).byteslice(40_000..), source.rest
    copy_stream(source, Writer.new, 0)
    assert_equal 40_000, source.asked.sum
  end

  def test_nothing_is_no_end_of_readpartial
    pieces = ["", "one", "", "", "two"]
    source = Object.new
    source.define_singleton_method(:readpartial) { |_, _| pieces.shift }
    target = StringIO.new
    assert_equal 6, copy_stream(source, target)
    assert_equal "onetwo", target.string
  end

  def test_nothing_is_the_end_of_read
    pieces = ["one", "", "two"]
    source = Object.new
    source.define_singleton_method(:read) { |_, _| pieces.shift }
    target = StringIO.new
    assert_equal 3, copy_stream(source, target)
    assert_equal "one", target.string
  end

  def test_an_eoferror_is_the_end
    %i[read readpartial].each do |name|
      pieces = ["one"]
      source = Object.new
      source.define_singleton_method(name) { |_, _| pieces.shift or raise EOFError }
      assert_equal 3, copy_stream(source, StringIO.new)
    end
  end

  def test_a_source_that_gives_nothing_for_ever_can_be_stopped
    source = Object.new
    def source.readpartial(_most, buffer) = buffer
    [StringIO.new, tempfile, Writer.new].each do |target|
      copying = thread { IO::Splice.copy_stream(source, target) }
      Thread.pass
      copying.kill
      guarded { copying.join }
    end
  end

  # What a target takes

  def test_targets_that_take_less
    takes = [->(_) { 1 }, ->(bytes) { [bytes.bytesize, 7].min }, ->(bytes) { (bytes.bytesize + 1) / 2 }]
    takes.each do |take|
      sources(pattern(2000)) do |kind, source|
        target = Writer.new(&take)
        assert_equal 2000, copy_stream(source, target), kind
        assert_bytes pattern(2000), target.taken
      end
    end
    sources(pattern(100_000)) do |kind, source|
      target = Writer.new(&takes.last)
      assert_equal 100_000, copy_stream(source, target), kind
      assert_bytes pattern(100_000), target.taken
    end
  end

  def test_a_target_that_takes_nothing_at_first
    sources(pattern(100_000)) do |kind, source|
      turn = 0
      target = Writer.new { |bytes| (turn += 1).odd? ? 0 : bytes.bytesize }
      assert_equal 100_000, copy_stream(source, target), kind
      assert_bytes pattern(100_000), target.taken
    end
  end

  def test_a_target_that_takes_nothing_for_ever_can_be_stopped
    sources(pattern(100)) do |_, source, rest|
      target = Writer.new { |_| 0 }
      copying = thread { IO::Splice.copy_stream(source, target) }
      guarded { Thread.pass until target.kept.size > 3 }
      copying.kill
      guarded { copying.join }
      assert_bytes pattern(100), rest.call
    end
  end

  def test_a_target_that_says_it_took_more_than_there_was
    [200_000, 1 << 80].each do |count|
      sources(pattern(100_000)) do |kind, source|
        kept = []
        target = Object.new
        target.define_singleton_method(:write) { |bytes| kept << bytes and count }
        assert_equal 100_000, copy_stream(source, target), kind
        assert_bytes pattern(100_000), kept.join
      end
    end
  end

  def test_a_target_that_gives_no_count
    [nil, -1, -(1 << 80), 1.5, "1", Object.new].each do |count|
      sources(pattern(100)) do |kind, source, rest|
        error = assert_raises(TypeError, kind) { copy_stream(source, Writer.new { |_| count }) }
        assert_match(/write returned (nil|a \w+), expected a byte count/, error.message)
        assert_bytes pattern(100), rest.call
      end
    end
  end

  # How objects are asked

  # Has its methods by method_missing only.
  class Dynamic < BasicObject
    def initialize(object) = @object = object
    def respond_to?(...) = @object.respond_to?(...)
    def method_missing(name, ...) = @object.public_send(name, ...)
    def respond_to_missing?(*) = true
  end

  def test_objects_that_answer_by_method_missing
    [100, 100_000].each do |size|
      target = StringIO.new("".b)
      assert_equal size, copy_stream(Dynamic.new(StringIO.new(pattern(size))), Dynamic.new(target))
      assert_bytes pattern(size), target.string
      target = StringIO.new("".b)
      assert_equal size, copy_stream(SimpleDelegator.new(StringIO.new(pattern(size))), SimpleDelegator.new(target))
      assert_bytes pattern(size), target.string
    end
  end

  def test_private_methods_are_not_called
    source = Object.new
    def source.read(*) = nil
    source.singleton_class.send(:private, :read)
    assert_raises(TypeError) { copy_stream(source, StringIO.new) }
    target = Object.new
    def target.write(_bytes) = nil
    target.singleton_class.send(:private, :write)
    assert_raises(TypeError) { copy_stream(StringIO.new, target) }
  end

  def test_a_copy_within_a_copy
    source = StringIO.new(pattern(300_000))
    inner = StringIO.new("".b)
    target = Writer.new do |bytes|
      IO::Splice.copy_stream(source, inner, [10_000, source.size - source.pos].min)
      bytes.bytesize
    end
    assert_equal 300_000, copy_stream(source, target) + inner.string.bytesize
    assert_equal source.size, source.pos
  end

  def test_messages_are_taken_whole
    here, there = closing(*Socket.pair(:UNIX, :SEQPACKET))
    messages = [1, 5000, 40_000, 60_000].map { |size| pattern(size) }
    messages.each { |message| there.send(message, 0) }
    there.close
    target = Writer.new
    assert_equal messages.sum(&:bytesize), copy_stream(here, target)
    assert_equal messages, target.kept
  end

  def test_a_message_that_is_too_long_is_not_taken
    here, there = closing(*Socket.pair(:UNIX, :SEQPACKET))
    there.send(pattern(5000), 0)
    assert_raises(Errno::EMSGSIZE) { copy_stream(here, StringIO.new, 4000) }
    assert_bytes pattern(5000), here.recv(9000)
  end

  private

  def copy_to_descriptor(kind, source, size)
    target, collect = target(kind)
    assert_equal size, copy_stream(source, target), kind
    assert_bytes pattern(size), collect.call
  end
end
