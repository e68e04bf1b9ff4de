# frozen_string_literal: true

require "test_helper"
require "support/piped_buffers"

# `IO::Buffer`s without a gift: a snapshot of them goes into the pipe.
class TestIOBuffer < Minitest::Test
  include PipedBuffers

  # Ways to have bytes in a buffer. Some there are only in later Rubies.
  KINDS = {
    "internal" => ->(test, content) { test.buffer(content, INTERNAL) },
    "mapped" => ->(test, content) { test.buffer(content) },
    "a slice" => ->(test, content) { test.slice(test.buffer("head#{content}tail"), 4, content.bytesize) },
    "a slice of a slice" => lambda { |test, content|
      test.slice(test.slice(test.buffer("1234#{content}5"), 2, content.bytesize + 2), 2, content.bytesize)
    },
    "of a string" => ->(test, content) { test.buffer_for(content) },
    "of a file" => ->(test, content) { test.file_buffer(content) },
    "of a file, read-only" => ->(test, content) { test.file_buffer(content, IO::Buffer::READONLY) },
    "of a file, private" => ->(test, content) { test.file_buffer(content, IO::Buffer::PRIVATE) },
    "of a subclass" => ->(test, content) { test.buffer(content, MAPPED, Class.new(IO::Buffer)) },
    "shared" => ->(test, content) { test.buffer(content, MAPPED | IO::Buffer::SHARED) },
  }.freeze

  # Without a gift

  def test_every_kind_of_buffer_goes_in
    each_kind(KINDS) do |name, make|
      [1, 100, PAGE + 1, 200_000].each do |size|
        buffer = make.call(self, pattern(size))
        2.times { assert_sent pattern(size), buffer, 0, name }

        assert_equal pattern(size), buffer.get_string, name
        refute_predicate buffer, :locked?, name
      end
    end
  end

  def test_every_kind_of_buffer_goes_in_without_waiting
    each_kind(KINDS) do |name, make|
      reader, writer = pipe
      buffer = make.call(self, pattern(200_000))

      assert_equal writer.pipe_size, IO.vmsplice(writer, buffer, F_NONBLOCK), name
      assert_raises(Errno::EAGAIN, name) { IO.vmsplice(writer, buffer, F_NONBLOCK) }
      assert_equal pattern(writer.pipe_size), reader.readpartial(1 << 20), name
    end
  end

  def test_a_locked_buffer_goes_in_and_stays_locked
    buffer = buffer("locked bytes")
    buffer.locked do
      assert_sent "locked bytes", buffer
      assert_predicate buffer, :locked?
    end
    refute_predicate buffer, :locked?
  end

  def test_buffers_among_strings_and_pages_in_order
    each_kind(KINDS) do |name, make|
      pieces = ["<", make.call(self, pattern(5000)), Pages.new(","), "", make.call(self, pattern(100_000)), ">"]

      assert_sent "<".b + pattern(5000) + ",".b + pattern(100_000) + ">".b, pieces, 0, name
    end
  end

  def test_more_buffers_than_the_kernel_takes_in_one_call
    whole = buffer(pattern(30_000))

    assert_sent pattern(30_000), Array.new(3000) { |index| slice(whole, index * 10, 10) }
  end

  def test_the_same_buffer_several_times
    assert_sent pattern(50_000) * 3, [buffer(pattern(50_000))] * 3
  end

  def test_a_buffer_that_changes_after_the_call
    each_change do |name, change, make|
      reader, writer = pipe
      buffer = make.call
      IO.vmsplice(writer, buffer)
      change.call(buffer)
      collect_and_churn

      assert_equal pattern(20_000), reader.readpartial(1 << 20), name
    end
  end

  def test_a_buffer_that_is_collected_after_the_call
    reader, writer = pipe
    thread { IO.vmsplice(writer, Array.new(10) { |index| buffer(index.to_s * PAGE) }) }.join
    collect_and_churn

    assert_equal Array.new(10) { |index| index.to_s * PAGE }.join, reader.readpartial(1 << 20)
  end

  def test_a_buffer_that_changes_while_the_call_waits
    each_change do |name, change, make|
      [true, false].each do |full|
        reader, writer = pipe
        filled = full ? fill(writer) : 0
        buffer = make.call
        pieces = ["x" * 100_000, buffer, Pages.new("."), buffer]
        putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces) })
        change.call(buffer)
        collect_and_churn
        guarded { reader.read(filled + 100_000) }

        assert_equal("#{pattern(20_000)}.".b + pattern(20_000), guarded { reader.read(40_001) }, name)
        assert_equal(140_001, guarded { putting.value })
      end
    end
  end

  def test_a_buffer_that_is_in_half_and_changes_while_the_call_waits
    each_change do |name, change, make|
      reader, writer = pipe
      content = pattern(20_000) * 10
      buffer = make.call(content)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, buffer) })
      change.call(buffer)
      collect_and_churn

      assert_equal(content, guarded { reader.read(200_000) }, name)
      assert_equal(200_000, guarded { putting.value })
    end
  end

  def test_a_buffer_of_a_string_or_file_that_changes_after_the_call
    string = +pattern(20_000)
    file = tempfile(pattern(20_000))
    of_string = IO::Buffer.for(string)
    of_file = IO::Buffer.map(file, 20_000, 0)
    reader, writer = pipe
    IO.vmsplice(writer, [of_string, of_file])
    of_string.free
    string.replace("other" * 4000)
    file.pwrite("Z" * 20_000, 0)

    assert_equal "Z" * 20_000, of_file.get_string
    assert_equal pattern(20_000) * 2, reader.readpartial(1 << 20)
  end

  def test_a_buffer_that_a_later_conversion_changes
    each_change do |name, change, make|
      reader, writer = pipe
      buffer = make.call
      sly = Object.new
      sly.define_singleton_method(:to_str) { change.call(buffer) && "." }
      IO.vmsplice(writer, [buffer, sly, buffer])

      assert_equal "#{pattern(20_000)}.".b + pattern(20_000), reader.readpartial(1 << 20), name
    end
  end

  def test_a_buffer_that_changes_after_the_bytes_went_on
    reader, writer = pipe
    copy, into = pipe
    here, there = unix_pair
    buffer = buffer(pattern(8192))
    IO.vmsplice(writer, buffer)
    IO.tee(reader, into, 8192)
    IO.splice(reader, nil, here, nil, 8192, WAITALL)
    buffer.clear(90)

    assert_equal pattern(8192), copy.readpartial(1 << 20)
    assert_equal pattern(8192), there.read(8192)
  end

  def test_a_buffer_without_memory_is_refused_and_nothing_goes_in
    reader, writer = pipe
    good = buffer(pattern(100))

    [0, F_GIFT, F_NONBLOCK].each do |flags|
      without_memory.each do |name, null|
        [null, [null], ["good", good, Pages.new("good"), null]].each do |data|
          assert_raises(IO::Buffer::AllocationError, name) { IO.vmsplice(writer, data, flags) }
        end
      end
    end
    assert_nothing_in reader
    assert_whole pattern(100), good
  end

  def test_a_slice_of_a_freed_buffer_is_refused_and_nothing_goes_in
    reader, writer = pipe
    whole = buffer(pattern(100_000))
    slice = slice(whole, 10, 100)
    whole.free

    [0, F_GIFT].each do |flags|
      assert_raises(IO::Buffer::InvalidatedError) { IO.vmsplice(writer, slice, flags) }
      assert_raises(IO::Buffer::InvalidatedError) { IO.vmsplice(writer, ["good", slice], flags) }
    end
    assert_nothing_in reader
  end

  def test_an_empty_slice_is_nothing
    reader, writer = pipe
    empty = slice(buffer("bytes"), 2, 0)

    assert_equal 0, IO.vmsplice(writer, empty)
    assert_equal 2, IO.vmsplice(writer, ["<", empty, ">"])
    assert_equal "<>", reader.readpartial(99)
  end

  # Warnings

  def test_strings_and_pages_alone_make_no_warning
    assert_equal "bytes and pages\n", in_ruby(<<~RUBY, "-w")
      r, w = IO.pipe
      pages = IO::Splice::Pages.new("and pages of bytes")
      IO.vmsplice(w, ["bytes", " ", pages.slice(0, 9)], IO::Splice::F_GIFT)
      IO.vmsplice(w, "\\n")
      begin
        IO.vmsplice(w, 1)
      rescue TypeError
        $stdout << r.readpartial(99)
      end
    RUBY
  end

  def test_only_a_program_that_uses_a_buffer_itself_is_warned_by_ruby_once
    use = <<~RUBY
      r, w = IO.pipe
      buffer = IO::Buffer.new(100, IO::Buffer::MAPPED)
    RUBY
    without = in_ruby(use, "-w")
    with = in_ruby(<<~RUBY, "-w")
      #{use.strip}
      slice = buffer.slice(0, 9)
      IO.vmsplice(w, [buffer, slice])
      IO::Splice::Pages.new(buffer)
      begin
        IO.vmsplice(w, slice, IO::Splice::F_GIFT)
      rescue ArgumentError
        slice.free
        IO.vmsplice(w, buffer, IO::Splice::F_GIFT)
      end
      abort "not given" unless buffer.null?
    RUBY

    assert_equal without, with
  end

  private

  def each_change
    [MAPPED, INTERNAL].each do |flags|
      CHANGES.each do |name, change|
        yield "#{name} (#{flags})", change, ->(content = pattern(20_000)) { buffer(content, flags) }
      end
    end
  end

  def without_memory
    given = buffer("given")
    IO.vmsplice(pipe.last, given, F_GIFT)
    transferred = buffer("transferred")
    transferred.transfer
    { "freed" => buffer("freed").free, "freed, internal" => buffer("freed", INTERNAL).free, "given away" => given,
      "transferred" => transferred, "of no size" => IO::Buffer.new(0) }
  end
end
