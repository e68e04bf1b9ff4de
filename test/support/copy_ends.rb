# frozen_string_literal: true

# What the tests of copying share: ends of each kind, threads at the far ends, and the gem's pipes made before
# the fixture counts descriptors.
module CopyEnds
  def setup
    fill_the_pool
    @threads = []
    super
  end

  def teardown
    super
  ensure
    @threads.each { |thread| ended(thread) }
  end

  private

  # The gem keeps a few idle pipes for the next copies. With all of them there, none comes later.
  def fill_the_pool
    pairs = Array.new(8) { UNIXSocket.pair + UNIXSocket.pair }
    copies = pairs.map do |_, source, target, _|
      until_asleep(Thread.new { IO::Splice.copy_stream(source, target) })
    end
    pairs.each { |peer,| peer.close }
    copies.each(&:join)
    pairs.flatten.each(&:close)
  end

  def pair(kind)
    case kind
    when :pipe then pipe.each(&:binmode)
    when :tcp then tcp_pair
    when :unix then unix_pair
    end
  end

  # What a relay is given, and where its peer writes and reads.
  def side(kind)
    return pair(kind).then { |near, far| [near, far, far] } unless kind == :pipe

    input, far_out = pair(:pipe)
    far_in, output = pair(:pipe)
    [[input, output], far_out, far_in]
  end

  def assert_relayed((left, to_left, from_left), (right, to_right, from_right), size)
    writing = [[to_left, pattern(size)], [to_right, pattern(size).reverse]].map do |io, bytes|
      thread { io.write(bytes) && io.close_write }
    end
    arrived = [from_left, from_right].map { |io| thread { io.read } }
    assert_equal([size, size], guarded { IO::Splice.relay(left, right) })
    assert_bytes(pattern(size).reverse, guarded { arrived[0].value })
    assert_bytes(pattern(size), guarded { arrived[1].value })
    writing.each(&:join)
  end

  # The fixture has closed what the thread worked with.
  def ended(thread)
    guarded { thread.join }
  rescue IOError, SystemCallError
    nil
  end

  def copy_stream(...)
    guarded { IO::Splice.copy_stream(...) }
  end
end
