# frozen_string_literal: true

require "test_helper"

# The garbage collector, at any moment and with everything moved about, takes nothing that a call still needs.
class TestGC < Minitest::Test
  # Makes an IO of its own each time, which nobody but the caller knows of.
  Fresh = Struct.new(:io, :numbers) do
    def to_io
      io.dup.tap { |fresh| numbers << fresh.fileno }
    end
  end

  STRESSED = {
    "splice" => ->(r, w, into) { w.syswrite("bytes") && IO.splice(r, nil, into, nil, 100) },
    "trysplice" => ->(r, w, into) { w.syswrite("bytes") && IO.trysplice(r, nil, into, nil, 100) },
    "tee" => ->(r, w, into) { w.syswrite("bytes") && IO.tee(r, into, 100).tap { r.readpartial(5) } },
    "trytee" => ->(r, w, into) { w.syswrite("bytes") && IO.trytee(r, into, 100).tap { r.readpartial(5) } },
    "vmsplice" => ->(_, _, into) { IO.vmsplice(into, "bytes") },
    "vmsplice_of_an_array" => ->(_, _, into) { IO.vmsplice(into, ["by".dup, "te".dup, "s".dup]) },
    "splice_of_a_file" => ->(_, _, into) { File.open(__FILE__) { |file| IO.splice(file, 2, into, nil, 5) } },
  }.freeze

  STRESSED.each do |name, call|
    define_method :"test_#{name}_under_gc_stress" do
      r, w = pipe
      out, into = pipe
      said = stressed { Array.new(20) { [call.call(r, w, into), out.read_nonblock(100)] } }
      assert_equal [[5, name == "splice_of_a_file" ? "froze" : "bytes"]], said.uniq
    end
  end

  def test_calls_with_numbers_that_wait_under_gc_stress
    r, w = pipe
    out, into = pipe
    moved = until_asleep(thread { IO.splice(r.fileno, nil, into.fileno, nil, 100) })
    stressed do
      until_asleep(moved)
      w.syswrite("bytes")
      assert_equal(5, guarded { moved.value })
    end
    assert_equal "bytes", out.read_nonblock(100)
  end

  def test_errors_under_gc_stress
    r, w = pipe
    errors = [[Errno::EINVAL, -> { IO.splice(r, nil, w, nil, 1) }], [TypeError, -> { IO.vmsplice(w, [1]) }],
              [ArgumentError, -> { IO.tee(r, w, -1) }], [Errno::EAGAIN, -> { IO.tee(r, pipe.last, 1, 2) }]]
    errors.each do |error, call|
      2.times { assert_raises(error) { stressed(&call) } }
    end
  end

  { "collected" => :start, "compacted" => :compact }.each do |what, method|
    define_method :"test_strings_that_wait_in_vmsplice_can_be_#{what}_and_changed" do
      skip "no GC.compact here" unless works?(method)

      strings_in_a_waiting_vmsplice { GC.public_send(method) }
    end

    define_method :"test_ios_that_only_a_waiting_call_knows_stay_open_while_the_heap_is_#{what}" do
      skip "no GC.compact here" unless works?(method)

      fresh_ios_in_waiting_calls { GC.public_send(method) }
    end
  end

  def test_strings_that_wait_in_vmsplice_under_gc_stress
    strings_in_a_waiting_vmsplice { stressed { Array.new(5) { "garbage" * 10 } } }
  end

  def strings_in_a_waiting_vmsplice(&)
    reader, full = pipe
    there = fill(full)
    strings = Array.new(3000) { |i| "string #{i};".dup }
    expected = strings.join
    put = until_asleep(thread { IO.vmsplice(full, strings) })
    strings.each { |string| string.replace("changed") }
    strings.clear
    amid_garbage(&)
    came = guarded { reader.read(there) }
    assert_equal there, came.bytesize
    amid_garbage(&)
    came = guarded { reader.read(expected.bytesize) }
    assert_equal expected, came
    assert_equal(expected.bytesize, guarded { put.value })
  end

  def fresh_ios_in_waiting_calls(&)
    r, w = pipe
    out, into = pipe
    reader, full = pipe
    there = fill(full)
    numbers = []
    calls = [-> { IO.splice(Fresh.new(r, numbers), nil, Fresh.new(into, numbers), nil, 5) },
             -> { IO.vmsplice(Fresh.new(full, numbers), "bytes") }]
    waiting = calls.map { |call| until_asleep(thread(&call)) }
    amid_garbage(&)
    waiting.each { |thread| assert_predicate thread, :alive? }
    w << "bytes"
    guarded { reader.read(there) }
    assert_equal([5, 5], guarded { waiting.map(&:value) })
    [out, reader].each { |io| assert_equal "bytes", io.read_nonblock(100) }
  ensure
    close_fresh(numbers)
  end

  def test_a_thousand_calls_allocate_no_objects
    r, w = pipe
    out, into = pipe
    null = File.open(File::NULL, "w")
    closing(null)
    work = lambda do |_|
      IO.vmsplice(w, "x")
      IO.tee(r, into, 1)
      IO.splice(r, nil, into, nil, 1)
      IO.trysplice(r, nil, into, nil, 1)
      IO.trytee(r, into, 1)
      IO.splice(out, nil, null, nil, 2)
    end
    work.call(0)
    before = GC.stat(:total_allocated_objects)
    1000.times(&work)
    assert_operator GC.stat(:total_allocated_objects) - before, :<, 100
  end

  private

  # Fills the places of what was freed.
  def amid_garbage
    5.times do
      @garbage = Array.new(20_000) { |i| "garbage #{i}" }
      yield
    end
  end

  def works?(method)
    GC.public_send(method)
    true
  rescue NotImplementedError, NoMethodError
    false
  end

  # Those that the garbage collector has not closed yet.
  def close_fresh(numbers)
    ios = ObjectSpace.each_object(IO).reject { |io| @to_close.include?(io) }
    ios.select { |io| numbers_of_ios([io]).intersect?(numbers) }.each(&:close)
  end
end
