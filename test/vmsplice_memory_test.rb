# frozen_string_literal: true

require "test_helper"
require "rbconfig"
require "support/piped_memory"

# What the reader gets is what the data was at the call, whatever happens to it afterwards.
class TestVmspliceMemory < Minitest::Test
  include PipedMemory

  CHANNELS = %i[pipe blocking_pipe blocking_fifo].freeze
  # Around what an object of Ruby's holds in itself, a page, and what is copied as a matter of course.
  SIZES = [1, 23, 24, 79, 80, 600, 700, 4095, 4096, 4097, 20_000].freeze
  ALL = 1 << 20

  # What can become of a string.
  FATES = {
    "overwritten" => ->(string) { string.bytesize.times { |index| string.setbyte(index, 0) } },
    "replaced" => ->(string) { string.replace("other" * string.bytesize) },
    "cleared" => lambda(&:clear),
    "translated" => ->(string) { string.tr!("\0-\xFF".b, "Z") },
    "cut" => ->(string) { string.slice!(0, (string.bytesize / 2) + 1) },
    "extended" => ->(string) { string << ("more" * 10_000) },
    "reversed" => lambda(&:reverse!),
    "read_into" => ->(string) { File.open(__FILE__) { |file| file.sysread(string.bytesize, string) } },
    "written_through_a_buffer" => ->(string) { TestVmspliceMemory.overwrite_through_a_buffer(string) },
    "shared_and_written_through_a_buffer" => lambda do |string|
      copies = [string.dup, string.byteslice(1..)]
      TestVmspliceMemory.overwrite_through_a_buffer(string)
      copies.each(&:clear)
    end,
  }.freeze

  # What can become of the heap.
  COLLECTIONS = {
    "collected" => -> { GC.start },
    "compacted" => -> { GC.compact },
    "compacted_with_all_moved" => -> { GC.verify_compaction_references(toward: :empty) },
    "compacted_automatically" => lambda do
      GC.auto_compact = true
      GC.start
    ensure
      GC.auto_compact = false
    end,
  }.freeze

  # Where bytes go on to from a pipe. Each returns what gives them in the end.
  ONWARD = {
    "another_pipe" => lambda do |test, reader, size|
      out, into = test.pipe
      IO.splice(reader, nil, into, nil, size, WAITALL)
      -> { out.read(size) }
    end,
    "a_duplicate" => lambda do |test, reader, size|
      out, into = test.pipe
      IO.tee(reader, into, size)
      reader.read(size)
      -> { out.read(size) }
    end,
    "a_unix_socket" => lambda do |test, reader, size|
      here, there = test.unix_pair
      IO.splice(reader, nil, here, nil, size, WAITALL)
      -> { there.read(size) }
    end,
    "a_tcp_socket" => lambda do |test, reader, size|
      here, there = test.tcp_pair
      IO.splice(reader, nil, here, nil, size, WAITALL)
      -> { there.read(size) }
    end,
    "a_file" => lambda do |test, reader, size|
      file = test.tempfile
      IO.splice(reader, nil, file, nil, size, WAITALL)
      -> { file.pread(size, 0) }
    end,
  }.freeze

  # Ruby 3.1 takes no block.
  def self.overwrite_through_a_buffer(string)
    overwrite = ->(buffer) { buffer.set_string("Z" * buffer.size) }
    yielded = false
    buffer = IO::Buffer.for(string) do |inner|
      yielded = true
      overwrite.call(inner)
    end
    return if yielded

    overwrite.call(buffer)
    buffer.free
  end

  # After the call

  FATES.each do |name, fate|
    define_method :"test_strings_that_are_#{name}_after_the_call" do
      each_channel do |reader, writer|
        strings = strings_of(SIZES)
        IO.vmsplice(writer, strings)
        strings.each(&fate)
        churn

        assert_bytes pattern(SIZES.sum), reader.readpartial(ALL)
      end
    end

    define_method :"test_strings_that_are_#{name}_while_the_call_waits" do
      each_channel do |reader, writer|
        strings = strings_of(SIZES * 10)
        whole_call(reader, writer, strings) { strings.each(&fate).clear }
      end
    end
  end

  COLLECTIONS.each do |name, collection|
    alone = name == "compacted_automatically"
    define_method :"test_everything_is_#{name}_after_the_call" do
      alone ? in_a_process_of_its_own { changed_after(collection) } : changed_after(collection)
    end

    define_method :"test_everything_is_#{name}_while_the_call_waits" do
      alone ? in_a_process_of_its_own { changed_meanwhile(collection) } : changed_meanwhile(collection)
    end
  end

  def changed_after(collection)
    each_channel do |reader, writer|
      size = IO.vmsplice(writer, every_kind([10, 100, 700, 4100, 5000]))
      collected(&collection)

      assert_bytes(pattern(size), guarded { reader.read(size) })
    end
  end

  def changed_meanwhile(collection)
    each_channel do |reader, writer|
      pieces = every_kind(SIZES * 8)
      whole_call(reader, writer, pieces) do
        pieces.each { |piece| spoil(piece) }.clear
        collected(&collection)
      end
    end
  end

  ONWARD.each do |name, onward|
    define_method :"test_bytes_that_went_on_to_#{name}" do
      each_channel do |reader, writer|
        pieces = every_kind([10, 100, 700, 4095, 4096, 5000])
        size = IO.vmsplice(writer, pieces)
        arrived = onward.call(self, reader, size)
        pieces.each { |piece| spoil(piece) }.clear
        collected { GC.start }

        assert_bytes(pattern(size), guarded { arrived.call })
      end
    end

    define_method :"test_gifts_that_went_on_to_#{name}" do
      each_channel do |reader, writer|
        size = IO.vmsplice(writer, gifts([10_000, 20_000]), F_GIFT)
        arrived = onward.call(self, reader, size)
        collected { GC.start }

        assert_bytes(pattern(size), guarded { arrived.call })
      end
    end
  end

  def test_short_strings
    each_channel do |reader, writer|
      strings = strings_of([3] * 5000)
      whole_call(reader, writer, strings) { strings.each { |string| string.replace("no!") }.clear }
    end
  end

  def test_one_string_that_changes_from_call_to_call
    each_channel do |reader, writer|
      string = "".b
      SIZES.each { |size| IO.vmsplice(writer, string.replace(size.to_s[0] * size)) }

      assert_bytes SIZES.map { |size| size.to_s[0] * size }.join, reader.readpartial(ALL)
    end
  end

  def test_frozen_strings_that_nobody_else_has
    each_channel do |reader, writer|
      pieces = strings_of(SIZES * 8).map(&:freeze)
      whole_call(reader, writer, pieces) do
        pieces.clear
        collected { GC.start }
      end
    end
  end

  def test_substrings_whose_whole_is_changed
    each_channel do |reader, writer|
      whole, = strings_of([300_000])
      parts = [[0, 5000], [5000, 100_000], [105_000, 20], [105_020, 194_980]]
      strings = parts.map { |from, size| whole.byteslice(from, size) }
      whole_call(reader, writer, strings) do
        FATES["overwritten"].call(whole)
        strings.each(&:upcase!)
        strings.each(&:clear).clear
        whole.clear
        collected { GC.start }
      end
    end
  end

  def test_a_string_whose_copies_are_changed
    each_channel do |reader, writer|
      string, = strings_of([300_000])
      copies = [string.dup, string.byteslice(100..), String.new(string), string.b]
      whole_call(reader, writer, string) { copies.each(&FATES["overwritten"]) }
    end
  end

  def test_a_string_that_is_in_the_array_again_and_again
    each_channel do |reader, writer|
      string = "again" * 2000
      whole_call(reader, writer, [string] * 20, string * 20) { FATES["overwritten"].call(string) }
    end
  end

  # Strings that something else may write to

  [100, 10_000].each do |size|
    define_method(:"test_a_string_of_#{size}_bytes_that_a_read_has_locked") { locked_by_a_read(size) }
    define_method(:"test_a_string_of_#{size}_bytes_that_a_read_locks_later") { locked_by_a_read_later(size) }
    define_method(:"test_a_copy_made_during_a_read_into_a_string_of_#{size}_bytes") { copied_during_a_read(size) }
    define_method(:"test_a_string_of_#{size}_bytes_that_a_buffer_has_locked") { locked_by_a_buffer(size) }
  end

  def locked_by_a_read(size)
    each_channel do |reader, writer|
      during_a_read_into("b" * size) do |buffer, finish|
        whole_call(reader, writer, [buffer, "."], "#{"b" * size}.", &finish)
      end
    end
  end

  def locked_by_a_read_later(size)
    each_channel do |reader, writer|
      buffer = "b" * size
      whole_call(reader, writer, [buffer, "."], "#{"b" * size}.") do
        during_a_read_into(buffer) { |_, finish| finish.call }
      end
    end
  end

  def copied_during_a_read(size)
    each_channel do |reader, writer|
      during_a_read_into("b" * size) do |buffer, finish|
        whole_call(reader, writer, [buffer.dup, "."], "#{"b" * size}.", &finish)
      end
    end
  end

  def locked_by_a_buffer(size)
    each_channel do |reader, writer|
      string = "b" * size
      with_buffer_for(string) do |buffer|
        whole_call(reader, writer, [string, buffer, "."], "#{"b" * (2 * size)}.") { buffer.clear(0) }
      end
    end
  end

  # While the call gets ready

  def test_a_string_that_to_str_of_another_piece_changes
    each_channel do |reader, writer|
      pieces = every_kind(SIZES * 2)
      sly = Object.new
      others = pieces.dup
      sly.define_singleton_method(:to_str) do
        others.each do |piece|
          piece.clear if piece.is_a?(IO::Buffer) && !piece.readonly?
          piece.replace("changed") if piece.is_a?(String) && !piece.frozen?
        end
        pieces.clear
        GC.start
        "."
      end
      pieces.unshift(sly).push(sly)
      whole_call(reader, writer, pieces, ".#{pattern((SIZES * 2).sum)}.") { nil }
    end
  end

  def test_what_to_str_returned_changes
    each_channel do |reader, writer|
      returned = "".b
      pieces = %w[0 1 2].map do |digit|
        Object.new.tap { |piece| piece.define_singleton_method(:to_str) { returned.replace(digit * 5000) } }
      end
      whole_call(reader, writer, pieces, "#{"0" * 5000}#{"1" * 5000}#{"2" * 5000}") { returned.clear }
    end
  end

  def test_a_string_that_to_io_changes
    reader, writer = pipe
    string, = strings_of([10_000])
    sly = Object.new
    sly.define_singleton_method(:to_io) { string.replace("changed") && writer }
    IO.vmsplice(sly, string)

    assert_bytes pattern(10_000), reader.readpartial(ALL)
  end

  def test_strings_that_change_while_ruby_writes_out_its_own_buffer
    each_channel do |reader, writer|
      filled = refill(writer)
      writer.sync = false
      writer.write("first")
      pieces = every_kind(SIZES)
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces) })
      pieces.each { |piece| spoil(piece) }.clear
      collected { GC.start }

      assert_equal(filled, guarded { reader.read(filled) }.bytesize)
      assert_bytes("first#{pattern(SIZES.sum)}", guarded { reader.read(5 + SIZES.sum) })
      assert_equal(SIZES.sum, guarded { putting.value })
    end
  end

  # Under GC.stress

  def test_calls_under_gc_stress
    each_channel do |reader, writer|
      pieces = every_kind([10, 100, 5000, 4096, 0, 4095, 700])
      size = stressed { IO.vmsplice(writer, pieces) }
      pieces.each { |piece| spoil(piece) }.clear
      stressed { Array.new(5) { "garbage" * 1000 } }

      assert_equal 14_001, size
      assert_bytes(pattern(size), guarded { reader.read(size) })
    end
  end

  def test_calls_that_wait_under_gc_stress
    each_channel do |reader, writer|
      pieces = every_kind([10, 100, 5000, 4096, 0, 4095, 700])
      filled = refill(writer)
      putting = stressed { asleep(Thread.new { IO.vmsplice(writer, pieces) }) }
      until_in_vmsplice(putting)
      pieces.each { |piece| spoil(piece) }.clear
      read = stressed { [reader.read(filled), reader.read(14_001)] }

      assert_bytes pattern(14_001), read.last
      assert_equal(14_001, guarded { putting.value })
    end
  end

  def test_gifts_under_gc_stress
    each_channel do |reader, writer|
      buffers = gifts([10_000, 4096, 20_000])
      size = stressed { IO.vmsplice(writer, buffers, F_GIFT) }

      assert_equal 34_096, size
      assert_bytes(pattern(size), guarded { reader.read(size) })
    end
  end

  # Many pieces

  def test_five_thousand_pieces_of_alternating_kinds
    each_channel do |reader, writer|
      pieces = every_kind(Array.new(5000) { |index| index % 97 })
      whole_call(reader, writer, pieces) { pieces.each { |piece| spoil(piece) }.clear }
    end
  end

  def test_a_hundred_thousand_pieces_and_a_slow_reader
    each_channel do |reader, writer|
      pieces = Array.new(100_000, &:to_s)
      content = pieces.join
      putting = until_in_vmsplice(thread { IO.vmsplice(writer, pieces) })
      pieces.each(&:clear).clear
      read = "".b
      guarded { read << reader.readpartial(1500) while read.bytesize < content.bytesize }

      assert_bytes content, read
      assert_equal(content.bytesize, guarded { putting.value })
    end
  end

  # Several at once

  def test_several_threads_at_once
    shared = [strings_of([50_000]).first, Pages.new(pattern(50_000))]
    channels = CHANNELS.map { |name| send(name) } + [pipe]
    writing = channels.map { |_, writer| thread { put_again_and_again(writer, shared) } }
    reading = channels.map { |reader,| thread { reader.binmode.read } }

    guarded { (writing + reading).each(&:join) }
    content = pattern(50_000) + (pattern(SIZES.sum) * 2) + pattern(50_000)
    reading.each { |reader| assert_bytes content * 10, reader.value }
  end

  def test_several_fibers_at_once
    channels = CHANNELS.map { |name| send(name).tap { |reader,| reader.nonblock = true } }
    size = (SIZES * 5).sum
    read = []
    with_scheduler do
      pieces = channels.map { every_kind(SIZES * 5) }
      channels.zip(pieces) { |(_, writer), mine| Fiber.schedule { IO.vmsplice(writer, mine) } }
      pieces.each { |mine| mine.each { |piece| spoil(piece) }.clear }
      collected { GC.start }
      channels.each { |reader,| Fiber.schedule { read << reader.read(size) } }
    end

    assert_equal CHANNELS.size, read.size
    read.each { |content| assert_bytes pattern(size), content }
  end

  def test_several_ractors_at_once
    text = Ractor.make_shareable(pattern(50_000).dup)
    pages = Pages.new(pattern(100_000))
    # The readers are threads of the main Ractor: in Ruby 3.3 threads of other Ractors that do I/O may come to a
    # stop for ever, with any I/O.
    ractors = Array.new(3) do |number|
      reader, writer = pipe
      reading = thread { reader.binmode.read }
      ractor = Ractor.new(number, writer.fileno, text, pages) do |name, into, shared, body|
        Array.new(20) do |turn|
          own = [5, 500, 5000].map { |size| "#{name}#{turn}" * size }
          pieces = [*own, shared, body, *own, body.slice(100, 200)]
          content = pieces.map { |piece| piece.to_s.b }.join
          IO.vmsplice(into, pieces)
          own.each { |string| string.tr!("0-9", "x") }
          content
        end
      end
      [ractor, reading, writer]
    end

    ractors.each do |ractor, reading, writer|
      content = ractor_value(ractor).join
      writer.close
      assert_equal(content, guarded { reading.value })
    end
  end

  # The naive form

  def test_plain_vmsplice_does_corrupt
    %w[another_pipe a_duplicate].each do |name|
      reader, writer = pipe
      naively_put(writer, "a" * 4096) do |memory|
        arrived = ONWARD[name].call(self, reader, 4096)
        memory[0, 4096] = "b" * 4096

        assert_equal "b" * 4096, arrived.call, name
      end
    end
  end

  def test_the_same_with_this_gem_does_not
    %w[another_pipe a_duplicate].each do |name|
      reader, writer = pipe
      string = "a" * 4096
      IO.vmsplice(writer, string)
      arrived = ONWARD[name].call(self, reader, 4096)
      string[0, 4096] = "b" * 4096

      assert_equal "a" * 4096, arrived.call, name
    end
  end

  # Nothing is left behind

  NEVER = 1 << 30
  FILL = "IO.vmsplice(w, 'f' * 2_000_000, NONBLOCK)"
  KILL = "thread = Thread.new { IO.vmsplice(w, array) }; Thread.pass until thread.stop?; thread.kill.join"
  # How often what is called, what is made before, and after how many calls (100) the pipe is emptied, if ever.
  WORK = {
    "a_million_strings" => [1_000_000, "string = 's' * 50", "IO.vmsplice(w, string)"],
    "arrays" => [300_000, "array = ['a', 'b' * 40]", "IO.vmsplice(w, array)"],
    "arrays_with_to_str" => [50_000, "array = ['a', 'b', Wrapped.new('c')]", "IO.vmsplice(w, array)"],
    "long_strings" => [5_000, "wrapped = Wrapped.new('c')", "IO.vmsplice(w, ['l' * 10_000, wrapped])", 1],
    "the_same_pages" => [300_000, "pages = Pages.new('p' * 50)", "IO.vmsplice(w, pages)"],
    "slices" => [100_000, "pages = Pages.new('p' * 50)", "IO.vmsplice(w, [pages.slice(9, 9), pages.slice(0, 5)])"],
    "new_pages" => [50_000, "", "IO.vmsplice(w, Pages.new('n' * 50))"],
    "large_new_pages" => [300, "string = 'l' * 3_000_000", "IO.vmsplice(w, Pages.new(string), NONBLOCK)", 1],
    "gifts" => [20_000, "", "IO.vmsplice(w, mapped(5000), GIFT)", 50],
    "gifts_that_are_given_back" => [200, "", "IO.vmsplice(w, mapped(2_000_000), GIFT | NONBLOCK)", 1],
    "calls_that_would_block" => [50_000, FILL, "refused(Errno::EAGAIN) { IO.vmsplice(w, %w[x y], NONBLOCK) }", NEVER],
    "calls_that_fail" => [50_000, "", "refused(TypeError) { IO.vmsplice(w, ['x' * 1000, Wrapped.new(1)]) }", NEVER],
    "calls_that_are_killed" => [300, "#{FILL}; array = Array.new(1000) { 'k' * 1000 }", KILL, NEVER],
  }.freeze

  WORK.each do |name, (calls, prepare, call, between)|
    define_method :"test_#{name}_do_not_grow_the_process" do
      kilobytes, addresses, mappings, descriptors = growth_of(calls, prepare, call, *between)

      assert_operator kilobytes, :<, 4096, "kB of memory"
      assert_operator addresses, :<, 16_384, "kB of addresses"
      assert_operator mappings, :<, 20, "mappings"
      assert_equal 0, descriptors, "descriptors"
    end
  end

  # Nobody else has to wait

  { "strings" => -> { "x" * ALL }, "pages" => -> { Pages.new("x" * ALL) } }.each do |kind, make|
    define_method :"test_other_threads_run_and_can_interrupt_while_many_#{kind}_go_to_a_fast_reader" do
      interrupted_by_another_thread([make.call] * 100_000)
    end

    define_method :"test_timeout_ends_a_call_with_many_#{kind}_to_a_fast_reader" do
      timed_out([make.call] * 100_000)
    end
  end

  def interrupted_by_another_thread(pieces)
    ping = Thread::Queue.new
    pong = Thread::Queue.new
    counted, error = counting do |counter|
      player = thread { 5.times { pong << ping.pop } }
      putting = thread { IO.vmsplice(counter, pieces) }
      guarded { Thread.pass until putting.backtrace.to_a.first.to_s.match?(/vmsplice'\z/) }
      5.times { guarded { (ping << true) && pong.pop } }
      guarded { Thread.pass until bytes_read(counter) > ALL }
      assert_predicate putting, :alive?
      putting.raise(Interrupt)
      guarded { player.join }
      assert_raises(Interrupt) { guarded { putting.value } }
    end

    assert_kind_of IO::Splice::PartialWrite, error
    assert_equal counted, error.bytes_written
    assert_operator counted, :<, ALL * pieces.size
  end

  # How many bytes a program has read, with some KiB of its libraries; see proc(5).
  def bytes_read(program) = Integer(File.read("/proc/#{program.pid}/io")[/^rchar: (\d+)/, 1])

  def timed_out(pieces)
    counted, error = counting do |counter|
      assert_raises(KeyError) { Timeout.timeout(0.2, KeyError) { IO.vmsplice(counter, pieces) } }
    end

    assert_equal counted, error.is_a?(IO::Splice::PartialWrite) ? error.bytes_written : 0
    assert_operator counted, :<, ALL * pieces.size
  end

  private

  # Ruby 3.1 crashes, with or without this gem, when it has compacted by itself and much is allocated then.
  def churn = super(largest: 20_000)

  def each_channel
    CHANNELS.each { |name| yield(*send(name)) }
  end

  def blocking_pipe
    pipe.tap { |_, writer| writer.nonblock = false }
  end

  def blocking_fifo
    blocking(fifo)
  end

  # Calls while the pipe is full, runs the block while the call waits, and compares.
  def whole_call(reader, writer, data, content = nil)
    content ||= pattern([*data].sum { |piece| size_of(piece) })
    filled = refill(writer)
    putting = until_in_vmsplice(thread { IO.vmsplice(writer, data) })
    yield
    churn
    filling = guarded { reader.read(filled) }

    assert_equal "f" * filled, filling
    assert_bytes(content, guarded { reader.read(content.bytesize) })
    assert_equal(content.bytesize, guarded { putting.value })
  end

  def size_of(piece)
    case piece
    when String, Pages then piece.bytesize
    when IO::Buffer then piece.size
    else piece.string.bytesize
    end
  end

  # New strings, none of which shares its memory. Together they are a pattern.
  def strings_of(sizes)
    all = pattern(sizes.sum)
    at = 0
    sizes.map do |size|
      string = "".b << all.byteslice(at, size)
      at += size
      string
    end
  end

  Wrapped = Struct.new(:string) { def to_str = string }

  # The like in pieces of all kinds, which nobody else has.
  def every_kind(sizes)
    strings_of(sizes).each_with_index.map do |string, index|
      case index % (string.empty? ? 4 : 7)
      when 0 then string
      when 1 then Pages.new(string)
      when 2 then Wrapped.new(string)
      when 3 then string.freeze
      when 4 then buffer_of(string)
      when 5 then Pages.new("..#{string}..".b).slice(2, string.bytesize)
      when 6 then "..#{string}".b.byteslice(2..)
      end
    end
  end

  def buffer_of(string)
    IO::Buffer.new(string.bytesize).tap { |buffer| buffer.set_string(string) }
  end

  def spoil(piece)
    case piece
    when String then piece.replace("spoilt" * piece.bytesize) unless piece.frozen?
    when Wrapped then spoil(piece.string)
    when IO::Buffer
      piece.clear(0)
      piece.free
    end
  end

  # Buffers that can be given away.
  def gifts(sizes)
    strings_of(sizes).map do |string|
      IO::Buffer.new(string.bytesize, IO::Buffer::MAPPED).tap { |buffer| buffer.set_string(string) }
    end
  end

  # As until_asleep, without making objects.
  def asleep(thread)
    Thread.pass until thread.stop?
    thread
  end

  def collected(&collection)
    2.times do
      instance_exec(&collection)
      churn
    end
  rescue NotImplementedError
    skip "no such garbage collection here"
  end

  # Ruby 3.1 crashes, with or without this gem, when it compacts by itself after there has been a Ractor.
  def in_a_process_of_its_own
    return yield if ENV["IO_SPLICE_ALONE"]

    ruby = [RbConfig.ruby, "-I", __dir__, __FILE__, "-n", name]
    said = guarded { IO.popen({ "IO_SPLICE_ALONE" => "1" }, ruby, err: %i[child out], &:read) }
    skip "no such garbage collection here" if said.include?("0 failures, 0 errors, 1 skips")
    assert_match(/^1 runs, [1-9]\d* assertions, 0 failures, 0 errors, 0 skips$/, said)
  end

  # Yields while another thread reads into the string, and what lets it get other bytes.
  def during_a_read_into(buffer)
    size = buffer.bytesize
    source, feed = pipe
    filling = until_asleep(thread { source.sysread(size, buffer) })
    finish = lambda do
      feed << ("Z" * size)
      guarded { filling.join }
    end
    yield buffer, finish
    assert_equal "Z" * size, buffer
  end

  # Ruby 3.1 takes no block.
  def with_buffer_for(string)
    yielded = false
    buffer = IO::Buffer.for(string) do |inner|
      yielded = true
      yield inner
    end
    yield buffer unless yielded
  ensure
    buffer.free if buffer.is_a?(IO::Buffer)
  end

  def put_again_and_again(writer, shared)
    10.times do
      pieces = every_kind(SIZES)
      IO.vmsplice(writer, [shared.first, *pieces])
      pieces.each { |piece| spoil(piece) }
      strings = strings_of(SIZES)
      IO.vmsplice(writer, [*strings, shared.last])
      strings.each(&FATES["overwritten"])
    end
    writer.close
  end

  def naively_put(writer, bytes)
    require "fiddle"
    vmsplice = Fiddle::Function.new(
      Fiddle.dlopen(nil)["vmsplice"],
      [Fiddle::TYPE_INT, Fiddle::TYPE_VOIDP, Fiddle::TYPE_SIZE_T, Fiddle::TYPE_INT], Fiddle::TYPE_SSIZE_T
    )
    memory = Fiddle::Pointer.malloc(bytes.bytesize, Fiddle::RUBY_FREE)
    memory[0, bytes.bytesize] = bytes

    assert_equal bytes.bytesize, vmsplice.call(writer.fileno, [memory.to_i, bytes.bytesize].pack("J2"), 1, 0)
    yield memory
  end

  # How much a process of its own grows by that: kB of memory and of addresses, mappings, descriptors.
  def growth_of(calls, prepare, call, between = 100)
    script = <<~RUBY
      Warning[:experimental] = false
      Pages = IO::Splice::Pages
      NONBLOCK = IO::Splice::F_NONBLOCK
      GIFT = IO::Splice::F_GIFT
      Wrapped = Struct.new(:to_str)
      def mapped(size) = IO::Buffer.new(size, IO::Buffer::MAPPED)

      def refused(error)
        yield
        abort "not refused"
      rescue error
        nil
      end
      r, w = IO.pipe
      w.pipe_size = 1 << 20
      #{prepare}
      content = String.new(capacity: 1 << 20)
      work = lambda do |index|
        #{call}
        r.readpartial(1 << 20, content) if index % #{between} == #{between} - 1
      end
      size = lambda do
        3.times { GC.start }
        memory = %w[VmRSS VmSize].map { |name| File.read("/proc/self/status")[/^\#{name}:\\s+(\\d+)/, 1].to_i }
        [*memory, File.foreach("/proc/self/maps").count, Dir.children("/proc/self/fd").size]
      end
      #{calls / 5}.times(&work)
      before = size.call
      #{calls}.times(&work)
      puts size.call.zip(before).map { |now, then_| now - then_ }
    RUBY
    # One heap for all threads, as each takes up 64 MiB of addresses for its own; and what is freed goes back to the
    # system, so that what is left in use is all that counts.
    heap = { "MALLOC_ARENA_MAX" => "1", "MALLOC_MMAP_THRESHOLD_" => "8192", "MALLOC_TRIM_THRESHOLD_" => "131072" }
    ruby = [heap, RbConfig.ruby, "-I", LIB, "-r", "io/splice", "-e", script]
    said = guarded { IO.popen(ruby, &:read) }
    assert_equal 4, said.lines.size
    said.split.map { |number| Integer(number) }
  end

  # Yields a pipe to a process that counts bytes as fast as it can. Returns its count, and what the block does.
  def counting
    IO.popen(%w[wc -c], "r+b") do |counter|
      result = yield counter
      counter.close_write
      [Integer(guarded { counter.read }), result]
    end
  end
end
