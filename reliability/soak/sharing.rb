# frozen_string_literal: true

module Soak
  # Several write to one open file, each in a way of its own, one of them in another process: every byte of everybody is
  # there once, in order.
  class Shared < Operation
    include WithChild

    WAYS = %w[copy_stream tee_stream full partial write].freeze
    CYCLE = 15 # no divisor of a page

    private

    def operate(_way)
      @file = Ends.file("\0" * (base = random.rand(5000)))
      @file.seek(0, :END)
      @ends << @file
      sizes = Array.new(random.rand(2..5)) { Array.new(random.rand(1..5)) { random.rand(1..300_000) } }
      doing("#{sizes.map(&:sum)} bytes into one file")
      writers = sizes.each_with_index.map { |portions, writer| start(writer, portions) }
      writers.each { |writer| tasks.value_of(writer) }
      check(base, sizes.map(&:sum))
    end

    # The first may be another process.
    def start(writer, portions)
      seed = random.rand(1 << 32)
      work = ->(tasks) { write(stream_of(writer, portions.sum), portions, tasks) }
      return tasks.go { in_child(&work) } if writer.zero? && forks?

      tasks.go { work.call(tasks.class.new(Random.new(seed))) }
    end

    # Bytes that nobody else writes.
    def stream_of(writer, size)
      bytes = Array.new(CYCLE) { |number| ((writer + 1) << 4) + number }.pack("C*")
      (bytes * ((size / CYCLE) + 1)).byteslice(0, size)
    end

    def write(stream, portions, tasks)
      portions.inject(0) do |at, size|
        put(stream.byteslice(at, size), WAYS.sample(random: tasks.random), tasks)
        at + size
      end
    end

    def put(bytes, way, tasks)
      return @file.write(bytes) if way == "write"

      kind = (%w[full partial].include?(way) ? PIPES : [*streams, :file]).sample(random: tasks.random)
      source = Source.new(kind, bytes, tasks)
      @statistics.called("#{way} to a shared file")
      move(way, source.io, bytes.bytesize)
    ensure
      source&.finish
    end

    def move(way, source, size)
      case way
      when "copy_stream" then IO::Splice.copy_stream(source, @file)
      when "tee_stream" then IO::Splice.tee_stream(source, @file, File::NULL)
      when "full" then IO::Splice.full(source, @file, size)
      when "partial" then size -= IO::Splice.partial(source, @file, size) while size.positive?
      end
    end

    def check(base, sizes)
      content = File.binread("/proc/self/fd/#{@file.fileno}")
      sizes.each_with_index do |size, writer|
        from = (writer + 1) << 4
        bytes = content.delete("^#{[from].pack("C")}-#{[from + CYCLE - 1].pack("C")}".b)
        equal(size, bytes.bytesize, "what there is of writer #{writer}, who wrote #{size} bytes,")
        raise Wrong, "what writer #{writer} wrote is in another order" unless bytes == stream_of(writer, size)
      end
      equal(base + sizes.sum, content.bytesize, "the file's size")
      equal(content.bytesize, @file.pos, "the file's position")
      @statistics.checked(content.bytesize)
    end
  end

  # Several copy portions of one open file: each byte goes to one of them.
  class Portions < Operation
    PORTIONS = 20 # that one thread copies

    private

    def operate(_way)
      whole = @tape.cut(random.rand(1..2_000_000), "portions")
      @file = Ends.file(whole)
      @ends << @file
      lengths = cut(whole.bytesize)
      targets = lengths.each_slice(PORTIONS).map { target(one_of([*streams, :file, :append])) }
      doing("portions of #{lengths} bytes of one file to #{targets.map(&:kind)}")
      copies = targets.zip(lengths.each_slice(PORTIONS)).map do |target, portions|
        way = PIPES.include?(target.kind) ? one_of(%w[copy_stream full partial]) : "copy_stream"
        tasks.go { portions.each { |len| copy(way, target.io, len) } }
      end
      copies.each { |copy| tasks.value_of(copy) }
      equal(whole.bytesize, @file.pos, "the position")
      check(whole, lengths.each_slice(PORTIONS).map(&:sum), targets.map(&:arrived))
    ensure
      targets&.each(&:finish)
    end

    def cut(size)
      cuts = Array.new(PORTIONS * random.rand(2..4)) { random.rand(0..size) }
      [0, size, *cuts].sort.each_cons(2).map { |from, to| to - from }
    end

    def copy(way, target, len)
      @statistics.called("#{way} of a portion")
      case way
      when "copy_stream" then IO::Splice.copy_stream(@file, target, len)
      when "full" then IO::Splice.full(@file, target, len)
      when "partial" then len -= IO::Splice.partial(@file, target, len) while len.positive?
      end
    end

    def check(whole, lengths, arrived)
      equal(lengths, arrived.map(&:bytesize), "the portions")
      ranges = arrived.flat_map { |bytes| places(whole, bytes) }.sort_by(&:begin)
      # The first byte of the next place may be the one that would have come, by chance.
      twice = ranges.each_cons(2).find { |one, other| other.begin + 8 <= one.end }
      raise Wrong, "bytes have come twice: #{twice}" if twice

      @statistics.checked(whole.bytesize)
    end

    # Where they stood, as far as eight bytes in a row tell, which nobody can who is cut off after fewer.
    def places(whole, bytes)
      ranges = []
      at = untold = 0
      while bytes.bytesize - at >= 8
        start = whole.index(bytes.byteslice(at, 8))
        length = start ? @tape.first_difference(whole.byteslice(start..), bytes.byteslice(at..)) : 1
        start ? ranges << (start...(start + length)) : untold += 1
        raise Wrong, "what has come was not in the file, up to #{at}" if untold > 8 * (ranges.size + PORTIONS)

        at += length
      end
      ranges
    end
  end
end
