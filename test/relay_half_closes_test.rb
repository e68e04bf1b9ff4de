# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# One side says its end, and the other goes on.
class TestRelayHalfCloses < Minitest::Test
  include RelaySides

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_the_end_of_a_is_passed_on_and_b_goes_on_between_#{one}_and_#{other}" do
      a = side(one)
      b = side(other)
      half_closed(a, b) { relaying(a.given, b.given) }
      assert_equal [7, 300_000], thread_value(@relay)
    end

    define_method "test_the_end_of_b_is_passed_on_and_a_goes_on_between_#{one}_and_#{other}" do
      a = side(one)
      b = side(other)
      half_closed(b, a) { relaying(a.given, b.given) }
      assert_equal [300_000, 7], thread_value(@relay)
    end
  end

  def test_an_end_that_was_there_before_is_passed_on
    left = side(:unix)
    right = side(:unix)
    [left, right].each(&:hang_up)
    assert_equal [0, 0], relay(left.given, right.given)
    assert_equal(["", ""], [left, right].map { |side| guarded { side.far_in.read } })
  end

  def test_a_peer_that_is_gone_altogether_has_ended_too
    left = side(:tcp)
    right = side(:tcp)
    left.far_out.write("goodbye")
    left.far_out.close
    relay = relaying(left.given, right.given)
    assert_equal("goodbye", guarded { right.far_in.read })
    right.hang_up
    assert_equal [7, 0], thread_value(relay)
  end

  def test_neither_socket_is_closed
    %i[unix tcp number wrapped].each do |kind|
      left = side(kind)
      right = side(kind)
      [left, right].each(&:hang_up)
      relay(left.given, right.given)
      GC.start
      [left, right].each do |side|
        refute_predicate side.input, :closed?
        assert_predicate side.input.stat, :socket?
        assert_nil(guarded { side.input.read(1) })
      end
    end
  end

  def test_pipes_are_told_of_the_end_by_being_closed
    left = side(:pipes)
    right = side(:pipes)
    [left, right].each(&:hang_up)
    relay(left.given, right.given)
    [left, right].each do |side|
      assert_predicate side.output, :closed?
      refute_predicate side.input, :closed?
    end
  end

  def test_a_fifo_that_is_open_for_both_is_told_of_the_end_by_being_closed
    Dir.mktmpdir do |dir|
      File.mkfifo("#{dir}/fifo")
      into, far_in = closing(File.open("#{dir}/fifo", "r+"), File.open("#{dir}/fifo", "r"))
      left = side(:unix)
      feed(left, "bytes")
      null = closing(File.open(File::NULL)).first
      assert_equal [5, 0], relay(left.given, [null, into])
      assert_equal("bytes", guarded { far_in.read })
    end
  end

  def test_standard_streams_are_not_closed
    ["[$stdin, $stdout]", "[0, 1]", "[$stdin, 1]"].each do |streams|
      output, status = in_a_ruby(<<~RUBY, "to and fro, ")
        here, there = UNIXSocket.pair
        echo = Thread.new { IO.copy_stream(there, there); there.close_write }
        relayed = IO::Splice.relay(#{streams}, here)
        GC.start
        $stdout.write("after \#{relayed}")
        $stdout.flush
      RUBY
      assert_equal "to and fro, after [12, 12]", output
      assert_predicate status, :success?
    end
  end

  private

  # `ends` says what it has to say and hangs up; `goes_on` learns of it, and still is heard.
  def half_closed(ends, goes_on)
    yield
    ends.far_out.write("request")
    ends.hang_up
    assert_equal("request", guarded { goes_on.far_in.read })
    10.times do |number|
      part = pattern(300_000).byteslice(number * 30_000, 30_000)
      goes_on.far_out.write(part)
      assert_bytes(part, guarded { ends.far_in.read(30_000) })
    end
    assert_predicate @relay, :alive?
    goes_on.hang_up
    assert_equal("", guarded { ends.far_in.read })
  end

  def in_a_ruby(script, input)
    command = [RbConfig.ruby, "-I", LIB, "-rio/splice", "-rsocket", "-e", script]
    guarded { Open3.capture2(*command, stdin_data: input) }
  end
end
