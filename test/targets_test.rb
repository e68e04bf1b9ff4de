# frozen_string_literal: true

require "test_helper"
require "delegate"
require "pathname"
require "stringio"
require "support/copy_ends"
require "zlib"

# A file that is there loses its content when everything else is known to be good, and not before.
class TestTargets < Minitest::Test
  include CopyEnds

  Pathed = Struct.new(:to_path)
  WithIO = Struct.new(:to_io)
  def setup
    super
    @dir = Dir.mktmpdir
    @path = "#{@dir}/there"
    File.write(@path, "content")
    @source = "#{@dir}/source"
    File.write(@source, "new")
  end

  def teardown
    super
  ensure
    FileUtils.remove_entry(@dir)
  end

  # Sources that cannot be read, and what is said of them.
  BAD_SOURCES = {
    a_closed_file: [IOError, -> { File.open(@source).tap(&:close) }],
    a_closed_tempfile: [IOError, -> { Tempfile.new.tap(&:close) }],
    a_closed_pipe: [IOError, -> { IO.pipe.each(&:close).first }],
    a_file_open_for_writing: [IOError, -> { closing(File.open("#{@dir}/other", "w")).first }],
    the_end_of_a_pipe_that_writes: [IOError, -> { pipe.last }],
    an_uninitialized_io: [IOError, -> { IO.allocate }],
    characters_read_ahead: [IOError, -> { pipe.first.tap { |io| io.set_encoding("UTF-16LE", "UTF-8").ungetc("x") } }],
    a_path_of_nothing: [Errno::ENOENT, -> { "#{@dir}/nothing" }],
    a_path_of_a_directory: [Errno::EISDIR, -> { @dir }],
    a_directory: [Errno::EISDIR, -> { closing(File.open(@dir)).first }],
    a_number_that_is_closed: [Errno::EBADF, -> { 999_999 }],
    a_number_that_is_negative: [Errno::EBADF, -> { -1 }],
    a_number_that_is_too_large: [RangeError, -> { 1 << 70 }],
    a_number_open_for_writing: [Errno::EBADF, -> { pipe.last.fileno }],
    a_to_io_that_gives_nil: [TypeError, -> { WithIO.new(nil) }],
    a_to_io_that_gives_something_else: [TypeError, -> { WithIO.new("x") }],
    a_to_io_that_raises: [NotImplementedError, -> { raising(:to_io, NotImplementedError) }],
    a_to_path_that_gives_something_else: [TypeError, -> { Pathed.new(1) }],
    a_path_with_a_nul: [ArgumentError, -> { "a\0b" }],
    nothing: [TypeError, -> {}],
    any_object: [TypeError, -> { Object.new }],
    a_closed_stringio: [IOError, -> { StringIO.new("x").tap(&:close) }],
    a_stringio_open_for_writing: [IOError, -> { StringIO.new(+"", "w") }],
    an_object_that_raises: [RangeError, -> { raising(:read, RangeError) }],
  }.freeze

  BAD_SOURCES.each do |name, (error, make)|
    define_method(:"test_#{name}_empties_no_target") do
      source = instance_exec(&make)
      [@path, Pathname(@path), Pathed.new(@path)].each do |target|
        assert_raises(error) { guarded { IO::Splice.copy_stream(source, target) } }
        assert_raises(error) { guarded { IO::Splice.tee_stream(source, target, StringIO.new) } }
        assert_raises(error) { guarded { IO::Splice.tee_stream(source, File::NULL, target) } }
        assert_equal "content", File.read(@path)
      end
    end
  end

  # Targets that cannot be written to.
  BAD_TARGETS = {
    a_closed_file: [IOError, -> { File.open(File::NULL, "w").tap(&:close) }],
    a_closed_tempfile: [IOError, -> { Tempfile.new.tap(&:close) }],
    a_file_open_for_reading: [IOError, -> { closing(File.open(@source)).first }],
    an_uninitialized_io: [IOError, -> { IO.allocate }],
    a_number_that_is_closed: [Errno::EBADF, -> { 999_999 }],
    a_number_that_is_too_large: [RangeError, -> { 1 << 70 }],
    a_number_open_for_reading: [Errno::EBADF, -> { pipe.first.fileno }],
    a_path_in_no_directory: [Errno::ENOENT, -> { "#{@dir}/no/thing" }],
    a_path_below_a_file: [Errno::ENOTDIR, -> { "#{@source}/thing" }],
    a_path_of_a_directory: [Errno::EISDIR, -> { @dir }],
    a_to_io_that_gives_nil: [TypeError, -> { WithIO.new(nil) }],
    a_to_path_that_gives_something_else: [TypeError, -> { Pathed.new(1) }],
    a_path_with_a_nul: [ArgumentError, -> { "a\0b" }],
    nothing: [TypeError, -> {}],
    any_object: [TypeError, -> { Object.new }],
  }.freeze

  BAD_TARGETS.each do |name, (error, make)|
    define_method(:"test_#{name}_leaves_the_other_targets_as_they_are") do
      target = instance_exec(&make)
      [@source, StringIO.new("new")].each do |source|
        assert_raises(error) { guarded { IO::Splice.tee_stream(source, @path, target, len: nil) } }
        assert_raises(error) { guarded { IO::Splice.tee_stream(source, target, StringIO.new, @path) } }
        assert_equal "content", File.read(@path)
        assert_equal "new", source.is_a?(StringIO) ? source.read : File.read(source)
        source.rewind if source.is_a?(StringIO)
      end
    end

    define_method(:"test_#{name}_takes_nothing_from_a_source") do
      target = instance_exec(&make)
      reader, writer = pipe
      writer.write("line\nread ahead")
      reader.gets
      assert_raises(error) { guarded { IO::Splice.copy_stream(reader, target) } }
      assert_raises(error) { guarded { IO::Splice.tee_stream(reader, @path, target, len: nil) } }
      assert_equal "read ahead", reader.readpartial(99)
    end
  end

  def test_a_directory_that_one_may_not_write_to
    File.chmod(0o666, @path)
    File.chmod(0o555, @dir)
    child = fork_child do
      become_a_user
      error = begin
        IO::Splice.tee_stream(@source, @path, "#{@dir}/new")
      rescue Errno::EACCES => e
        e
      end
      raise "no EACCES" unless error
    end
    assert_predicate guarded { Process.wait2(child).last }, :success?
    assert_equal "content", File.read(@path)
  ensure
    File.chmod(0o755, @dir)
  end

  def test_an_offset_where_there_is_none
    [pipe.first, unix_pair.first, StringIO.new].each do |source|
      assert_raises(Errno::ESPIPE, ArgumentError) { IO::Splice.copy_stream(source, @path, 5, 1) }
      assert_equal "content", File.read(@path)
    end
  end

  def test_a_pipe_that_is_not_copied_into_itself
    _, writer = ends = pipe
    writer.write("x")
    assert_raises(Errno::EINVAL) { IO::Splice.tee_stream(ends.first, @path, writer, len: 1) }
    assert_equal "content", File.read(@path)
  end

  def test_bad_numbers
    [-1, "1", Object.new].each do |bad|
      assert_raises(ArgumentError, TypeError, RangeError) { IO::Splice.copy_stream(@source, @path, bad) }
      assert_raises(ArgumentError, TypeError, RangeError) do
        IO::Splice.tee_stream(@source, @path, StringIO.new, len: bad)
      end
    end
    [-1, "1", 1 << 70, Object.new].each do |bad|
      assert_raises(ArgumentError, TypeError, RangeError) { IO::Splice.copy_stream(@source, @path, 1, bad) }
    end
    assert_equal "content", File.read(@path)
  end

  # A FIFO would wait for somebody, if it was opened.
  def test_bad_arguments_are_told_of_before_anything_is_opened
    fifo = "#{@dir}/fifo"
    File.mkfifo(fifo)
    bad = [WithIO.new(nil), Pathed.new(1), nil, Object.new, "a\0b"]
    bad.each do |end_|
      assert_raises(TypeError, ArgumentError) { guarded(5) { IO::Splice.copy_stream(fifo, end_) } }
      assert_raises(TypeError, ArgumentError) { guarded(5) { IO::Splice.copy_stream(end_, fifo) } }
      assert_raises(TypeError, ArgumentError) { guarded(5) { IO::Splice.tee_stream(fifo, fifo, end_) } }
    end
    [WithIO.new(nil), Object.new].each do |end_|
      assert_raises(TypeError) { guarded(5) { IO::Splice.tee_stream(StringIO.new, "#{@dir}/new", end_) } }
    end
    refute_path_exists "#{@dir}/new"
  end

  # What is emptied

  def test_every_kind_of_source_replaces_all_of_the_content
    sources.each do |name, source|
      File.write(@path, "x" * 100_000)
      assert_equal 3, guarded { IO::Splice.copy_stream(source.call, @path) }, name
      assert_equal "new", File.read(@path), name
      File.write(@path, "x" * 100_000)
      other = "#{@dir}/other"
      File.write(other, "y" * 100_000)
      assert_equal 3, guarded { IO::Splice.tee_stream(source.call, @path, other, StringIO.new) }, name
      assert_equal %w[new new], [File.read(@path), File.read(other)], name
    end
  end

  def test_an_empty_source_empties
    File.write(@source, "")
    [@source, StringIO.new, pipe.tap { |_, writer| writer.close }.first].each do |source|
      File.write(@path, "content")
      assert_equal 0, IO::Splice.copy_stream(source, @path)
      assert_equal "", File.read(@path)
      File.write(@path, "content")
      assert_equal 0, IO::Splice.tee_stream(source, StringIO.new, @path)
      assert_equal "", File.read(@path)
    end
  end

  def test_a_length_of_nothing_empties
    [@source, StringIO.new("x")].each do |source|
      File.write(@path, "content")
      assert_equal 0, IO::Splice.copy_stream(source, @path, 0)
      assert_equal "", File.read(@path)
    end
  end

  def test_what_is_no_regular_file_needs_no_emptying
    fifo = "#{@dir}/fifo"
    File.mkfifo(fifo)
    reading = thread { File.read(fifo) }
    assert_equal 3, (guarded { IO::Splice.copy_stream(@source, fifo) })
    assert_equal "new", (guarded { reading.value })
    assert_equal 3, IO::Splice.copy_stream(@source, File::NULL)
    assert_equal 3, IO::Splice.tee_stream(@source, File::NULL, File::NULL)
    assert_raises(Errno::ENOSPC) { IO::Splice.copy_stream(@source, "/dev/full") }
    assert_equal 3, IO::Splice.tee_stream(StringIO.new("new"), File::NULL, StringIO.new)
  end

  def test_a_link_stays_a_link_and_the_mode_stays
    File.symlink(@path, "#{@dir}/link")
    File.chmod(0o640, @path)
    IO::Splice.copy_stream(@source, "#{@dir}/link")
    assert_equal ["new", true, 0o100640], [File.read(@path), File.symlink?("#{@dir}/link"), File.stat(@path).mode]
  end

  def test_standard_output_at_its_path
    out = IO.popen([RbConfig.ruby, "-I#{File.expand_path("../lib", __dir__)}", "-rio/splice", "-e",
                    "IO::Splice.copy_stream(ARGV[0], '/dev/stdout')", @source], &:read)
    assert_equal "new", out
  end

  # A file and itself

  def test_a_file_is_not_copied_to_its_own_path
    File.link(@path, "#{@dir}/hard")
    File.symlink(@path, "#{@dir}/soft")
    open = closing(File.open(@path)).first
    own = [@path, "#{@dir}/hard", "#{@dir}/soft", "#{@dir}/../#{File.basename(@dir)}/there"]
    [*own, open, open.fileno, Pathname(@path), WithIO.new(open)].each do |source|
      own.each do |target|
        [-> { IO::Splice.copy_stream(source, target) }, -> { IO::Splice.tee_stream(source, "#{@dir}/other", target) },
         -> { IO::Splice.copy_stream(source, target, 3, 1) }].each do |copy|
          error = assert_raises(ArgumentError, &copy)
          assert_match(/is the source itself/, error.message)
          assert_equal "content", File.read(@path)
        end
      end
    end
    assert_equal 0, open.pos
  end

  def test_what_is_no_regular_file_is_copied_to_its_own_path
    assert_equal 0, IO::Splice.copy_stream(File::NULL, File::NULL)
  end

  # The same target twice

  def test_a_path_that_is_given_twice
    assert_equal 3, IO::Splice.tee_stream(@source, @path, @path)
    assert_equal "new", File.read(@path)
  end

  def test_an_io_that_is_given_twice_gets_it_twice
    target = tempfile
    assert_equal 3, IO::Splice.tee_stream(@source, target, target)
    assert_equal "newnew", target.tap(&:rewind).read
    reader, writer = pipe
    assert_equal 3, IO::Splice.tee_stream(@source, writer, writer.fileno, writer)
    assert_equal "newnewnew", reader.readpartial(99)
    string = StringIO.new
    assert_equal 3, IO::Splice.tee_stream(@source, string, string)
    assert_equal "newnew", string.string
  end

  def test_the_source_as_a_target
    here, there = unix_pair
    there.write("echo")
    there.close_write
    assert_equal 4, (guarded { IO::Splice.tee_stream(here, here, @path) })
    assert_equal %w[echo echo], [there.readpartial(99), File.read(@path)]
    file = closing(File.open(@source, "r+")).first
    assert_equal 3, (guarded { IO::Splice.tee_stream(file, @path, StringIO.new, len: 3) })
    assert_equal "new", File.read(@path)
  end

  # Ruby's objects

  def test_subclasses_whose_methods_lie_are_used_by_their_descriptors
    lying = Module.new do
      %i[readpartial read write close to_io to_path path fileno flush].each do |name|
        define_method(name) { |*| raise NotImplementedError, name.to_s }
      end
    end
    source = File.open(@source)
    target = File.open(@path, "w")
    [source, target].each { |io| io.extend(lying) }
    assert_equal 3, IO::Splice.copy_stream(source, target)
    assert_equal "new", File.read(@path)
  ensure
    [source, target].each { |io| IO.instance_method(:close).bind_call(io) }
  end

  def test_delegators
    File.open(@source) do |source|
      File.open(@path, "w") do |target|
        assert_equal 3, IO::Splice.copy_stream(SimpleDelegator.new(source), SimpleDelegator.new(target))
      end
    end
    assert_equal "new", File.read(@path)
    Tempfile.create { |file| IO::Splice.copy_stream(SimpleDelegator.new(StringIO.new("string")), file.path) }
    string = StringIO.new
    IO::Splice.copy_stream(SimpleDelegator.new(StringIO.new("string")), SimpleDelegator.new(string))
    assert_equal "string", string.string
  end

  def test_frozen_ios
    source = closing(File.open(@source)).first.freeze
    target = closing(File.open(@path, "r+")).first.freeze
    [source, target].each { |io| assert_predicate io, :frozen? }
    IO::Splice.copy_stream(source, target)
    assert_equal "newtent", File.read(@path)
    File.write(@path, "content")
    IO::Splice.copy_stream(closing(File.open(@source)).first.freeze, @path)
    assert_equal "new", File.read(@path)
  end

  # A text-mode target

  def test_the_modes_of_both_ends_stay
    File.open(@source, "r:UTF-8") do |source|
      File.open(@path, "w:UTF-16LE") do |target|
        IO::Splice.copy_stream(source, target)
        assert_equal [Encoding::UTF_16LE, false], [target.external_encoding, target.binmode?]
        assert_equal [Encoding::UTF_8, false], [source.external_encoding, source.binmode?]
        target.write("x")
      end
    end
    assert_equal "newx\0", File.binread(@path)
  end

  private

  def raising(name, error)
    Object.new.tap { |object| object.define_singleton_method(name) { |*| raise error } }
  end

  def sources
    deflated = Zlib.gzip("new")
    {
      path: -> { @source }, pathname: -> { Pathname(@source) }, file: -> { closing(File.open(@source)).first },
      number: -> { closing(File.open(@source)).first.fileno },
      pipe: -> { pipe.tap { |_, writer| writer << "new" and writer.close }.first },
      stringio: -> { StringIO.new("new") }, gzip: -> { Zlib::GzipReader.new(StringIO.new(deflated)) },
      to_io: -> { WithIO.new(closing(File.open(@source)).first) },
      delegator: -> { SimpleDelegator.new(closing(File.open(@source)).first) }
    }
  end
end
