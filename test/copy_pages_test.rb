# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"
require "support/objects"
require "support/select_scheduler"

# Pages as what is copied from.
class TestCopyPages < Minitest::Test
  include CopyEnds
  include SteadyBuffers
  include Experimental
  include Objects

  # Made before descriptors are counted.
  BACKGROUND = IO::Splice.background

  Pages = IO::Splice::Pages
  SIZES = [0, 1, 4096, 60_000, 70_000, 3_000_000].freeze

  %i[file append pipe unix tcp blocking_pipe blocking_unix].each do |kind|
    define_method(:"test_to_#{kind}") do
      SIZES.each do |size|
        pages = Pages.new(pattern(size))
        target, collect = target(kind)
        2.times { assert_equal size, copy_stream(pages, target) }
        assert_bytes pattern(size) * 2, collect.call
      end
    end
  end

  def test_to_a_path_and_to_objects
    pages = Pages.new(pattern(100_000))
    Dir.mktmpdir do |dir|
      File.write("#{dir}/there", "content")
      assert_equal 100_000, copy_stream(pages, "#{dir}/there")
      assert_bytes pattern(100_000), File.binread("#{dir}/there")
    end
    [StringIO.new("".b), Writer.new, Writer.new { |bytes| (bytes.bytesize + 1) / 2 }].each do |target|
      assert_equal 100_000, copy_stream(pages, target)
      assert_bytes pattern(100_000), target.is_a?(StringIO) ? target.string : target.taken
    end
  end

  def test_what_an_object_keeps_stays_when_the_pages_are_gone
    target = Writer.new
    copy_stream(Pages.new(pattern(100_000)), target)
    GC.start
    assert_bytes pattern(100_000), target.kept.join
  end

  def test_a_part
    pages = Pages.new(pattern(100_000))
    { [100] => 0...100, [100, 5] => 5...105, [nil, 99_990] => 99_990..., [0] => 0...0, [nil, 100_000] => 0...0,
      [nil, 1 << 40] => 0...0 }.each do |arguments, range|
      [tempfile, StringIO.new("".b)].each do |target|
        assert_equal pattern(100_000)[range].bytesize, copy_stream(pages, target, *arguments)
        target.rewind
        assert_bytes pattern(100_000)[range], target.read.b
      end
    end
    target = tempfile
    assert_raises(EOFError) { copy_stream(pages, target, 20, 99_990) }
    assert_equal pattern(100_000)[99_990..], content(target)
    assert_equal 3, copy_stream(pages.slice(7, 3), target)
    assert_raises(ArgumentError) { copy_stream(pages, target, -1) }
  end

  def test_to_several
    pages = Pages.new(pattern(200_000))
    { nil => 200_000, 70_000 => 70_000, 0 => 0 }.each do |len, size|
      targets = %i[file pipe unix].map { |kind| target(kind) }
      string = StringIO.new("".b)
      assert_equal(size, guarded { IO::Splice.tee_stream(pages, *targets.map(&:first), string, len:) })
      assert_equal 1, [string.string, *targets.map { |_, collect| collect.call }].uniq.size
      assert_bytes pattern(size), string.string
    end
  end

  def test_what_ruby_has_still_to_write_goes_first
    reader, writer = pipe
    writer.sync = false
    writer.write("head ")
    copy_stream(Pages.new("body"), writer)
    assert_equal "head body", reader.readpartial(100)
  end

  def test_progress
    told = []
    copy_stream(Pages.new(pattern(3_000_000)), tempfile) { |bytes| told << bytes }
    assert_equal told.sort, told
    assert_operator told.size, :>, 2
    assert_equal 3_000_000, told.last
  end

  def test_an_interrupt_says_how_far_it_came_and_nothing_is_used_up
    pages = Pages.new(pattern(3_000_000))
    [pipe, unix_pair, tcp_pair].each do |reader, writer|
      copying = until_settled(in_a_thread { IO::Splice.copy_stream(pages, writer) })
      copying.raise(Stop)
      error = assert_raises(Stop) { thread_value(copying) }
      writer.close
      assert_bytes pattern(error.bytes_written), drain(reader)
    end
    assert_bytes pattern(3_000_000), pages.to_s
  end

  def test_pages_that_are_collected_while_their_copy_waits
    reader, writer = pipe
    copying = until_settled(in_a_thread { IO::Splice.copy_stream(Pages.new(pattern(1_000_000)), writer) })
    3.times { GC.start }
    Array.new(50) { Pages.new("x" * 100_000) }
    assert_bytes pattern(1_000_000), (guarded { reader.read(1_000_000) })
    assert_equal 1_000_000, thread_value(copying)
  end

  def test_under_a_scheduler
    reader, writer = unix_pair
    pages = Pages.new(pattern(1_000_000))
    copied = read = nil
    with_scheduler do
      Fiber.schedule { copied = IO::Splice.copy_stream(pages, writer).tap { writer.close } }
      Fiber.schedule { read = drain(reader) }
    end
    assert_equal 1_000_000, copied
    assert_bytes pattern(1_000_000), read
  end

  def test_in_a_ractor
    reader, writer = pipe
    assert_equal 5, in_ractor(Pages.new("bytes"), writer.fileno) { |pages, to| IO::Splice.copy_stream(pages, to) }
    assert_equal "bytes", reader.readpartial(10)
  end

  def test_as_a_target_and_in_the_background_it_is_refused
    @descriptors += 16 # a background keeps idle pipes
    pages = Pages.new("bytes")
    assert_raises(TypeError) { copy_stream("/proc/self/exe", pages) }
    error = assert_raises(TypeError) { BACKGROUND.copy_stream(pages, tempfile) }
    assert_match(/Pages cannot be used in the background, because it is not a file, pipe or socket/, error.message)
  end

  def test_a_buffer_is_refused_with_what_to_do
    buffer = IO::Buffer.new(10)
    [[buffer, tempfile], [tempfile, buffer]].each do |src, dst|
      error = assert_raises(TypeError) { copy_stream(src, dst) }
      assert_match(/IO::Splice::Pages\.new\(buffer\)/, error.message)
    end
  end
end
