# frozen_string_literal: true

require "test_helper"
require "English"
require "pathname"
require "support/copy_ends"

class TestCopyStream < Minitest::Test
  include CopyEnds

  KINDS = %i[file pipe tcp unix].freeze
  SIZES = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, (1 << 20) - 1, 1 << 20, (1 << 20) + 1].freeze
  PAIRS = KINDS.product(KINDS).freeze

  PAIRS.each do |from, to|
    define_method "test_#{from}_to_#{to}_arrives_byte_for_byte" do
      SIZES.each do |size|
        copied, arrived, = copy(from, to, pattern(size))
        assert_equal size, copied
        assert_bytes pattern(size), arrived
      end
    end

    define_method "test_#{from}_to_#{to}_with_a_length_leaves_the_rest_in_the_source" do
      [1, 4097, 65_536, 150_000].each do |len|
        copied, arrived, rest = copy(from, to, pattern(200_000), len)
        assert_equal len, copied
        assert_bytes pattern(200_000).byteslice(0, len), arrived
        assert_bytes pattern(200_000).byteslice(len..), rest
      end
    end
  end

  KINDS.each do |to|
    define_method "test_from_an_offset_to_#{to}_the_file_keeps_its_position" do
      source = tempfile(pattern(300_000))
      source.pos = 7
      [[nil, 100_001], [5000, 100_001], [nil, 0], [0, 9], [nil, 300_000], [nil, 300_001]].each do |len, offset|
        target, collect = target(to)
        copied = copy_stream(source, target, len, offset)
        expected = pattern(300_000).byteslice(offset, len || 300_000) || ""
        assert_equal expected.bytesize, copied
        assert_bytes expected, collect.call
        assert_equal 7, source.pos
      end
    end
  end

  PAIRS.each do |from, to|
    define_method "test_#{from}_to_#{to}_with_a_length_of_all_there_is_is_no_end_of_file" do
      copied, arrived, rest = copy(from, to, pattern(70_000), 70_000)
      assert_equal 70_000, copied
      assert_bytes pattern(70_000), arrived
      assert_empty rest
    end

    define_method "test_#{from}_to_#{to}_delivers_a_short_input_and_then_raises" do
      [0, 1, 70_000].each do |size|
        error, arrived, = copy(from, to, pattern(size), 70_001)
        assert_instance_of EOFError, error
        assert_includes error.message, "#{size} of 70001"
        assert_bytes pattern(size), arrived
      end
    end
  end

  KINDS.each do |to|
    define_method "test_from_an_offset_to_#{to}_a_short_file_is_delivered_and_then_raises" do
      source = tempfile(pattern(100))
      target, collect = target(to)
      error = assert_raises(EOFError) { IO::Splice.copy_stream(source, target, 50, 60) }
      assert_includes error.message, "40 of 50"
      assert_bytes pattern(100).byteslice(60..), collect.call
      assert_equal 0, source.pos
    end

    define_method "test_from_#{to}_a_length_of_nothing_moves_nothing" do
      target = tempfile
      source = source(to, "untouched")
      assert_equal 0, copy_stream(source, target, 0)
      assert_equal 0, target.size
      assert_equal "untouched", source.read
    end
  end

  %i[pipe tcp unix].each do |from|
    define_method "test_#{from}_has_no_offset" do
      source = source(from, "abc")
      KINDS.each do |to|
        target, collect = target(to)
        assert_raises(Errno::ESPIPE) { copy_stream(source, target, 1, 1) }
        assert_empty collect.call
      end
      assert_equal "abc", source.read
    end

    define_method "test_#{from}_with_a_length_does_not_wait_for_more" do
      reader, writer = pair(from)
      writer.write(pattern(1000))
      KINDS.each_with_index do |to, index|
        target, collect = target(to)
        assert_equal 250, copy_stream(reader, target, 250)
        assert_bytes pattern(1000).byteslice(index * 250, 250), collect.call
      end
    end
  end

  def test_a_length_beyond_any_file_is_as_good_as_none
    source = tempfile("short")
    target = tempfile
    assert_raises(EOFError) { IO::Splice.copy_stream(source, target, 2**70) }
    assert_equal "short", content(target)
  end

  def test_wrong_numbers_are_refused_before_anything_moves
    source = tempfile("abc")
    target = tempfile
    assert_raises(ArgumentError) { IO::Splice.copy_stream(source, target, -1) }
    assert_raises(ArgumentError) { IO::Splice.copy_stream(source, target, 1, -1) }
    assert_raises(TypeError) { IO::Splice.copy_stream(source, target, "1") }
    assert_raises(TypeError) { IO::Splice.copy_stream(source, target, 1, "1") }
    assert_raises(RangeError) { IO::Splice.copy_stream(source, target, 1, 2**70) }
    assert_equal 0, source.pos
    assert_equal 0, target.size
  end

  def test_a_target_that_is_none_takes_nothing_from_the_source
    [nil, :symbol, Object.new].each do |wrong|
      source = tempfile("abc")
      assert_raises(TypeError, NoMethodError, ArgumentError) { IO::Splice.copy_stream(source, wrong) }
      assert_equal "abc", source.read
    end
  end

  def test_wrong_numbers_do_not_empty_the_target
    Dir.mktmpdir do |dir|
      File.write("#{dir}/target", "kept")
      assert_raises(ArgumentError) { IO::Splice.copy_stream(tempfile("abc"), "#{dir}/target", -1) }
      assert_equal "kept", File.read("#{dir}/target")
    end
  end

  def test_wrong_ends_are_refused
    r, w = pipe
    file = tempfile("abc")
    assert_raises(IOError) { IO::Splice.copy_stream(w, file) }
    assert_raises(IOError) { IO::Splice.copy_stream(file, r) }
    [nil, :symbol, Object.new].each do |wrong|
      assert_raises(TypeError, NoMethodError, ArgumentError) { IO::Splice.copy_stream(wrong, file) }
    end
    closed = tempfile.tap(&:close)
    assert_raises(IOError) { IO::Splice.copy_stream(closed, file) }
    assert_raises(IOError) { IO::Splice.copy_stream(file, closed) }
    assert_equal "abc", file.read
  end

  # Paths and numbers

  def test_paths_of_every_kind
    to_path = Struct.new(:to_path)
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/source", pattern(100_000))
      [:itself, Pathname.method(:new), to_path.method(:new)].map(&:to_proc).each_with_index do |kind, number|
        assert_equal 100_000, IO::Splice.copy_stream(kind.call("#{dir}/source"), kind.call("#{dir}/#{number}"))
        assert_bytes pattern(100_000), File.binread("#{dir}/#{number}")
      end
    end
  end

  def test_a_path_with_length_and_offset
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/source", pattern(100_000))
      assert_equal 10, IO::Splice.copy_stream("#{dir}/source", "#{dir}/target", 10, 99_000)
      assert_bytes pattern(100_000).byteslice(99_000, 10), File.binread("#{dir}/target")
    end
  end

  def test_a_file_that_is_there_is_emptied_first
    Dir.mktmpdir do |dir|
      File.write("#{dir}/target", "longer than that")
      IO::Splice.copy_stream(tempfile("short"), "#{dir}/target")
      assert_equal "short", File.read("#{dir}/target")
    end
  end

  def test_paths_are_closed_after_an_error_too
    Dir.mktmpdir do |dir|
      File.write("#{dir}/source", "abc")
      before = open_descriptors
      assert_raises(EOFError) { IO::Splice.copy_stream("#{dir}/source", "#{dir}/target", 4) }
      assert_raises(Errno::ENOSPC) { IO::Splice.copy_stream("#{dir}/source", "/dev/full") }
      assert_equal before, open_descriptors
    end
  end

  def test_what_was_given_open_stays_open
    source = tempfile("abc")
    target = tempfile
    IO::Splice.copy_stream(source, target)
    refute source.closed?
    refute target.closed?
  end

  def test_a_missing_source_says_so_and_makes_no_target
    Dir.mktmpdir do |dir|
      assert_raises(Errno::ENOENT) { IO::Splice.copy_stream("#{dir}/source", "#{dir}/target") }
      refute_path_exists "#{dir}/target"
    end
  end

  def test_directories_are_refused
    Dir.mktmpdir do |dir|
      KINDS.each do |to|
        target, collect = target(to)
        assert_raises(Errno::EISDIR) { IO::Splice.copy_stream(dir, target) }
        assert_empty collect.call
      end
      assert_raises(Errno::EISDIR) { IO::Splice.copy_stream(tempfile("abc"), dir) }
    end
  end

  def test_tempfiles_are_used_where_they_stand
    Tempfile.create do |source|
      source.write("abcdef")
      source.pos = 2
      temporary = Tempfile.new
      temporary.write("12")
      assert_equal 4, IO::Splice.copy_stream(source, temporary)
      assert_equal 6, temporary.pos
      temporary.rewind
      assert_equal 4, IO::Splice.copy_stream(temporary, target = tempfile, 4)
      assert_equal "12cd", content(target)
      assert_equal "ef", temporary.read
    ensure
      temporary&.close!
    end
  end

  def test_descriptors_by_their_numbers
    PAIRS.each do |from, to|
      source = source(from, pattern(100_000))
      target, collect = target(to)
      assert_equal 100_000, copy_stream(source.fileno, target.fileno)
      assert_bytes pattern(100_000), collect.call
    end
  end

  def test_a_number_that_is_no_descriptor
    assert_raises(Errno::EBADF) { IO::Splice.copy_stream(-1, tempfile) }
    assert_raises(Errno::EBADF) { IO::Splice.copy_stream(tempfile("abc"), 1_000_000) }
  end

  # Buffers and positions

  KINDS.each do |to|
    define_method "test_what_ruby_has_read_ahead_goes_first_to_#{to}" do
      KINDS.each do |from|
        source = source(from, "head\n#{pattern(100_000)}")
        assert_equal "head\n", source.gets
        target, collect = target(to)
        assert_equal 100_000, copy_stream(source, target)
        assert_bytes pattern(100_000), collect.call
      end
    end

    define_method "test_what_was_put_back_goes_first_to_#{to}" do
      KINDS.each do |from|
        source = source(from, pattern(1000))
        source.ungetbyte("put back")
        target, collect = target(to)
        assert_equal 1008, copy_stream(source, target)
        assert_bytes "put back".b + pattern(1000), collect.call
      end
    end
  end

  def test_read_ahead_is_not_asked_for_when_there_is_an_offset
    source = tempfile("head\n0123456789")
    source.gets
    target = tempfile
    assert_equal 3, IO::Splice.copy_stream(source, target, 3, 1)
    assert_equal "ead", content(target)
    assert_equal 5, source.pos
    assert_equal "0123456789", source.read
  end

  KINDS.each do |to|
    define_method "test_a_length_within_what_was_read_ahead_leaves_the_rest_for_later_to_#{to}" do
      KINDS.each do |from|
        source = source(from, "head\n0123456789")
        source.gets
        target, collect = target(to)
        assert_equal 4, copy_stream(source, target, 4)
        assert_equal "0123", collect.call
        assert_equal "45", source.read(2)
        assert_equal "6789", source.read
      end
    end

    define_method "test_what_ruby_has_still_to_write_goes_first_to_#{to}" do
      KINDS.each do |from|
        source = source(from, "behind")
        target, collect = target(to)
        target.sync = false
        target.write("before ")
        assert_equal 6, copy_stream(source, target)
        target.write(" after")
        assert_equal "before behind after", collect.call
      end
    end
  end

  def test_both_files_stand_behind_what_was_copied
    source = tempfile(pattern(10_000))
    target = tempfile("x" * 20_000)
    source.pos = 1000
    target.pos = 500
    IO::Splice.copy_stream(source, target, 3000)
    assert_equal 4000, source.pos
    assert_equal 3500, target.pos
    assert_bytes "#{"x" * 500}#{pattern(10_000).byteslice(1000, 3000)}#{"x" * 16_500}".b, content(target)
  end

  def test_a_file_read_ahead_by_ruby_stands_right_behind_what_was_copied
    source = tempfile("head\n0123456789")
    source.gets
    IO::Splice.copy_stream(source, tempfile, 4)
    assert_equal 9, source.pos
    IO::Splice.copy_stream(source, target = tempfile, 3)
    assert_equal "456", content(target)
    assert_equal 12, source.pos
  end

  def test_a_full_disk_leaves_the_source_behind_what_was_written
    KINDS.each do |from|
      source = source(from, pattern(300_000))
      File.open("/dev/full", "w") do |full|
        assert_raises(Errno::ENOSPC) { copy_stream(source, full) }
      end
      assert_bytes pattern(300_000), source.read
    end
  end

  def test_a_full_disk_gives_back_what_was_read_ahead
    KINDS.each do |from|
      source = source(from, "head\n#{pattern(300_000)}")
      source.gets
      File.open("/dev/full", "w") do |full|
        assert_raises(Errno::ENOSPC) { copy_stream(source, full) }
      end
      assert_bytes pattern(300_000), source.read
    end
  end

  def test_a_full_disk_leaves_an_offset_source_where_it_was
    source = tempfile(pattern(1000))
    source.pos = 3
    File.open("/dev/full", "w") do |full|
      assert_raises(Errno::ENOSPC) { IO::Splice.copy_stream(source, full, 10, 10) }
    end
    assert_equal 3, source.pos
  end

  def test_a_file_size_limit_leaves_both_files_behind_what_was_written
    KINDS.each do |from|
      source = source(from, pattern(300_000))
      target = tempfile
      with_file_size_limit(100_000) do
        assert_raises(Errno::EFBIG) { copy_stream(source, target) }
      end
      assert_equal 100_000, target.pos
      assert_bytes pattern(300_000).byteslice(0, 100_000), content(target)
      assert_bytes pattern(300_000).byteslice(100_000..), source.read
    end
  end

  def test_a_reader_that_has_gone_leaves_the_source_behind_what_it_got
    KINDS.product(%i[pipe tcp unix]).each do |from, to|
      source = source(from, pattern(20_000_000))
      reader, writer = pair(to)
      copy = thread { IO::Splice.copy_stream(source, writer) }
      got = reader.read(50_000)
      reader.close
      assert_raises(Errno::EPIPE, Errno::ECONNRESET) { guarded { copy.value } }
      rest = source.read
      assert_operator rest.bytesize, :<=, 20_000_000 - got.bytesize
      assert_bytes pattern(20_000_000).byteslice((20_000_000 - rest.bytesize)..), rest
    end
  end

  def test_a_pipe_without_a_reader_takes_nothing_from_the_source
    KINDS.each do |from|
      source = source(from, pattern(1000))
      reader, writer = pipe
      reader.close
      assert_raises(Errno::EPIPE) { copy_stream(source, writer) }
      assert_bytes pattern(1000), source.read
    end
  end

  def test_a_reset_connection_is_an_error
    KINDS.each do |to|
      source, peer = tcp_pair
      peer.write("before")
      assert_equal "before", source.read(6)
      target, collect = target(to)
      copy = until_asleep(thread { IO::Splice.copy_stream(source, target) })
      peer.setsockopt(Socket::Option.linger(true, 0))
      peer.close
      assert_raises(Errno::ECONNRESET) { guarded { copy.value } }
      assert_empty collect.call
    end
  end

  # Progress

  def test_progress_only_grows_and_ends_with_the_total
    PAIRS.each do |from, to|
      source = source(from, pattern(3_500_000))
      target, collect = target(to)
      counts = []
      copied = guarded { IO::Splice.copy_stream(source, target) { |bytes| counts << bytes } }
      assert_equal 3_500_000, copied
      assert_equal 3_500_000, counts.last
      assert_operator counts.size, :>, 1
      assert_equal counts.sort, counts
      assert_bytes pattern(3_500_000), collect.call
    end
  end

  def test_progress_is_reported_when_there_is_nothing_to_copy
    PAIRS.each do |from, to|
      counts = []
      target, collect = target(to)
      IO::Splice.copy_stream(source(from, ""), target) { |bytes| counts << bytes }
      assert_equal [0], counts
      collect.call
    end
  end

  def test_progress_includes_what_was_read_ahead
    source = tempfile("head\n0123")
    source.gets
    counts = []
    IO::Splice.copy_stream(source, tempfile) { |bytes| counts << bytes }
    assert_equal 4, counts.last
  end

  def test_an_exception_from_the_block_leaves_both_ends_behind_what_was_copied
    stopped_by_the_block { raise ArgumentError, "enough" }
  end

  def test_a_throw_from_the_block_leaves_both_ends_behind_what_was_copied
    stopped_by_the_block { throw :enough }
  end

  def test_a_break_from_the_block_leaves_both_ends_behind_what_was_copied
    PAIRS.each do |from, to|
      source = source(from, pattern(3_000_000))
      target, collect = target(to)
      result = guarded { IO::Splice.copy_stream(source, target) { |bytes| break [:stopped, bytes] if bytes.positive? } }
      assert_equal :stopped, result.first
      assert_split result.last, source, collect.call
    end
  end

  def test_the_block_may_raise_at_the_very_end
    source = tempfile("abc")
    target = tempfile
    assert_raises(ArgumentError) { IO::Splice.copy_stream(source, target) { raise ArgumentError } }
    assert_equal 3, source.pos
    assert_equal "abc", content(target)
  end

  def test_the_block_may_close_an_end
    source = source(:tcp, pattern(3_000_000))
    target, collect = target(:unix)
    assert_raises(IOError) { guarded { IO::Splice.copy_stream(source, target) { source.close } } }
    arrived = collect.call
    assert_bytes pattern(3_000_000).byteslice(0, arrived.bytesize), arrived
  end

  # Sources and targets without splice support

  %w[/proc/self/limits /proc/version /proc/cpuinfo /sys/kernel/mm/transparent_hugepage/enabled /proc/self/maps
     /proc/filesystems].each do |path|
    define_method "test_#{path.tr("/", "_")}_arrives_in_everything" do
      skip "not here" unless File.readable?(path)
      KINDS.each do |to|
        target, collect = target(to)
        copied = copy_stream(path, target)
        arrived = collect.call
        assert_equal arrived.bytesize, copied
        refute_empty arrived
        assert_equal File.binread(path), arrived unless path.end_with?("maps", "cpuinfo")
      end
    end
  end

  def test_a_file_of_proc_with_length_and_offset
    KINDS.each do |to|
      expected = File.binread("/proc/version")
      target, collect = target(to)
      assert_equal 5, copy_stream("/proc/version", target, 5, 3)
      assert_equal expected[3, 5], collect.call
      File.open("/proc/version") do |version|
        target, collect = target(to)
        assert_equal 5, copy_stream(version, target, 5)
        assert_equal expected[0, 5], collect.call
        assert_equal expected[5..], version.read
      end
    end
  end

  def test_dev_zero_with_a_length
    KINDS.each do |to|
      target, collect = target(to)
      assert_equal 3_000_000, copy_stream("/dev/zero", target, 3_000_000)
      assert_bytes ("\0" * 3_000_000).b, collect.call
    end
  end

  def test_dev_null_as_either_end
    KINDS.each do |kind|
      assert_equal 100_000, copy_stream(source(kind, pattern(100_000)), "/dev/null")
      target, collect = target(kind)
      assert_equal 0, copy_stream("/dev/null", target)
      assert_empty collect.call
    end
  end

  def test_a_terminal_as_the_source
    KINDS.each do |to|
      terminal, peer = closing(*PTY.open)
      peer.raw!
      terminal.write("typed in")
      target, collect = target(to)
      assert_equal 8, copy_stream(peer, target, 8)
      assert_equal "typed in", collect.call
    end
  end

  def test_a_terminal_as_the_target
    KINDS.each do |from|
      terminal, peer = closing(*PTY.open)
      terminal.binmode
      peer.raw!
      shown = thread { terminal.read(100_000) }
      assert_equal 100_000, copy_stream(source(from, pattern(100_000)), peer)
      assert_bytes pattern(100_000), shown.value
    end
  end

  def test_append_mode_targets
    KINDS.each do |from|
      Dir.mktmpdir do |dir|
        File.write("#{dir}/target", "first ")
        File.open("#{dir}/target", "ab") do |target|
          assert_equal 100_000, copy_stream(source(from, pattern(100_000)), target)
        end
        assert_bytes "first ".b + pattern(100_000), File.binread("#{dir}/target")
      end
    end
  end

  def test_a_pipe_in_append_mode
    KINDS.each do |from|
      reader, writer = pair(:pipe)
      writer.fcntl(Fcntl::F_SETFL, writer.fcntl(Fcntl::F_GETFL) | File::APPEND)
      arrived = thread { reader.read }
      assert_equal 100_000, copy_stream(source(from, pattern(100_000)), writer)
      writer.close
      assert_bytes pattern(100_000), arrived.value
    end
  end

  def test_ends_in_blocking_mode
    %i[pipe tcp unix].product(%i[pipe tcp unix]).each do |from, to|
      source = source(from, pattern(3_000_000))
      target, collect = target(to)
      source.nonblock = target.nonblock = false
      assert_equal 3_000_000, copy_stream(source, target)
      refute_predicate source, :nonblock?
      refute_predicate target, :nonblock?
      assert_bytes pattern(3_000_000), collect.call
    end
  end

  def test_files_to_and_from_ends_in_blocking_mode
    %i[pipe tcp unix].each do |kind|
      target, collect = target(kind)
      target.nonblock = false
      assert_equal 3_000_000, copy_stream(tempfile(pattern(3_000_000)), target)
      assert_bytes pattern(3_000_000), collect.call
      source = source(kind, pattern(3_000_000))
      source.nonblock = false
      file = tempfile
      assert_equal 3_000_000, copy_stream(source, file)
      assert_bytes pattern(3_000_000), content(file)
    end
  end

  KINDS.each do |to|
    define_method "test_20000_segments_of_one_byte_to_#{to}" do
      source, peer = tcp_pair
      peer.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
      bytes = pattern(20_000)
      go = Thread::Queue.new
      @threads << thread do
        bytes.each_char.with_index do |byte, index|
          go << :go if index == 5000
          peer.write(byte)
        end
        peer.close
      end
      go.pop
      target, collect = target(to)
      assert_equal 20_000, copy_stream(source, target)
      assert_bytes bytes, collect.call
    end
  end

  # Files that are not what they were

  def test_a_file_copied_onto_itself
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/file", pattern(300_000))
      File.open("#{dir}/file", "rb") do |source|
        File.open("#{dir}/file", "r+b") do |target|
          assert_equal 300_000, copy_stream(source, target)
        end
      end
      assert_bytes pattern(300_000), File.binread("#{dir}/file")
    end
  end

  def test_a_file_copied_further_down_into_itself
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/file", pattern(300_000))
      File.open("#{dir}/file", "rb") do |source|
        File.open("#{dir}/file", "r+b") do |target|
          target.seek(0, IO::SEEK_END)
          assert_equal 300_000, copy_stream(source, target)
        end
      end
      assert_bytes pattern(300_000) * 2, File.binread("#{dir}/file")
    end
  end

  def test_a_file_appended_to_itself
    itself_appended { |source, target| IO::Splice.copy_stream(source, target) }
  end

  def test_a_file_appended_to_itself_with_an_offset
    itself_appended(10) { |source, target| IO::Splice.copy_stream(source, target, nil, 10) }
  end

  def test_a_file_appended_to_itself_after_a_line_was_read
    Dir.mktmpdir do |dir|
      File.write("#{dir}/file", "head\n0123456789")
      File.open("#{dir}/file") do |source|
        source.gets
        File.open("#{dir}/file", "a") do |target|
          copied = with_file_size_limit(10_000_000) { copy_stream(source, target) }
          assert_equal 10, copied
        end
      end
      assert_equal "head\n01234567890123456789", File.read("#{dir}/file")
    end
  end

  def test_a_long_file_appended_to_itself_after_a_line_was_read
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/file", "head\n".b + pattern(100_000))
      File.open("#{dir}/file", "rb") do |source|
        source.gets
        File.open("#{dir}/file", "ab") do |target|
          assert_equal 100_000, copy_stream(source, target)
        end
      end
      assert_bytes "head\n".b + (pattern(100_000) * 2), File.binread("#{dir}/file")
    end
  end

  def test_a_file_that_grows_is_copied_to_its_new_end
    KINDS.each do |to|
      source = tempfile(pattern(3_000_000))
      grown = pattern(4_000_000)
      target, collect = target(to)
      once = true
      copied = guarded do
        IO::Splice.copy_stream(source, target) do
          File.binwrite("/proc/self/fd/#{source.fileno}", grown.byteslice(3_000_000..), 3_000_000) if once
          once = false
        end
      end
      assert_equal 4_000_000, copied
      assert_bytes grown, collect.call
    end
  end

  def test_a_file_that_is_truncated_ends_there
    KINDS.each do |to|
      source = tempfile(pattern(20_000_000))
      target, collect = target(to)
      copied = guarded do
        IO::Splice.copy_stream(source, target) { |bytes| source.truncate(bytes) if bytes < 20_000_000 }
      end
      assert_operator copied, :<, 20_000_000
      assert_equal copied, collect.call.bytesize
      assert_equal copied, source.pos
    end
  end

  def test_a_file_that_is_truncated_is_too_short_for_a_length
    source = tempfile(pattern(3_000_000))
    target = tempfile
    assert_raises(EOFError) do
      guarded { IO::Splice.copy_stream(source, target, 3_000_000) { |bytes| source.truncate(bytes) } }
    end
    assert_bytes pattern(3_000_000).byteslice(0, target.size), content(target)
  end

  # Beyond 32 bits

  FOUR_GIB = 1 << 32

  def test_more_than_4_gib
    sparse do |source|
      assert_equal FOUR_GIB + 10, copy_stream(source, "/dev/null")
      assert_equal FOUR_GIB + 10, source.pos
    end
  end

  def test_a_length_of_more_than_4_gib
    sparse do |source|
      assert_equal FOUR_GIB + 1, copy_stream(source, "/dev/null", FOUR_GIB + 1)
      assert_equal FOUR_GIB + 1, source.pos
      error = assert_raises(EOFError) { copy_stream(source, "/dev/null", FOUR_GIB) }
      assert_includes error.message, "9 of #{FOUR_GIB}"
    end
  end

  def test_an_offset_across_4_gib
    sparse do |source|
      KINDS.each do |to|
        target, collect = target(to)
        assert_equal 10, copy_stream(source, target, 10, FOUR_GIB - 5)
        assert_equal "below4over", collect.call
        target, collect = target(to)
        assert_equal 5, copy_stream(source, target, nil, FOUR_GIB + 5)
        assert_equal "\0" * 5, collect.call
      end
      assert_equal 0, source.pos
    end
  end

  def test_a_position_across_4_gib
    sparse do |source|
      KINDS.each do |to|
        source.pos = FOUR_GIB - 5
        target, collect = target(to)
        assert_equal 10, copy_stream(source, target, 10)
        assert_equal "below4over", collect.call
        assert_equal FOUR_GIB + 5, source.pos
      end
    end
  end

  private

  # The count or the error, what arrived, and what is left.
  def copy(from, to, bytes, *args)
    source = source(from, bytes)
    target, collect = target(to)
    result = begin
      copy_stream(source, target, *args)
    rescue EOFError
      $ERROR_INFO
    end
    [result, collect.call, source.read].tap { source.close }
  end

  def assert_split(copied, source, arrived)
    assert_operator copied, :<=, arrived.bytesize
    rest = source.read
    assert_equal 3_000_000, arrived.bytesize + rest.bytesize
    assert_bytes pattern(3_000_000), arrived + rest
  end

  def stopped_by_the_block(&stop)
    PAIRS.each do |from, to|
      source = source(from, pattern(3_000_000))
      target, collect = target(to)
      copied = 0
      stopped = true
      catch(:enough) do
        guarded { IO::Splice.copy_stream(source, target) { |bytes| (copied = bytes).positive? && stop.call } }
        stopped = false
      rescue ArgumentError => e
        assert_equal "enough", e.message
      end
      assert stopped
      assert_operator copied, :<, 3_000_000
      assert_split copied, source, collect.call
    end
  end

  def itself_appended(offset = 0)
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/file", pattern(300_000))
      File.open("#{dir}/file", "rb") do |source|
        File.open("#{dir}/file", "ab") do |target|
          copied = guarded { yield source, target }
          assert_equal 300_000 - offset, copied
        end
      end
      assert_bytes pattern(300_000) + pattern(300_000).byteslice(offset..), File.binread("#{dir}/file")
    end
  end

  def with_file_size_limit(bytes)
    limits = Process.getrlimit(:FSIZE)
    handler = trap("XFSZ", "IGNORE")
    Process.setrlimit(:FSIZE, bytes, limits.last)
    yield
  ensure
    Process.setrlimit(:FSIZE, *limits)
    trap("XFSZ", handler)
  end

  # In a file system where a hole takes no pages, and so hardly any time.
  def sparse
    Dir.mktmpdir(nil, *["/dev/shm"].select { |dir| File.writable?(dir) }) do |dir|
      File.open("#{dir}/file", "w+b") do |file|
        file.truncate(FOUR_GIB + 10)
        file.pos = FOUR_GIB - 5
        file.write("below4over")
        file.rewind
        yield file
      end
    end
  end
end
