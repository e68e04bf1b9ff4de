# frozen_string_literal: true

require_relative "test_helper"
require "socket"
require "tmpdir"
require_relative "support/copy_ends"

# Files that several threads or processes use at once through one open file, and so through one position.
class SharedFilesTest < Minitest::Test
  include CopyEnds

  RECORD = 50_000
  RECORDS = 40

  def setup
    super
    @dir = Dir.mktmpdir
  end

  def teardown
    super
  ensure
    FileUtils.remove_entry(@dir)
  end

  %i[pipe unix tcp path small_file object].each do |from|
    define_method("test_records_that_threads_copy_from_a_#{from}_to_one_file_are_all_kept") do
      target = File.open(path("log"), "w")
      closing(target)
      writers = %w[a b c d].map do |name|
        in_a_thread { RECORDS.times { with_source(from, name * RECORD) { |source| copy(source, target) } } }
      end
      writers.each { |thread| thread_value(thread) }
      assert_records(%w[a b c d], RECORDS)
      assert_equal 4 * RECORDS * RECORD, target.pos
    end
  end

  def test_records_of_tee_stream_and_of_write_are_all_kept
    target = File.open(path("log"), "w").tap { |file| file.sync = true }
    closing(target)
    teeing = in_a_thread do
      RECORDS.times { with_source(:pipe, "a" * RECORD) { |source| IO::Splice.tee_stream(source, target, File::NULL) } }
    end
    writing = in_a_thread { RECORDS.times { target.syswrite("b" * RECORD) } }
    [teeing, writing].each { |thread| thread_value(thread) }
    assert_records(%w[a b], RECORDS)
  end

  def test_records_of_a_child_with_the_same_open_file_are_all_kept
    target = File.open(path("log"), "w")
    closing(target)
    go, gone = closing(*IO.pipe)
    child = fork_child do
      gone.close
      go.read
      RECORDS.times { with_source(:pipe, "a" * RECORD) { |source| copy(source, target) } }
    end
    gone.close
    RECORDS.times { with_source(:unix, "b" * RECORD) { |source| copy(source, target) } }
    assert_predicate status_of(child), :success?
    assert_records(%w[a b], RECORDS)
  end

  def test_what_others_append_meanwhile_is_kept
    target = File.open(path("log"), "w")
    closing(target)
    appending = in_a_thread { RECORDS.times { File.write(path("other"), "b" * RECORD, mode: "a") } }
    RECORDS.times { with_source(:pipe, "a" * RECORD) { |source| copy(source, target) } }
    thread_value(appending)
    assert_records(%w[a], RECORDS)
  end

  %i[path pipe unix].each do |to|
    define_method("test_threads_that_copy_portions_of_one_file_to_a_#{to}_get_each_byte_once") do
      File.binwrite(path("source"), Array.new(200_000) { |number| [number].pack("N") }.join)
      source = File.open(path("source"))
      closing(source)
      readers = Array.new(4) { in_a_thread { Array.new(50) { received(to) { |target| copy(source, target, 4000) } } } }
      numbers = readers.flat_map { |thread| thread_value(thread) }.flat_map { |bytes| bytes.unpack("N*") }
      assert_equal 200_000, numbers.size
      assert_equal (0...200_000).to_a, numbers.sort
      assert_equal 800_000, source.pos
    end
  end

  %i[full partial].each do |call|
    define_method("test_threads_that_take_portions_of_one_file_by_#{call}_get_each_byte_once") do
      File.binwrite(path("source"), Array.new(200_000) { |number| [number].pack("N") }.join)
      source = File.open(path("source"))
      closing(source)
      takers = Array.new(4) { in_a_thread { take_portions(source, call) } }
      numbers = takers.flat_map { |thread| thread_value(thread).unpack("N*") }
      assert_equal (0...200_000).to_a, numbers.sort
      assert_equal 800_000, source.pos
    end

    define_method("test_records_that_threads_move_to_one_file_by_#{call}_are_all_kept") do
      target = File.open(path("log"), "w")
      closing(target)
      movers = %w[a b c d].map do |name|
        in_a_thread do
          RECORDS.times { with_source(:pipe, name * RECORD) { |source| move(source, target, call, RECORD) } }
        end
      end
      movers.each { |thread| thread_value(thread) }
      assert_records(%w[a b c d], RECORDS)
    end
  end

  def test_threads_that_copy_the_rest_of_one_file_get_each_byte_once
    File.binwrite(path("source"), pattern(4_000_000))
    source = File.open(path("source"))
    closing(source)
    counts = Array.new(4) { |index| in_a_thread { IO::Splice.copy_stream(source, path("copy#{index}")) } }
    assert_equal(4_000_000, counts.sum { |thread| thread_value(thread) })
    assert_equal 4_000_000, source.pos
  end

  def test_portions_at_the_end_of_a_file_leave_its_position_at_the_end
    File.binwrite(path("source"), "x" * 10_000)
    source = File.open(path("source"))
    closing(source)
    counts = Array.new(8) do
      in_a_thread do
        IO::Splice.copy_stream(source, path("copy#{Thread.current.object_id}"), 3000)
      rescue EOFError => e
        e.message[/after (\d+)/, 1].to_i
      end
    end
    assert_equal(10_000, counts.sum { |thread| thread_value(thread) })
    assert_equal 10_000, source.pos
  end

  def test_a_disk_that_is_full_in_the_middle_leaves_the_positions_behind_what_was_copied
    in_a_child do
      trap(:XFSZ, "IGNORE")
      File.binwrite(path("source"), pattern(400_000))
      Process.setrlimit(:FSIZE, 300_000)
      %i[file pipe unix].each do |from|
        File.open(path("source")) do |source|
          File.open(path("target"), "w") do |target|
            with_piped(source, from) do |input|
              assert_raises(Errno::EFBIG) { IO::Splice.copy_stream(input, target) }
              assert_equal [300_000, 300_000], [target.pos, target.size], "from #{from}"
              assert_bytes pattern(400_000)[300_000..], input.read, "from #{from}" if from == :file
            end
          end
          assert_bytes pattern(300_000), File.binread(path("target")), "from #{from}"
        end
      end
    end
  end

  def test_a_source_that_is_truncated_meanwhile_leaves_the_positions_behind_what_was_copied
    File.binwrite(path("source"), pattern(3_000_000))
    source = File.open(path("source"))
    output, far_end = closing(*UNIXSocket.pair)
    closing(source)
    copy = in_a_thread { IO::Splice.copy_stream(source, output) }
    until_settled(copy)
    File.truncate(path("source"), 1_000_000)
    reader = in_a_thread { far_end.read }
    copied = thread_value(copy)
    output.close
    assert_operator copied, :<=, 1_000_000 + (1 << 20) # a portion may have been on its way
    assert_equal [copied, copied], [thread_value(reader).bytesize, source.pos]
  end

  def test_a_file_that_has_grown_is_copied_to_its_new_end
    File.binwrite(path("source"), "a" * 100_000)
    source = File.open(path("source"))
    target = File.open(path("target"), "w")
    closing(source, target)
    assert_equal 100_000, IO::Splice.copy_stream(source, target)
    File.write(path("source"), "b" * 50, mode: "a")
    assert_equal [50, 100_050, 100_050], [IO::Splice.copy_stream(source, target), source.pos, target.pos]
  end

  def test_an_interrupted_copy_gives_back_what_it_has_reserved
    File.binwrite(path("source"), pattern(3_000_000))
    source = File.open(path("source"))
    output, far_end = closing(*UNIXSocket.pair)
    closing(source)
    copy = in_a_thread { IO::Splice.copy_stream(source, output) }
    until_settled(copy)
    copy.raise(Stop)
    assert_raises(Stop) { thread_value(copy) }
    output.close
    arrived = far_end.read.b
    assert_operator arrived.bytesize, :<, 3_000_000
    assert_bytes pattern(3_000_000), arrived + source.read.b
  end

  private

  def path(name) = File.join(@dir, name)

  def copy(...) = IO::Splice.copy_stream(...)

  def move(source, target, call, len)
    return IO::Splice.full(source, target, len) if call == :full

    len -= IO::Splice.partial(source, target, len) while len.positive?
  end

  # Through a pipe that is smaller than a portion, and read slowly.
  def take_portions(source, call)
    reader, writer = IO.pipe
    writer.pipe_size = 4096
    taken = Thread.new { reader.read }
    50.times { call == :full ? IO::Splice.full(source, writer, 4000) : move(source, writer, call, 4000) }
    writer.close
    taken.value
  ensure
    [reader, writer].each(&:close)
  end

  # Each byte of the log is of somebody, and each of them has all of theirs.
  def assert_records(names, count)
    found = File.binread(path("log")).each_byte.tally.transform_keys(&:chr)
    assert_equal names.to_h { |name| [name, count * RECORD] }, found
  end

  def with_source(kind, bytes, &block)
    case kind
    when :path then yield(path("s#{bytes[0]}").tap { |path| File.binwrite(path, bytes) })
    when :small_file
      bytes.scan(/.{1,5000}/m) { |part| with_source(:path, part) { |path| File.open(path, &block) } }
    when :object then yield StringIO.new(bytes)
    else with_stream(kind, bytes, &block)
    end
  end

  def with_stream(kind, bytes)
    reader, writer = pair(kind)
    feeder = Thread.new { writer.write(bytes) && writer.close }
    yield reader
    feeder.value
  ensure
    [reader, writer].each(&:close)
  end

  def pair(kind)
    case kind
    when :pipe then IO.pipe
    when :unix then UNIXSocket.pair
    when :tcp
      TCPServer.open("127.0.0.1", 0) { |server| [TCPSocket.new("127.0.0.1", server.addr[1]), server.accept].reverse }
    end
  end

  def with_piped(source, kind)
    return yield source if kind == :file

    with_stream(kind, source.read) { |input| yield(input).tap { input.close } }
  rescue Errno::EPIPE
    nil # of the feeder
  end

  # What reaches the far end.
  def received(kind)
    if kind == :path
      target = path("copy#{Thread.current.object_id}")
      yield target
      return File.binread(target)
    end
    reader, writer = pair(kind)
    yield writer
    writer.close
    reader.read
  ensure
    [reader, writer].compact.each(&:close)
  end
end
