# frozen_string_literal: true

require "test_helper"
require "support/tee_ends"

# A target that fails, and what the others have then.
class TestTeeStreamFailures < Minitest::Test
  include TeeEnds

  def test_a_reader_that_is_gone_from_the_start
    SOURCES.each do |from|
      3.times do |place|
        reader, broken = pipe
        reader.close
        targets, collects = targets(:pipe, :unix)
        error = assert_raises(Errno::EPIPE) do
          tee_stream(source(from, pattern(2 * MIB)), *targets.dup.insert(place, broken))
        end
        assert_failed error, broken, place, collects
        assert_equal 0, error.bytes_written[place]
      end
    end
  end

  SOURCES.each do |from|
    define_method "test_a_reader_that_goes_leaves_equal_prefixes_from_#{from}" do
      STREAMS.each do |to|
        reader, broken = narrow(*pair(to))
        @threads << thread { reader.read(1_500_000) && reader.close }
        targets, collects = targets(*TARGETS)
        source = source(from, pattern(6 * MIB))
        error = assert_raises(Errno::EPIPE, Errno::ECONNRESET) do
          tee_stream(source, *targets[0, 4], broken, *targets[4..])
        end
        prefix = assert_failed error, broken, 4, collects
        assert_operator error.bytes_written[4], :>=, 1_500_000
        assert_operator prefix, :<, 6 * MIB
        assert_bytes pattern(6 * MIB).byteslice(prefix..), rest(source) unless %i[path pathname].include?(from)
      end
    end
  end

  def test_a_reset_connection
    SOURCES.each do |from|
      reader, broken = tcp_pair
      broken.write("before")
      reader.setsockopt(Socket::Option.linger(true, 0))
      reader.close
      targets, collects = targets(:pipe, :append, :stringio)
      error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) do
        tee_stream(source(from, pattern(2 * MIB)), broken, *targets)
      end
      assert_failed error, broken, 0, collects
      assert_equal 0, error.bytes_written.first
    end
  end

  SOURCES.each do |from|
    define_method "test_a_slow_target_catches_up_when_another_fails_from_#{from}" do
      reader, slow = unix_pair
      filled = fill(slow)
      far, broken = pipe
      far.close
      targets, collects = targets(:tcp, :file, :picky)
      source = source(from, pattern(6 * MIB))
      copy = until_settled(thread { IO::Splice.tee_stream(source, slow, *targets, broken) })
      assert_predicate copy, :alive?
      arrived = thread { reader.read }
      error = assert_raises(Errno::EPIPE) { thread_value(copy) }
      slow.close
      assert_failed error, broken, 4, [-> { thread_value(arrived).byteslice(filled..) }, *collects]
      assert_operator error.bytes_written.first, :>, 0
    end
  end

  def test_a_full_device
    SOURCES.each do |from|
      File.open("/dev/full", "a") do |append|
        File.open("/dev/full", "w") do |open|
          append.sync = open.sync = true
          ["/dev/full", append, open, append.fileno].each do |full|
            targets, collects = targets(:pipe, :file, :picky)
            error = assert_raises(Errno::ENOSPC) { tee_stream(source(from, pattern(100_000)), *targets, full) }
            assert_failed error, full, 3, collects
            assert_equal 0, error.bytes_written.last
          end
        end
      end
    end
  end

  def test_a_full_device_is_told_of_however_few_the_bytes_are
    SOURCES.each do |from|
      full = File.open("/dev/full", "a")
      targets, collects = targets(:pipe, :picky)
      error = assert_raises(Errno::ENOSPC, "from #{from}") { tee_stream(source(from, "few"), full, *targets) }
      assert_failed error, full, 0, collects, "few"
    ensure
      begin
        full.close
      rescue Errno::ENOSPC
        nil
      end
    end
  end

  SOURCES.each do |from|
    define_method "test_a_file_that_may_not_grow_from_#{from}" do
      limited = tempfile
      in_a_child do
        source = source(from, pattern(900_000))
        trap("XFSZ", "IGNORE")
        Process.setrlimit(:FSIZE, 100_000)
        targets, collects = targets(*STREAMS, :picky)
        error = assert_raises(Errno::EFBIG) { tee_stream(source, limited, *targets) }
        assert_failed error, limited, 0, collects
        assert_equal [100_000, 100_000], [limited.size, error.bytes_written.first]
      end
    end
  end

  def test_an_object_that_raises_an_error_of_input_and_output
    SOURCES.product([IOError, Errno::ENOSPC]).each do |from, kind|
      [0, 1, 100_000, (2 * MIB) - 1].each do |limit|
        failing = Failing.new(limit, raised = kind.new("enough"))
        targets, collects = targets(:pipe, :file, :stringio)
        error = assert_raises(kind) { tee_stream(source(from, pattern(3 * MIB)), failing, *targets) }
        assert_same raised, error
        assert_failed error, failing, 0, [-> { failing.string }, *collects], pattern(3 * MIB), equal: collects
        assert_equal limit, error.bytes_written.first
      end
    end
  end

  def test_an_object_that_raises_anything_else
    SOURCES.each do |from|
      [0, 100_000, (2 * MIB) - 1].each do |limit|
        failing = Failing.new(limit, raised = RuntimeError.new("enough"))
        targets, collects = targets(:file, :pipe, :tcp)
        error = assert_raises(RuntimeError) do
          tee_stream(source(from, pattern(3 * MIB)), *targets[0, 1], failing, *targets[1..])
        end
        assert_same raised, error
        assert_tells error, [collects.first, -> { failing.string }, *collects[1..]]
        assert_equal limit, error.bytes_written[1]
      end
    end
  end

  def test_of_several_that_fail_one_is_named_and_the_others_have_equal_prefixes
    readers, broken = Array.new(2) { pipe }.transpose
    readers.each(&:close)
    targets, collects = targets(:unix, :file)
    [:file, *STREAMS, :stringio].each do |from|
      error = assert_raises(Errno::EPIPE) do
        tee_stream(source(from, "all"), broken[0], targets[0], broken[1], targets[1])
      end
      assert_same broken[0], error.target
      assert_equal [0, 3, 0, 3], error.bytes_written
    end
    assert_all "all" * 5, collects
  end

  def test_when_every_target_fails_the_source_stands_behind_what_they_got
    [[2, :pipe], [3, :tcp]].each do |number, from|
      readers, broken = Array.new(number) { pipe }.transpose
      readers.each(&:close)
      [tempfile("all"), source(from, "all")].each do |source|
        error = assert_raises(Errno::EPIPE) { tee_stream(source, *broken) }
        assert_equal [0] * number, error.bytes_written
        assert_equal "all", source.read
      end
    end
  end

  def test_an_object_that_does_not_say_how_much_it_took
    SOURCES.each do |from|
      silent = Picky.new
      def silent.write(bytes) = super && nil
      assert_raises(TypeError, "from #{from}") { tee_stream(source(from, "abc"), tempfile, silent) }
    end
  end

  def test_a_frozen_error_goes_through_as_it_is
    SOURCES.each do |from|
      failing = Failing.new(0, IOError.new("enough").freeze)
      error = assert_raises(IOError, "from #{from}") { tee_stream(source(from, "abc"), tempfile, failing) }
      assert_equal "enough", error.message
    end
  end

  def test_an_error_of_the_source_is_of_no_target
    source, peer = tcp_pair
    targets, collects = targets(*TARGETS)
    peer.write("before")
    copy = until_asleep(thread { IO::Splice.tee_stream(source, *targets) })
    guarded { Thread.pass until targets[TARGETS.index(:picky)].string == "before" }
    peer.setsockopt(Socket::Option.linger(true, 0))
    peer.close
    error = assert_raises(Errno::ECONNRESET) { thread_value(copy) }
    assert_kind_of IO::Splice::PartialTee, error
    assert_nil error.target
    assert_equal [6] * TARGETS.size, error.bytes_written
    assert_all "before", collects
  end

  def test_a_source_object_that_raises
    source = Object.new
    def source.readpartial(_size, buffer)
      @read ? raise(IOError, "enough") : buffer.replace("before")

      @read = true
    end
    targets, collects = targets(*TARGETS)
    error = assert_raises(IOError) { tee_stream(source, *targets) }
    assert_kind_of IO::Splice::PartialTee, error
    assert_nil error.target
    assert_equal [6] * TARGETS.size, error.bytes_written
    assert_all "before", collects
  end

  def test_after_a_failure_the_next_copy_gets_only_its_own_bytes
    STREAMS.each do |from|
      20.times do |number|
        reader, broken = pipe
        reader.close
        targets, collects = targets(:pipe, :tcp)
        assert_raises(Errno::EPIPE) { tee_stream(source(from, "foreign" * 1000), broken, *targets) }
        assert_all "foreign" * 1000, collects
        targets, collects = targets(:pipe, :tcp)
        tee_stream(source(from, number.to_s), *targets)
        assert_all number.to_s, collects
      end
    end
  end
end
