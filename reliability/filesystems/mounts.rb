# frozen_string_literal: true

require "fileutils"
require "open3"

# The file systems, mounted in a namespace of mounts of this process' own.
module Filesystems
  # Where there is nothing, or what is there is hidden from this process alone.
  BASE = "/media"
  MIB = 1 << 20
  # Around nothing, a page, a pipe, and what one call moves at most.
  SIZES = [0, 1, *[4096, 65_536, MIB].flat_map { |size| [size - 1, size, size + 1] }].freeze
  # More than is left when a file system is full but for a bit.
  LARGE = 8 * MIB

  # Bytes that tell where they stand.
  PATTERN = Array.new(LARGE / 8) { |i| [i].pack("Q>") }.join.freeze

  # A file system: the type that the kernel has to know, the programs that it takes, and how it is mounted.
  Recipe = Struct.new(:type, :programs, :read_only, :mount, keyword_init: true)

  module_function

  # An image in memory, and what makes a file system in it.
  def image(type, size, *make)
    Recipe.new(type:, programs: [make.first], mount: lambda { |place|
      run(*make, blank(place, size))
      run("mount", "-t", type, "-o", "loop", "#{place}.image", place)
    })
  end

  # The files, packed by a program.
  def packed(type, *make, mount: ["mount", "-t", type, "-o", "loop,ro"])
    Recipe.new(type:, programs: [make.first, mount.first], read_only: true, mount: lambda { |place|
      fill(files = "#{place}.files")
      order = make.first == "mkfs.erofs" ? ["#{place}.image", files] : [files, "#{place}.image"]
      run(make.first, *order, *make.drop(1))
      FileUtils.rm_rf(files)
      run(*mount, "#{place}.image", place)
    })
  end

  # What is served by a process, or layered, over an ext4.
  def over_ext4(type, program, *command)
    Recipe.new(type:, programs: ["mkfs.ext4", program], mount: lambda { |place|
      under = "#{place}.under"
      FileUtils.mkdir_p(under)
      EXT4.mount.call(under)
      %w[lower upper work].each { |name| Dir.mkdir("#{under}/#{name}") }
      run(*command.map { |word| word.gsub("UNDER", under).gsub("PLACE", place) })
    })
  end

  # Served by the tests' own program.
  def own_fuse(direct:)
    Recipe.new(type: "fuse", programs: [], mount: lambda { |place|
      Fuse.new(place, direct:, room: 32 * MIB)
    })
  end

  def run(*command)
    said, status = Open3.capture2e(*command)
    status.success? or abort "#{command.join(" ")}: #{said}"
  end

  def blank(place, size)
    File.write(image = "#{place}.image", "")
    File.truncate(image, size)
    image
  end

  # The files that are copied.
  def fill(directory)
    FileUtils.mkdir_p(directory)
    [*SIZES, LARGE].each { |size| File.binwrite("#{directory}/#{size}", PATTERN.byteslice(0, size)) }
  end

  EXT4 = image("ext4", 64 * MIB, *%w[mkfs.ext4 -qF -b 4096])
  MOUNTS = {
    "ext4" => EXT4,
    "xfs" => image("xfs", 320 * MIB, *%w[mkfs.xfs -q]),
    "btrfs" => image("btrfs", 256 * MIB, *%w[mkfs.btrfs -q]),
    "tmpfs" => Recipe.new(type: "tmpfs", programs: [], mount: lambda { |place|
      run(*%w[mount -t tmpfs -o size=64m tmpfs], place)
    }),
    "overlay" => over_ext4("overlay", "mount", *%w[mount -t overlay overlay -o],
                           "lowerdir=UNDER/lower,upperdir=UNDER/upper,workdir=UNDER/work", "PLACE"),
    "squashfs" => packed("squashfs", *%w[mksquashfs -quiet -no-progress]),
    "erofs" => packed("erofs", "mkfs.erofs"),
    "fuse2fs" => Recipe.new(type: "fuse", programs: %w[fuse2fs mkfs.ext4], mount: lambda { |place|
      run(*%w[mkfs.ext4 -qF -b 4096], blank(place, 64 * MIB))
      run("fuse2fs", "#{place}.image", place, "-o", "rw")
    }),
    "ntfs-3g" => Recipe.new(type: "fuse", programs: %w[ntfs-3g mkntfs], mount: lambda { |place|
      run(*%w[mkntfs -qFQ], blank(place, 64 * MIB))
      run("ntfs-3g", "#{place}.image", place)
    }),
    "bindfs" => over_ext4("fuse", "bindfs", "bindfs", "UNDER/upper", "PLACE"),
    "fuse-overlayfs" => over_ext4("fuse", "fuse-overlayfs", *%w[fuse-overlayfs -o],
                                  # With a cache that is written back later, write(2) never says that it is full.
                                  "lowerdir=UNDER/lower,upperdir=UNDER/upper,workdir=UNDER/work,writeback=0", "PLACE"),
    "unionfs-fuse" => over_ext4("fuse", "unionfs-fuse", *%w[unionfs-fuse -o cow],
                                "UNDER/upper=RW:UNDER/lower=RO", "PLACE"),
    "squashfuse" => packed("fuse", *%w[mksquashfs -quiet -no-progress], mount: ["squashfuse"]),
    "fuse" => own_fuse(direct: false),
    "fuse, direct_io" => own_fuse(direct: true),
  }.freeze

  # The Debian packages of the programs.
  PACKAGES = { "mkfs.xfs" => "xfsprogs", "mkfs.btrfs" => "btrfs-progs", "mkfs.ext4" => "e2fsprogs",
               "mksquashfs" => "squashfs-tools", "mkfs.erofs" => "erofs-utils", "mkntfs" => "ntfs-3g" }.freeze

  # One of them, mounted and filled, or the reason why it is not.
  class Mount
    attr_reader :name, :place, :why_not

    def initialize(name)
      @name = name
      @recipe = MOUNTS.fetch(name)
      @place = File.join(BASE, name.delete(", "))
      @why_not = missing
      return if @why_not

      FileUtils.mkdir_p(@place)
      @server = @recipe.mount.call(@place) # the tests' own one ends when it is collected
      Filesystems.fill(@place) unless read_only?
    end

    def there? = @why_not.nil?
    def read_only? = @recipe.read_only
    def source(size) = File.join(@place, size.to_s)
    def target = File.join(@place, "target")

    private

    def missing
      directories = ENV["PATH"].split(":")
      program = @recipe.programs.find { |name| directories.none? { |dir| File.exist?(File.join(dir, name)) } }
      return "#{program} is not installed (Debian: #{PACKAGES.fetch(program, program)})" if program

      type = @recipe.type
      system("modprobe", "--quiet", type, err: File::NULL)
      "the kernel knows no #{type}" unless File.read("/proc/filesystems").split.include?(type)
    end
  end

  def mount(names)
    ENV["PATH"] += ":/usr/sbin:/sbin"
    run(*%w[mount -t tmpfs -o size=80% tmpfs], BASE)
    names.map { |name| Mount.new(name) }
  end
end
