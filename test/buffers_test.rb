# frozen_string_literal: true

require "test_helper"

class TestBuffers < Minitest::Test
  F_NONBLOCK = IO::Splice::F_NONBLOCK

  def setup
    super
    @reader, @writer = pipe
    @onward, @into = pipe
  end

  # Bytes that Ruby has read ahead

  def test_lines_read_ahead_are_not_overtaken
    @writer << "one\ntwo\n"
    @reader.gets

    refused_as_buffered(@reader)
    assert_equal "two\n", @reader.readpartial(99)
    goes_on("three")
  end

  def test_bytes_behind_those_read_ahead_stay_where_they_are
    @writer << "one\ntwo\n"
    @reader.gets
    @writer << "three"

    refused_as_buffered(@reader)
    assert_equal "two\n", @reader.readpartial(99)
    assert_equal 5, IO.splice(@reader, nil, @into, nil, 99)
    assert_equal "three", @onward.readpartial(99)
  end

  def test_bytes_put_back_are_not_overtaken
    @writer << "content"
    @reader.ungetbyte("!")
    refused_as_buffered(@reader)
    assert_equal "!", @reader.getc
    @reader.ungetc("?")
    refused_as_buffered(@reader)
    assert_equal "?", @reader.readpartial(1)

    assert_equal 7, IO.splice(@reader, nil, @into, nil, 99)
    assert_equal "content", @onward.readpartial(99)
  end

  def test_asking_for_the_end_reads_ahead
    @writer << "content"

    refute_predicate @reader, :eof?
    refused_as_buffered(@reader)
    assert_equal "content", @reader.readpartial(99)
    goes_on("more")
  end

  def test_characters_read_ahead_are_not_overtaken
    @reader.set_encoding("UTF-16LE", "UTF-8")
    @writer << "abc".encode("UTF-16LE")
    assert_equal "a", @reader.getc

    refused_as_buffered(@reader)
    assert_equal %w[b c], [@reader.getc, @reader.getc]
    goes_on("more")
  end

  def test_a_file_read_ahead
    file = tempfile("one\ntwo\nthree\n")
    file.gets

    assert_buffered { IO.splice(file, nil, @into, nil, 99) }
    assert_buffered { IO.trysplice(file, nil, @into, nil, 99) }
    assert_equal "two\nthree\n", file.read
    file.rewind
    assert_equal 14, IO.splice(file, nil, @into, nil, 99)
    assert_equal "one\ntwo\nthree\n", @onward.readpartial(99)
  end

  def test_a_file_that_seeks_forgets_what_it_has_read_ahead
    file = tempfile("one\ntwo\nthree\n")
    file.gets
    file.seek(0, IO::SEEK_CUR)

    assert_equal 10, IO.splice(file, nil, @into, nil, 99)
    assert_equal "two\nthree\n", @onward.readpartial(99)
  end

  def test_a_socket_read_ahead
    here, there = unix_pair
    there << "one\ntwo\n"
    here.gets

    assert_buffered { IO.splice(here, nil, @into, nil, 99) }
    assert_equal "two\n", here.readpartial(99)
    there << "three"
    assert_equal(5, guarded { IO.splice(here, nil, @into, nil, 99) })
    assert_equal "three", @onward.readpartial(99)
  end

  def test_a_child_process_read_ahead
    child = closing(IO.popen(["printf", 'one\ntwo\n'])).first
    guarded { child.gets }

    assert_buffered { IO.splice(child, nil, @into, nil, 99) }
    assert_equal("two\n", guarded { child.read })
    assert_raises(EOFError) { IO.splice(child, nil, @into, nil, 99) }
  end

  def test_an_output_may_have_been_read_ahead
    here, there = unix_pair
    there << "one\ntwo\n"
    here.gets
    @writer << "content"

    assert_equal 7, IO.splice(@reader, nil, here, nil, 99)
    assert_equal "content", there.readpartial(99)
    assert_equal "two\n", here.gets
  end

  def test_a_file_that_is_written_to_goes_on_where_the_reading_was
    file = tempfile("one\ntwo\nthree\n")
    file.gets
    @writer << "TWO"

    assert_equal 3, IO.splice(@reader, nil, file, nil, 99)
    assert_equal "one\nTWO\nthree\n", file.pread(99, 0)
    assert_equal "\nthree\n", file.read
  end

  # Bytes that Ruby has still to write

  def test_unwritten_bytes_go_into_a_pipe_first
    @writer << "content"
    @into.sync = false

    @into << "first "
    assert_equal 3, IO.splice(@reader, nil, @into, nil, 3)
    @into << " second "
    assert_equal 4, IO.trysplice(@reader, nil, @into, nil, 9)
    assert_equal "first con second tent", @onward.readpartial(99)
  end

  def test_unwritten_bytes_go_into_a_file_first
    file = tempfile
    file.sync = false
    @writer << "content"

    file << "first "
    assert_equal 7, IO.splice(@reader, nil, file, nil, 9)
    file << " last"
    file.flush
    assert_equal "first content last", file.pread(99, 0)
  end

  def test_unwritten_bytes_go_into_a_socket_first
    here, there = unix_pair
    here.sync = false
    @writer << "content"

    here << "first "
    assert_equal 7, IO.splice(@reader, nil, here, nil, 9)
    assert_equal("first content", guarded { there.read(13) })
  end

  def test_unwritten_bytes_go_into_a_child_process_first
    cat = closing(IO.popen("cat", "r+")).first
    cat.sync = false
    @writer << "content"

    cat << "first "
    assert_equal 7, IO.splice(@reader, nil, cat, nil, 9)
    cat << " then "
    assert_equal 4, IO.vmsplice(cat, "last")
    cat.close_write
    assert_equal("first content then last", guarded { cat.read })
  end

  def test_unwritten_bytes_go_before_a_tee
    @into.sync = false
    @writer << "content"

    @into << "first "
    assert_equal 7, IO.tee(@reader, @into, 9)
    @into << " second "
    assert_equal 7, IO.trytee(@reader, @into, 9)
    assert_equal "first content second content", @onward.readpartial(99)
  end

  def test_unwritten_bytes_go_before_a_vmsplice
    @into.sync = false
    [true, false].each do |nonblock|
      @into.nonblock = nonblock

      @into << "first "
      assert_equal 7, IO.vmsplice(@into, "content")
      @into << " second "
      assert_equal 7, IO.vmsplice(@into, %w[con tent], F_NONBLOCK)
      assert_equal "first content second content", @onward.readpartial(99)
    end
  end

  def test_unwritten_bytes_of_a_file_that_is_read_are_written_first
    file = tempfile("0123456789")
    file.sync = false
    file << "abc"

    assert_equal 7, IO.splice(file, nil, @into, nil, 99)
    assert_equal "3456789", @onward.readpartial(99)
    assert_equal "abc3456789", file.pread(99, 0)
  end

  def test_unwritten_bytes_wait_for_room
    @into.sync = false
    filled = fill(@into)
    @into << "first "
    @writer << "content"
    splicing = until_asleep(thread { IO.splice(@reader, nil, @into, nil, 9) })

    assert_equal(filled, guarded { @onward.read(filled) }.bytesize)
    assert_equal(7, guarded { splicing.value })
    assert_equal "first content", @onward.readpartial(99)
  end

  def test_a_string_that_changes_while_unwritten_bytes_wait_for_room
    @into.sync = false
    filled = fill(@into)
    @into << "first "
    string = +"content"
    putting = until_in_vmsplice(thread { IO.vmsplice(@into, string) })
    string.replace("changed")
    guarded { @onward.read(filled) }

    assert_equal(7, guarded { putting.value })
    assert_equal "first content", @onward.readpartial(99)
  end

  def test_unwritten_bytes_that_nobody_reads_are_a_broken_pipe
    @into.sync = false
    @into << "first"
    @onward.close
    @writer << "content"

    assert_raises(Errno::EPIPE) { IO.splice(@reader, nil, @into, nil, 9) }
    assert_raises(Errno::EPIPE) { IO.trytee(@reader, @into, 9) }
    assert_raises(Errno::EPIPE) { IO.vmsplice(@into, "x") }
    assert_equal "content", @reader.readpartial(9)
  ensure
    assert_raises(Errno::EPIPE) { @into.close }
  end

  def test_unwritten_bytes_and_a_full_pipe_would_block
    @writer << "content"
    [true, false].each do |nonblock|
      @into.sync = false
      filled = fill(@into)
      @into.nonblock = nonblock
      @into << "first "

      would_block(@reader, @into)
      assert_equal filled, @onward.readpartial(1 << 20).bytesize
      assert_equal 7, IO.trytee(@reader, @into, 9)
      assert_equal "first content", @onward.readpartial(99)
    end
  end

  def test_unwritten_bytes_and_a_full_socket_would_block
    @writer << "content"
    [true, false].each do |nonblock|
      here, there = unix_pair
      here.sync = false
      filled = fill(here)
      here.nonblock = nonblock
      here << "first "

      assert_raises(Errno::EAGAIN) { guarded { IO.splice(@reader, nil, here, nil, 9, F_NONBLOCK) } }
      assert_equal(:EAGAIN, guarded { IO.trysplice(@reader, nil, here, nil, 9) })
      assert_equal(filled, guarded { there.read(filled) }.bytesize)
      assert_equal 7, IO.trysplice(@reader, nil, here, nil, 9)
      assert_equal("first content", guarded { there.read(13) })
      @writer << "content"
    end
  end

  def test_more_unwritten_bytes_than_there_is_room_for_would_block
    @writer << "content"
    [true, false].each do |nonblock|
      @into.sync = false
      filled = fill(@into)
      @into.nonblock = nonblock
      @into << ("u" * 6000)
      @onward.readpartial(4096)

      would_block(@reader, @into)
      rest = filled - 4096 + 6000
      reading = thread { @onward.read(rest) }
      guarded { @into.flush }
      assert_equal(6000, guarded { reading.value }.count("u"))
      assert_equal 7, IO.trytee(@reader, @into, 9)
      assert_equal "content", @onward.readpartial(99)
    end
  end

  def test_unwritten_bytes_of_an_input_do_not_make_it_wait
    here, there = unix_pair
    here.sync = false
    fill(here)
    here << "unwritten"
    there << "content"

    assert_includes([:EAGAIN, 7], guarded(20) { IO.trysplice(here, nil, @into, nil, 9) })
    assert_includes([:EAGAIN, 7], guarded(20) { IO.trysplice(here, nil, @into, nil, 9) })
  ensure
    there.read_nonblock(1 << 24)
  end

  def test_unwritten_bytes_to_a_child_process_do_not_make_reading_from_it_wait
    gate, opener = pipe
    gate.nonblock = false
    child = closing(IO.popen(["sh", "-c", "echo content; read go <&3; exec cat >&2", { 3 => gate, err: File::NULL }],
                             "r+")).first
    guarded { child.wait_readable }
    @writer << pattern(IO::Splice::PIPE_CAPA)
    IO.splice(@reader, nil, child, nil, IO::Splice::PIPE_CAPA)
    child.sync = false
    child << "unwritten"

    assert_includes([:EAGAIN, 8], guarded(20) { IO.trysplice(child, nil, @into, nil, 9) })
  ensure
    opener.puts
  end

  private

  def assert_buffered(&)
    assert_match(/buffered/, assert_raises(IOError) { guarded(&) }.message)
  end

  def refused_as_buffered(input)
    assert_buffered { IO.splice(input, nil, @into, nil, 99) }
    assert_buffered { IO.splice(input, nil, @into, nil, 99, F_NONBLOCK) }
    assert_buffered { IO.trysplice(input, nil, @into, nil, 99) }
    assert_buffered { IO.tee(input, @into, 99) }
    assert_buffered { IO.trytee(input, @into, 99) }
    assert_raises(IO::WaitReadable) { @onward.read_nonblock(1) }
  end

  def goes_on(content)
    @writer << content
    assert_equal content.bytesize, IO.tee(@reader, @into, 99)
    assert_equal content.bytesize, IO.trysplice(@reader, nil, @into, nil, 99)
    assert_equal content * 2, @onward.readpartial(99)
  end

  def would_block(input, output)
    assert_raises(Errno::EAGAIN) { guarded(20) { IO.splice(input, nil, output, nil, 9, F_NONBLOCK) } }
    assert_raises(Errno::EAGAIN) { guarded(20) { IO.tee(input, output, 9, F_NONBLOCK) } }
    assert_raises(Errno::EAGAIN) { guarded(20) { IO.vmsplice(output, "x", F_NONBLOCK) } }
    assert_equal(:EAGAIN, guarded(20) { IO.trysplice(input, nil, output, nil, 9) })
    assert_equal(:EAGAIN, guarded(20) { IO.trytee(input, output, 9) })
  end
end
