# frozen_string_literal: true

require "test_helper"

# Every call works in Ractors other than the main one, with numbers and with IOs of the Ractor's own.
class TestRactor < Minitest::Test
  include Experimental

  def test_all_calls_work_with_pipes_of_the_ractor
    answers = in_a_ractor do
      r, w = IO.pipe
      out, into = IO.pipe
      said = [IO.vmsplice(w, %w[some bytes]), IO.tee(r, into, 4), IO.trytee(r, into, 1),
              IO.splice(r, nil, into, nil, 5), IO.trysplice(r, nil, into, nil, 100),
              IO.trysplice(r, nil, into, nil, 100), IO.trytee(r, into, 100), out.read(14)]
      w.close
      said << IO.trysplice(r, nil, into, nil, 100) << r.pipe_size
      [r, out, into].each(&:close)
      said
    end
    assert_equal [9, 4, 1, 5, 4, :EAGAIN, :EAGAIN, "somessomebytes", nil, IO::Splice::PIPE_CAPA], answers
  end

  def test_all_calls_work_with_numbers_from_outside
    r, w = pipe
    out, into = pipe
    file = tempfile("of a file")
    answers = in_a_ractor(*[r, w, into, file].map(&:fileno)) do |from, to, result, bytes|
      [IO::Splice.vmsplice(to, "bytes"), IO::Splice.tee(from, result, 100),
       IO::Splice.splice(from, nil, result, nil, 100), IO::Splice.splice(bytes, 3, result, nil, 100),
       IO::Splice.trysplice(from, nil, result, nil, 100)]
    end
    assert_equal [5, 5, 5, 6, :EAGAIN], answers
    assert_equal "bytesbytesa file", out.read_nonblock(100)
  end

  def test_a_ractor_waits_and_the_others_run
    r, w = pipe
    out, into = pipe
    ready, tell = pipe
    moved = ractor(*[r, into, tell].map(&:fileno)) do |from, to, about|
      IO.vmsplice(about, "!")
      IO.splice(from, nil, to, nil, 100)
    end
    guarded { ready.read(1) }
    w << "from outside"
    assert_equal 12, ractor_value(moved)
    assert_equal "from outside", out.read_nonblock(100)
  end

  def test_threads_of_a_ractor_feed_each_other
    moved = in_a_ractor do
      r, w = IO.pipe
      out, into = IO.pipe
      thread = Thread.new { IO.splice(r, nil, into, nil, 9, IO::Splice::WAITALL) }
      Thread.pass until thread.stop?
      IO.vmsplice(w, "over here")
      [thread.value, out.read(9)].tap { [r, w, out, into].each(&:close) }
    end
    assert_equal [9, "over here"], moved
  end

  def test_several_ractors_at_once_do_not_mix_their_bytes
    moving = Array.new(4) do |i|
      ractor(i.to_s) do |byte|
        r, w = IO.pipe
        out, into = IO.pipe
        right = (1..500).all? do |size|
          IO.vmsplice(w, byte * size)
          IO.tee(r, into, size)
          IO.splice(r, nil, into, nil, size)
          out.read(2 * size) == byte * (2 * size)
        end
        [r, w, out, into].each(&:close)
        right
      end
    end
    moving.each { |each| assert ractor_value(each) }
  end

  def test_errors_are_raised_in_the_ractor
    r, w = pipe
    errors = in_a_ractor(r.fileno, w.fileno) do |from, to|
      [-> { IO.splice(from, nil, to, nil, 1) }, -> { IO.splice(from, nil, to, nil, -1) }, -> { IO.tee(from, nil, 1) },
       -> { IO.splice(from, nil, to, nil, 1, 16) }, -> { IO.vmsplice(from, "x") }].map do |call|
        call.call
      rescue StandardError => e
        e.class
      end
    end
    assert_equal [Errno::EINVAL, ArgumentError, TypeError, Errno::EINVAL, Errno::EBADF], errors
  end

  def test_the_constants_can_be_used_in_a_ractor
    names = IO::Splice.constants.sort
    assert_includes names, :WAITALL
    values = in_a_ractor(names.freeze) { |all| all.map { |name| IO::Splice.const_get(name) } }
    assert_equal(names.map { |name| IO::Splice.const_get(name) }, values)
  end

  # Ractors run at the same time, without a lock between them.
  def test_two_ractors_that_share_a_socket_find_it_in_blocking_mode_afterwards
    sockets = Array.new(100) { unix_pair.each { |socket| socket.nonblock = false } }
    sockets.each { |_, there| there << ("x" * 1000) }
    drains = Array.new(2) do
      ractor(sockets.map { |here,| here.fileno }) do |numbers|
        out, into = IO.pipe
        Ractor.receive
        numbers.each { |number| out.readpartial(1) until IO.trysplice(number, nil, into, nil, 1) == :EAGAIN }
        [out, into].each(&:close)
      end
    end
    guarded { drains.each { |drain| drain.send(:go) }.each { |drain| ractor_value(drain) } }
    assert_empty sockets.map(&:first).select(&:nonblock?)
  end

  private

  def in_a_ractor(...)
    ractor_value(ractor(...))
  end
end
