# frozen_string_literal: true

# What the tests of data for vmsplice share: memory that is in a pipe while others take its place.
module PipedMemory
  include Experimental

  Pages = IO::Splice::Pages
  F_NONBLOCK = IO::Splice::F_NONBLOCK
  F_GIFT = IO::Splice::F_GIFT
  PAGE = IO::Splice::PAGE_SIZE
  WAITALL = IO::Splice::WAITALL
  MAPPED = IO::Buffer::MAPPED
  INTERNAL = IO::Buffer::INTERNAL

  def teardown
    GC.stress = false
    @to_free&.each(&:free)
    super
  end

  def buffer(content, flags = MAPPED, kind = IO::Buffer)
    kind.new(content.bytesize, flags).tap { |buffer| buffer.set_string(content) }
  end

  # Ruby 3.1 crashes now and then when it collects a buffer that is a slice or of a string, and has not been freed.
  def buffer_for(string)
    to_free(IO::Buffer.for(string.dup))
  end

  def to_free(buffer)
    (@to_free ||= []) << buffer
    buffer
  end

  # Others take the places of what was freed: on the heap, among the mappings, among Ruby's objects.
  def churn(times = 10, largest: 3 << 20)
    sizes = ->(*all) { all.select { |size| size <= largest } }
    sizes.call(10, 100, 700, 5000, 20_000, 60_000).each { |size| @others = Array.new(5 * times) { "z" * size } }
    @others = Array.new(times) do |index|
      pages = sizes.call(10, PAGE, 5000, 60_000, 3 << 20).map { |size| Pages.new(index.to_s * size) }
      buffers = sizes.call(1 + (index * 1000), 20_000, 50_000, 200_000).product([MAPPED, INTERNAL])
      pages + buffers.map { |size, flags| buffer("Z" * size, flags) }
    end
    @others = nil
  end

  # As that, once all that nobody uses any more is freed.
  def collect_and_churn(...)
    GC.start
    churn(...)
    GC.start
  end

  # That a call puts all of it into a pipe.
  def assert_sent(expected, data, flags = 0, message = nil)
    reader, writer = pipe
    reading = thread { reader.binmode.read }

    assert_equal(expected.bytesize, guarded { IO.vmsplice(writer, data, flags) }, message)
    writer.close
    assert_equal(expected.b, guarded { reading.value }, message)
  ensure
    reader.close
  end
end
