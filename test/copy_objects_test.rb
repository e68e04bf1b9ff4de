# frozen_string_literal: true

require "test_helper"
require "stringio"
require "support/tls"
require "zlib"

class TestCopyObjects < Minitest::Test
  Interrupted = Class.new(StandardError)

  # An object that has only the methods it is asked to have, and passes them on.
  class Only
    def initialize(object, *methods)
      methods.each do |name|
        define_singleton_method(name) { |*args| name == :to_io ? object : object.public_send(name, *args) }
      end
    end
  end

  def test_stringio_as_the_source
    source = StringIO.new(pattern(100_000))
    target = tempfile
    assert_equal 100_000, IO::Splice.copy_stream(source, target)
    assert_equal 100_000, source.pos
    assert_content pattern(100_000), target
  end

  def test_stringio_as_the_target
    target = StringIO.new("before ".b)
    target.pos = 7
    assert_equal 100_000, IO::Splice.copy_stream(tempfile(pattern(100_000)), target)
    assert_equal "before ".b + pattern(100_000), target.string
  end

  def test_stringio_to_stringio
    target = StringIO.new
    assert_equal 5, IO::Splice.copy_stream(StringIO.new("abcdefgh"), target, 5)
    assert_equal "abcde", target.string
  end

  def test_stringio_with_a_length_leaves_the_rest
    source = StringIO.new("abcdefgh")
    assert_equal 3, IO::Splice.copy_stream(source, tempfile, 3)
    assert_equal "defgh", source.read
  end

  def test_an_object_that_is_too_short_is_delivered_and_then_raises
    target = tempfile
    error = assert_raises(EOFError) { IO::Splice.copy_stream(StringIO.new("abc"), target, 4) }
    assert_includes error.message, "3 of 4"
    assert_content "abc", target
    into = StringIO.new
    assert_raises(EOFError) { IO::Splice.copy_stream(tempfile("abc"), into, 4) }
    assert_equal "abc", into.string
  end

  def test_what_is_neither_source_nor_target_is_named
    [nil, [], Object.new, BasicObject.new].each do |other|
      error = assert_raises(TypeError) { IO::Splice.copy_stream(other, StringIO.new) }
      assert_match(/\A(nil|an? \w+) cannot be a source/, error.message)
      error = assert_raises(TypeError) { IO::Splice.copy_stream(StringIO.new("a"), other) }
      assert_match(/\A(nil|an? \w+) cannot be a target/, error.message)
      assert_raises(TypeError) { IO::Splice.tee_stream(other, StringIO.new, StringIO.new) }
    end
  end

  def test_an_interrupt_between_an_io_and_an_object_loses_and_repeats_nothing
    200.times do
      source, writer = pipe
      writing = thread { 10.times { writer.write(pattern(20_000)) } && writer.close }
      into = StringIO.new("".b)
      copy = thread { IO::Splice.copy_stream(source, into) }
      sleep rand * 0.002
      copy.raise(Interrupted)
      assert_raises(Interrupted) { guarded { copy.value } } unless copy.status == false
      assert_equal pattern(20_000) * 10, into.string + guarded { source.read }.b
      writing.join
      source.close
    end
  end

  def test_what_an_object_has_given_and_nobody_has_taken_goes_back
    source = StringIO.new(pattern(300_000))
    r, target = pipe
    copy = until_asleep(thread { IO::Splice.copy_stream(source, target) })
    copy.raise(Interrupted)
    assert_raises(Interrupted) { guarded { copy.value } }
    target.close
    assert_equal pattern(300_000), r.read.b + source.read
  end

  def test_an_object_has_no_offset
    target = tempfile
    assert_raises(ArgumentError) { IO::Splice.copy_stream(StringIO.new("abc"), target, 1, 1) }
    assert_equal 0, target.size
  end

  def test_a_file_to_an_object_from_an_offset
    file = tempfile("0123456789")
    target = StringIO.new
    assert_equal 3, IO::Splice.copy_stream(file, target, 3, 5)
    assert_equal "567", target.string
    assert_equal 0, file.pos
  end

  %i[readpartial read].each do |method|
    define_method "test_a_source_with_nothing_but_#{method}" do
      target = tempfile
      assert_equal 100_000, IO::Splice.copy_stream(Only.new(StringIO.new(pattern(100_000)), method), target)
      assert_content pattern(100_000), target
    end

    define_method "test_a_source_with_#{method}_and_to_io_is_read_through_#{method}" do
      source = Only.new(StringIO.new("through the object"), method)
      around = tempfile("around the object")
      source.define_singleton_method(:to_io) { around }
      target = tempfile
      assert_equal 18, IO::Splice.copy_stream(source, target)
      assert_content "through the object", target
      assert_equal 0, around.pos
    end
  end

  def test_a_target_with_nothing_but_write
    into = StringIO.new
    assert_equal 100_000, IO::Splice.copy_stream(tempfile(pattern(100_000)), Only.new(into, :write))
    assert_equal pattern(100_000), into.string.b
  end

  def test_a_target_may_keep_what_it_is_given
    kept = []
    target = Object.new
    target.define_singleton_method(:write) { |bytes| (kept << bytes).last.bytesize }
    data = pattern(1_000_000)
    assert_equal data.bytesize, IO::Splice.copy_stream(tempfile(data), target)
    assert_operator kept.size, :>, 1
    assert_equal data, kept.join
  end

  def test_a_target_may_change_what_it_is_given
    taken = +"".b
    target = Object.new
    target.define_singleton_method(:write) do |bytes|
      bytes.bytesize.tap { taken << bytes.slice!(0..) }
    end
    data = pattern(200_000)
    copied = guarded { IO::Splice.copy_stream(tempfile(data), target) }
    assert_equal [data.bytesize, data], [copied, taken]
  end

  def test_a_target_with_write_and_to_io_is_written_through_write
    into = StringIO.new
    around = tempfile
    target = Only.new(into, :write)
    target.define_singleton_method(:to_io) { around }
    assert_equal 3, IO::Splice.copy_stream(tempfile("abc"), target)
    assert_equal "abc", into.string
    assert_equal 0, around.size
  end

  def test_an_object_with_nothing_but_to_io_is_used_through_it
    source = tempfile("abc")
    target = tempfile
    assert_equal 3, IO::Splice.copy_stream(Only.new(source, :to_io), Only.new(target, :to_io))
    assert_content "abc", target
    assert_equal 3, source.pos
  end

  def test_an_object_with_nothing_but_to_io_goes_with_one_that_only_writes
    target = StringIO.new
    assert_equal 3, IO::Splice.copy_stream(Only.new(tempfile("abc"), :to_io), target)
    assert_equal "abc", target.string
  end

  def test_an_object_that_only_reads_goes_with_one_that_has_nothing_but_to_io
    target = tempfile
    assert_equal 3, IO::Splice.copy_stream(StringIO.new("abc"), Only.new(target, :to_io))
    assert_content "abc", target
  end

  def test_a_number_goes_with_an_object
    target = StringIO.new
    assert_equal 3, IO::Splice.copy_stream(tempfile("abc").fileno, target)
    assert_equal "abc", target.string
    file = tempfile
    assert_equal 3, IO::Splice.copy_stream(StringIO.new("def"), file.fileno)
    assert_content "def", file
  end

  def test_paths_go_with_objects
    Dir.mktmpdir do |dir|
      File.binwrite("#{dir}/source", pattern(50_000))
      target = StringIO.new
      assert_equal 50_000, IO::Splice.copy_stream("#{dir}/source", target)
      assert_equal pattern(50_000), target.string.b
      assert_equal 50_000, IO::Splice.copy_stream(StringIO.new(pattern(50_000)), "#{dir}/target")
      assert_equal pattern(50_000), File.binread("#{dir}/target")
    end
  end

  def test_an_object_with_a_path_is_used_by_its_path
    Dir.mktmpdir do |dir|
      File.write("#{dir}/source", "from the path")
      source = Only.new(StringIO.new("from the object"), :read)
      source.define_singleton_method(:to_path) { "#{dir}/source" }
      target = tempfile
      assert_equal 13, IO::Splice.copy_stream(source, target)
      assert_content "from the path", target
    end
  end

  def test_what_ruby_has_read_ahead_goes_first_to_an_object
    r, w = pipe
    w.write("head\n0123456789")
    w.close
    r.gets
    target = StringIO.new
    assert_equal 4, IO::Splice.copy_stream(r, target, 4)
    assert_equal "0123", target.string
    assert_equal "456789", r.read
  end

  def test_what_ruby_has_still_to_write_goes_before_an_object
    file = tempfile
    file.write("before ")
    IO::Splice.copy_stream(StringIO.new("behind"), file)
    assert_content "before behind", file
  end

  def test_a_target_that_raises_leaves_the_source_behind_what_it_took
    r, w = pipe
    w.write(pattern(10_000))
    w.close
    [tempfile(pattern(10_000)), r].each do |source|
      target = Object.new
      def target.write(_bytes) = raise(ArgumentError, "no more")
      assert_raises(ArgumentError) { IO::Splice.copy_stream(source, target) }
      assert_equal pattern(10_000), source.read.b
    end
  end

  def test_progress_with_objects
    [[StringIO.new(pattern(3_000_000)), tempfile], [tempfile(pattern(3_000_000)), StringIO.new],
     [StringIO.new(pattern(3_000_000)), StringIO.new], [StringIO.new, StringIO.new]].each do |source, target|
      counts = []
      copied = IO::Splice.copy_stream(source, target) { |bytes| counts << bytes }
      assert_equal counts.sort, counts
      assert_equal copied, counts.last
      assert_equal copied, target.tap(&:rewind).read.bytesize
    end
  end

  def test_progress_with_a_path_and_an_object
    Dir.mktmpdir do |dir|
      counts = []
      copied = IO::Splice.copy_stream(StringIO.new("abc"), "#{dir}/target") { |bytes| counts << bytes }
      assert_equal 3, copied
      assert_equal 3, counts.last
      assert_equal "abc", File.read("#{dir}/target")
    end
  end

  {
    "a_kill" => ->(source, target) { [Thread.new { IO::Splice.copy_stream(source, target) }, :kill.to_proc] },
    "an_exception" => lambda do |source, target|
      [Thread.new { IO::Splice.copy_stream(source, target) }, ->(thread) { thread.raise(Interrupted) }]
    end,
    # Before Ruby 3.4 it is a throw that ends the block of a Timeout without a class.
    "a_timeout" => lambda do |source, target|
      [Thread.new { Timeout.timeout(0.2) { IO::Splice.copy_stream(source, target) } }, ->(_) {}]
    end,
  }.each do |name, begin_copy|
    define_method("test_after_#{name}_an_object_has_what_was_not_delivered") do
      source = StringIO.new(pattern(1_000_000))
      reader, writer = IO.pipe
      copying, stop = begin_copy.call(source, writer)
      guarded { sleep 0.005 until copying.stop? }
      stop.call(copying)
      guarded do
        copying.join
      rescue Interrupted, Timeout::Error
        nil
      end
      writer.close
      assert_equal pattern(1_000_000), reader.read.b + source.read
    end
  end

  def test_an_exception_from_the_block_stops_a_copy_with_objects
    target = StringIO.new
    source = StringIO.new(pattern(3_000_000))
    assert_raises(ArgumentError) { IO::Splice.copy_stream(source, target) { raise ArgumentError } }
    assert_equal target.string.bytesize, source.pos
    assert_operator target.string.bytesize, :<, 3_000_000
  end

  # What transforms

  def test_a_tls_socket_as_the_target_is_written_encrypted
    [tempfile(pattern(300_000)), StringIO.new(pattern(300_000))].each do |source|
      here, there = tls_pair(wire = unix_pair)
      arrived = thread { there.read }
      assert_equal 300_000, copy_stream(source, here)
      here.close
      assert_equal pattern(300_000), thread_value(arrived)
      there.close
      refute_includes wire.map(&:closed?), false
    end
  end

  def test_a_tls_socket_as_the_source_is_read_decrypted
    here, there = tls_pair
    feeder = thread { here.write(pattern(300_000)) && here.close }
    target = tempfile
    assert_equal 200_000, copy_stream(there, target, 200_000)
    assert_content pattern(200_000), target
    assert_equal pattern(300_000).byteslice(200_000..), there.read
    feeder.join
    there.close
  end

  def test_a_tls_socket_to_a_tls_socket
    client, from = tls_pair
    to, server = tls_pair
    arrived = thread { server.read }
    feeder = thread { client.write(pattern(100_000)) && client.close }
    assert_equal 100_000, copy_stream(from, to)
    to.close
    assert_equal pattern(100_000), thread_value(arrived)
    feeder.join
    [from, server].each(&:close)
  end

  def test_gzip
    Dir.mktmpdir do |dir|
      Zlib::GzipWriter.open("#{dir}/file.gz") do |gzip|
        assert_equal 100_000, IO::Splice.copy_stream(tempfile(pattern(100_000)), gzip)
      end
      assert_equal pattern(100_000), Zlib.gunzip(File.binread("#{dir}/file.gz"))
      Zlib::GzipReader.open("#{dir}/file.gz") do |gzip|
        target = tempfile
        assert_equal 100_000, IO::Splice.copy_stream(gzip, target)
        assert_content pattern(100_000), target
      end
    end
  end

  private

  def copy_stream(...)
    guarded { IO::Splice.copy_stream(...) }
  end

  def assert_content(expected, file)
    file.flush
    file.rewind
    actual = file.read
    assert_equal expected.bytesize, actual.bytesize
    assert expected.b == actual.b, "other bytes than expected"
  end
end
