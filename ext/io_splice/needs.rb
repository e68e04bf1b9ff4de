# frozen_string_literal: true

require "open3"
require "rbconfig"

# What is missing is said at once, in one sentence, and not by whichever program first stumbles over it.
module Needs
  # As in Cargo.toml, of which an older Cargo understands nothing.
  RUST = "1.85"

  # Where bindgen looks for libclang, beside what the environment and llvm-config name.
  LIBRARIES = %w[/usr/local/llvm*/lib* /usr/local/lib* /usr/local/lib*/* /usr/local/lib*/*/*
                 /usr/lib* /usr/lib*/* /usr/lib*/*/*].freeze

  module_function

  def linux
    system = RbConfig::CONFIG["host_os"]
    system.include?("linux") or abort "io_splice: splice(2) exists on Linux only, and this is #{system}."
  end

  def rust
    # rb_sys brings its own then.
    return unless ENV.fetch("RB_SYS_FORCE_INSTALL_RUST_TOOLCHAIN", "false") == "false"

    { "cargo" => ENV.fetch("CARGO", "cargo"), "rustc" => ENV.fetch("RUSTC", "rustc") }.each do |name, program|
      version = output(program, "--version")[/\d+\.\d+[\d.]*/] or
        abort "io_splice: Rust is needed to build this gem, and there is no `#{name}` here: see https://rustup.rs."
      next if Gem::Version.new(version) >= Gem::Version.new(RUST)

      abort "io_splice: Rust #{RUST} or later is needed to build this gem, and this `#{name}` is #{version}: " \
            "see https://rustup.rs, or install cargo-web and rustc-web (Debian 12)."
    end
  end

  def libclang(directories = LIBRARIES)
    return if ENV.key?("LIBCLANG_PATH") || bundled_libclang? || libclang_in?(directories + named_directories)

    abort "io_splice: libclang is needed to build this gem: install libclang-dev (Debian, Ubuntu), " \
          "clang-devel (Fedora), clang (Arch) or clang-dev (Alpine), or set LIBCLANG_PATH to where it is, " \
          "or LLVM_CONFIG_PATH to its llvm-config."
  end

  # The gem of that name, which rb_sys finds by itself.
  def bundled_libclang?
    require "libclang"
  rescue LoadError
    false
  end

  def named_directories
    prefix = output(ENV.fetch("LLVM_CONFIG_PATH", "llvm-config"), "--prefix").lines.first&.chomp
    named = %w[LD_LIBRARY_PATH LIBRARY_PATH].flat_map { |name| ENV.fetch(name, "").split(":") }
    named.reject(&:empty?) + (prefix ? %W[#{prefix}/bin #{prefix}/lib #{prefix}/lib64] : [])
  end

  def libclang_in?(directories)
    Dir.glob(directories.map { |directory| "#{directory}/libclang{,-*}.so*" }).grep_v(/-cpp\./).any?
  end

  def output(*command)
    output, status = Open3.capture2(*command, err: File::NULL)
    status.success? ? output : ""
  rescue SystemCallError
    ""
  end
end
