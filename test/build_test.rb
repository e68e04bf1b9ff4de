# frozen_string_literal: true

require "test_helper"
require "open3"
require "pathname"
require "rbconfig"

# What somebody is told who builds the gem, or has not built it: one clear sentence.
class TestBuild < Minitest::Test
  ROOT = File.expand_path("..", __dir__)
  EXTCONF = "#{ROOT}/ext/io_splice/extconf.rb".freeze

  def setup
    super
    @home = Dir.mktmpdir
    @dir = "#{@home}/with a space"
    @bin = "#{@dir}/bin"
    FileUtils.mkdir_p(@bin)
  end

  def teardown
    super
  ensure
    FileUtils.remove_entry(@home)
  end

  def test_without_rust
    assert_refused(/\Aio_splice: Rust is needed to build this gem, and there is no `cargo` here: see \S+\.\n\z/)
    program("cargo", "echo cargo 1.95.0")
    assert_refused(/there is no `rustc` here/)
  end

  def test_with_the_rust_of_debian_bookworm
    program("cargo", "echo cargo 1.65.0")
    program("rustc", "echo 'rustc 1.63.0 (a hash and a date)'")
    assert_refused(/\Aio_splice: Rust 1\.85 or later is needed to .*, and this `cargo` is 1\.65\.0: .*cargo-web/)
    program("cargo", "echo 'cargo 1.85.0-nightly (a hash and a date)'")
    assert_refused(/this `rustc` is 1\.63\.0/)
  end

  def test_where_bindgen_finds_libclang
    assert_match(/\Aio_splice: libclang is needed/, libclang)
    file = "#{@dir}/libclang-14.so.1"
    File.write(file, "")
    assert_empty libclang("LIBCLANG_PATH" => @dir)
    assert_empty libclang("LD_LIBRARY_PATH" => "/nowhere:#{@dir}")
    assert_empty libclang("LIBRARY_PATH" => @dir)
    Dir.mkdir("#{@dir}/lib64")
    File.rename(file, file = "#{@dir}/lib64/libclang.so.14")
    program("my-llvm-config", "echo '#{@dir}'")
    assert_empty libclang("LLVM_CONFIG_PATH" => "#{@bin}/my-llvm-config")
    File.rename(file, "#{@dir}/lib64/libclang-cpp.so.14")
    assert_match(/libclang is needed/, libclang("LLVM_CONFIG_PATH" => "#{@bin}/my-llvm-config"))
  end

  def test_when_the_crates_cannot_be_fetched_that_is_the_last_word
    { "exit 1" => /^io_splice: the crates that this gem needs cannot be fetched: .*\n.*make.*Error 1\n\z/,
      "exit 0" => /^error: it does not compile\n.*make.*Error 1\n\z/ }.each do |fetch, expected|
      assert_match expected, made_with(<<~SH)
        case "$1" in
          fetch) #{fetch} ;;
          rustc) echo 'error: it does not compile' >&2; exit 101 ;;
          *) echo cargo 1.95.0 ;;
        esac
      SH
    end
  end

  def test_a_gem_that_is_not_compiled_says_so
    FileUtils.cp_r("#{ROOT}/lib", @dir)
    FileUtils.rm_rf("#{@dir}/lib/io_splice")
    out, = said_by(RbConfig.ruby, "-I", "#{@dir}/lib", "-e", <<~RUBY)
      begin
        require "io/splice"
      rescue LoadError => e
        puts e.message
      end
    RUBY
    assert_match(/\Aio_splice is not compiled for Ruby #{RUBY_VERSION}: run `rake compile` in #{@dir}, .*`path:`/, out)
  end

  def test_each_link_of_a_text_in_the_gem_leads_to_something_in_the_gem
    files = Dir.chdir(ROOT) { Gem::Specification.load("io_splice.gemspec").files }
    there = files.flat_map { |file| Pathname(file).descend.map(&:to_s) }
    dead = files.grep(/\.md\z/).flat_map do |file|
      links = File.read("#{ROOT}/#{file}").scan(/\]\(([^)#:\s]+)[#)]/).flatten
      links.map { |link| Pathname(file).dirname.join(link).cleanpath.to_s } - there
    end
    assert_empty dead
  end

  def test_what_is_said_of_the_oldest_systems_is_the_same_everywhere
    read = ->(path) { File.read("#{ROOT}/#{path}") }
    glibc = read.call("rakelib/native.rake")[/^OLDEST_GLIBC = .*"(.+)"/, 1]
    kernel = read.call("rakelib/kernels.rake")[/^KERNELS = %w\[(\S+)/, 1]
    rust = read.call("Cargo.toml")[/^rust-version = "(.*)"/, 1]
    assert_includes read.call("ext/io_splice/needs.rb"), %(  RUST = "#{rust}"\n)
    %w[README.md io_splice.gemspec].each do |path|
      text = read.call(path).gsub(/\s+/, " ")
      assert_includes text, "glibc #{glibc} or later"
      assert_match(/Linux (?:\| )?#{kernel} or later/, text)
      assert_match(/Rust\S* #{rust} or later/, text)
    end
    assert_equal read.call("Cargo.lock")[/^name = "rb-sys"\nversion = "(.+)"/, 1],
                 read.call("Gemfile")[/^gem "rb_sys", "(.+)"/, 1]
  end

  private

  def program(name, script)
    File.write("#{@bin}/#{name}", "#!/bin/sh\n#{script}\n", perm: 0o755)
  end

  # What a program says, with nothing in reach but the programs of the test.
  def said_by(*command, **env)
    Open3.capture2e({ "PATH" => @bin, "RUBYOPT" => nil, "RUBYLIB" => nil, **env }, *command, chdir: @dir)
  end

  def assert_refused(message)
    out, status = said_by(RbConfig.ruby, EXTCONF)
    refute_predicate status, :success?
    assert_match message, out
  end

  # What is said where libclang is nowhere but in what the environment names.
  def libclang(env = {})
    nowhere = %w[LIBCLANG_PATH LLVM_CONFIG_PATH LD_LIBRARY_PATH LIBRARY_PATH].to_h { |name| [name, nil] }
    said_by(RbConfig.ruby, "-r", "#{ROOT}/ext/io_splice/needs", "-e", "Needs.libclang([])",
            **nowhere.merge(env).transform_keys(&:to_s)).first
  end

  # What make says in the end with a Cargo of the test's own.
  def made_with(cargo)
    skip "make is not installed" unless system("make", "--version", out: File::NULL)

    program("cargo", cargo)
    program("rustc", "echo rustc 1.95.0")
    env = { "PATH" => "#{@bin}:#{ENV.fetch("PATH")}", "CARGO" => nil, "LIBCLANG_PATH" => @dir }
    said_by(RbConfig.ruby, EXTCONF, **env)
    said_by("make", **env).first
  end
end
