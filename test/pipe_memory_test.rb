# frozen_string_literal: true

require "test_helper"
require "support/relay_sides"

# When a user's pipes take all the memory that they may, new ones are small. It is what all processes of a user share.
class TestPipeMemory < Minitest::Test
  include RelaySides

  KINDS = %i[file pipe tcp unix].freeze
  STREAMS = %i[pipe tcp unix].freeze
  # What splice can move between.
  SPLICEABLE = (KINDS.product([:pipe]) | [:pipe].product(STREAMS)).freeze

  SIZE = 300_000
  MIB = 1 << 20

  def test_copy_stream_without_memory_for_pipes
    without_pipe_memory do
      KINDS.product(KINDS).each do |from, to|
        source = source(from, pattern(SIZE))
        target, collect = target(to)
        assert_equal SIZE, copy_stream(source, target)
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  def test_full_and_partial_without_memory_for_pipes
    without_pipe_memory do
      SPLICEABLE.each do |from, to|
        source = source(from, pattern(SIZE))
        target, collect = target(to)
        assert_equal(SIZE - 5000, guarded { IO::Splice.full(source, target, SIZE - 5000) })
        left = 5000
        left -= guarded { IO::Splice.partial(source, target, left) } while left.positive?
        assert_nil(guarded { IO::Splice.partial(source, target, 1) })
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  def test_tee_stream_and_tee_without_memory_for_pipes
    without_pipe_memory do
      KINDS.each do |from|
        targets, collects = KINDS.map { |to| target(to) }.transpose
        assert_equal(SIZE, guarded { IO::Splice.tee_stream(source(from, pattern(SIZE)), *targets) })
        collects.each { |collect| assert_bytes pattern(SIZE), collect.call }
      end
      r, w = pipe
      copy, into = pipe
      w.write("duplicated")
      assert_equal 10, IO.tee(r, into, 100)
      assert_equal(%w[duplicated duplicated], [r, copy].map { |io| io.readpartial(100) })
    end
  end

  def test_relay_without_memory_for_pipes
    without_pipe_memory do
      STREAMS.product(STREAMS).each do |one, other|
        assert_exchange(side(one), side(other), pattern(SIZE), pattern(SIZE).reverse)
      end
    end
  end

  def test_vmsplice_without_memory_for_pipes
    without_pipe_memory do |size|
      [pattern(SIZE), IO::Splice::Pages.new(pattern(SIZE))].each do |data|
        target, collect = target(:pipe)
        assert_operator target.pipe_size, :<=, size
        assert_equal(SIZE, guarded { IO.vmsplice(target, data) })
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  def test_a_larger_pipe_without_memory_for_pipes
    without_pipe_memory do |size|
      r, w = pipe
      w.write("stays")
      assert_raises(Errno::EPERM) { w.pipe_size = MIB }
      assert_operator w.pipe_size, :<=, size
      assert_equal "stays", r.readpartial(9)
    end
  end

  private

  # As a user whose pipes take all the memory that they may. Yields the most that a new pipe has then.
  def without_pipe_memory
    soft = File.read("/proc/sys/fs/pipe-user-pages-soft").to_i
    skip "a user's pipes are not limited here, or hardly" unless soft.between?(1, 1 << 17)
    in_a_child do
      become_a_user
      pipes = []
      loop { pipes << IO.pipe.each { |io| io.pipe_size = MIB } }
    rescue Errno::EPERM
      # What is left to be had, in pieces as small as a pipe that is made first.
      pipes << IO.pipe while (size = pipe.last.pipe_size) > 8192
      IO::Splice::PIPE_CAPA > size or skip "the limit does not show"
      yield size
    rescue Errno::EMFILE
      skip "this user's pipes are not limited"
    end
  end
end
