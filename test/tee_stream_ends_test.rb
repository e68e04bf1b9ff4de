# frozen_string_literal: true

require "test_helper"
require "support/tee_ends"
require "support/tls"

# Paths, numbers and objects for ends, and what cannot be one.
class TestTeeStreamEnds < Minitest::Test
  include TeeEnds

  def test_files_at_paths_are_made_or_emptied
    old = path("longer than that")
    new = "#{@dir}/new"
    assert_equal 5, tee_stream(tempfile("short"), old, Pathname(new))
    assert_equal(%w[short short], [old, new].map { |path| File.read(path) })
  end

  def test_a_missing_source_empties_no_target
    kept = path("kept")
    assert_raises(Errno::ENOENT) { tee_stream("#{@dir}/missing", kept, "#{@dir}/new") }
    assert_equal "kept", File.read(kept)
    refute_path_exists "#{@dir}/new"
  end

  def test_a_directory_is_no_end
    targets, collects = targets(*TARGETS)
    assert_raises(Errno::EISDIR) { tee_stream(@dir, *targets) }
    TARGETS.zip(collects) do |kind, collect|
      assert_bytes %i[path pathname].include?(kind) ? "what was there" : "", collect.call, kind
    end
    assert_raises(Errno::EISDIR) { tee_stream(tempfile("abc"), tempfile, @dir) }
  end

  def test_what_was_given_open_stays_open
    ends = [tempfile("abc"), tempfile, pipe.last, unix_pair.first]
    tee_stream(*ends)
    assert_equal [false] * 4, ends.map(&:closed?)
    assert_raises(EOFError) { tee_stream(ends.first.tap(&:rewind), *ends[1..], len: 4) }
    assert_equal [false] * 4, ends.map(&:closed?)
  end

  def test_paths_are_closed_after_an_error_too
    before = open_descriptors
    source = path("abc")
    assert_raises(EOFError) { tee_stream(source, path, path, len: 4) }
    assert_raises(Errno::ENOSPC) { tee_stream(source, path, "/dev/full") }
    assert_raises(Errno::EISDIR) { tee_stream(source, path, @dir) }
    assert_equal before, open_descriptors
  end

  def test_no_target_is_an_argument_error
    source = tempfile("abc")
    assert_raises(ArgumentError) { tee_stream(source) }
    assert_raises(ArgumentError) { tee_stream(source, len: 1) }
    assert_equal "abc", source.read
  end

  def test_one_target_is_a_copy_stream
    TARGETS.each do |to|
      (target,), (collect,) = targets(to)
      counts = []
      assert_equal MIB, tee_stream(source(:tcp, pattern(MIB)), target) { |bytes| counts << bytes }
      assert_equal MIB, counts.last
      assert_bytes pattern(MIB), collect.call
      (target,), (collect,) = targets(to)
      error = assert_raises(EOFError) { tee_stream(tempfile("abc"), target, len: 4) }
      assert_includes error.message, "3 of 4"
      assert_equal "abc", collect.call
    end
    reader, writer = pipe
    reader.close
    source = source(:pipe, "abc")
    assert_raises(Errno::EPIPE) { tee_stream(source, writer) }
    assert_equal "abc", source.read
  end

  def test_ends_of_the_wrong_kind_are_refused_before_anything_moves
    _, w = pipe
    closed = tempfile.tap(&:close)
    [[IOError, w], [IOError, closed], [Errno::EBADF, -1]].each do |error, wrong|
      assert_raises(error) { tee_stream(wrong, tempfile, tempfile) }
    end
  end

  %i[file pipe stringio].each do |from|
    define_method "test_a_target_that_is_not_open_for_it_takes_nothing_from_#{from}" do
      r, = pipe
      [[IOError, r], [IOError, tempfile.tap(&:close)], [Errno::EBADF, -1],
       [Errno::EBADF, 1_000_000]].each do |error, wrong|
        source = source(from, "abc")
        file = tempfile
        assert_raises(error, wrong.inspect) { tee_stream(source, file, wrong) }
        assert_equal ["abc", ""], [source.read, content(file)], wrong.inspect
      end
    end

    define_method "test_what_is_no_target_takes_nothing_from_#{from}" do
      [:symbol, Object.new].each do |wrong|
        source = source(from, "abc")
        file = tempfile
        assert_raises(TypeError, NoMethodError, ArgumentError) { tee_stream(source, file, wrong) }
        assert_equal ["abc", ""], [source.read, content(file)]
      end
    end

    define_method "test_nil_is_no_target_from_#{from}" do
      [[nil], [nil, nil], [tempfile, nil], [nil, tempfile]].each do |targets|
        assert_raises(TypeError, NoMethodError, ArgumentError, targets.inspect) do
          tee_stream(source(from, "abc"), *targets)
        end
      end
    end
  end

  def test_a_pipe_is_not_copied_into_itself
    reader, writer = pipe
    writer.write("once")
    targets, = targets(*TARGETS)
    [writer, writer.fileno].each do |itself|
      [[itself, *targets], [*targets, itself]].each do |ends|
        assert_raises(Errno::EINVAL) { tee_stream(reader, *ends) }
        assert_raises(Errno::EINVAL) { tee_stream(reader.fileno, *ends) }
      end
    end
    File.open("/proc/self/fd/#{writer.fileno}", "w") do |again|
      assert_raises(Errno::EINVAL) { tee_stream(reader, *targets, again) }
    end
    writer.close
    assert_equal "once", reader.read
  end

  def test_wrappers_are_used_through_write
    [tempfile(pattern(100_000)), StringIO.new(pattern(100_000))].each do |source|
      here, there = tls_pair
      arrived = thread { there.read }
      targets, collects = targets(*TARGETS)
      assert_equal 100_000, tee_stream(source, *targets, here)
      here.close
      assert_bytes pattern(100_000), thread_value(arrived)
      there.close
      assert_all pattern(100_000), collects
    end
  end

  def test_wrappers_are_read_through_their_own_methods
    here, there = tls_pair
    feeder = thread { here.write(pattern(100_000)) && here.close }
    targets, collects = targets(*TARGETS)
    assert_equal 100_000, tee_stream(there, *targets)
    thread_value(feeder)
    there.close
    assert_all pattern(100_000), collects
  end
end
