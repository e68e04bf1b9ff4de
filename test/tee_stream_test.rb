# frozen_string_literal: true

require "test_helper"
require "delegate"
require "English"
require "io/console"
require "io/nonblock"
require "openssl"
require "pathname"
require "pty"
require "stringio"
require "support/copy_ends"
require "support/select_scheduler"

class TestTeeStream < Minitest::Test
  include CopyEnds

  MIB = 1 << 20
  SIZES = [0, 1, MIB - 1, MIB, MIB + 1, (3 * MIB) + 5].freeze
  STREAMS = %i[pipe tcp unix].freeze
  SOURCES = [*STREAMS, :file, :fifo, :path, :pathname, :number, :stringio, :readpartial, :read, :to_io].freeze
  TARGETS = [*STREAMS, :file, :append, :path, :pathname, :number, :stringio, :picky, :terminal, :to_io].freeze
  Stop = Class.new(StandardError)

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

  # Every byte to everybody

  SOURCES.each do |from|
    define_method "test_every_target_gets_every_byte_from_#{from}" do
      SIZES.each do |size|
        targets, collects = targets(*TARGETS)
        assert_equal size, tee_stream(source(from, pattern(size)), *targets)
        assert_all pattern(size), collects
      end
    end

    define_method "test_two_targets_get_every_byte_from_#{from}" do
      TARGETS.each_cons(2) do |kinds|
        targets, collects = targets(*kinds)
        assert_equal 150_000, tee_stream(source(from, pattern(150_000)), *targets)
        assert_all pattern(150_000), collects
      end
    end
  end

  TARGETS.each do |to|
    define_method "test_#{to}_goes_with_every_other_target" do
      TARGETS.product(%i[file tcp]).each do |other, from|
        targets, collects = targets(other, to)
        assert_equal 150_000, tee_stream(source(from, pattern(150_000)), *targets)
        assert_all pattern(150_000), collects
      end
    end
  end

  (2..12).each do |number|
    define_method "test_#{number}_targets" do
      TARGETS.each do |kind|
        targets, collects = targets(*[kind] * number)
        assert_equal 300_000, tee_stream(source(:tcp, pattern(300_000)), *targets)
        assert_all pattern(300_000), collects
      end
    end
  end

  def test_a_file_of_proc
    %w[/proc/version /proc/filesystems].each do |path|
      expected = File.binread(path)
      [path, File.open(path)].each do |source|
        targets, collects = targets(*TARGETS)
        assert_equal expected.bytesize, tee_stream(source, *targets)
        assert_all expected, collects
        source.close if source.is_a?(File)
      end
    end
  end

  def test_ends_in_blocking_mode
    STREAMS.each do |from|
      targets, collects = targets(*STREAMS, :fifo)
      source = source(from, pattern((2 * MIB) + 1))
      [source, *targets].each { |io| io.nonblock = false }
      assert_equal (2 * MIB) + 1, tee_stream(source, *targets)
      assert_all pattern((2 * MIB) + 1), collects
    end
  end

  def test_segments_of_one_byte_that_use_up_the_slots_of_a_pipe
    source, peer = tcp_pair
    peer.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    pattern(20_000).each_char { |byte| peer.write(byte) }
    peer.close
    targets, collects = targets(*TARGETS)
    assert_equal 20_000, tee_stream(source, *targets)
    assert_all pattern(20_000), collects
  end

  def test_segments_of_one_byte_that_come_meanwhile
    source, peer = tcp_pair
    peer.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
    bytes = pattern(20_000)
    @threads << thread { bytes.each_char { |byte| peer.write(byte) } && peer.close }
    targets, collects = targets(*TARGETS)
    assert_equal 20_000, tee_stream(source, *targets)
    assert_all bytes, collects
  end

  def test_dev_null_among_the_targets
    targets, collects = targets(*TARGETS)
    File.open(File::NULL, "w") do |null|
      assert_equal 300_000, tee_stream(source(:tcp, pattern(300_000)), File::NULL, *targets, null)
    end
    assert_all pattern(300_000), collects
  end

  def test_dev_zero_with_a_length
    targets, collects = targets(*TARGETS)
    assert_equal MIB + 1, tee_stream("/dev/zero", *targets, len: MIB + 1)
    assert_all ("\0" * (MIB + 1)).b, collects
  end

  def test_a_target_that_is_given_twice_gets_it_twice
    reader, writer = pipe
    assert_equal 4, tee_stream(tempfile("once"), writer, writer)
    assert_equal "onceonce", reader.readpartial(100)
  end

  def test_what_is_written_to_one_target_afterwards_shows_in_no_other
    pipes = Array.new(3) { pipe }
    [source(:pipe, "all"), source(:tcp, "all"), tempfile("all"), StringIO.new("all")].each do |source|
      assert_equal 3, tee_stream(source, *pipes.map(&:last))
      pipes.each_with_index { |(_, writer), index| writer.write(index.to_s) }
      assert_equal(%w[all0 all1 all2], pipes.map { |reader,| reader.readpartial(100) })
    end
  end

  # Length and position

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

  # Paths, numbers, objects

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
      assert_bytes pattern(100_000), value_of(arrived)
      there.close
      assert_all pattern(100_000), collects
    end
  end

  def test_wrappers_are_read_through_their_own_methods
    here, there = tls_pair
    feeder = thread { here.write(pattern(100_000)) && here.close }
    targets, collects = targets(*TARGETS)
    assert_equal 100_000, tee_stream(there, *targets)
    value_of(feeder)
    there.close
    assert_all pattern(100_000), collects
  end

  # The pace

  def test_the_slowest_sets_the_pace
    [%i[file pipe], %i[tcp tcp], %i[unix unix], %i[pipe unix]].each do |from, to|
      reader, slow = narrow(to)
      targets, collects = targets(:pipe, :file, :stringio)
      source = source(from, pattern(6 * MIB))
      copy = settled(thread { IO::Splice.tee_stream(source, slow, *targets) })
      ahead = targets[1].size
      assert_operator ahead, :<, 3 * MIB
      assert_operator targets[2].string.bytesize, :<, 3 * MIB
      rest = thread { reader.read }
      assert_equal 6 * MIB, value_of(copy)
      slow.close
      assert_bytes pattern(6 * MIB), value_of(rest)
      assert_all pattern(6 * MIB), collects
    end
  end

  def test_no_target_is_more_than_a_portion_ahead
    reader, slow = pipe
    targets, = targets(:file, :picky)
    copy = until_asleep(thread { IO::Splice.tee_stream(tempfile(pattern(6 * MIB)), slow, *targets) })
    read = 0
    while copy.alive?
      read += reader.read([MIB / 2, (6 * MIB) - read].min).bytesize
      break if read == 6 * MIB

      settled(copy)
      in_pipe = IO::Splice::PIPE_CAPA
      [targets.first.size, targets.last.string.bytesize].each do |got|
        assert_operator got, :<=, read + in_pipe + MIB
        assert_operator got, :>=, read
      end
    end
    assert_equal 6 * MIB, value_of(copy)
  end

  # A target that fails

  def test_a_reader_that_is_gone_from_the_start
    SOURCES.each do |from|
      3.times do |place|
        reader, broken = pipe
        reader.close
        targets, collects = targets(:pipe, :unix)
        error = assert_raises(Errno::EPIPE) do
          tee_stream(source(from, pattern(2 * MIB)), *targets.dup.insert(place, broken))
        end
        assert_failed error, broken, place, collects
        assert_equal 0, error.bytes_written[place]
      end
    end
  end

  SOURCES.each do |from|
    define_method "test_a_reader_that_goes_leaves_equal_prefixes_from_#{from}" do
      STREAMS.each do |to|
        reader, broken = narrow(to)
        @threads << thread { reader.read(1_500_000) && reader.close }
        targets, collects = targets(*TARGETS)
        source = source(from, pattern(6 * MIB))
        error = assert_raises(Errno::EPIPE, Errno::ECONNRESET) do
          tee_stream(source, *targets[0, 4], broken, *targets[4..])
        end
        prefix = assert_failed error, broken, 4, collects
        assert_operator error.bytes_written[4], :>=, 1_500_000
        assert_operator prefix, :<, 6 * MIB
        assert_bytes pattern(6 * MIB).byteslice(prefix..), rest(source) unless %i[path pathname].include?(from)
      end
    end
  end

  def test_a_reset_connection
    SOURCES.each do |from|
      reader, broken = tcp_pair
      broken.write("before")
      reader.setsockopt(Socket::Option.linger(true, 0))
      reader.close
      targets, collects = targets(:pipe, :append, :stringio)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) do
        tee_stream(source(from, pattern(2 * MIB)), broken, *targets)
      end
      assert_failed error, broken, 0, collects
      assert_equal 0, error.bytes_written.first
    end
  end

  SOURCES.each do |from|
    define_method "test_a_slow_target_catches_up_when_another_fails_from_#{from}" do
      reader, slow = unix_pair
      filled = fill(slow)
      far, broken = pipe
      far.close
      targets, collects = targets(:tcp, :file, :picky)
      source = source(from, pattern(6 * MIB))
      copy = settled(thread { IO::Splice.tee_stream(source, slow, *targets, broken) })
      assert_predicate copy, :alive?
      arrived = thread { reader.read }
      error = assert_raises(Errno::EPIPE) { value_of(copy) }
      slow.close
      assert_failed error, broken, 4, [-> { value_of(arrived).byteslice(filled..) }, *collects]
      assert_operator error.bytes_written.first, :>, 0
    end
  end

  def test_a_full_device
    SOURCES.each do |from|
      File.open("/dev/full", "a") do |append|
        File.open("/dev/full", "w") do |open|
          append.sync = open.sync = true
          ["/dev/full", append, open, append.fileno].each do |full|
            targets, collects = targets(:pipe, :file, :picky)
            error = assert_raises(Errno::ENOSPC) { tee_stream(source(from, pattern(100_000)), *targets, full) }
            assert_failed error, full, 3, collects
            assert_equal 0, error.bytes_written.last
          end
        end
      end
    end
  end

  def test_a_full_device_is_told_of_however_few_the_bytes_are
    SOURCES.each do |from|
      full = File.open("/dev/full", "a")
      targets, collects = targets(:pipe, :picky)
      error = assert_raises(Errno::ENOSPC, "from #{from}") { tee_stream(source(from, "few"), full, *targets) }
      assert_failed error, full, 0, collects, "few"
    ensure
      begin
        full.close
      rescue Errno::ENOSPC
        nil
      end
    end
  end

  SOURCES.each do |from|
    define_method "test_a_file_that_may_not_grow_from_#{from}" do
      limited = tempfile
      in_a_child do
        source = source(from, pattern(900_000))
        trap("XFSZ", "IGNORE")
        Process.setrlimit(:FSIZE, 100_000)
        targets, collects = targets(*STREAMS, :picky)
        error = assert_raises(Errno::EFBIG) { tee_stream(source, limited, *targets) }
        assert_failed error, limited, 0, collects
        assert_equal [100_000, 100_000], [limited.size, error.bytes_written.first]
      end
    end
  end

  def test_an_object_that_raises_an_error_of_input_and_output
    SOURCES.product([IOError, Errno::ENOSPC]).each do |from, kind|
      [0, 1, 100_000, (2 * MIB) - 1].each do |limit|
        failing = Failing.new(limit, raised = kind.new("enough"))
        targets, collects = targets(:pipe, :file, :stringio)
        error = assert_raises(kind) { tee_stream(source(from, pattern(3 * MIB)), failing, *targets) }
        assert_same raised, error
        assert_failed error, failing, 0, [-> { failing.string }, *collects], pattern(3 * MIB), equal: collects
        assert_equal limit, error.bytes_written.first
      end
    end
  end

  def test_an_object_that_raises_anything_else
    SOURCES.each do |from|
      [0, 100_000, (2 * MIB) - 1].each do |limit|
        failing = Failing.new(limit, raised = RuntimeError.new("enough"))
        targets, collects = targets(:file, :pipe, :tcp)
        error = assert_raises(RuntimeError) do
          tee_stream(source(from, pattern(3 * MIB)), *targets[0, 1], failing, *targets[1..])
        end
        assert_same raised, error
        assert_tells error, [collects.first, -> { failing.string }, *collects[1..]]
        assert_equal limit, error.bytes_written[1]
      end
    end
  end

  def test_of_several_that_fail_one_is_named_and_the_others_have_equal_prefixes
    readers, broken = Array.new(2) { pipe }.transpose
    readers.each(&:close)
    targets, collects = targets(:unix, :file)
    [:file, *STREAMS, :stringio].each do |from|
      error = assert_raises(Errno::EPIPE) do
        tee_stream(source(from, "all"), broken[0], targets[0], broken[1], targets[1])
      end
      assert_same broken[0], error.target
      assert_equal [0, 3, 0, 3], error.bytes_written
    end
    assert_all "all" * 5, collects
  end

  def test_when_every_target_fails_the_source_stands_behind_what_they_got
    [[2, :pipe], [3, :tcp]].each do |number, from|
      readers, broken = Array.new(number) { pipe }.transpose
      readers.each(&:close)
      [tempfile("all"), source(from, "all")].each do |source|
        error = assert_raises(Errno::EPIPE) { tee_stream(source, *broken) }
        assert_equal [0] * number, error.bytes_written
        assert_equal "all", source.read
      end
    end
  end

  def test_an_object_that_does_not_say_how_much_it_took
    SOURCES.each do |from|
      silent = Picky.new
      def silent.write(bytes) = super && nil
      assert_raises(TypeError, "from #{from}") { tee_stream(source(from, "abc"), tempfile, silent) }
    end
  end

  def test_a_frozen_error_goes_through_as_it_is
    SOURCES.each do |from|
      failing = Failing.new(0, IOError.new("enough").freeze)
      error = assert_raises(IOError, "from #{from}") { tee_stream(source(from, "abc"), tempfile, failing) }
      assert_equal "enough", error.message
    end
  end

  def test_an_error_of_the_source_is_of_no_target
    source, peer = tcp_pair
    targets, collects = targets(*TARGETS)
    peer.write("before")
    copy = until_asleep(thread { IO::Splice.tee_stream(source, *targets) })
    guarded { Thread.pass until targets[TARGETS.index(:picky)].string == "before" }
    peer.setsockopt(Socket::Option.linger(true, 0))
    peer.close
    error = assert_raises(Errno::ECONNRESET) { value_of(copy) }
    assert_kind_of IO::Splice::PartialTee, error
    assert_nil error.target
    assert_equal [6] * TARGETS.size, error.bytes_written
    assert_all "before", collects
  end

  def test_a_source_object_that_raises
    source = Object.new
    def source.readpartial(_size, buffer)
      @read ? raise(IOError, "enough") : buffer.replace("before")

      @read = true
    end
    targets, collects = targets(*TARGETS)
    error = assert_raises(IOError) { tee_stream(source, *targets) }
    assert_kind_of IO::Splice::PartialTee, error
    assert_nil error.target
    assert_equal [6] * TARGETS.size, error.bytes_written
    assert_all "before", collects
  end

  def test_after_a_failure_the_next_copy_gets_only_its_own_bytes
    STREAMS.each do |from|
      20.times do |number|
        reader, broken = pipe
        reader.close
        targets, collects = targets(:pipe, :tcp)
        assert_raises(Errno::EPIPE) { tee_stream(source(from, "foreign" * 1000), broken, *targets) }
        assert_all "foreign" * 1000, collects
        targets, collects = targets(:pipe, :tcp)
        tee_stream(source(from, number.to_s), *targets)
        assert_all number.to_s, collects
      end
    end
  end

  # The block

  def test_an_exception_from_the_block_ends_it_with_equal_prefixes
    SOURCES.each do |from|
      targets, collects = targets(*TARGETS)
      error = assert_raises(Stop) do
        tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| raise Stop if bytes.positive? }
      end
      assert_kind_of IO::Splice::PartialTee, error
      assert_nil error.target
      assert_equal 1, error.bytes_written.uniq.size
      assert_includes 1...(3 * MIB), error.bytes_written.first
      assert_all pattern(error.bytes_written.first), collects
    end
  end

  def test_the_block_may_break_and_throw
    SOURCES.each do |from|
      targets, collects = targets(*TARGETS)
      copied = catch(:enough) do
        tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| throw :enough, bytes if bytes.positive? }
      end
      assert_includes 1...(3 * MIB), copied
      assert_all pattern(copied), collects
      targets, collects = targets(*TARGETS)
      copied = guarded do
        IO::Splice.tee_stream(source(from, pattern(3 * MIB)), *targets) { |bytes| break bytes if bytes.positive? }
      end
      assert_includes 1...(3 * MIB), copied
      assert_all pattern(copied), collects
    end
  end

  def test_the_block_may_close_a_target
    targets, collects = targets(:pipe, :stringio)
    reader, closed = unix_pair
    arrived = thread { reader.read }
    error = assert_raises(IOError) { tee_stream(tempfile(pattern(3 * MIB)), *targets, closed) { closed.close } }
    assert_tells error, [*collects, -> { value_of(arrived) }]
  end

  def test_a_child_that_is_forked_in_the_block_cannot_go_on_and_brings_nothing_into_its_own_pipes
    [:file, *STREAMS].each do |from|
      source = source(from, pattern(3 * MIB))
      targets, collects = targets(*STREAMS)
      report, tell = pipe
      pid = foreign = nil
      begin
        tee_stream(source, *targets) do |bytes|
          next if pid || bytes.zero?

          pid = fork
          # They get the numbers that the gem's own had.
          foreign = Array.new(20) { IO.pipe } unless pid
        end
      ensure
        unless pid
          tell.write(foreign.map { |r,| r.read_nonblock(1, exception: false) }.uniq.inspect, $ERROR_INFO.class)
          exit!(0)
        end
      end
      tell.close
      assert_equal("[:wait_readable]Errno::EBADF", guarded { report.read })
      Process.wait(pid)
      assert_all pattern(3 * MIB), collects
    end
  end

  # Exceptions from outside

  STREAMS.product([["stop", Stop], ["timeout", Timeout::Error]]).each do |to, (name, error)|
    define_method "test_a_#{name}_in_the_middle_tells_what_each_has_with_a_slow_#{to}" do
      [:file, *STREAMS].product([1, 2, 3]).each do |from,|
        held_up(from, to) do |copy, collects|
          copy.raise(error)
          raised = assert_raises(error) { value_of(copy) }
          assert_tells raised, collects
          assert_nil raised.target
          assert_includes 1...(6 * MIB), raised.bytes_written.max
        end
      end
    end
  end

  STREAMS.each do |to|
    define_method "test_kill_in_the_middle_leaves_prefixes_with_a_slow_#{to}" do
      [:file, *STREAMS].product([1, 2, 3]).each do |from,|
        held_up(from, to) do |copy, collects|
          copy.kill
          assert_nil value_of(copy)
          prefixes = collects.map(&:call)
          prefixes.each { |bytes| assert_bytes pattern(bytes.bytesize), bytes }
          assert_includes 1...(6 * MIB), prefixes.map(&:bytesize).max
        end
      end
    end
  end

  STREAMS.product(%i[source target]).each do |to, end_|
    define_method "test_closing_the_#{end_}_in_another_thread_with_a_slow_#{to}" do
      [:file, *STREAMS].each do |from|
        held_up(from, to) do |copy, collects, source, targets|
          settled(copy)
          guarded { end_ == :source ? source.close : targets.first.close }
          error = assert_raises(IOError) { value_of(copy) }
          assert_tells error, collects
          assert_nil error.target if end_ == :source
        end
      end
    end
  end

  def test_raise_in_the_middle_tells_what_each_has_when_the_source_is_an_object
    STREAMS.each do |to|
      %i[stringio readpartial read].each do |from|
        held_up(from, to) do |copy, collects|
          settled(copy)
          copy.raise(Stop)
          assert_tells assert_raises(Stop) { value_of(copy) }, collects
        end
      end
    end
  end

  def test_a_timeout_around_it_ends_it
    [:file, *STREAMS, :stringio].each do |from|
      reader, slow = narrow(:unix)
      targets, collects = targets(:pipe, :stringio)
      source = source(from, pattern(6 * MIB))
      assert_raises(Timeout::Error) { Timeout.timeout(0.02) { IO::Splice.tee_stream(source, slow, *targets) } }
      slow.close
      [reader.read, *collects.map(&:call)].each { |bytes| assert_bytes pattern(bytes.bytesize), bytes }
    end
  end

  def test_waiting_for_input_ends_at_once_and_takes_nothing
    STREAMS.each do |from|
      reader, writer = pair(from)
      targets, collects = targets(*STREAMS, :file)
      %i[raise kill].each do |stop|
        copy = until_asleep(thread { IO::Splice.tee_stream(reader, *targets) })
        stop == :raise ? copy.raise(Stop) : copy.kill
        begin
          value_of(copy)
        rescue Stop => e
          assert_equal [0] * 4, e.bytes_written
        end
      end
      writer.write("still there")
      assert_equal "still there", reader.readpartial(100)
      assert_all "", collects
    end
  end

  def test_closing_an_end_while_it_waits_for_input
    STREAMS.product([:source, 0, 1, 2]).each do |from, end_|
      reader, writer = pair(from)
      targets, collects = targets(*STREAMS)
      writer.write("before")
      copy = until_asleep(thread { IO::Splice.tee_stream(reader, *targets) })
      guarded { Thread.pass while readable?(reader) }
      settled(copy)
      guarded { end_ == :source ? reader.close : targets[end_].close }
      error = assert_raises(IOError) { value_of(copy) }
      assert_equal [6] * 3, error.bytes_written
      assert_all "before", collects
    end
  end

  def test_signals_run_their_handlers_and_it_goes_on
    signals = 0
    handler = trap(:USR1) { signals += 1 }
    reader, slow = narrow(:unix)
    arrived = thread { drain(reader) }
    targets, collects = targets(:pipe, :file)
    kicks = thread { 100.times { Process.kill(:USR1, Process.pid) && sleep(0.0001) } }
    assert_equal 3 * MIB, tee_stream(source(:tcp, pattern(3 * MIB)), slow, *targets)
    kicks.join
    slow.close
    assert_all pattern(3 * MIB), [-> { value_of(arrived) }, *collects]
    assert_operator signals, :>, 0
  ensure
    trap(:USR1, handler)
  end

  def test_io_timeouts_are_honoured
    skip "Ruby 3.2" unless IO.method_defined?(:timeout=)
    [->(&block) { block.call }, ->(&block) { with_scheduler { Fiber.schedule(&block) } }].each do |around|
      reader, = pipe
      reader.timeout = 0.01
      targets, = targets(:pipe, :unix)
      around.call do
        assert_nil assert_raises(IO::TimeoutError) { guarded { IO::Splice.tee_stream(reader, *targets) } }.target
      end
      _far, slow = pipe
      fill(slow)
      slow.timeout = 0.01
      source = tempfile("abc")
      around.call do
        error = assert_raises(IO::TimeoutError) { guarded { IO::Splice.tee_stream(source, *targets, slow) } }
        assert_same slow, error.target
        assert_equal [3, 3, 0], error.bytes_written
      end
    end
  end

  # Many at once

  def test_no_copy_sees_bytes_of_another
    copies = Array.new(10) do |number|
      bytes = "#{number}:".b + (pattern(200_003 + number).byteslice(number..) * 3)
      targets, collects = targets(*STREAMS, :file, :picky)
      source = source([*STREAMS, :file, :stringio][number % 5], bytes)
      [bytes, collects, thread { IO::Splice.tee_stream(source, *targets) }]
    end
    copies.each do |bytes, collects, copy|
      assert_equal bytes.bytesize, value_of(copy)
      assert_all bytes, collects
    end
  end

  def test_fibers_run_while_it_waits
    (STREAMS + [:file]).each do |from|
      reader, writer = from == :file ? [tempfile(pattern(2 * MIB))] : pair(from)
      ends = STREAMS.map { |to| narrow(to) }
      arrived = ends.map { +"".b }
      file = tempfile
      picky = Picky.new
      copied = nil
      with_scheduler do
        Fiber.schedule do
          copied = IO::Splice.tee_stream(reader, *ends.map(&:last), file, picky)
          ends.each { |_, target| target.close }
        end
        Fiber.schedule { writer.write(pattern(2 * MIB)) && writer.close } if writer
        ends.zip(arrived) do |(far, _), into|
          Fiber.schedule { nil while (bytes = far.read(50_000)) && (into << bytes) }
        end
      end
      assert_equal 2 * MIB, copied
      [*arrived, content(file), picky.string].each { |bytes| assert_bytes pattern(2 * MIB), bytes }
    end
  end

  def test_a_timeout_in_a_fiber_tells_what_each_has
    reader, slow = narrow(:unix)
    targets, collects = targets(:file, :stringio)
    error = nil
    with_scheduler do
      Fiber.schedule do
        Timeout.timeout(0.02, Stop) { IO::Splice.tee_stream(tempfile(pattern(6 * MIB)), slow, *targets) }
      rescue Stop
        error = $ERROR_INFO
      end
    end
    slow.close
    assert_tells error, [-> { reader.read }, *collects]
  end

  def test_a_target_that_fails_in_a_fiber
    reader, slow = narrow(:tcp)
    far, broken = pipe
    far.close
    targets, collects = targets(:file, :unix)
    error = nil
    arrived = +"".b
    with_scheduler do
      Fiber.schedule do
        IO::Splice.tee_stream(tempfile(pattern(6 * MIB)), slow, broken, *targets)
      rescue Errno::EPIPE
        error = $ERROR_INFO
        slow.close
      end
      Fiber.schedule { nil while (bytes = reader.read(50_000)) && (arrived << bytes) }
    end
    assert_failed error, broken, 1, [-> { arrived }, *collects]
  end

  def test_many_fibers_at_once
    arrived = Array.new(10) { Array.new(3) { +"".b } }
    with_scheduler do
      arrived.each_with_index do |into, number|
        reader, writer = pair(STREAMS[number % 3])
        ends = STREAMS.map { |to| pair(to) }
        Fiber.schedule { writer.write("#{number}:#{pattern(300_000)}") && writer.close }
        Fiber.schedule { IO::Splice.tee_stream(reader, *ends.map(&:last)) && ends.each { |_, target| target.close } }
        ends.zip(into) { |(far, _), all| Fiber.schedule { nil while (bytes = far.read(50_000)) && (all << bytes) } }
      end
    end
    arrived.each_with_index do |into, number|
      into.each { |bytes| assert_bytes "#{number}:#{pattern(300_000)}".b, bytes }
    end
  end

  def test_a_ractor_copies_between_numbers_and_paths_and_objects
    source = source(:unix, pattern(MIB + 1))
    targets, collects = targets(*STREAMS)
    into = path
    copied, object = in_ractor(source.fileno, targets.map(&:fileno), into) do |from, to, path|
      string = StringIO.new
      [IO::Splice.tee_stream(from, *to, path, string), string.string]
    end
    assert_equal MIB + 1, copied
    assert_all pattern(MIB + 1), [*collects, -> { object }, -> { File.binread(into) }]
  end

  def test_a_ractor_is_told_which_target_failed
    answer = in_ractor(path("all")) do |path|
      pipes = [IO.pipe, IO.pipe]
      pipes[1][0].close
      begin
        IO::Splice.tee_stream(path, pipes[0][1], pipes[1][1])
      rescue Errno::EPIPE => e
        [e.target.equal?(pipes[1][1]), e.bytes_written, pipes[0][0].readpartial(10)]
      ensure
        pipes.flatten.each(&:close)
      end
    end
    assert_equal [true, [3, 0], "all"], answer
  end

  # Descriptors

  [0, 1, 2, 3, 4, 6].each do |free|
    define_method "test_with_#{free}_descriptors_to_be_had_it_works_all_the_same" do
      in_a_child do
        [:file, *STREAMS, :stringio].each do |from|
          source = source(from, pattern(MIB + 1))
          targets, collects = targets(*STREAMS, :file, :append, :picky)
          copied = with_free_descriptors(free) { tee_stream(source, *targets) }
          assert_equal MIB + 1, copied
          assert_all pattern(MIB + 1), collects
        end
      end
    end
  end

  def test_without_descriptors_a_failure_is_told_too
    in_a_child do
      reader, broken = pipe
      reader.close
      targets, collects = targets(*STREAMS, :file, :picky)
      source = source(:tcp, pattern(MIB + 1))
      error = with_free_descriptors(0) { assert_raises(Errno::EPIPE) { tee_stream(source, broken, *targets) } }
      assert_failed error, broken, 0, collects
    end
  end

  def test_waiting_for_input_again_and_again_makes_no_new_pipes
    source, peer = unix_pair
    far, near = Array.new(2) { unix_pair }.transpose
    copy = until_asleep(thread { IO::Splice.tee_stream(source, *near) })
    once = lambda do
      peer.write("x")
      far.each { |io| assert_equal("x", guarded { io.read(1) }) }
      settled(copy)
      Dir.children("/proc/self/fd").filter_map { |fd| File.readlink("/proc/self/fd/#{fd}") rescue nil } # rubocop:disable Style/RescueModifier
         .grep(/\Apipe/).uniq.sort
    end
    first = once.call
    assert_equal first, once.call
    assert_equal first, once.call
    peer.close
    assert_equal 3, value_of(copy)
  end

  private

  def tee_stream(...)
    guarded { IO::Splice.tee_stream(...) }
  end

  def value_of(thread)
    guarded { thread.value }
  end

  def path(content = "")
    "#{@dir}/#{@paths += 1}".tap { |path| File.binwrite(path, content) }
  end

  def source(kind, bytes)
    case kind
    when :file then tempfile(bytes)
    when :path then path(bytes)
    when :pathname then Pathname(path(bytes))
    when :number then source(:tcp, bytes).fileno
    when :stringio then StringIO.new(bytes)
    when :readpartial, :read, :to_io then only(kind, bytes)
    else stream(kind, bytes)
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

  def stream(kind, bytes)
    reader, writer = kind == :fifo ? fifo : pair(kind)
    @threads << thread do
      writer.write(bytes)
    rescue Errno::EPIPE, Errno::ECONNRESET
      nil
    ensure
      writer.close
    end
    reader
  end

  def fifo
    path = "#{@dir}/fifo#{@paths += 1}"
    File.mkfifo(path)
    reader = File.open(path, File::RDONLY | File::NONBLOCK | File::BINARY)
    closing(reader, File.open(path, "wb"))
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
    when :file then tempfile.then { |file| [file, -> { content(file) }] }
    when :append then appended
    when :path, :pathname
      path = path("what was there")
      [kind == :path ? path : Pathname(path), -> { File.binread(path) }]
    when :stringio then StringIO.new("".b).then { |io| [io, -> { io.string }] }
    when :picky then Picky.new.then { |object| [object, -> { object.string }] }
    when :number then target(:unix).then { |io, collect| [io.fileno, collect] }
    when :to_io then target(:pipe).then { |io, collect| [Struct.new(:to_io).new(io), collect] }
    else stream_target(*far_and_near(kind))
    end
  end

  def far_and_near(kind)
    case kind
    when :fifo then fifo
    when :terminal
      terminal, peer = closing(*PTY.open)
      peer.raw!
      [terminal.binmode, peer]
    else pair(kind)
    end
  end

  def stream_target(far, near)
    @threads << (arrived = thread { drain(far) })
    collect = lambda do
      near.close
      value_of(arrived).tap { far.close }
    end
    [near, collect]
  end

  # A terminal says EIO when the other side has gone.
  def drain(io)
    bytes = +"".b
    loop { bytes << io.readpartial(65_536) }
  rescue EOFError, Errno::EIO
    bytes
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

  def content(file)
    file.flush
    file.rewind
    file.read
  end

  # Ends that hold little.
  def narrow(kind)
    pair(kind).each do |io|
      next io.fcntl(IO::Splice::F_SETPIPE_SZ, 16_384) if kind == :pipe

      io.setsockopt(:SOCKET, :SNDBUF, kind == :tcp ? 65_536 : 8192)
      io.setsockopt(:SOCKET, :RCVBUF, kind == :tcp ? 131_072 : 8192)
    end
  end

  # A copy of 6 MiB to a slow target, a file, an object and a fast one. It stands still, or will, because of
  # the slow one, from which a part has been read; the block gets it and what collects what has arrived.
  def held_up(from, to)
    reader, slow = narrow(to)
    source = source(from, pattern(6 * MIB))
    fast, collect = target(:unix)
    file = tempfile
    string = StringIO.new("".b)
    copy = thread { IO::Splice.tee_stream(source, slow, file, string, fast) }
    head = guarded { reader.read(rand(1..MIB)) }
    rest = lambda do
      slow.close
      head + guarded { reader.read }
    end
    yield copy, [rest, -> { content(file) }, -> { string.string }, collect], source, [slow, file, string, fast]
    [reader, source].each { |io| io.close if io.respond_to?(:close) && !io.closed? }
  end

  # Returns once the thread has been waiting for some time.
  def settled(thread)
    seen = 0
    guarded do
      until seen == 20
        seen = thread.stop? ? seen + 1 : 0
        sleep 0.001
      end
    end
    thread
  end

  def assert_bytes(expected, actual, what = nil)
    return if expected.b == actual.b

    differs = (0...[expected.bytesize, actual.bytesize].min).find { |at| expected.getbyte(at) != actual.getbyte(at) }
    flunk [what, "#{expected.bytesize} bytes expected, #{actual.bytesize} got",
           "the first that differs is #{differs.inspect}"].compact.join(", ")
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
    arrived = collects.map(&:call)
    arrived.each { |bytes| assert_bytes pattern(bytes.bytesize), bytes.b }
    assert_equal arrived.map(&:bytesize), error.bytes_written
  end

  # Runs in a child process, of which a failure is one here.
  def in_a_child
    report, into = pipe
    pid = fork do
      report.close
      failure = begin
        yield
        ""
      rescue Exception # rubocop:disable Lint/RescueException -- it is told
        $ERROR_INFO.full_message(highlight: false)
      end
      into.write(failure)
      into.flush
    ensure
      exit!(0)
    end
    into.close
    assert_empty(guarded { report.read })
  ensure
    guarded { Process.wait(pid) } if pid
  end

  def with_scheduler
    guarded do
      thread do
        Fiber.set_scheduler(SelectScheduler.new)
        yield
      end.value
    end
  end

  # Two ends of a TLS connection.
  def tls_pair
    client, server = unix_pair
    client = OpenSSL::SSL::SSLSocket.new(client, OpenSSL::SSL::SSLContext.new)
    server = OpenSSL::SSL::SSLSocket.new(server, server_context)
    [client, server].each { |socket| socket.sync_close = true }
    accepting = thread { server.accept }
    guarded { client.connect }
    value_of(accepting)
    [client, server]
  end

  def server_context
    @server_context ||= OpenSSL::SSL::SSLContext.new.tap do |context|
      key = OpenSSL::PKey::EC.generate("prime256v1")
      certificate = OpenSSL::X509::Certificate.new
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      certificate.public_key = key
      certificate.serial = 1
      certificate.not_before = Time.now - 60
      certificate.not_after = Time.now + 3600
      certificate.sign(key, "SHA256")
      context.key = key
      context.cert = certificate
    end
  end
end
