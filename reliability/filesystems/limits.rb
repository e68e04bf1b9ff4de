# frozen_string_literal: true

module Filesystems
  # What is special in a file system: holes, blocks that are shared, an end of its room, no writing.
  class Limits
    # Room that is left in a file system that is full.
    ROOM = 3 * MIB
    HOLE = 1 << 40
    # Until a copy that was interrupted has come back: it takes milliseconds.
    PROMPT = 10 * Integer(ENV.fetch("SLOWNESS", "1"))

    def initialize(mount, tally)
      @mount = mount
      @tally = tally
    end

    def run
      read_only
      return if @mount.read_only?

      holes
      huge_hole
      reflink
      full
    end

    private

    def count(what, title, &) = @tally.count(what, @mount.name, "#{@mount.name}, #{title}", &)
    def path(name) = File.join(@mount.place, name)
    def blocks(name) = File.stat(path(name)).blocks
    def unlink(*names) = names.each { |name| FileUtils.rm_f(path(name)) }
    def sync = Filesystems.run("sync", "--file-system", @mount.place)

    # How many bytes can still be written, if that is known.
    def free
      said = IO.popen(["stat", "--file-system", "--format=%a %S", @mount.place], err: File::NULL, &:read)
      said.split.map(&:to_i).inject(:*).to_i
    end

    # The holes stay, where they do with Ruby's own copy_stream.
    def holes
      File.open(path("holes"), "wb") do |file|
        [0, 3 * MIB].each { |at| file.pwrite("data" * 1000, at) }
        file.truncate(5 * MIB)
      end
      count("holes", "a file with holes") do
        IO::Splice.copy_stream(path("holes"), path("ours"))
        IO.copy_stream(path("holes"), path("ruby"))
        sync
        next "the bytes differ" if File.binread(path("ours")) != File.binread(path("holes"))

        used = %w[holes ruby ours].map { |name| blocks(name) / 2 }
        @tally.note("a file with holes, KiB: #{used[0]}; as IO.copy_stream copies it #{used[1]}, as the gem #{used[2]}")
        "#{used[2]} KiB instead of #{used[1]}" if used[2] > used[1] + 64
      end
    ensure
      unlink("holes", "ours", "ruby")
    end

    # A copy of what is next to endless can be interrupted at once.
    def huge_hole
      File.write(path("huge"), "")
      begin
        File.truncate(path("huge"), HOLE)
      rescue SystemCallError => e
        return @tally.note("no file of 1 TiB: #{e.class}")
      end
      %i[time_out kill].product(%i[to_file to_pipe to_null]) do |how, target|
        count("1 TiB hole", "1 TiB, #{how}, #{target}") do
          File.open(path("huge"), "rb") { |file| send(target) { |out| interrupted(how, file, out) } }
        end
      end
    ensure
      unlink("huge")
    end

    def to_null(&)
      File.open(File::NULL, "wb", &)
      nil
    end

    def to_pipe
      out, into = Ends.pipe
      reader = Thread.new { IO.copy_stream(out, File::NULL) }
      copied = yield into
      into.close
      "#{reader.value} bytes arrived of #{copied}" if reader.value != copied
    ensure
      out.close
    end

    def to_file
      File.open(path("target"), "wb") do |file|
        copied = yield file
        stands = [file.pos, file.size]
        "the target stands at #{stands.join(" of ")} bytes after #{copied}" if stands.uniq != [copied]
      end
    ensure
      unlink("target")
    end

    # Where the source stands then. That may be the end, where blocks are shared, and where they are not, a file system
    # may be full before.
    def interrupted(how, file, out)
      copy = Thread.new do
        Timeout.timeout(how == :time_out ? 0.2 : nil) { IO::Splice.copy_stream(file, out) }
      rescue Timeout::Error, Errno::ENOSPC
        nil
      end
      sleep 0.2
      copy.kill if how == :kill
      copy.join(PROMPT) or raise "still running after #{PROMPT} s"
      file.pos
    end

    # Where cp can share blocks, a copy takes none.
    def reflink
      source = @mount.source(LARGE)
      shares = system("cp", "--reflink=always", source, path("shared"), err: File::NULL)
      unlink("shared")
      return unless shares

      sync
      %i[io path background].each do |how|
        count("reflink", "blocks are shared, #{how}") do
          before = free
          File.open(source, "rb") { |file| copy_by(how, file, path("shared")) }
          sync
          taken = before - free
          next "the bytes differ" if File.binread(path("shared")) != PATTERN

          "#{taken} bytes were taken" if taken > LARGE / 4
        ensure
          unlink("shared")
          sync
        end
      end
    end

    def copy_by(how, file, target)
      case how
      when :io then File.open(target, "wb") { |out| IO::Splice.copy_stream(file, out) }
      when :path then IO::Splice.copy_stream(file.path, target)
      when :background then IO::Splice.background.copy_stream(file.path, target).value
      end
    end

    # The target's room ends in the middle of a copy.
    def full
      File.binwrite(path("room"), PATTERN.byteslice(0, ROOM))
      fill_up
      unlink("room")
      sync
      SOURCES.each do |name, how|
        count("full", "full, from #{name}") { send(how) }
        unlink("target")
        sync
      end
    ensure
      unlink("room", "ballast")
      sync
    end

    SOURCES = { "a file elsewhere" => :full_from_elsewhere, "a file of its own" => :full_from_itself,
                "the background" => :full_in_background, "a pipe" => :full_from_pipe,
                "a UNIX socket" => :full_from_unix, "a TCP socket" => :full_from_tcp }.freeze

    def fill_up
      system("fallocate", "--length", (free * 9 / 10).to_s, path("ballast"), err: File::NULL)
      File.open(path("ballast"), "ab") { |file| [MIB, 4096].each { |size| write_until_full(file, size) } }
      sync
    end

    def write_until_full(file, size)
      loop { file.syswrite(PATTERN.byteslice(0, size)) }
    rescue Errno::ENOSPC
      nil
    end

    def full_from_elsewhere
      source = Ends.file(PATTERN)
      from(source) { |copied| [source.pos, copied] }
    ensure
      source.close
    end

    def full_from_itself
      File.open(@mount.source(LARGE), "rb") { |source| from(source, may_share: true) { |copied| [source.pos, copied] } }
    end

    def full_in_background
      source = Ends.file(PATTERN)
      transfer = IO::Splice.background.copy_stream(source, path("target"), close: false)
      error = transfer.wait.error
      full_target(error, transfer.bytes) || stands(source.pos, transfer.bytes)
    ensure
      source.close
    end

    %i[pipe unix tcp].each do |kind|
      define_method("full_from_#{kind}") do
        out, into = Ends.pair(kind)
        feeding = Thread.new { into.write(PATTERN).tap { into.close } }
        from(out) { |copied| [PATTERN.bytesize - out.read.bytesize, copied] }
      ensure
        feeding.join
        [out, into].each(&:close)
      end
    end

    # The block says where the source stands, and where it should.
    def from(source, may_share: false)
      error = copied = nil
      File.open(path("target"), "wb") do |target|
        IO::Splice.copy_stream(source, target)
      rescue SystemCallError => e
        error = e
      ensure
        copied = target.pos
      end
      return if may_share && error.nil? && copied == LARGE

      full_target(error, copied) || stands(*yield(copied))
    end

    def full_target(error, copied)
      arrived = File.binread(path("target"))
      return "#{error.inspect} instead of ENOSPC" unless error.is_a?(Errno::ENOSPC)
      return "#{copied} bytes are not the middle" unless copied.between?(1, LARGE - 1)

      "it has #{arrived.bytesize} bytes after #{copied}" if arrived != PATTERN.byteslice(0, copied)
    end

    def stands(at, copied) = ("the source stands at #{at} after #{copied}" if at != copied)

    # What cannot be written is refused before anything is taken.
    def read_only
      place = @mount.read_only? ? @mount.place : read_only_view
      [4096, LARGE].product(%w[4096 new], %i[path background]) do |size, target, how|
        count("read-only", "read-only, #{size} bytes to #{target}, #{how}") do
          source = Ends.file(PATTERN.byteslice(0, size))
          refused(source, File.join(place, target), how)
        ensure
          source.close
        end
      end
    ensure
      system("umount", place) unless @mount.read_only?
    end

    def refused(source, target, how)
      how == :path ? IO::Splice.copy_stream(source, target) : IO::Splice.background.copy_stream(source, target)
      "no error"
    rescue Errno::EROFS
      "the source stands at #{source.pos}" if source.pos != 0
    end

    # The same, mounted once more.
    def read_only_view
      place = "#{@mount.place}.ro"
      Dir.mkdir(place)
      Filesystems.run("mount", "--bind", @mount.place, place)
      Filesystems.run("mount", "-o", "remount,bind,ro", place)
      place
    end
  end
end
