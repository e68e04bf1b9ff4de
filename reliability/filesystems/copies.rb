# frozen_string_literal: true

module Filesystems
  # Copies of every size from a file system to every other one and to streams, and from streams to it.
  class Copies
    STREAMS = %i[pipe tcp unix].freeze
    # What is in a target before, and where the copy begins then.
    BEFORE = ("before" * 1000).b.freeze
    AT = 4001
    # What is left out of a source at its beginning and at its end.
    CUT = 1001

    def initialize(mount, mounts, tally)
      @mount = mount
      @mounts = mounts
      @tally = tally
    end

    def run
      SIZES.each do |size|
        @bytes = File.binread(@mount.source(size))
        differs(@bytes, PATTERN.byteslice(0, size)) and abort "#{@mount.source(size)} is not what was written"
        @mounts.reject(&:read_only?).each { |to| FILE_WAYS.each { |what, way| try(what, way, to.name, to) } }
        STREAMS.each { |kind| stream(kind) }
      end
    end

    private

    def stream(kind)
      out = OUT_WAYS.select { |_, way| way != :splice_out || kind == :pipe }
      out.each { |what, way| try(what, way, kind, kind) }
      return if @mount.read_only?

      into = IN_WAYS.select { |_, way| way != :splice_in || kind == :pipe }
      into.each { |what, way| try(what, way, kind, kind) }
    end

    def try(what, way, name, to)
      title = "#{@mount.name} and #{name}, #{@bytes.bytesize} bytes, #{way}"
      @tally.count(what, @mount.name, name, title) { send(way, to) }
    end

    # From file to file.
    FILE_WAYS = [["whole", :ios], ["whole", :paths], ["part", :middle], ["part", :offset], ["append", :append],
                 ["background", :background]].freeze

    def ios(to)
      open_both(to.target, "wb") do |source, target|
        copied = IO::Splice.copy_stream(source, target)
        checked([copied, source.pos, target.pos], [size] * 3, to.target, @bytes)
      end
    end

    def paths(to)
      checked(IO::Splice.copy_stream(path, to.target), size, to.target, @bytes)
    end

    # From somewhere into the middle of something.
    def middle(to)
      File.binwrite(to.target, BEFORE)
      open_both(to.target, "r+b") do |source, target|
        source.pos = first
        target.pos = AT
        copied = IO::Splice.copy_stream(source, target, len)
        checked([copied, source.pos, target.pos], [len, first + len, AT + len], to.target, over(part))
      end
    end

    def offset(to)
      open_both(to.target, "wb") do |source, target|
        copied = IO::Splice.copy_stream(source, target, len, first)
        checked([copied, source.pos, target.pos], [len, 0, len], to.target, part)
      end
    end

    def append(to)
      File.binwrite(to.target, BEFORE)
      open_both(to.target, "ab") do |source, target|
        checked([IO::Splice.copy_stream(source, target), source.pos], [size] * 2, to.target, BEFORE + @bytes)
      end
    end

    def background(to)
      checked(IO::Splice.background.copy_stream(path, to.target).value, size, to.target, @bytes)
    end

    # From the file to a stream.
    OUT_WAYS = [["whole", :whole_out], ["part", :offset_out], ["background", :background_out], ["splice", :splice_out]]
               .freeze

    def whole_out(kind)
      from_file(kind) { |file, io| [[IO::Splice.copy_stream(file, io), file.pos], [size] * 2, @bytes] }
    end

    def offset_out(kind)
      from_file(kind) { |file, io| [[IO::Splice.copy_stream(file, io, len, first), file.pos], [len, 0], part] }
    end

    def background_out(kind)
      from_file(kind) do |_, io|
        [IO::Splice.background.copy_stream(path, io, close: false).value, size, @bytes]
      end
    end

    # By the call itself, at offsets.
    def splice_out(kind)
      from_file(kind) do |file, io|
        at = first
        at += IO.splice(file, at, io, nil, first + len - at) while at < first + len
        [[at, file.pos], [first + len, 0], part]
      end
    end

    # From a stream to the file.
    IN_WAYS = [["whole", :whole_in], ["part", :middle_in], ["append", :append_in], ["background", :background_in],
               ["splice", :splice_in]].freeze

    def whole_in(kind)
      to_file(kind, "wb") { |io, file| [[IO::Splice.copy_stream(io, file), file.pos], [size] * 2, @bytes] }
    end

    def middle_in(kind)
      to_file(kind, "r+b") do |io, file|
        file.pos = AT
        copied = IO::Splice.copy_stream(io, file, len)
        [[copied, file.pos, io.read], [len, AT + len, @bytes.byteslice(len..)], over(@bytes.byteslice(0, len))]
      end
    end

    def append_in(kind) = to_file(kind, "ab") { |io, file| [IO::Splice.copy_stream(io, file), size, BEFORE + @bytes] }

    def background_in(kind)
      to_file(kind, "wb") do |io, file|
        [IO::Splice.background.copy_stream(io, file, close: false).value, size, @bytes]
      end
    end

    def splice_in(kind)
      to_file(kind, "r+b") do |io, file|
        at = AT
        while (moved = IO.trysplice(io, nil, file, at, MIB))
          moved == :EAGAIN ? io.wait_readable : at += moved
        end
        [[at, file.pos], [AT + size, 0], over(@bytes)]
      end
    end

    def path = @mount.source(@bytes.bytesize)
    def size = @bytes.bytesize
    def first = [CUT, size].min
    def len = [size - (2 * CUT), 0].max
    def part = @bytes.byteslice(first, len)

    # What plain writes make of a target that had something.
    def over(bytes) = BEFORE.dup.tap { |before| before[AT, bytes.bytesize] = bytes }

    def open_both(target, mode)
      File.open(path, "rb") { |source| File.open(target, mode) { |file| yield source, file } }
    end

    # The block says what came out, what should, and what should arrive.
    def from_file(kind)
      out, into = Ends.pair(kind)
      arriving = Thread.new { out.read }
      said, expected, bytes = File.open(path, "rb") { |file| yield file, into }
      into.close
      said == expected ? differs(arriving.value, bytes) : "#{shown(said)} instead of #{shown(expected)}"
    ensure
      [out, into].each(&:close)
    end

    def to_file(kind, mode)
      out, into = Ends.pair(kind)
      File.binwrite(@mount.target, BEFORE)
      feeding = Thread.new { into.write(@bytes).tap { into.close } }
      said, expected, bytes = File.open(@mount.target, mode) { |file| yield out, file }
      feeding.join
      checked(said, expected, @mount.target, bytes)
    ensure
      [out, into].each(&:close)
    end

    def checked(said, expected, target, bytes)
      return "#{shown(said)} instead of #{shown(expected)}" if said != expected

      differs(File.binread(target), bytes)
    ensure
      File.unlink(target)
    end

    def shown(values)
      Array(values).map { |value| value.is_a?(String) ? "#{value.bytesize} bytes" : value.inspect }.join(", ")
    end

    def differs(arrived, bytes)
      return if arrived == bytes

      at = arrived.each_byte.zip(bytes.each_byte).index { |one, other| one != other } || bytes.bytesize
      "#{arrived.bytesize} bytes arrived, not #{bytes.bytesize}, and right are the first #{[at, arrived.bytesize].min}"
    end
  end
end
