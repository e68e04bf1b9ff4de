# frozen_string_literal: true

require "test_helper"

# The uses that the Python module `splice` documents, on a file of 50 bytes; the numbers are its own.
class TestPythonUses < Minitest::Test
  CONTENT = ("0".."9").to_a.join * 5

  def setup
    super
    @to_read = tempfile(CONTENT)
    @to_write = tempfile
  end

  def test_copying_the_whole_file
    assert_equal 50, IO::Splice.copy_stream(@to_read, @to_write)
    assert_written CONTENT
  end

  def test_copying_the_whole_file_by_descriptors
    assert_equal 50, IO::Splice.copy_stream(@to_read.fileno, @to_write.fileno)
    assert_written CONTENT
  end

  def test_copying_from_an_offset
    assert_equal 40, IO::Splice.copy_stream(@to_read, @to_write, nil, 10)
    assert_written CONTENT[10..]
    assert_equal 0, @to_read.pos
  end

  def test_copying_a_count_of_bytes
    assert_equal 20, IO::Splice.copy_stream(@to_read, @to_write, 20)
    assert_written CONTENT[0, 20]
    assert_equal 20, @to_read.pos
  end

  def test_copying_a_count_of_bytes_from_an_offset
    assert_equal 20, IO::Splice.copy_stream(@to_read, @to_write, 20, 10)
    assert_written CONTENT[10, 20]
    assert_equal 0, @to_read.pos
  end

  def test_flags_with_a_pipe
    r, w = pipe
    assert_equal 50, IO::Splice.splice(@to_read, nil, w, nil, 50, IO::Splice::F_MORE)
    assert_equal CONTENT, r.readpartial(100)
  end

  def test_nothing_is_returned_as_zero_at_the_end_of_the_file
    @to_read.seek(0, IO::SEEK_END)
    assert_equal 0, IO::Splice.copy_stream(@to_read, @to_write)
    assert_written ""
  end

  private

  def assert_written(content)
    assert_equal content.bytesize, @to_write.size
    @to_write.rewind
    assert_equal content, @to_write.read
  end
end
