# frozen_string_literal: true

require "test_helper"
require "openssl"
require "support/relay_sides"

class TestRelay < Minitest::Test
  include RelaySides

  # What arrives

  KINDS.product(KINDS).each do |one, other|
    define_method "test_every_byte_arrives_in_both_directions_between_#{one}_and_#{other}" do
      left = side(one)
      right = side(other)
      assert_exchange(left, right, pattern(SIZE + 7), pattern(SIZE).reverse)
    end
  end

  def test_a_large_stream_in_each_direction
    [%i[tcp tcp], %i[unix tcp], %i[pipes unix]].each do |one, other|
      assert_exchange(side(one), side(other), pattern(8_000_003), pattern(8_000_000).reverse)
    end
  end

  def test_nothing_at_all
    PLAIN.product(PLAIN).each { |one, other| assert_exchange(side(one), side(other), "", "") }
  end

  def test_the_counts_are_those_of_each_direction
    left = side(:unix)
    right = side(:tcp)
    assert_exchange(left, right, "a request", "and a longer answer")
    assert_exchange(side(:unix), side(:unix), "x" * 70_000, "")
    assert_exchange(side(:unix), side(:unix), "", "x" * 70_000)
  end

  def test_a_command_is_a_side
    left = side(:unix)
    IO.popen("cat", "r+b") do |cat|
      feed(left, pattern(SIZE))
      arrived = collect(left)
      assert_equal [SIZE, SIZE], relay(left.given, cat)
      assert_bytes pattern(SIZE), thread_value(arrived)
      refute_predicate cat, :closed?
      assert_raises(IOError) { cat.write("more") }
    end
  end

  def test_a_command_can_come_first
    right = side(:tcp)
    IO.popen("cat", "r+b") do |cat|
      feed(right, pattern(SIZE))
      arrived = collect(right)
      assert_equal [SIZE, SIZE], relay(cat, right.given)
      assert_bytes pattern(SIZE), thread_value(arrived)
    end
  end

  def test_two_sockets_can_be_one_side
    input, far_out = unix_pair
    output, far_in = unix_pair
    assert_exchange(Side.new([input, output], input, output, far_in, far_out), side(:tcp), pattern(300_000), "answer")
  end

  def test_files_can_be_a_side
    into = tempfile
    right = side(:unix)
    feed(right, pattern(300_000))
    arrived = collect(right)
    assert_equal [200_000, 300_000], relay([tempfile(pattern(200_000)), into], right.given)
    assert_bytes pattern(200_000), thread_value(arrived)
    into.rewind
    assert_bytes pattern(300_000), into.read
  end

  def test_an_append_mode_file_is_appended_to
    Tempfile.create("relay", mode: File::APPEND, binmode: true) do |into|
      into.write("before, ")
      right = side(:unix)
      feed(right, "and after")
      right.far_in.close_read
      assert_equal [0, 9], relay([closing(File.open(File::NULL)).first, into], right.given)
      assert_equal "before, and after", File.read(into.path)
    end
  end

  def test_a_file_given_by_its_number_stays_open
    into = tempfile
    number = into.dup.tap { |io| io.autoclose = false }.fileno
    right = side(:unix)
    feed(right, "bytes")
    relay([closing(File.open(File::NULL)).first.fileno, number], right.given)
    GC.start
    IO.open(number, "w") { |io| io.write(" and more") }
    into.rewind
    assert_equal "bytes and more", into.read
  end

  # Ruby's buffers

  def test_what_ruby_has_read_ahead_goes_first
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      left.far_out.write("CONNECT backend\nthe rest of ")
      right.far_out.write("220 hello\n250 and ")
      assert_equal(["CONNECT backend\n", "220 hello\n"], [left, right].map { |side| guarded { side.input.gets } })
      assert_exchange(left, right, "the request", "the answer", ["the rest of ", "250 and "])
    end
  end

  def test_a_read_buffer_larger_than_a_pipe_goes_first
    left = side(:unix)
    left.input.ungetbyte(pattern(2_000_000))
    assert_exchange(left, side(:tcp), "!", "answer", [pattern(2_000_000), ""])
  end

  def test_what_was_read_ahead_goes_first_though_the_peer_has_ended
    left = side(:unix)
    right = side(:unix)
    left.far_out.write("line\nrest")
    left.hang_up
    left.input.gets
    right.hang_up
    assert_equal [4, 0], relay(left.given, right.given)
    assert_equal("rest", guarded { right.far_in.read })
  end

  def test_what_ruby_has_still_to_write_goes_first
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      [left, right].each { |side| side.output.sync = false }
      left.output.write("to the left, ")
      right.output.write("to the right, ")
      arrived = [right, left].map { |side| collect(side) }
      feed(left, "behind")
      feed(right, "after")
      assert_equal [6, 5], relay(left.given, right.given)
      assert_equal ["to the right, behind", "to the left, after"], (arrived.map { |thread| thread_value(thread) })
    end
  end

  def test_what_ruby_has_still_to_write_is_not_held_until_something_comes
    left = side(:unix)
    right = side(:unix)
    right.output.sync = false
    right.output.write("greeting")
    relaying(left.given, right.given)
    assert_equal("greeting", guarded { right.far_in.readpartial(100) })
  end

  # Small messages

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_small_messages_are_passed_on_at_once_between_#{one}_and_#{other}" do
      left = side(one)
      right = side(other)
      relay = relaying(left.given, right.given)
      guarded(20) do
        1000.times do |number|
          left.far_out.write("ping #{number}\n")
          assert_equal "ping #{number}\n", right.far_in.gets
          right.far_out.write("pong #{number}\n")
          assert_equal "pong #{number}\n", left.far_in.gets
        end
      end
      [left, right].each(&:hang_up)
      assert_equal [8890, 8890], thread_value(relay)
    end
  end

  # Arguments

  def test_what_encrypts_in_methods_that_nobody_knows_is_refused
    left = side(:unix)
    ssl = SimpleDelegator.new(OpenSSL::SSL::SSLSocket.new(left.input))
    right = side(:unix)
    [[ssl, right.given], [right.given, ssl], [[ssl, right.given], right.given],
     [right.given, [right.given, ssl]]].each do |sides|
      assert_match(/its own methods/, assert_raises(TypeError) { relay(*sides) }.message)
    end
    right.far_out.write("untouched")
    assert_equal "untouched", right.input.readpartial(100)
  end

  def test_what_is_closed_is_refused
    left = side(:unix)
    right = side(:unix)
    right.input.close
    [[left.given, right.given], [right.given, left.given], [[left.given, right.given], left.given],
     [left.given, [right.given, left.given]]].each do |sides|
      assert_match(/closed stream/, assert_raises(IOError) { relay(*sides) }.message)
    end
    assert_raises(IOError) { relay(left.given, IO.allocate) }
  end

  def test_what_is_not_open_for_its_direction_is_refused
    r, w = pipe
    socket = side(:unix).given
    [[w, socket], [socket, w], [[w, w], socket]].each do |sides|
      assert_match(/not opened for reading/, assert_raises(IOError) { relay(*sides) }.message)
    end
    [[r, socket], [socket, r], [[r, r], socket]].each do |sides|
      assert_match(/not opened for writing/, assert_raises(IOError) { relay(*sides) }.message)
    end
    socket.close_write
    assert_match(/not opened for writing/, assert_raises(IOError) { relay(socket, side(:unix).given) }.message)
  end

  def test_what_is_no_descriptor_is_refused
    left = side(:unix)
    [-1, 1_000_000].each do |number|
      assert_raises(Errno::EBADF) { relay(left.given, number) }
      assert_raises(Errno::EBADF) { relay(number, left.given) }
    end
    assert_raises(RangeError) { relay(left.given, 1 << 40) }
  end

  def test_what_is_no_io_is_refused
    left = side(:unix)
    [nil, "path", :io, Object.new, 1.5, {}, [left.given, nil], [[left.given, left.given], left.given]].each do |other|
      assert_raises(TypeError) { relay(left.given, other) }
      assert_raises(TypeError) { relay(other, left.given) }
    end
  end

  def test_an_array_that_is_no_pair_is_refused
    left = side(:unix)
    [[], [left.given], [left.given] * 3].each do |other|
      assert_raises(ArgumentError) { relay(left.given, other) }
      assert_raises(ArgumentError) { relay(other, left.given) }
    end
  end

  def test_the_wrong_number_of_arguments_is_refused
    left = side(:unix).given
    assert_raises(ArgumentError) { IO::Splice.relay }
    assert_raises(ArgumentError) { IO::Splice.relay(left) }
    assert_raises(ArgumentError) { IO::Splice.relay(left, left, 1) }
    assert_raises(ArgumentError) { IO::Splice.relay(left, left, timeout: 1) }
  end
end
