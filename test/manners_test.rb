# frozen_string_literal: true

require "test_helper"
require "fiddle"
require "support/copy_ends"

# How the calls look to somebody who programs with them: parameters, refusals, messages, patterns.
class TestManners < Minitest::Test
  include CopyEnds

  # Made before descriptors are counted.
  BACKGROUND = IO::Splice.background

  # Parameters

  def test_the_system_calls_tell_their_parameters
    parameters = { splice: %i[io_in off_in io_out off_out len flags], tee: %i[io_in io_out len flags],
                   vmsplice: %i[io data flags] }
    parameters.update(trysplice: parameters[:splice], trytee: parameters[:tee])
    parameters.each do |name, names|
      expected = names.map { |one| [one == :flags ? :opt : :req, one] }
      assert_equal expected, IO::Splice.method(name).parameters
      error = assert_raises(ArgumentError) { IO.public_send(name) }
      assert_match(/\Awrong number of arguments/, error.message)
    end
  end

  def test_a_class_that_includes_the_module_has_the_calls_to_itself
    reader, writer = pipe
    user = Class.new { include IO::Splice }.new
    assert_equal 5, user.send(:vmsplice, writer, "bytes")
    assert_equal "bytes", reader.readpartial(10)
    assert_raises(NoMethodError) { user.vmsplice(writer, "bytes") }
  end

  # A length where it is a keyword

  def test_a_number_that_could_be_a_length_is_no_target_of_a_tee_stream
    @descriptors += 16 # a background keeps idle pipes
    others = [tempfile, tempfile]
    _, innocent = pipe
    [IO::Splice, BACKGROUND].each do |caller|
      [others, others.first(1)].each do |targets|
        source = tempfile("bytes")
        error = assert_raises(ArgumentError) { caller.tee_stream(source, *targets, innocent.fileno) }
        assert_match(/\A#{innocent.fileno} could be a length or a descriptor: write len: #{innocent.fileno}, or/,
                     error.message)
        assert_equal "bytes", source.read
      end
    end
  end

  def test_a_number_that_is_meant_as_a_target_is_one
    reader, writer = pipe
    number = writer.fileno
    IO::Splice.tee_stream(tempfile("1"), number)
    IO::Splice.tee_stream(tempfile("2"), number, tempfile)
    IO::Splice.tee_stream(tempfile("3"), tempfile, number, len: nil)
    IO::Splice.tee_stream(tempfile("4_"), tempfile, number, len: 1)
    IO::Splice.tee_stream(tempfile("5"), tempfile.fileno, number)
    assert_equal "12345", reader.readpartial(10)
  end

  # Blocks that nothing would call

  def test_a_block_that_would_never_be_called_is_refused
    near, far = unix_pair
    reader, writer = pipe
    writer << "bytes"
    { relay: [near, far], full: [reader, far, 5], partial: [reader, far, 5] }.each do |name, arguments|
      error = assert_raises(ArgumentError) { IO::Splice.public_send(name, *arguments) { flunk } }
      assert_match(/\A#{name} takes no block/, error.message)
    end
    assert_equal "bytes", reader.readpartial(10)
  end

  # Errors as Ruby's own

  def test_a_path_in_a_message_is_in_its_own_encoding
    Dir.mktmpdir do |dir|
      Dir.chdir(dir) do
        ["grüße", "grüße".encode("ISO-8859-1")].each do |path|
          File.write(path, "content")
          messages(path).each do |message|
            assert_equal path.encoding, message.encoding
            assert_predicate message, :valid_encoding?
            assert_includes message, path
          end
        end
      end
    end
  end

  def test_a_path_in_the_message_of_a_file_that_cannot_be_emptied
    sealed = sealed_file
    Dir.mktmpdir do |dir|
      path = "#{dir}/größe"
      File.symlink("/proc/self/fd/#{sealed.fileno}", path)
      error = assert_raises(Errno::EPERM) { IO::Splice.copy_stream(tempfile("new"), path) }
      assert_equal [Encoding::UTF_8, true], [error.message.encoding, error.message.end_with?("ftruncate: #{path}")]
    end
  end

  def test_what_would_block_says_for_which_end_as_read_nonblock_does
    reader, writer = pipe
    _, into = pipe
    [-> { IO.splice(reader, nil, into, nil, 1, IO::Splice::F_NONBLOCK) },
     -> { IO.tee(reader, into, 1, IO::Splice::F_NONBLOCK) }].each do |call|
      assert_kind_of Errno::EAGAIN, assert_raises(IO::WaitReadable, &call)
    end
    writer << "bytes"
    fill(into)
    [-> { IO.splice(reader, nil, into, nil, 1, IO::Splice::F_NONBLOCK) },
     -> { IO.tee(reader, into, 1, IO::Splice::F_NONBLOCK) },
     -> { IO.vmsplice(into, "more", IO::Splice::F_NONBLOCK) }].each do |call|
      assert_kind_of Errno::EAGAIN, assert_raises(IO::WaitWritable, &call)
    end
  end

  # Values

  def test_a_transfer_in_a_pattern
    @descriptors += 16 # a background keeps idle pipes
    near, far = unix_pair
    transfer = BACKGROUND.relay(near, unix_pair.first, close: false)
    assert_equal({ kind: :relay, done: false, error: nil, bytes: [0, 0] }, transfer.deconstruct_keys(nil))
    assert_equal({ bytes: [0, 0] }, transfer.deconstruct_keys(%i[bytes other]))
    assert_raises(TypeError) { transfer.deconstruct_keys(:bytes) }
    far.close
    transfer.cancel
    case guarded { transfer.wait }
    in { kind: :relay, done: true, error: IO::Splice::Cancelled => error, bytes: [0, 0] }
      assert_same error, transfer.error
    end
  end

  private

  # One in memory that keeps its size.
  def sealed_file
    create = Fiddle::Function.new(Fiddle.dlopen(nil)["memfd_create"], [Fiddle::TYPE_VOIDP, Fiddle::TYPE_INT],
                                  Fiddle::TYPE_INT)
    file = File.for_fd(create.call("sealed", 2), "r+b") # MFD_ALLOW_SEALING
    file.write("content")
    file.flush
    file.fcntl(1033, 2) # F_ADD_SEALS, F_SEAL_SHRINK
    closing(file).first
  end

  def messages(path)
    missing = "#{path}.missing"
    { ArgumentError => [path, path], Errno::ENOENT => [missing, "copy"], Errno::ENOTDIR => ["copied", "#{path}/in"] }
      .flat_map do |error, ends|
        File.write("copied", "")
        [assert_raises(error) { IO::Splice.copy_stream(*ends) },
         assert_raises(error) { IO::Splice.tee_stream(ends.first, File::NULL, ends.last) }].map(&:message)
      end
  end
end
