# frozen_string_literal: true

require "test_helper"
require "support/piped_buffers"

# Gifts in flight, and the garbage collector.
class TestIOBufferCollection < Minitest::Test
  include PipedBuffers

  # In flight

  def test_bytes_in_flight_stay_when_other_buffers_take_the_place
    readers = Array.new(10) do |index|
      reader, writer = pipe
      IO.vmsplice(writer, buffer(index.to_s * 50_000), F_GIFT)
      reader
    end
    collect_and_churn
    50.times { |index| buffer("Z" * (50_000 + index)).free }

    readers.each_with_index { |reader, index| assert_equal index.to_s * 50_000, reader.readpartial(1 << 20) }
  end

  def test_bytes_that_went_on_stay
    reader, writer = pipe
    copy, into = pipe
    here, there = tcp_pair
    file = tempfile
    gift = buffer(pattern(30_000))
    IO.vmsplice(writer, gift, F_GIFT)
    IO.tee(reader, into, 30_000)
    IO.splice(reader, nil, here, nil, 15_000, WAITALL)
    IO.splice(reader, nil, file, nil, 15_000, WAITALL)
    gift.resize(30_000)
    gift.clear(90)
    collect_and_churn

    assert_equal pattern(30_000), copy.readpartial(1 << 20)
    assert_equal pattern(15_000), there.read(15_000)
    assert_equal pattern(30_000).byteslice(15_000..), file.pread(99_999, 0)
  end

  def test_a_child_that_writes_to_its_copy_does_not_change_what_is_in_flight
    reader, writer = pipe
    gift = buffer(pattern(50_000))
    written, tell = pipe
    go, start = pipe
    child = fork_child do
      go.read(1)
      gift.set_string("Z" * 50_000)
      tell << (gift.get_string == "Z" * 50_000 ? "written" : "not written")
      go.read(1)
    end
    IO.vmsplice(writer, gift, F_GIFT)
    assert_given gift
    start << "."

    assert_equal("written", guarded { written.readpartial(99) })
    assert_equal pattern(50_000), reader.readpartial(1 << 20)
    start << "."
    assert_predicate status_of(child), :success?
  end

  def test_a_child_that_is_forked_with_bytes_in_flight_does_not_change_them
    reader, writer = pipe
    gift = buffer(pattern(200_000))
    put = IO.vmsplice(writer, gift, F_GIFT | F_NONBLOCK)
    child = fork_child do
      exit!(2) unless gift.get_string == pattern(200_000)
      gift.set_string("Z" * 200_000)
      exit!(3) unless gift.get_string == "Z" * 200_000
    end

    assert_equal 0, status_of(child).exitstatus
    assert_whole pattern(200_000), gift
    gift.clear(89)
    assert_equal pattern(put), reader.readpartial(1 << 20)
  end

  def test_what_a_parent_and_its_child_give_away_is_each_its_own
    gift = buffer(pattern(50_000))
    from_child, child_writes = pipe
    from_parent, parent_writes = pipe
    child = fork_child do
      gift.set_string("c" * 50_000)
      IO.vmsplice(child_writes, gift, F_GIFT)
      exit!(2) unless gift.null?
    end
    gift.set_string("p" * 50_000)
    IO.vmsplice(parent_writes, gift, F_GIFT)
    assert_given gift
    assert_equal 0, status_of(child).exitstatus

    assert_equal "c" * 50_000, from_child.readpartial(1 << 20)
    assert_equal "p" * 50_000, from_parent.readpartial(1 << 20)
  end

  # The garbage collector

  def test_gifts_under_gc_stress
    reader, writer = pipe
    GC.stress = true
    said = Array.new(5) do
      gift = buffer("some bytes")
      put = IO.vmsplice(writer, ["<", gift, ">"], F_GIFT)
      [put, gift.null?, reader.read(12)]
    end
    GC.stress = false

    assert_equal [[12, true, "<some bytes>"]], said.uniq
  end

  def test_snapshots_and_refusals_under_gc_stress
    reader, writer = pipe
    GC.stress = true
    3.times do
      buffer = buffer("some bytes")
      part = slice(buffer, 4, 6)
      IO.vmsplice(writer, [buffer, part])
      assert_raises(ArgumentError) { IO.vmsplice(writer, [buffer, part], F_GIFT) }
      assert_whole "some bytes", buffer
    end
    GC.stress = false

    assert_equal "some bytes bytes" * 3, reader.readpartial(99)
  end

  [0, F_GIFT].each do |flags|
    define_method :"test_buffers_that_only_a_waiting_call_knows_are_not_collected#{"_as_gifts" unless flags.zero?}" do
      reader, writer = pipe
      filled = fill(writer)
      putting = thread do
        IO.vmsplice(writer, [buffer(pattern(200_000)), buffer("b" * 5000), buffer(pattern(9000))], flags)
      end
      until_in_vmsplice(putting)
      collect_and_churn
      guarded { reader.read(filled) }
      came = guarded { reader.read(100_000) }
      collect_and_churn
      came << guarded { reader.read(114_000) }

      assert_equal "#{pattern(200_000)}#{"b" * 5000}#{pattern(9000)}".b, came
      assert_equal(214_000, guarded { putting.value })
    end
  end

  def test_gifts_that_are_moved_by_compaction_while_the_call_waits
    skip "no GC.compact here" unless compaction?

    reader, writer = pipe
    gifts = Array.new(100) { |index| buffer(index.to_s * 3000) }
    pieces = gifts.flat_map { |gift| [gift, "between".dup] }
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces, F_GIFT) })
    3.times { GC.compact }
    expected = Array.new(100) { |index| "#{index.to_s * 3000}between" }.join

    assert_equal(expected, guarded { reader.read(expected.bytesize) })
    assert_equal(expected.bytesize, guarded { putting.value })
    gifts.each { |gift| assert_given gift }
  end

  { "gifts" => "IO::Splice::F_GIFT", "snapshots" => "0" }.each do |name, flags|
    define_method :"test_many_#{name}_do_not_let_the_process_grow" do
      grown = in_ruby(<<~RUBY).to_i
        Warning[:experimental] = false
        r, w = IO.pipe
        null = File.open(File::NULL, "w")
        drain = Thread.new { loop { IO.splice(r, nil, null, nil, 1 << 20) } }
        drain.report_on_exception = false
        peak = -> { File.read("/proc/self/status")[/VmHWM:\\s+(\\d+)/, 1].to_i << 10 }
        before = peak.call
        300.times do
          buffer = IO::Buffer.new(1 << 20, IO::Buffer::MAPPED)
          buffer.clear(1)
          IO.vmsplice(w, buffer, #{flags})
          buffer.free
        end
        puts peak.call - before
      RUBY
      assert_operator grown, :<, 100 << 20
    end
  end
end
