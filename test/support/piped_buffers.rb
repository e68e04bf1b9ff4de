# frozen_string_literal: true

require "support/piped_memory"

# What the tests of `IO::Buffer`s share.
module PipedBuffers
  include PipedMemory

  # Ends an owner's hold of its memory, or changes what is in it.
  CHANGES = {
    "overwritten" => ->(buffer) { buffer.set_string("Z" * buffer.size) },
    "cleared" => ->(buffer) { buffer.clear(90) },
    "written to through a slice" => ->(buffer) { buffer.slice(0, buffer.size).tap { |all| all.clear(90) }.free },
    "freed" => lambda(&:free),
    "made larger" => ->(buffer) { buffer.resize(buffer.size * 9) && buffer.clear(90) },
    "made smaller" => ->(buffer) { buffer.resize(5) && buffer.clear(90) },
    "transferred and freed" => ->(buffer) { buffer.transfer.free },
  }.freeze

  def slice(buffer, offset, length)
    to_free(buffer.slice(offset, length))
  end

  def file_buffer(content, flags = 0)
    IO::Buffer.map(tempfile(content), content.bytesize, 0, flags)
  end

  private

  # Those kinds that this Ruby has.
  def each_kind(kinds)
    kinds.each do |name, make|
      next if name == "shared" && !IO::Buffer.const_defined?(:SHARED)
      next if name == "of a file, private" && !private_mappings?

      yield name, make
    end
  end

  # In Ruby 3.1 they fail.
  def private_mappings?
    file_buffer("x", IO::Buffer::PRIVATE) && true
  rescue Errno::EINVAL
    false
  end

  def assert_given(buffer)
    assert_predicate buffer, :null?
    assert_equal 0, buffer.size
    refute_predicate buffer, :locked?
  end

  # It has all its bytes, and can be used in every way.
  def assert_whole(content, buffer)
    refute_predicate buffer, :null?
    refute_predicate buffer, :locked?
    assert_equal content.b, buffer.get_string
    buffer.locked { assert_equal content.bytesize, buffer.size }
  end

  def assert_nothing_in(reader)
    assert_raises(IO::WaitReadable) { reader.read_nonblock(1) }
  end
end
