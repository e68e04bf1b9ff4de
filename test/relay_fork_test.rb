# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# Relays in children and in Ractors.
class TestRelayFork < Minitest::Test
  include RelaySides

  # Fork

  def test_a_child_relays_while_the_parent_is_in_the_middle_of_a_relay
    left = side(:unix)
    right = side(:unix)
    filled = fill_up(right.output)
    left.far_out.write("of the parent")
    relay = until_taken(left.input, relaying(left.given, right.given))
    said = said_in_a_child do
      here = side(:unix)
      there = side(:tcp)
      here.far_out.write("of the child")
      [here, there].each(&:hang_up)
      [IO::Splice.relay(here.given, there.given), there.far_in.read]
    end
    assert_equal [[12, 0], "of the child"], said
    [left, right].each(&:hang_up)
    arrived = collect(right)
    assert_equal [13, 0], thread_value(relay)
    assert_equal "of the parent", thread_value(arrived).byteslice(filled..)
  end

  def test_a_child_has_none_of_the_gems_pipes
    left = side(:unix)
    right = side(:unix)
    fill_up(right.output)
    left.far_out.write("held")
    before = said_in_a_child { pipes }
    relay = until_taken(left.input, relaying(left.given, right.given))
    assert_equal(before, said_in_a_child { pipes })
    relay.kill
    join_stopped(relay)
  end

  # Ractors

  def test_a_ractor_relays_between_numbers
    left = side(:unix)
    right = side(:tcp)
    arrived = [right, left].map { |side| collect(side) }
    feed(left, pattern(SIZE))
    feed(right, pattern(SIZE).reverse)
    assert_equal([SIZE, SIZE], in_ractor(left.input.fileno, right.input.fileno) { |a, b| IO::Splice.relay(a, b) })
    assert_bytes pattern(SIZE), thread_value(arrived[0])
    assert_bytes pattern(SIZE).reverse, thread_value(arrived[1])
  end

  def test_a_ractor_relays_between_ios_of_its_own
    said = in_ractor do
      a, client = UNIXSocket.pair
      r, far_out = IO.pipe
      far_in, w = IO.pipe
      client.write("request")
      client.close_write
      far_out.write("answer")
      far_out.close
      relayed = IO::Splice.relay(a, [r, w])
      [relayed, far_in.read, client.read, w.closed?].tap { [a, client, r, far_in].each(&:close) }
    end
    assert_equal [[7, 6], "request", "answer", true], said
  end

  def test_errors_in_a_ractor_say_how_far_it_has_come
    said = in_ractor do
      a, client = UNIXSocket.pair
      b, backend = UNIXSocket.pair
      client.write("request")
      IO::Splice.relay(a, b, idle_timeout: 0)
    rescue IO::Splice::TimeoutError => e
      [a, client, b, backend].each(&:close)
      e.bytes_relayed
    end
    assert_equal [7, 0], said
  end
end
