# frozen_string_literal: true

require "test_helper"
require "support/copy_ends"

# What the gem's own pipes take of what all processes of a user share.
class TestPipes < Minitest::Test
  include CopyEnds

  MODEST = 256 << 10
  SHARE = "/proc/sys/fs/pipe-user-pages-soft"

  def setup
    super
    GC.start
    @before = own_pipe_sizes # those of the pool, and what other tests have left over
  end

  def test_a_stalled_relay_gives_its_pipe_back
    stalled = stalled_relay(tcp_pair, tcp_pair)
    until_given_back
    assert_goes_on(*stalled)
  end

  def test_a_stalled_copy_gives_its_pipe_back
    source, input = tcp_pair
    output, far = unix_pair
    there = fill_up(output)
    copy = thread { IO::Splice.copy_stream(input, output) }
    source << pattern(1000)
    until_taken(input, copy)
    until_given_back
    source.close
    far.read(there)
    assert_equal(pattern(1000), guarded { far.read(1000) })
    assert_equal(1000, guarded { copy.value })
  end

  def test_a_stalled_tee_stream_gives_its_pipes_back
    source, input = tcp_pair
    ends = Array.new(3) { unix_pair }
    there = fill_up(ends[1].first)
    copy = thread { IO::Splice.tee_stream(input, *ends.map(&:first)) }
    source << pattern(1000)
    ends.values_at(0, 2).each { |_, far| assert_equal(pattern(1000), guarded { far.read(1000) }) }
    until_given_back
    ends[1].last.read(there)
    assert_equal(pattern(1000), guarded { ends[1].last.read(1000) })
    source << pattern(10)
    source.close
    assert_equal(1010, guarded { copy.value })
    ends.each { |_, far| assert_equal pattern(10), far.read(10) }
  end

  def test_a_copy_that_waits_for_its_input_gives_its_pipe_back
    source, input = tcp_pair
    output, far = unix_pair
    copy = thread { IO::Splice.copy_stream(input, output) }
    source << pattern(1000)
    assert_equal(pattern(1000), guarded { far.read(1000) })
    until_given_back
    source << pattern(1000)
    source.close
    assert_equal(pattern(1000), guarded { far.read(1000) })
    assert_equal(2000, guarded { copy.value })
  end

  def test_a_pipe_in_full_use_grows_and_idle_ones_are_small_again_but_for_one
    source, input = tcp_pair
    largest = 0
    File.open(File::NULL, "w") do |null|
      sizes = ->(_) { largest = [largest, *own_pipe_sizes].max }
      feeding = thread do
        64.times { source << pattern(1_000_000) }
        source.close
      end
      assert_equal(64_000_000, (guarded { IO::Splice.copy_stream(input, null, &sizes) }))
      feeding.join
    end
    assert_operator largest, :>, 65_536
    assert_operator large_pipes, :<=, most_large
  end

  def test_with_many_stalled_relays_new_pipes_of_the_user_are_as_large_as_ever
    skip "only root can become another user" unless Process.uid.zero?
    skip "the user's share is unlimited here" if File.read(SHARE).to_i.zero?
    child = fork_child { check_share }
    assert_predicate(guarded { Process.wait2(child).last }, :success?)
  end

  private

  def check_share
    Process.setrlimit(:NOFILE, Process.getrlimit(:NOFILE).last)
    become_a_user
    before = IO.pipe.first.pipe_size
    ends = Array.new(1000) { UNIXSocket.pair + UNIXSocket.pair }
    ends.each { |_, front, back| Thread.new { IO::Splice.relay(front, back) } } # all, before any of them is fed
    ends.map(&:first).each { |near| feed_until_full(near) }
    until_given_back
    now = IO.pipe.first.pipe_size
    raise "a new pipe has #{now} bytes, not #{before}" if now < before
  end

  def feed_until_full(near)
    calm = 0
    calm = near.write_nonblock("s" * 65_536, exception: false) == :wait_writable ? calm + 1 : 0 until calm == 3
  end

  # A relay that has been given more than it can pass on.
  def stalled_relay((near, front), (back, far))
    relay = thread { IO::Splice.relay(front, back) }
    [near, far, relay, fill_up(near)]
  end

  # Whatever was on its way arrives, and more.
  def assert_goes_on(near, far, relay, sent)
    near.close_write
    assert_equal(sent, guarded { far.read.bytesize })
    far.close_write
    assert_equal([sent, 0], guarded { relay.value })
  end

  # Only the pool's pipes are left, and they are small but for one.
  def until_given_back
    guarded { sleep 0.05 until own_pipe_sizes.size <= [4, @before.size].max && large_pipes <= most_large }
  end

  def large_pipes(sizes = own_pipe_sizes) = sizes.count { |size| size > MODEST }

  def most_large = [1, large_pipes(@before)].max

  # The capacities of the pipes of the gem, which are those that no IO is for.
  def own_pipe_sizes
    known = numbers_of_ios(ObjectSpace.each_object(IO).grep_v(Probe))
    numbers = Dir.children("/proc/self/fd").map(&:to_i) - known
    numbers.filter_map { |number| size_of_reader(number) if pipe?(number) }
  end

  def pipe?(number)
    File.readlink("/proc/self/fd/#{number}").start_with?("pipe:")
  rescue Errno::ENOENT
    false
  end

  # The other end has the same.
  def size_of_reader(number)
    Probe.for_fd(number, "r", autoclose: false).pipe_size
  rescue Errno::EBADF, Errno::EINVAL
    nil
  end

  # Looks at a descriptor and leaves it to whom it belongs to.
  class Probe < IO
  end
end
