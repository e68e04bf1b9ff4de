# frozen_string_literal: true

require "test_helper"
require "English"
require "support/tee_ends"

# Many at once, in threads, fibers, children and Ractors, and with few descriptors.
class TestTeeStreamMany < Minitest::Test
  include TeeEnds

  # Many at once

  def test_no_copy_sees_bytes_of_another
    copies = Array.new(10) do |number|
      bytes = "#{number}:".b + (pattern(200_003 + number).byteslice(number..) * 3)
      targets, collects = targets(*STREAMS, :file, :picky)
      source = source([*STREAMS, :file, :stringio][number % 5], bytes)
      [bytes, collects, thread { IO::Splice.tee_stream(source, *targets) }]
    end
    copies.each do |bytes, collects, copy|
      assert_equal bytes.bytesize, thread_value(copy)
      assert_all bytes, collects
    end
  end

  def test_fibers_run_while_it_waits
    (STREAMS + [:file]).each do |from|
      reader, writer = from == :file ? [tempfile(pattern(2 * MIB))] : pair(from)
      ends = STREAMS.map { |to| narrow(*pair(to)) }
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
    reader, slow = narrow(*pair(:unix))
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
    reader, slow = narrow(*pair(:tcp))
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
      until_settled(copy)
      Dir.children("/proc/self/fd").filter_map { |fd| File.readlink("/proc/self/fd/#{fd}") rescue nil } # rubocop:disable Style/RescueModifier
         .grep(/\Apipe/).uniq.sort
    end
    first = once.call
    assert_equal first, once.call
    assert_equal first, once.call
    peer.close
    assert_equal 3, thread_value(copy)
  end
end
