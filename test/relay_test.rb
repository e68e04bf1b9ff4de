# frozen_string_literal: true

require "test_helper"
require "io/nonblock"
require "open3"
require "openssl"
require "pty"
require "rbconfig"
require "support/copy_ends"
require "support/select_scheduler"

class TestRelay < Minitest::Test
  include CopyEnds

  LIB = File.expand_path("../lib", __dir__)
  Stop = Class.new(StandardError)
  TimeoutError = IO::Splice::TimeoutError
  Wrapped = Struct.new(:to_io)

  # One side of a relay: what the relay is given, its input and output, and where the peer reads and writes.
  Side = Struct.new(:given, :input, :output, :far_in, :far_out) do
    def hang_up = far_out.close_write
  end

  KINDS = %i[unix tcp pipes blocking_unix blocking_tcp blocking_pipes number numbers wrapped].freeze
  PLAIN = %i[unix tcp pipes].freeze
  SIZE = 1_000_000

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
      assert_bytes pattern(SIZE), value_of(arrived)
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
      assert_bytes pattern(SIZE), value_of(arrived)
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
    assert_bytes pattern(200_000), value_of(arrived)
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

  # Half-closes

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_the_end_of_a_is_passed_on_and_b_goes_on_between_#{one}_and_#{other}" do
      a = side(one)
      b = side(other)
      half_closed(a, b) { relaying(a.given, b.given) }
      assert_equal [7, 300_000], value_of(@relay)
    end

    define_method "test_the_end_of_b_is_passed_on_and_a_goes_on_between_#{one}_and_#{other}" do
      a = side(one)
      b = side(other)
      half_closed(b, a) { relaying(a.given, b.given) }
      assert_equal [300_000, 7], value_of(@relay)
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
    assert_equal [7, 0], value_of(relay)
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
      assert_equal ["to the right, behind", "to the left, after"], (arrived.map { |thread| value_of(thread) })
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
      assert_equal [8890, 8890], value_of(relay)
    end
  end

  # Peers that are gone

  def test_a_reset_is_reported_after_what_had_arrived_has_been_delivered
    both_orders do |front, back, order|
      back.far_out.write("last words")
      guarded { back.input.wait_readable }
      reset(back)
      error = assert_raises(Errno::ECONNRESET) { relay(*order.map(&:given)) }
      assert_relayed error, order, { front => 0, back => 10 }
      front.output.close_write
      assert_equal("last words", guarded { front.far_in.read })
    end
  end

  def test_a_reset_of_who_is_being_written_to_is_reported_after_the_other_direction_has_been_delivered
    both_orders do |front, back, order|
      front.far_out.write("a request")
      back.far_out.write(pattern(50_000))
      guarded { [front, back].each { |side| side.input.wait_readable } }
      reset(back)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { relay(*order.map(&:given)) }
      assert_relayed error, order, { front => 0, back => 50_000 }
      front.output.close_write
      assert_bytes(pattern(50_000), guarded { front.far_in.read })
      assert_equal "a request", front.input.readpartial(100)
    end
  end

  def test_what_had_arrived_before_a_reset_is_delivered_to_a_slow_reader_too
    both_orders do |front, back, order|
      filled = fill_up(front.output)
      front.far_out.write("a request")
      back.far_out.write_nonblock(pattern(150_000))
      guarded { [front, back].each { |side| side.input.wait_readable } }
      reset(back)
      # What was not yet on its way is gone with the reset.
      size = back.input.recv(150_000, Socket::MSG_PEEK).bytesize
      relay = relaying(*order.map(&:given))
      arrived = collect(front)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { value_of(relay) }
      front.output.close_write
      assert_bytes pattern(size), value_of(arrived).byteslice(filled..)
      assert_relayed error, order, { front => 0, back => size }
    end
  end

  def test_a_client_that_goes_away_while_the_backend_sends
    PLAIN.product(PLAIN).each do |one, other|
      front = side(one)
      back = side(other)
      front.hang_up
      sent = feed(back, pattern(20_000_000))
      relay = relaying(front.given, back.given)
      got = guarded { front.far_in.read(100_000) }
      front.far_in.close
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { value_of(relay) }
      assert_bytes pattern(100_000), got
      assert_kind_of IO::Splice::Relayed, error
      assert_equal 0, error.bytes_relayed[0]
      assert_includes 100_000..19_999_999, error.bytes_relayed[1]
      assert_predicate until_asleep(sent), :alive?
      back.input.close
      value_of(sent)
    end
  end

  def test_the_last_request_of_a_client_that_goes_away_is_delivered
    both_orders do |front, back, order|
      front.far_out.write("last request")
      guarded { front.input.wait_readable }
      back.far_out.write("an answer that nobody takes")
      guarded { back.input.wait_readable }
      reset(front)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { relay(*order.map(&:given)) }
      assert_relayed error, order, { front => 12, back => 0 }
      back.output.close_write
      assert_equal("last request", guarded { back.far_in.read })
      assert_equal "an answer that nobody takes", back.input.readpartial(100)
    end
  end

  def test_nobody_left_to_read_is_reported_with_what_could_not_be_delivered
    left = side(:unix)
    right = side(:pipes)
    relay = relaying(left.given, right.given)
    left.far_out.write("arrives")
    assert_equal("arrives", guarded { right.far_in.readpartial(100) })
    right.far_in.close
    left.far_out.write("does not")
    error = assert_raises(Errno::EPIPE) { value_of(relay) }
    assert_equal [7, 0], error.bytes_relayed
    assert_equal("does not", guarded { left.input.readpartial(100) })
  end

  def test_the_message_of_an_error_says_which_direction_it_was
    front = side(:unix)
    back = side(:pipes)
    back.far_in.close
    front.far_out.write("x")
    assert_match(/relay.*a to b/, assert_raises(Errno::EPIPE) { relay(front.given, back.given) }.message)
    assert_match(/relay.*b to a/, assert_raises(Errno::EPIPE) { relay(back.given, front.given) }.message)
  end

  # Idle timeouts

  def test_no_byte_in_either_direction_for_too_long
    [0.01, 0, 0.0, 1/100r, Float::MIN].each do |seconds|
      error = assert_raises(TimeoutError) { relay(side(:unix).given, side(:tcp).given, idle_timeout: seconds) }
      assert_kind_of IO::Splice::Relayed, error
      assert_equal [0, 0], error.bytes_relayed
    end
  end

  def test_the_error_is_that_of_ruby_where_it_has_one
    assert_operator TimeoutError, :<, IOError
    skip "Ruby 3.2" unless IO.const_defined?(:TimeoutError)
    assert_same IO::TimeoutError, TimeoutError
  end

  def test_without_a_timeout_or_with_a_long_one_it_waits
    [nil, 3600, 1e300, Float::INFINITY, 10**30].each do |seconds|
      left = side(:unix)
      right = side(:unix)
      relay = relaying(left.given, right.given, idle_timeout: seconds)
      left.far_out.write("!")
      assert_equal("!", guarded { right.far_in.read(1) })
      [left, right].each(&:hang_up)
      assert_equal [1, 0], value_of(relay)
    end
  end

  def test_a_timeout_of_0_is_none_while_bytes_are_there
    left = side(:unix)
    right = side(:unix)
    left.far_out.write("there")
    right.far_out.write("already")
    [left, right].each(&:hang_up)
    assert_equal [5, 7], relay(left.given, right.given, idle_timeout: 0)
    left = side(:unix)
    left.far_out.write("there")
    error = assert_raises(TimeoutError) { relay(left.given, side(:unix).given, idle_timeout: 0) }
    assert_equal [5, 0], error.bytes_relayed
  end

  def test_a_byte_in_one_direction_keeps_it_alive
    both_directions do |from, to, order|
      error = undisturbed(0.2) do |tick|
        relay = relaying(*order.map(&:given), idle_timeout: 0.2)
        15.times { tick.call && from.far_out.write("x") && to.far_in.readpartial(10) }
        assert_raises(TimeoutError) { value_of(relay) }
      end
      assert_relayed error, order, { from => 15, to => 0 } if error
    end
  end

  def test_a_peer_that_takes_what_is_held_bit_by_bit_keeps_it_alive
    both_directions do |from, to, order|
      error = undisturbed(0.2) do |tick|
        narrow(to.output, to.far_in)
        size = fill_up(from.far_out)
        relay = relaying(*order.map(&:given), idle_timeout: 0.2)
        taken = 0
        # Smaller bites than what is held, for longer than the timeout. (The kernel takes no more before most of what
        # it has is gone.)
        taken += to.far_in.readpartial(size / 20).bytesize while taken < size && relay.alive? && tick.call
        assert_raises(TimeoutError) { value_of(relay) }.tap { assert_equal size, taken }
      end
      assert_equal 0, error.bytes_relayed[order.index(to)] if error
    end
  end

  def test_a_signal_does_not_keep_it_alive
    handler = trap(:USR1) { nil }
    relay = relaying(side(:unix).given, side(:unix).given, idle_timeout: 0.1)
    kicks = thread { Process.kill(:USR1, Process.pid) && sleep(0.005) while relay.alive? }
    assert_raises(TimeoutError) { value_of(relay) }
    kicks.join
  ensure
    trap(:USR1, handler)
  end

  def test_an_output_that_takes_nothing_is_no_byte_either
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      assert_raises(TimeoutError) { relay(left.given, right.given, idle_timeout: 0.02) }
      assert_still_there(left, right, filled)
    end
  end

  def test_a_direction_that_is_over_does_not_end_the_timeout
    left = side(:unix)
    left.hang_up
    assert_raises(TimeoutError) { relay(left.given, side(:unix).given, idle_timeout: 0.01) }
    assert_raises(TimeoutError) { relay(side(:unix).given, left.given, idle_timeout: 0.01) }
  end

  def test_what_is_no_time_is_refused
    left = side(:unix)
    left.far_out.write("untouched\nuntouched")
    left.input.gets
    [-1, -0.001, -1/3r, Float::NAN, -Float::INFINITY].each do |seconds|
      assert_raises(ArgumentError) { relay(left.given, side(:unix).given, idle_timeout: seconds) }
    end
    ["1", :one, [1], true, false, Object.new].each do |seconds|
      assert_raises(TypeError) { relay(left.given, side(:unix).given, idle_timeout: seconds) }
    end
    assert_equal "untouched", left.input.readpartial(100)
  end

  def test_io_timeouts_are_honoured
    skip "Ruby 3.2" unless IO.method_defined?(:timeout=)
    left = side(:unix)
    right = side(:unix)
    left.input.timeout = 0.01
    assert_raises(IO::TimeoutError) { relay(left.given, right.given) }
    assert_raises(IO::TimeoutError) { relay(right.given, left.given) }
    left.input.timeout = nil
    right.input.timeout = 3600
    assert_raises(IO::TimeoutError) { relay(left.given, right.given, idle_timeout: 0.01) }
  end

  # What ends it from outside

  def test_closing_either_side_ends_it
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      sides = [left.input, right.input, left.output, right.output].uniq
      sides.each_index do |index|
        left = side(one)
        right = side(other)
        relay = relaying(left.given, right.given)
        left.far_out.write("hello")
        guarded { right.far_in.readpartial(5) }
        guarded { [left.input, right.input, left.output, right.output].uniq[index].close }
        error = assert_raises(IOError) { value_of(relay) }
        refute_kind_of TimeoutError, error
        assert_equal [5, 0], error.bytes_relayed
      end
    end
  end

  def test_closing_a_side_while_the_other_direction_is_over_ends_it
    2.times do |closed|
      left = side(:unix)
      right = side(:unix)
      left.hang_up
      relay = relaying(left.given, right.given)
      assert_equal("", guarded { right.far_in.read })
      [left, right][closed].input.close
      assert_raises(IOError) { value_of(relay) }
    end
  end

  def test_closing_a_side_while_the_relay_waits_for_output_puts_back_what_is_held
    left = side(:unix)
    right = side(:unix)
    filled = fill_up(right.output)
    left.far_out.write("still there")
    relay = until_taken(left.input, relaying(left.given, right.given))
    guarded { right.input.close }
    assert_raises(IOError) { value_of(relay) }
    left.hang_up
    assert_equal("still there", guarded { left.input.read })
    assert_equal filled, until_reset { right.far_in.readpartial(70_000) }.bytesize
  end

  def test_raise_ends_it_at_once_and_says_how_far_it_has_come
    left = side(:unix)
    right = side(:tcp)
    relay = relaying(left.given, right.given)
    left.far_out.write("hello")
    guarded { right.far_in.readpartial(5) }
    relay.raise(Stop)
    error = assert_raises(Stop) { value_of(relay) }
    assert_kind_of IO::Splice::Relayed, error
    assert_equal [5, 0], error.bytes_relayed
    refute_kind_of IO::Splice::Relayed, Stop.new
  end

  def test_kill_ends_it_at_once
    relay = relaying(side(:unix).given, side(:unix).given)
    relay.kill
    assert_nil value_of(relay)
  end

  def test_a_timeout_ends_it_at_once
    assert_raises(Timeout::Error) { Timeout.timeout(0.01) { IO::Splice.relay(side(:unix).given, side(:unix).given) } }
  end

  def test_after_an_interrupt_the_bytes_that_were_held_are_in_the_read_buffer
    KINDS.first(6).product(KINDS.first(6)).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      %i[raise kill].each do |stop|
        relay = until_taken(left.input, relaying(left.given, right.given))
        stop == :raise ? relay.raise(Stop) : relay.kill
        join_stopped(relay)
        refute_predicate relay, :alive?
      end
      assert_still_there(left, right, filled)
    end
  end

  def test_after_an_interrupt_the_bytes_from_b_to_a_are_there_too
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(left.output)
      right.far_out.write("still there")
      relay = until_taken(right.input, relaying(left.given, right.given))
      relay.raise(Stop)
      join_stopped(relay)
      assert_still_there(right, left, filled)
    end
  end

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_raise_at_random_moments_loses_nothing_between_#{one}_and_#{other}" do
      12.times { stopped_at_random(one, other) { |relay| relay.raise(Stop) } }
    end

    define_method "test_kill_at_random_moments_loses_nothing_between_#{one}_and_#{other}" do
      12.times { stopped_at_random(one, other, &:kill) }
    end
  end

  def test_timeouts_at_random_moments_lose_nothing
    PLAIN.product(PLAIN).each do |one, other|
      3.times do
        in_the_middle(one, other) do |left, right|
          Timeout.timeout((rand * 0.004) + 0.0001) { IO::Splice.relay(left.given, right.given) }
        rescue Timeout::Error
          nil
        end
      end
    end
  end

  def test_a_stopped_relay_can_be_taken_up_again_and_again
    PLAIN.product(PLAIN).each do |one, other|
      in_the_middle(one, other, 300_000) do |left, right|
        loop do
          relay = thread { IO::Splice.relay(left.given, right.given) }
          sleep(rand * 0.003)
          relay.raise(Stop)
          join_stopped(relay)
          break if [left, right].any? { |side| side.output.closed? || at_its_end?(side.input) }
        end
      end
    end
  end

  def test_interrupts_at_random_moments_do_not_lose_what_was_read_ahead
    400.times do |number|
      left = side(:unix)
      right = side(:unix)
      [left, right].each { |side| side.input.ungetbyte(pattern(30_000)) }
      relay = thread { IO::Splice.relay(left.given, right.given) }
      rand(2000).times { nil }
      Thread.pass if number.odd?
      relay.raise(Stop)
      join_stopped(relay)
      [left, right].each(&:hang_up)
      [left, right].each { |side| side.output.close_write }
      [[left, right], [right, left]].each do |from, to|
        assert_bytes(pattern(30_000), guarded { to.far_in.read + from.input.read })
      end
    ensure
      close_all
    end
  end

  def test_closing_a_side_at_random_moments_leaves_whole_prefixes
    20.times do |number|
      closed, other = nil
      left = side(:unix)
      right = side(:unix)
      closed, other = number.even? ? [left, right] : [right, left]
      [left, right].each { |side| feed(side, pattern(SIZE)) }
      now = Thread::Queue.new
      from_closed = slowly(other)
      to_closed = slowly(closed, rand(SIZE / 2), now)
      relay = thread { IO::Splice.relay(left.given, right.given) }
      guarded { now.pop }
      guarded { closed.input.close }
      join_stopped(relay)
      other.output.close_write
      arrived = value_of(from_closed)
      assert_bytes pattern(arrived.bytesize), arrived
      assert_bytes(pattern(SIZE), value_of(to_closed) + guarded { other.input.read })
      close_all
    end
  end

  def test_signals_run_their_handlers_and_the_relay_goes_on
    signals = Thread::Queue.new
    handler = trap(:USR1) { signals << true }
    left = side(:unix)
    right = side(:tcp)
    relay = thread { IO::Splice.relay(left.given, right.given) }
    20.times do |number|
      until_asleep(relay)
      Process.kill(:USR1, Process.pid)
      guarded { signals.pop }
      left.far_out.write(number.to_s)
      assert_equal(number.to_s, guarded { right.far_in.read(number.to_s.size) })
    end
    [left, right].each(&:hang_up)
    assert_equal [30, 0], value_of(relay)
  ensure
    trap(:USR1, handler)
  end

  def test_an_interrupt_while_the_output_is_told_of_the_end_comes_when_it_knows
    input, far_out = pipe
    far_in, output = pipe
    left = side(:unix)
    left.hang_up
    far_out.close
    output.define_singleton_method(:close_write) do
      Thread.current.raise(Stop)
      super()
    end
    relay = thread { IO::Splice.relay(left.given, [input, output]) }
    assert_raises(Stop) { value_of(relay) }
    assert_empty(guarded { far_in.read })
  end

  def test_a_terminal_that_nobody_reads_does_not_hold_up_an_interrupt
    terminal, _user = closing(*PTY.open)
    terminal.syswrite("typed\n")
    zeros = closing(File.open("/dev/zero", "r+")).first
    relay = until_asleep(thread { IO::Splice.relay(terminal, zeros) })
    relay.raise(Stop)
    assert_raises(Stop) { value_of(relay) }
  end

  def test_an_object_with_methods_of_its_own_is_refused
    left = side(:unix)
    veiled = Struct.new(:to_io) { def write(bytes) = to_io.write(bytes.reverse) }
    error = assert_raises(TypeError) { relay(veiled.new(left.input), side(:unix).given) }
    assert_match(/methods of its own/, error.message)
  end

  def test_signals_in_the_middle_of_streams_lose_nothing
    signals = 0
    handler = trap(:USR1) { signals += 1 }
    left = side(:unix)
    right = side(:tcp)
    kicks = thread { Process.kill(:USR1, Process.pid) && sleep(0.0005) until @over }
    assert_exchange(left, right, pattern(5 * SIZE), pattern(5 * SIZE).reverse)
    @over = true
    kicks.join
    assert_operator signals, :>, 0
  ensure
    trap(:USR1, handler)
  end

  def test_a_handler_may_end_it
    left = side(:unix)
    handler = trap(:USR1) { raise Stop }
    kick = thread do
      until_asleep(Thread.main)
      Process.kill(:USR1, Process.pid)
    end
    error = assert_raises(Stop) { relay(left.given, side(:unix).given) }
    kick.join
    assert_equal [0, 0], error.bytes_relayed
  ensure
    trap(:USR1, handler)
  end

  def test_a_frozen_exception_is_raised_as_it_is
    frozen = Stop.new.freeze
    handler = trap(:USR1) { raise frozen }
    kick = thread do
      until_asleep(Thread.main)
      Process.kill(:USR1, Process.pid)
    end
    assert_same frozen, assert_raises(Stop) { relay(side(:unix).given, side(:unix).given) }
    kick.join
  ensure
    trap(:USR1, handler)
  end

  # Arguments

  def test_an_ssl_socket_is_refused
    left = side(:unix)
    ssl = OpenSSL::SSL::SSLSocket.new(left.input)
    right = side(:unix)
    [[ssl, right.given], [right.given, ssl], [[ssl, right.given], right.given],
     [right.given, [right.given, ssl]]].each do |sides|
      assert_match(/methods of its own/, assert_raises(TypeError) { relay(*sides) }.message)
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

  # Many at once

  def test_two_hundred_relays_at_once_do_not_mix_their_bytes
    relays = Array.new(200) do |number|
      left = side(:unix)
      right = side(number.even? ? :unix : :tcp)
      relaying(left.given, right.given).then { |relay| [relay, left, right, bytes_of(number), bytes_of(number + 500)] }
    end
    3.times do |part|
      relays.each do |_, left, right, to_right, to_left|
        left.far_out.write(to_right.byteslice(part * 7000, 7000))
        right.far_out.write(to_left.byteslice(part * 7000, 7000))
      end
    end
    relays.each do |relay, left, right, to_right, to_left|
      [left, right].each(&:hang_up)
      assert_equal [21_000, 21_000], value_of(relay)
      assert_bytes(to_right, guarded { right.far_in.read })
      assert_bytes(to_left, guarded { left.far_in.read })
    end
  end

  def test_busy_and_stopped_relays_do_not_mix_their_bytes
    30.times do
      left = side(:unix)
      right = side(:unix)
      filled = fill_up(right.output)
      left.far_out.write("foreign" * 1000)
      relay = until_taken(left.input, relaying(left.given, right.given))
      relay.kill
      join_stopped(relay)
      assert_exchange(side(:unix), side(:tcp), "of its own", "its own answer")
      right.output.close_write
      left.hang_up
      assert_equal("foreign" * 1000, guarded { right.far_in.read.byteslice(filled..) + left.input.read })
      close_all
    end
  end

  def test_idle_relays_cost_no_time
    seconds, switches = in_a_child do
      relays = Array.new(200) do
        left = UNIXSocket.pair
        right = UNIXSocket.pair
        relay = thread { IO::Splice.relay(left[0], right[0]) }
        left[1].write("x")
        right[1].read(1)
        [relay, left, right]
      end
      relays.each { |relay,| until_asleep(relay) }
      before = effort
      sleep 0.5
      effort.zip(before).map { |now, then_| now - then_ }
    end
    assert_operator seconds, :<, 0.1
    assert_operator switches, :<, 150, "the 200 idle relays have woken up"
  end

  def test_idle_relays_have_no_pipes
    before = pipes
    relays = Array.new(20) do
      left = side(:unix)
      right = side(:tcp)
      relaying(left.given, right.given)
      left.far_out.write("a message")
      right.far_out.write("another")
      guarded { right.far_in.readpartial(100) && left.far_in.readpartial(100) }
      [left, right]
    end
    guarded(20) { Thread.pass while pipes > before }
    relays.flatten.each(&:hang_up)
  end

  def test_it_works_when_no_pipe_can_be_had
    left = side(:unix)
    right = side(:tcp)
    arrived = [right, left].map { |side| collect(side) }
    feed(left, pattern(SIZE))
    feed(right, pattern(SIZE).reverse)
    answer = in_a_child do
      null = File.open(File::NULL)
      Process.setrlimit(:NOFILE, Dir.children("/proc/self/fd").map(&:to_i).max + 1, Process.getrlimit(:NOFILE).last)
      nulls = []
      loop { nulls << null.dup } rescue Errno::EMFILE # rubocop:disable Style/RescueModifier
      refused = begin
        IO.pipe
      rescue Errno::EMFILE => e
        e.class.name
      end
      relayed = IO::Splice.relay(left.given, right.given)
      nulls.each(&:close)
      [refused, relayed]
    end
    assert_equal ["Errno::EMFILE", [SIZE, SIZE]], answer
    assert_bytes pattern(SIZE), value_of(arrived[0])
    assert_bytes pattern(SIZE).reverse, value_of(arrived[1])
  end

  # Fork

  def test_a_child_relays_while_the_parent_is_in_the_middle_of_a_relay
    left = side(:unix)
    right = side(:unix)
    filled = fill_up(right.output)
    left.far_out.write("of the parent")
    relay = until_taken(left.input, relaying(left.given, right.given))
    said = in_a_child do
      here = side(:unix)
      there = side(:tcp)
      here.far_out.write("of the child")
      [here, there].each(&:hang_up)
      [IO::Splice.relay(here.given, there.given), there.far_in.read]
    end
    assert_equal [[12, 0], "of the child"], said
    [left, right].each(&:hang_up)
    arrived = collect(right)
    assert_equal [13, 0], value_of(relay)
    assert_equal "of the parent", value_of(arrived).byteslice(filled..)
  end

  def test_a_child_has_none_of_the_gems_pipes
    left = side(:unix)
    right = side(:unix)
    fill_up(right.output)
    left.far_out.write("held")
    before = in_a_child { pipes }
    relay = until_taken(left.input, relaying(left.given, right.given))
    assert_equal(before, in_a_child { pipes })
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
    assert_bytes pattern(SIZE), value_of(arrived[0])
    assert_bytes pattern(SIZE).reverse, value_of(arrived[1])
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

  # Fibers

  PLAIN.product(PLAIN).each do |one, other|
    define_method "test_other_fibers_run_while_a_relay_waits_between_#{one}_and_#{other}" do
      assert_exchange_of_fibers([[side(one), side(other)]])
    end
  end

  def test_several_relays_in_one_thread
    kinds = PLAIN.product(PLAIN) * 2
    assert_exchange_of_fibers(kinds.map { |kinds_of_one| kinds_of_one.map { |kind| side(kind) } })
  end

  def test_sides_in_blocking_mode_do_not_hold_up_other_fibers
    blocking = %i[blocking_unix blocking_tcp blocking_pipes]
    assert_exchange_of_fibers(blocking.product(blocking).map { |kinds| kinds.map { |kind| side(kind) } })
  end

  def test_a_half_close_is_passed_on_in_a_fiber
    PLAIN.product(PLAIN).each do |one, other|
      a = side(one)
      b = side(other)
      relayed = nil
      said = []
      with_scheduler do
        Fiber.schedule { relayed = IO::Splice.relay(a.given, b.given) }
        Fiber.schedule do
          a.far_out.write("request")
          a.hang_up
          said << b.far_in.read
          b.far_out.write("answer")
          said << a.far_in.readpartial(100)
          b.hang_up
          said << a.far_in.read
        end
      end
      assert_equal [[7, 6], %w[request answer] << ""], [relayed, said]
    end
  end

  def test_idle_timeouts_in_fibers
    left = side(:unix)
    right = side(:unix)
    errors = []
    with_scheduler do
      2.times do
        Fiber.schedule do
          IO::Splice.relay(side(:tcp).given, side(:pipes).given, idle_timeout: 0.02)
        rescue TimeoutError => e
          errors << e.bytes_relayed
        end
      end
      Fiber.schedule do
        left.far_out.write("hello")
        IO::Splice.relay(left.given, right.given, idle_timeout: 0)
      rescue TimeoutError => e
        errors << e.bytes_relayed
      end
      Fiber.schedule do
        here = side(:unix)
        here.hang_up
        there = side(:unix)
        Fiber.schedule { IO::Splice.relay(here.given, there.given, idle_timeout: 3600) }
        errors << there.far_in.read
        there.hang_up
      end
    end
    assert_equal ["", [0, 0], [0, 0], [5, 0]], errors.sort_by(&:to_s)
    assert_equal "hello", right.far_in.readpartial(10)
  end

  def test_a_byte_in_one_direction_keeps_it_alive_in_a_fiber
    undisturbed(0.2) do |tick|
      left = side(:unix)
      right = side(:unix)
      error = nil
      with_scheduler do
        Fiber.schedule do
          IO::Splice.relay(left.given, right.given, idle_timeout: 0.2)
        rescue TimeoutError => e
          error = e
        end
        Fiber.schedule { 15.times { tick.call && right.far_out.write("x") } }
      end
      assert_equal [0, 15], error.bytes_relayed
    end
  end

  def test_an_idle_relay_in_a_fiber_is_left_alone
    left = side(:unix)
    right = side(:unix)
    waits = nil
    with_scheduler do |scheduler|
      Fiber.schedule { IO::Splice.relay(left.given, right.given) }
      Fiber.schedule do
        20.times do
          left.far_out.write("ping")
          right.far_in.readpartial(4)
        end
        sleep 0.01
        waits = scheduler.io_waits.size
        sleep 0.1
        waits = scheduler.io_waits.size - waits
        [left, right].each(&:hang_up)
      end
    end
    assert_equal 0, waits
  end

  def test_a_timeout_in_a_fiber_loses_nothing
    PLAIN.product(PLAIN).each do |one, other|
      left = side(one)
      right = side(other)
      filled = fill_up(right.output)
      left.far_out.write("still there")
      timed_out = false
      with_scheduler do
        Fiber.schedule do
          Timeout.timeout(0.02) { IO::Splice.relay(left.given, right.given) }
        rescue Timeout::Error
          timed_out = true
        end
      end
      assert timed_out
      assert_still_there(left, right, filled)
    end
  end

  def test_a_reset_in_a_fiber_is_reported
    left = side(:tcp)
    right = side(:tcp)
    error = nil
    with_scheduler do
      Fiber.schedule do
        IO::Splice.relay(left.given, right.given)
      rescue SystemCallError => e
        error = e
      end
      Fiber.schedule do
        right.far_out.write("last words")
        left.far_in.readpartial(100)
        reset(right)
      end
    end
    assert_kind_of Errno::ECONNRESET, error
    assert_equal [0, 10], error.bytes_relayed
  end

  private

  # An input or an output of its own and the peer's.
  def side(kind)
    case kind
    when :unix, :tcp then socket(*pair(kind))
    when :pipes then pipes_side
    when :blocking_unix, :blocking_tcp, :blocking_pipes
      side(kind.to_s.delete_prefix("blocking_").to_sym).tap do |side|
        [side.input, side.output].each { |io| io.nonblock = false }
      end
    when :number then side(:unix).tap { |side| side.given = side.input.fileno }
    when :numbers then pipes_side.tap { |side| hand_over(side) }
    when :wrapped then side(:unix).tap { |side| side.given = Wrapped.new(side.input) }
    end
  end

  def socket(near, far)
    Side.new(near, near, near, far, far)
  end

  def pipes_side
    input, far_out = pair(:pipe)
    far_in, output = pair(:pipe)
    Side.new([input, output], input, output, far_in, far_out)
  end

  # The relay closes the descriptor of the output, so nobody else may do that.
  def hand_over(side)
    side.output.autoclose = false
    side.given = [side.input.fileno, side.output.fileno]
  end

  def relay(...)
    guarded { IO::Splice.relay(...) }
  end

  def relaying(...)
    @relay = until_asleep(thread { IO::Splice.relay(...) }.tap { |relay| @threads << relay })
  end

  # A thread in which the peer writes.
  def feed(side, bytes)
    at_the_far_end do
      side.far_out.write(bytes)
    rescue SystemCallError, IOError
      nil
    ensure
      side.hang_up
    end
  end

  # A thread in which the peer reads all there is.
  def collect(side)
    at_the_far_end { side.far_in.read }
  end

  # As that, but it is slow, also bears a reset, and puts something into the queue when it is `much`.
  def slowly(side, much = 0, now = [])
    at_the_far_end do
      until_reset do |bytes|
        now << true if bytes.bytesize >= much
        Thread.pass
        side.far_in.readpartial(20_000)
      end
    ensure
      now << true
    end
  end

  def until_reset
    bytes = +"".b
    loop { bytes << yield(bytes) }
  rescue EOFError, Errno::ECONNRESET
    bytes
  end

  def at_the_far_end(&)
    thread(&).tap { |thread| @threads << thread }
  end

  # All that is asked of a relay: every byte, the counts, and the end on both sides.
  def assert_exchange(left, right, to_right, to_left, ahead = ["", ""])
    arrived = [right, left].map { |side| collect(side) }
    feed(left, to_right)
    feed(right, to_left)
    expected = [ahead[0] + to_right, ahead[1] + to_left]
    assert_equal expected.map(&:bytesize), relay(left.given, right.given)
    expected.zip(arrived) { |bytes, thread| assert_bytes bytes, value_of(thread) }
  end

  def assert_exchange_of_fibers(sides, size = 300_000)
    relayed = []
    arrived = Hash.new { |hash, side| hash[side] = +"".b }
    arrived.compare_by_identity
    with_scheduler do
      sides.each_with_index do |(left, right), number|
        Fiber.schedule { relayed[number] = IO::Splice.relay(left.given, right.given) }
        [[left, "#{number}<"], [right, "#{number}>"]].each do |side, name|
          Fiber.schedule { side.far_out.write(name, pattern(size)) && side.hang_up }
          Fiber.schedule { nil while (bytes = side.far_in.read(20_000)) && (arrived[side] << bytes) }
        end
      end
    end
    sides.each_with_index do |(left, right), number|
      assert_equal [size + number.to_s.size + 1] * 2, relayed[number]
      assert_bytes "#{number}<".b + pattern(size), arrived[right]
      assert_bytes "#{number}>".b + pattern(size), arrived[left]
    end
  end

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

  def stopped_at_random(one, other)
    in_the_middle(one, other) do |left, right, now|
      relay = thread { IO::Splice.relay(left.given, right.given) }
      guarded { now.pop }
      guarded { yield relay }
      join_stopped(relay)
    end
  end

  # Yields two sides between which bytes go both ways, and a queue that tells when some have arrived. After that
  # those that have arrived and those that are left are together all there were.
  def in_the_middle(one, other, size = SIZE / 2)
    sides = [side(one), side(other)]
    now = Thread::Queue.new
    sides.each do |side|
      narrow(side.output, side.far_in)
      narrow(side.far_out, side.input)
      feed(side, pattern(size))
    end
    arrived = sides.map { |side| slowly(side, rand(size), now) }
    yield(*sides, now)
    sides.each { |side| side.output.close_write }
    sides.zip(arrived.reverse) do |from, thread|
      assert_bytes(pattern(size), value_of(thread) + guarded { from.input.read })
    end
    close_all
  end

  # A segment on the loopback has up to 64 KiB, and TCP is slow when not even two fit.
  def narrow(writer, reader)
    if writer.stat.pipe?
      writer.fcntl(IO::Splice::F_SETPIPE_SZ, 16_384)
    else
      tcp = writer.is_a?(TCPSocket)
      writer.setsockopt(:SOCKET, :SNDBUF, tcp ? 65_536 : 8192)
      reader.setsockopt(:SOCKET, :RCVBUF, tcp ? 131_072 : 8192)
    end
  end

  def at_its_end?(input)
    readable?(input) && input.eof?
  end

  # A socket that was full may have room a little later, so the bytes are either there or still in the source.
  def assert_still_there(from, to, filled)
    from.hang_up
    to.output.close_write
    arrived = guarded { to.far_in.read }.byteslice(filled..)
    assert_equal("still there", arrived + guarded { from.input.read })
  end

  # A client's side and a backend's, with each of them first.
  def both_orders(&)
    both_directions(:tcp, &)
  end

  def both_directions(kind = :unix)
    [false, true].each do |reverse|
      one = side(kind)
      other = side(kind)
      yield one, other, reverse ? [other, one] : [one, other]
    end
  end

  def assert_relayed(error, order, bytes)
    assert_kind_of IO::Splice::Relayed, error
    assert_equal order.map { |side| bytes[side] }, error.bytes_relayed
  end

  def reset(side)
    side.far_out.setsockopt(:SOCKET, :LINGER, [1, 0].pack("ii"))
    side.far_out.close
    closed = 7 # TCP_CLOSE
    guarded { Thread.pass until side.input.getsockopt(:TCP, :INFO).data.unpack1("C") == closed }
  end

  # Yields what sleeps a tenth of the time in question. When the machine itself was in the way, it tells nothing.
  def undisturbed(limit)
    last = nil
    longest = 0
    tick = lambda do
      now = Process.clock_gettime(Process::CLOCK_MONOTONIC)
      longest = [longest, now - (last || now)].max
      last = now
      sleep limit / 10
      true
    end
    guarded(10) { yield tick }
  rescue Minitest::Assertion, Timeout::Error, SystemCallError, IOError
    raise if longest < limit / 2
  end

  def bytes_of(number)
    [number].pack("S>") * 10_500
  end

  def pipes(from = 0)
    Dir.children("/proc/self/fd").count do |number|
      number.to_i >= from && File.readlink("/proc/self/fd/#{number}").start_with?("pipe:")
    rescue Errno::ENOENT
      false
    end
  end

  # Seconds of the processor, and how often any thread has gone to sleep.
  def effort
    times = Process.times
    tasks = Dir.glob("/proc/self/task/*/status").map { |path| File.read(path) }
    [times.utime + times.stime, tasks.sum { |status| status[/^voluntary_ctxt_switches:\s*(\d+)/, 1].to_i }]
  end

  def in_a_child
    r, w = IO.pipe
    pid = fork do
      w.write(Marshal.dump(yield))
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, the parent is to know
      w.write(Marshal.dump("#{e.class}: #{e.message}"))
      exit!(1)
    end
    w.close
    Marshal.load(guarded { r.read }) # rubocop:disable Security/MarshalLoad -- of our own
  ensure
    r.close
    Process.wait(pid)
  end

  def in_a_ruby(script, input)
    command = [RbConfig.ruby, "-I", LIB, "-rio/splice", "-rsocket", "-e", script]
    guarded { Open3.capture2(*command, stdin_data: input) }
  end

  def value_of(thread)
    guarded { thread.value }
  end

  def join_stopped(thread)
    guarded { thread.join }
  rescue Stop, IOError
    nil
  end

  def assert_bytes(expected, actual)
    return if expected.b == actual.b

    differs = (0...[expected.bytesize, actual.bytesize].min).find { |at| expected.getbyte(at) != actual.getbyte(at) }
    flunk "#{expected.bytesize} bytes expected, #{actual.bytesize} got, the first that differs is #{differs.inspect}"
  end

  def ended(relay)
    super
  rescue Stop
    nil
  end

  def close_all
    @to_close.each { |io| io.close unless io.closed? }
    @to_close.clear
  end

  def with_scheduler
    guarded do
      thread do
        scheduler = SelectScheduler.new
        Fiber.set_scheduler(scheduler)
        yield scheduler
      end.value
    end
  end
end
