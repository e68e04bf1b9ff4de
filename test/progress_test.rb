# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"
require "support/select_scheduler"

# What a block is told while bytes move slowly: soon, and not when a whole portion has moved.
class TestProgress < Minitest::Test
  include CopyEnds

  # A few bytes from a source that then stays silent, and the block hears of them.
  %i[pipe unix tcp].product(%i[file pipe unix]) do |from, to|
    define_method(:"test_a_few_bytes_from_#{from}_to_#{to}") do
      reader, writer = pair(from)
      told = Thread::Queue.new
      target, = target(to)
      copying = in_a_thread { IO::Splice.copy_stream(reader, target) { |bytes| told << bytes } }
      [10, 30].each do |bytes|
        writer << pattern(bytes == 10 ? 10 : 20)
        assert_equal(bytes, guarded { told.pop })
      end
      writer.close
      assert_equal 30, thread_value(copying)
      assert_equal(30, guarded { told.pop })
    end
  end

  # A target that stops in the midst of a portion.
  def test_a_target_that_takes_a_part
    sources = { pages: IO::Splice::Pages.new(pattern(1_000_000)), file: tempfile(pattern(1_000_000)) }
    sources.each_value do |source|
      reader, writer = unix_pair
      told = Thread::Queue.new
      copying = in_a_thread { IO::Splice.copy_stream(source, writer) { |bytes| told << bytes } }
      assert_includes 1...1_000_000, (guarded { told.pop })
      assert_bytes pattern(1_000_000), (guarded { reader.read(1_000_000) })
      assert_equal 1_000_000, thread_value(copying)
    end
  end

  def test_a_tee_stream_whose_targets_take_a_part
    %i[pipe unix].each do |to|
      reader, writer = pair(to)
      told = Thread::Queue.new
      source = tempfile(pattern(1_000_000))
      copying = in_a_thread { IO::Splice.tee_stream(source, File::NULL, writer) { |bytes| told << bytes } }
      assert_includes 1...1_000_000, (guarded { told.pop })
      assert_bytes pattern(1_000_000), (guarded { reader.read(1_000_000) })
      assert_equal 1_000_000, thread_value(copying)
    end
  end

  def test_under_a_scheduler
    reader, writer = unix_pair
    told = []
    with_scheduler do
      Fiber.schedule { IO::Splice.copy_stream(reader, File::NULL) { |bytes| told << bytes } }
      Fiber.schedule do
        writer << pattern(10)
        guarded { sleep 0.01 while told.empty? }
        writer.close
      end
    end
    assert_equal [10, 10], told
  end

  # A timeout comes all the same.
  def test_io_timeout
    reader, writer = pipe
    skip "IO#timeout is of Ruby 3.2" unless reader.respond_to?(:timeout=)
    writer << "bytes"
    reader.timeout = 0.5
    told = []
    error = assert_raises(IO::TimeoutError) { copy_stream(reader, tempfile) { |bytes| told << bytes } }
    assert_equal [[5], 5], [told, error.bytes_written]
  end
end
