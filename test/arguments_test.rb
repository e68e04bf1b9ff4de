# frozen_string_literal: true

require "test_helper"

class TestArguments < Minitest::Test
  F_NONBLOCK = IO::Splice::F_NONBLOCK
  HUGE = [1 << 40, 1 << 62, 1 << 63, 1 << 64, 1 << 100].freeze
  NO_INTEGERS = ["1", 1.5, 1r, :one, [1], true, Object.new, Class.new { def to_int = 1 }.new].freeze

  def setup
    super
    @reader, @writer = pipe
    @onward, @into = pipe
    @writer << "content"
  end

  # len

  def test_a_length_of_0_is_0_without_a_system_call
    empty, full = pipe
    fill(full)

    [[@reader, @into], [empty, full], [-1, -1], [unused_number] * 2, [@writer.fileno, @reader.fileno],
     [tempfile, tempfile]].each do |input, output|
      assert_equal([0] * 4, guarded { every_call(input, output, 0) })
    end
    assert_equal 0, IO.splice(@reader, 5, @into, 5, 0)
    nothing_moved
  end

  def test_a_length_of_0_at_the_end_of_the_input
    @reader.readpartial(9)
    @writer.close

    assert_equal [0] * 4, every_call(@reader, @into, 0)
  end

  def test_a_huge_length_is_clamped
    HUGE.each do |len|
      assert_equal 7, IO.tee(@reader, @into, len)
      assert_equal 7, IO.trytee(@reader, @into, len)
      assert_equal 7, IO.splice(@reader, nil, @into, nil, len)
      assert_equal "content" * 3, @onward.readpartial(99)
      assert_equal :EAGAIN, IO.trysplice(@reader, nil, @into, nil, len)
      @writer << "content"
      assert_equal 7, IO.trysplice(@reader, nil, @into, nil, len)
      assert_equal 7, IO.splice(@onward, nil, @writer, nil, len)
    end
    nothing_moved
  end

  def test_a_huge_length_for_a_file
    HUGE.each do |len|
      assert_equal 4, IO.splice(tempfile("file"), nil, @into, nil, len)
      assert_equal 4, IO.splice(@onward, nil, tempfile, 1 << 20, len)
      assert_equal(4, guarded { IO.splice(tempfile("file"), 0, @into, nil, len, IO::Splice::WAITALL) })
      assert_equal "file", @onward.readpartial(9)
    end
  end

  def test_a_negative_length_is_refused
    [-1, -4096, -(1 << 62), -(1 << 64), -(1 << 100)].each do |len|
      every_call_raises(ArgumentError) { |call| call.call(@reader, @into, len) }
    end
    nothing_moved
  end

  def test_a_length_that_is_no_integer_is_refused
    [nil, *NO_INTEGERS].each do |len|
      every_call_raises(TypeError) { |call| call.call(@reader, @into, len) }
    end
    nothing_moved
  end

  # Offsets

  def test_a_negative_offset_is_refused
    file = tempfile("content")

    [-1, -(1 << 40), -(1 << 64), -(1 << 100)].each do |offset|
      %i[splice trysplice].each do |name|
        assert_raises(ArgumentError) { IO.public_send(name, file, offset, @into, nil, 9) }
        assert_raises(ArgumentError) { IO.public_send(name, @reader, nil, file, offset, 9) }
      end
    end
    assert_equal "content", file.read
    nothing_moved
  end

  def test_an_offset_beyond_any_file_is_refused
    file = tempfile("content")

    [1 << 63, 1 << 64, 1 << 100].each do |offset|
      %i[splice trysplice].each do |name|
        assert_raises(RangeError) { IO.public_send(name, file, offset, @into, nil, 9) }
        assert_raises(RangeError) { IO.public_send(name, @reader, nil, file, offset, 9) }
      end
    end
    assert_equal "content", file.read
    nothing_moved
  end

  def test_an_offset_that_is_no_integer_is_refused
    file = tempfile("content")

    NO_INTEGERS.each do |offset|
      %i[splice trysplice].each do |name|
        assert_raises(TypeError) { IO.public_send(name, file, offset, @into, nil, 9) }
        assert_raises(TypeError) { IO.public_send(name, @reader, nil, file, offset, 9) }
      end
    end
    assert_equal "content", file.read
    nothing_moved
  end

  def test_an_offset_beyond_four_gigabytes
    file = tempfile
    file.truncate(5 << 30)

    assert_equal 7, IO.splice(@reader, nil, file, 5 << 30, 9)
    assert_equal (5 << 30) + 7, file.size
    assert_equal 5, IO.splice(file, (5 << 30) + 2, @into, nil, 9)
    assert_equal "ntent", @onward.readpartial(9)
  end

  def test_an_offset_that_no_file_can_grow_to_is_the_kernels_error
    file = tempfile

    assert_match(/splice/, assert_raises(Errno::EFBIG) { IO.splice(@reader, nil, file, 1 << 62, 9) }.message)
    assert_raises(Errno::EFBIG) { IO.trysplice(@reader, nil, file, 1 << 62, 9) }
    nothing_moved
  end

  def test_an_offset_for_a_pipe_is_refused
    file = tempfile("content")

    %i[splice trysplice].each do |name|
      [0, 5].each do |offset|
        [[@reader, offset, @into, nil], [@reader, nil, @into, offset], [@reader, offset, file, nil],
         [file, nil, @into, offset]].each do |ends|
          message = assert_raises(Errno::ESPIPE) { IO.public_send(name, *ends, 9) }.message
          assert_match(/splice: an offset was given for a pipe/, message)
        end
      end
    end
    assert_equal "content", file.read
    nothing_moved
  end

  def test_an_offset_for_a_socket_is_refused
    here, there = unix_pair
    there << "content"

    [[here, 0, @into, nil], [@reader, nil, here, 0]].each do |ends|
      message = assert_raises(Errno::EINVAL, Errno::ESPIPE) { IO.splice(*ends, 9) }.message
      assert_match(/splice: .*offset/, message)
    end
    assert_equal "content", here.readpartial(9)
    assert_raises(IO::WaitReadable) { there.read_nonblock(9) }
    nothing_moved
  end

  # flags

  def test_every_known_flag_is_accepted
    known = IO::Splice::F_MOVE | IO::Splice::F_MORE | IO::Splice::F_GIFT | F_NONBLOCK

    [nil, 0, *0..15, known].each do |flags|
      assert_equal 7, IO.tee(@reader, @into, 7, flags)
      assert_equal 7, IO.trytee(@reader, @into, 7, flags)
      assert_equal 14, IO.splice(@onward, nil, @writer, nil, 99, flags)
      assert_equal 14, IO.trysplice(@reader, nil, @into, nil, 14, flags)
      assert_equal 7, IO.splice(@reader, nil, @into, nil, 99, flags)
      assert_equal 7, IO.vmsplice(@writer, "content", flags)
      assert_equal 21, @onward.readpartial(99).bytesize
    end
    nothing_moved
  end

  def test_bits_without_a_meaning_are_refused
    unknown = (4..30).map { |bit| 1 << bit }

    [*unknown, 3 | 64, 1 << 32, 1 << 64, 1 << 100, -1, -2, -(1 << 31), -(1 << 64)].each do |flags|
      every_call_with_flags_raises(Errno::EINVAL, flags).each { |error| assert_match(/flags/, error.message) }
    end
    nothing_moved
  end

  def test_flags_that_are_no_integer_are_refused
    NO_INTEGERS.each { |flags| every_call_with_flags_raises(TypeError, flags) }
    nothing_moved
  end

  # The number of arguments

  def test_a_wrong_number_of_arguments_is_refused
    { splice: 5..6, trysplice: 5..6, tee: 3..4, trytee: 3..4, vmsplice: 2..3 }.each do |name, accepted|
      [0, 1, accepted.min - 1, accepted.max + 1, accepted.max + 9].each do |count|
        message = assert_raises(ArgumentError) { IO.public_send(name, *[0] * count) }.message
        assert_equal "wrong number of arguments (given #{count}, expected #{accepted})", message
      end
    end
  end

  # Descriptors and objects

  def test_integers_are_descriptors
    assert_equal 7, IO.tee(@reader.fileno, @into.fileno, 9)
    assert_equal 7, IO.trytee(@reader.fileno, @into, 9)
    assert_equal 7, IO.splice(@reader.fileno, nil, @into.fileno, nil, 9)
    assert_equal 21, IO.trysplice(@onward, nil, @writer.fileno, nil, 99)
    assert_equal 3, IO.vmsplice(@writer.fileno, "end")
    assert_equal "#{"content" * 3}end", @reader.readpartial(99)
  end

  def test_integers_wait_end_and_would_block_as_ios_do
    @reader.readpartial(9)

    assert_raises(Errno::EAGAIN) { IO.splice(@reader.fileno, nil, @into.fileno, nil, 9, F_NONBLOCK) }
    assert_equal :EAGAIN, IO.trysplice(@reader.fileno, nil, @into.fileno, nil, 9)
    assert_equal :EAGAIN, IO.trytee(@reader.fileno, @into.fileno, 9)
    splicing = until_asleep(thread { IO.splice(@reader.fileno, nil, @into.fileno, nil, 9) })
    @writer << "late"
    assert_equal(4, guarded { splicing.value })
    @writer.close
    assert_raises(EOFError) { IO.splice(@reader.fileno, nil, @into.fileno, nil, 9) }
    assert_nil IO.trysplice(@reader.fileno, nil, @into.fileno, nil, 9)
    assert_nil IO.trytee(@reader.fileno, @into.fileno, 9)
  end

  def test_a_number_that_is_no_descriptor_is_refused
    [-1, -2, -100, -(1 << 31), unused_number, (1 << 31) - 1].each do |number|
      every_call_raises(Errno::EBADF) { |call| call.call(number, @into, 9) }
      every_call_raises(Errno::EBADF) { |call| call.call(@reader, number, 9) }
      every_call_raises(Errno::EBADF) { |call| call.call(number, number, 9) }
      assert_raises(Errno::EBADF) { IO.vmsplice(number, "x") }
    end
    nothing_moved
  end

  def test_a_number_beyond_any_descriptor_is_refused
    [1 << 31, 1 << 32, 1 << 64, 1 << 100, -(1 << 31) - 1, -(1 << 64)].each do |number|
      every_call_raises(RangeError) { |call| call.call(number, @into, 9) }
      every_call_raises(RangeError) { |call| call.call(@reader, number, 9) }
      assert_raises(RangeError) { IO.vmsplice(number, "x") }
    end
    nothing_moved
  end

  def test_objects_with_to_io
    input = wrap(@reader)
    output = wrap(@into)

    assert_equal 7, IO.tee(input, output, 9)
    assert_equal 7, IO.trytee(input, output, 9)
    assert_equal 3, IO.splice(input, nil, output, nil, 3)
    assert_equal 4, IO.trysplice(input, nil, output, nil, 9)
    assert_equal 3, IO.vmsplice(output, "end")
    assert_equal "#{"content" * 3}end", @onward.readpartial(99)
  end

  def test_a_tempfile_is_an_object_with_to_io
    Tempfile.create do |file|
      assert_equal 7, IO.splice(@reader, nil, file, nil, 9)
      assert_equal 7, IO.splice(file, 0, @into, nil, 9)
    end
    file = Tempfile.new
    assert_equal 7, IO.splice(@onward, nil, file, nil, 9)
    assert_equal 7, IO.splice(file, 0, @into, nil, 9)
    assert_equal "content", @onward.readpartial(9)
  ensure
    file&.close!
  end

  def test_what_is_no_io_is_refused
    [nil, "0", 1.5, :stdin, [@reader], Object.new, BasicObject.new].each do |wrong|
      every_call_raises(TypeError) { |call| call.call(wrong, @into, 9) }
      every_call_raises(TypeError) { |call| call.call(@reader, wrong, 9) }
      assert_raises(TypeError) { IO.vmsplice(wrong, "x") }
    end
    nothing_moved
  end

  def test_a_to_io_that_returns_no_io_is_refused
    [nil, 0, "io", Object.new, wrap(@reader)].each do |wrong|
      every_call_raises(TypeError) { |call| call.call(wrap(wrong), @into, 9) }
      every_call_raises(TypeError) { |call| call.call(@reader, wrap(wrong), 9) }
      assert_raises(TypeError) { IO.vmsplice(wrap(wrong), "x") }
    end
    nothing_moved
  end

  def test_an_error_of_to_io_comes_through
    broken = Class.new { def to_io = raise(KeyError, "own") }.new

    every_call_raises(KeyError) { |call| call.call(broken, @into, 9) }
    every_call_raises(KeyError) { |call| call.call(@reader, broken, 9) }
    assert_equal "own", assert_raises(KeyError) { IO.vmsplice(broken, "x") }.message
    nothing_moved
  end

  def test_what_to_io_throws_comes_through
    thrower = Class.new { def to_io = throw(:out, "thrown") }.new

    assert_equal("thrown", catch(:out) { IO.splice(thrower, nil, @into, nil, 9) })
    assert_equal("thrown", catch(:out) { IO.vmsplice(thrower, "x") })
    nothing_moved
  end

  # What a call leaves on the Ruby heap

  def test_ios_cost_no_objects
    check_no_objects(@reader, @writer, @onward, @into)
  end

  def test_integers_cost_no_objects
    check_no_objects(*[@reader, @writer, @onward, @into].map(&:fileno))
  end

  def test_files_and_devices_cost_no_objects
    file = tempfile("content")

    allocates_nothing(14) { IO.splice(file, 0, @into, nil, 9) + IO.splice(@onward, nil, null, nil, 9) }
  end

  def test_sockets_in_either_mode_cost_no_objects
    here, there = unix_pair
    [true, false].each do |nonblock|
      [here, there].each { |io| io.nonblock = nonblock }

      allocates_nothing(14) { IO.splice(@reader, nil, here, nil, 9) + IO.splice(there, nil, @writer, nil, 9) }
      allocates_nothing(:EAGAIN) { IO.trysplice(there, nil, @writer, nil, 9) }
    end
  end

  def test_the_end_of_the_input_costs_no_objects
    reader, writer = pipe
    writer.close

    allocates_nothing(nil) { IO.trysplice(reader, nil, @into, nil, 9) || IO.trytee(reader, @into, 9) }
  end

  def test_strings_cost_no_objects
    string = "s" * 5000
    @reader.readpartial(9)

    allocates_nothing(10_000) { IO.vmsplice(@writer, string) + IO.splice(@reader, nil, null, nil, 9000) }
  end

  def test_arrays_of_strings_cost_no_objects
    strings = ["s" * 5000, "t"]
    @reader.readpartial(9)

    allocates_nothing(10_002) { IO.vmsplice(@writer, strings) + IO.splice(@reader, nil, null, nil, 9000) }
  end

  private

  def check_no_objects(reader, writer, onward, into)
    allocates_nothing(14) { IO.splice(reader, nil, into, nil, 9) + IO.splice(onward, nil, writer, nil, 9) }
    allocates_nothing(14) { IO.trysplice(reader, nil, into, nil, 9) + IO.trysplice(onward, nil, writer, nil, 9) }
    allocates_nothing(28) do
      IO.tee(reader, into, 9) + IO.trytee(reader, into, 9) + IO.splice(onward, nil, null, nil, 99)
    end
    allocates_nothing(:EAGAIN) { IO.trysplice(onward, nil, writer, nil, 9) }
    allocates_nothing(:EAGAIN) { IO.trytee(onward, writer, 9) }
  end

  def null = @null ||= closing(File.open(File::NULL, "w")).first

  # A hundred objects in 1000 rounds are somebody else's; one in every round would be more.
  def allocates_nothing(outcome)
    assert_equal [outcome], [yield]
    before = GC.stat(:total_allocated_objects)
    others = 0
    1000.times { others += 1 unless yield == outcome }
    allocated = GC.stat(:total_allocated_objects) - before

    assert_equal 0, others
    assert_operator allocated, :<, 100
  end

  CALLS = {
    "splice" => ->(input, output, len) { IO.splice(input, nil, output, nil, len) },
    "trysplice" => ->(input, output, len) { IO.trysplice(input, nil, output, nil, len) },
    "tee" => ->(input, output, len) { IO.tee(input, output, len) },
    "trytee" => ->(input, output, len) { IO.trytee(input, output, len) },
  }.freeze

  def every_call(*args) = CALLS.values.map { |call| call.call(*args) }

  def every_call_raises(error)
    CALLS.each { |name, call| assert_raises(error, name) { guarded { yield call } } }
  end

  def every_call_with_flags_raises(error, flags)
    [
      -> { IO.splice(@reader, nil, @into, nil, 9, flags) }, -> { IO.trysplice(@reader, nil, @into, nil, 9, flags) },
      -> { IO.tee(@reader, @into, 9, flags) }, -> { IO.trytee(@reader, @into, 9, flags) },
      -> { IO.vmsplice(@writer, "x", flags) }
    ].map { |call| assert_raises(error, flags.inspect, &call) }
  end

  def nothing_moved
    assert_equal "content", @reader.readpartial(99)
    assert_raises(IO::WaitReadable) { @onward.read_nonblock(1) }
  end

  def wrap(io) = Struct.new(:to_io).new(io)

  # The number of a descriptor that has just been closed.
  def unused_number
    reader, writer = IO.pipe
    reader.close
    writer.fileno.tap { writer.close }
  end
end
