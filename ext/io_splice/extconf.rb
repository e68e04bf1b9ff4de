# frozen_string_literal: true

require "rbconfig"

RbConfig::CONFIG["host_os"].include?("linux") or
  abort "io_splice: splice(2) exists on Linux only, and this is #{RbConfig::CONFIG["host_os"]}."

system("cargo", "--version", out: File::NULL, err: File::NULL) or
  abort "io_splice: Rust is needed to build this gem, and there is no `cargo` here: see https://rustup.rs."

libclang = ENV.key?("LIBCLANG_PATH") || Dir["/usr/lib*/{,*/,*/lib*/}libclang[.-][0-9s]*"].any?
libclang or
  abort "io_splice: libclang is needed to build this gem: install libclang-dev (Debian, Ubuntu), " \
        "clang-devel (Fedora) or clang (Arch, Alpine: clang-dev), or set LIBCLANG_PATH to where it is."

require "mkmf"
begin
  require "rb_sys/mkmf"
rescue LoadError
  abort "io_splice: the gem rb_sys is needed to build this gem: `gem install rb_sys`."
end

create_rust_makefile("io_splice/io_splice")
