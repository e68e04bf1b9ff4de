# frozen_string_literal: true

require "test_helper"
require "support/tee_ends"

class TestTeeStream < Minitest::Test
  include TeeEnds

  SIZES = [0, 1, MIB - 1, MIB, MIB + 1, (3 * MIB) + 5].freeze

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

  # The pace

  def test_the_slowest_sets_the_pace
    [%i[file pipe], %i[tcp tcp], %i[unix unix], %i[pipe unix]].each do |from, to|
      reader, slow = narrow(*pair(to))
      targets, collects = targets(:pipe, :file, :stringio)
      source = source(from, pattern(6 * MIB))
      copy = until_settled(thread { IO::Splice.tee_stream(source, slow, *targets) })
      ahead = targets[1].size
      assert_operator ahead, :<, 3 * MIB
      assert_operator targets[2].string.bytesize, :<, 3 * MIB
      rest = thread { reader.read }
      assert_equal 6 * MIB, thread_value(copy)
      slow.close
      assert_bytes pattern(6 * MIB), thread_value(rest)
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

      until_settled(copy)
      in_pipe = IO::Splice::PIPE_CAPA
      [targets.first.size, targets.last.string.bytesize].each do |got|
        assert_operator got, :<=, read + in_pipe + MIB
        assert_operator got, :>=, read
      end
    end
    assert_equal 6 * MIB, thread_value(copy)
  end
end
