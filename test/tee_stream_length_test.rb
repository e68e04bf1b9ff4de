# frozen_string_literal: true

require "test_helper"
require "support/tee_ends"

# How much is copied, and where the ends stand afterwards.
class TestTeeStreamLength < Minitest::Test
  include TeeEnds

  SOURCES.each do |from|
    define_method "test_a_length_leaves_the_rest_in_#{from}" do
      [0, 1, 150_000, MIB].each do |len|
        source = source(from, pattern(MIB + 5))
        targets, collects = targets(*STREAMS, :append, :picky)
        assert_equal len, tee_stream(source, *targets, len:)
        assert_all pattern(len), collects
        assert_bytes pattern(MIB + 5).byteslice(len..), rest(source) unless %i[path pathname].include?(from)
      end
    end

    define_method "test_a_length_of_all_there_is_is_no_end_of_file_from_#{from}" do
      [0, 1, MIB].each do |size|
        targets, collects = targets(*TARGETS)
        assert_equal size, tee_stream(source(from, pattern(size)), *targets, len: size)
        assert_all pattern(size), collects
      end
    end
  end

  def test_a_length_does_not_wait_for_more
    STREAMS.each do |from|
      reader, writer = pair(from)
      writer.write(pattern(1000))
      targets, collects = targets(*TARGETS)
      assert_equal 300, tee_stream(reader, *targets, len: 300)
      assert_all pattern(300), collects
      assert_bytes pattern(1000).byteslice(300..), reader.readpartial(1000)
    end
  end

  SOURCES.each do |from|
    define_method "test_a_short_input_is_delivered_and_then_raises_from_#{from}" do
      [0, 1, MIB + 1].each do |size|
        targets, collects = targets(*TARGETS)
        counts = []
        error = assert_raises(EOFError) do
          tee_stream(source(from, pattern(size)), *targets, len: MIB + 2) { |bytes| counts << bytes }
        end
        assert_includes error.message, "#{size} of #{MIB + 2}"
        assert_equal size, counts.last
        assert_all pattern(size), collects
      end
    end
  end

  def test_a_length_beyond_any_file_is_as_good_as_none
    targets, collects = targets(:pipe, :file)
    assert_raises(EOFError) { tee_stream(tempfile("short"), *targets, len: 2**70) }
    assert_all "short", collects
  end

  SOURCES.each do |from|
    define_method "test_the_block_is_told_how_far_it_is_from_#{from}" do
      [0, 1, (3 * MIB) + 5].each do |size|
        targets, collects = targets(*TARGETS)
        counts = []
        assert_equal size, tee_stream(source(from, pattern(size)), *targets) { |bytes| counts << bytes }
        assert_equal size, counts.last
        assert_equal counts.sort, counts
        assert_operator counts.uniq.size, :>, 1 if size > MIB
        assert_all pattern(size), collects
      end
    end
  end

  def test_wrong_lengths_are_refused_before_anything_happens
    [tempfile("abc"), source(:pipe, "abc"), StringIO.new("abc")].each do |source|
      kept = path("kept")
      { -1 => ArgumentError, "1" => TypeError, Object.new => TypeError }.each do |len, error|
        [[kept, path], [tempfile, kept], [StringIO.new, kept]].each do |targets|
          assert_raises(error, "#{source.class} to #{targets}") { tee_stream(source, *targets, len:) }
        end
      end
      assert_equal "kept", File.read(kept)
      assert_equal "abc", source.read
    end
  end

  def test_a_negative_length_is_refused_with_one_target_too
    [tempfile("abc"), source(:pipe, "abc"), StringIO.new("abc")].each do |source|
      [path("kept"), tempfile("kept"), StringIO.new].each do |target|
        assert_raises(ArgumentError, "#{source.class} to #{target.class}") { tee_stream(source, target, len: -1) }
      end
    end
  end

  def test_what_ruby_has_read_ahead_goes_first
    [:file, *STREAMS].each do |from|
      source = source(from, "head\n#{pattern(MIB)}")
      assert_equal "head\n", source.gets
      targets, collects = targets(*TARGETS)
      assert_equal MIB, tee_stream(source, *targets)
      assert_all pattern(MIB), collects
    end
  end

  def test_what_was_put_back_goes_first
    [:file, *STREAMS].each do |from|
      source = source(from, pattern(1000))
      source.ungetbyte("put back")
      targets, collects = targets(*TARGETS)
      assert_equal 1008, tee_stream(source, *targets)
      assert_all "put back".b + pattern(1000), collects
    end
  end

  def test_a_source_that_is_closed_in_the_middle_is_not_written_to
    source, = pipe
    source.ungetbyte("s" * 20_000)
    target = Object.new
    target.define_singleton_method(:write) { |_| source.close || raise(Stop) }
    assert_raises(Stop) { tee_stream(source, target, StringIO.new, len: 10_000) }
  end

  def test_a_throw_out_of_the_block_is_one_also_when_an_end_is_closed_by_then
    source, writer = pipe
    writer << "x"
    writer.close
    targets = Array.new(2) { pipe.last }
    thrown = catch(:out) { tee_stream(source, *targets) { source.close || throw(:out, "thrown") } }
    assert_equal "thrown", thrown
  end

  def test_counts_are_right_whenever_an_object_s_copy_is_interrupted
    200.times do
      one, r_one = unix_pair
      another = StringIO.new("".b)
      reading = thread { r_one.read }
      copy = thread { IO::Splice.tee_stream(StringIO.new(pattern(400_000)), one, another) }
      sleep rand * 0.002
      copy.raise(Stop)
      error = begin
        guarded { copy.value } && nil
      rescue Stop => e
        e
      end
      one.close
      had = [guarded { reading.value }.bytesize, another.string.bytesize]
      assert_equal had, error.bytes_written if error.respond_to?(:bytes_written)
      r_one.close
    end
  end

  def test_interrupts_at_random_moments_do_not_lose_what_was_read_ahead
    400.times do |number|
      source, far = unix_pair
      one = pipe
      another = pipe
      source.ungetbyte(pattern(30_000))
      copy = thread { IO::Splice.tee_stream(source, one.last, another.last) }
      rand(2000).times { nil }
      Thread.pass if number.odd?
      copy.raise(Stop)
      assert_raises(Stop) { guarded { copy.value } }
      [far, one.last, another.last].each(&:close)
      rest = source.read
      [one, another].each { |reader,| assert_equal pattern(30_000), (reader.read + rest).b }
      [source, one.first, another.first].each(&:close)
    end
  end

  def test_a_length_within_what_was_read_ahead_leaves_the_rest_for_later
    [:file, *STREAMS].each do |from|
      source = source(from, "head\n0123456789")
      source.gets
      targets, collects = targets(*TARGETS)
      assert_equal 4, tee_stream(source, *targets, len: 4)
      assert_all "0123", collects
      assert_equal "45", source.read(2)
      assert_equal "6789", source.read
    end
  end

  def test_what_ruby_has_still_to_write_goes_first
    [:file, *STREAMS, :stringio].each do |from|
      targets, collects = targets(*STREAMS, :file, :append)
      targets.each do |target|
        target.sync = false
        target.write("before ")
      end
      assert_equal 6, tee_stream(source(from, "behind"), *targets)
      targets.each { |target| target.write(" after") }
      assert_all "before behind after", collects
    end
  end

  def test_files_stand_behind_what_was_copied
    source = tempfile(pattern(3 * MIB))
    target = tempfile("x" * 20)
    source.pos = 1000
    target.pos = 7
    others, collects = targets(:pipe, :stringio)
    assert_equal MIB + 1, tee_stream(source, target, *others, len: MIB + 1)
    assert_equal [MIB + 1001, MIB + 8], [source.pos, target.pos]
    assert_all pattern(3 * MIB).byteslice(1000, MIB + 1), collects
    assert_bytes ("x" * 7).b + pattern(3 * MIB).byteslice(1000, MIB + 1), content(target)
  end

  def test_a_file_appended_to_itself_ends_where_it_ended
    [[:pipe], %i[file stringio], TARGETS].each do |kinds|
      [0, 1000].each do |start|
        path = path(pattern(MIB + 5))
        targets, collects = targets(*kinds)
        File.open(path, "rb") do |source|
          File.open(path, "ab") do |append|
            source.pos = start
            assert_equal MIB + 5 - start, tee_stream(source, *targets[1..], append, targets.first)
          end
        end
        appended = pattern(MIB + 5).byteslice(start..)
        assert_all appended, collects
        assert_bytes pattern(MIB + 5) + appended, File.binread(path)
      end
    end
  end

  def test_a_file_appended_to_itself_after_a_line_was_read
    path = path("head\n0123456789")
    targets, collects = targets(:pipe, :picky)
    File.open(path) do |source|
      source.gets
      File.open(path, "a") { |append| assert_equal 10, tee_stream(source, *targets, append) }
    end
    assert_all "0123456789", collects
    assert_equal "head\n01234567890123456789", File.read(path)
  end
end
