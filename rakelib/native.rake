# frozen_string_literal: true

require "json"
require "rubygems/package"
require "tmpdir"

# The Rubies that a precompiled gem has a binary for; the release workflow asks for them with `rake native:rubies`.
# RubyGems goes by the first and the last alone: one that is missing between them would get a gem that cannot be loaded.
# A newer one gets the source gem.
NATIVE_RUBIES = %w[3.1 3.2 3.3 3.4 4.0].freeze
# Those that can be had here: this one, and those with a tree (bin/with-ruby, bin/aarch64-ruby).
OWN_RUBY = RUBY_VERSION[/\A\d+\.\d+/]
RUBIES_HERE = NATIVE_RUBIES & [OWN_RUBY, *RUBIES]
AARCH64 = "aarch64-unknown-linux-gnu"
# Those that are published; release.yml has them, too.
PLATFORMS = %w[x86_64-linux aarch64-linux x86_64-linux-musl aarch64-linux-musl].freeze

# What a binary may ask for of glibc, as README.md and the gemspec have it: Debian 12, Ubuntu 22.04, RHEL 9.
OLDEST_GLIBC = Gem::Version.new("2.34")

# The gem for one platform, with a binary for each of some Rubies.
class NativeGem
  include Rake::FileUtilsExt

  # What RubyGems is to know of the gem for a platform. An older one takes a gem for musl to be for glibc, too.
  def self.describe(spec)
    spec.required_rubygems_version = ">= 3.3.22" if spec.platform.to_s.end_with?("musl")
    spec.requirements.reject! { |text| text.include?("to build it") }
  end

  attr_reader :file

  def initialize(platform, rubies, file = nil)
    @platform = platform
    @rubies = rubies
    @file = file || File.expand_path("pkg/#{GEMSPEC.full_name}-#{platform}.gem")
  end

  # Without what builds the extension: no Rust, no rb_sys.
  def spec
    GEMSPEC.dup.tap do |spec|
      spec.platform = @platform
      spec.required_ruby_version = [">= #{@rubies.first}", "< #{@rubies.last.succ}.dev"]
      spec.extensions = []
      spec.dependencies.reject! { |dependency| dependency.name == "rb_sys" }
      spec.files = plain_files + @rubies.map { |ruby| binary(ruby) }
      self.class.describe(spec)
    end
  end

  # The block puts the binary for a Ruby to where it is told.
  def build
    stage = File.expand_path("tmp/native/#{@platform}")
    rm_rf stage, verbose: false
    spec.files.each { |path| mkdir_p File.join(stage, File.dirname(path)), verbose: false }
    plain_files.each { |path| cp path, File.join(stage, path), verbose: false }
    @rubies.each { |ruby| yield ruby, File.join(stage, binary(ruby)) }
    mkdir_p File.dirname(file), verbose: false
    chdir(stage, verbose: false) { Gem::Package.build(spec, false, true, file) }
    describe
  end

  # Installs it under the Ruby that the command runs, and uses it there.
  def check(*command)
    sh({ "RUBYOPT" => nil, "RUBYLIB" => nil }, *command, "-e", NATIVE_CHECK, in: file, verbose: false)
  end

  # That a gem file from elsewhere is what this one would be.
  def verify
    found = Gem::Package.new(file).spec
    (found.files & Dir["ext/**/*"]).empty? or abort "#{file}: sources are in it"
    found.files.grep(/\.so\z/).sort == @rubies.map { |ruby| binary(ruby) }.sort or abort "#{file}: binaries are missing"
    %i[full_name required_ruby_version required_rubygems_version requirements extensions dependencies].each do |name|
      found.public_send(name) == spec.public_send(name) or abort "#{file}: its #{name} is #{found.public_send(name)}"
    end
    describe
  end

  private

  def binary(ruby) = "lib/io_splice/#{ruby}/io_splice.so"

  def plain_files = GEMSPEC.files.grep_v(%r{\A(ext/|Cargo\.)})

  # How large it is, and the oldest C library that it runs with. One that is newer than what is promised is an error.
  def describe
    puts "#{File.basename(file)}: #{File.size(file)} bytes"
    Dir.mktmpdir do |dir|
      Gem::Package.new(file).extract_files(dir)
      Dir[File.join(dir, "**/*.so")].each do |path|
        versions = IO.popen(["objdump", "-T", path], &:read).scan(/GLIBC_([\d.]+)/).flatten
        glibc = versions.max_by { |version| Gem::Version.new(version) }
        puts "  #{path.delete_prefix("#{dir}/")}: #{File.size(path)} bytes#{", glibc #{glibc} or later" if glibc}"
        glibc.nil? || Gem::Version.new(glibc) <= OLDEST_GLIBC or abort "that is newer than #{OLDEST_GLIBC}"
      end
    end
  end
end

def in_tree(ruby) = ruby == OWN_RUBY ? [] : ["bin/with-ruby", ruby]

# Runs under each Ruby, with the gem file as its input and nothing of the tree: installs it where nothing is, without
# a compiler in reach, and uses it.
NATIVE_CHECK = <<~RUBY
  require "tmpdir"
  require "rubygems/gem_runner"
  Dir.mktmpdir do |home|
    Dir.chdir("/")
    ENV.update("PATH" => home, "HOME" => home, "GEM_HOME" => home, "GEM_PATH" => home)
    Gem.use_paths(home, [home])
    %w[cargo rustc cc gcc make].none? { |tool| system(tool, "--version", err: File::NULL) } or abort "a compiler is there"
    gem = File.join(home, "io_splice.gem")
    IO.copy_stream($stdin, gem)
    begin
      Gem::GemRunner.new.run(["install", "--quiet", "--local", "--no-document", gem])
    rescue Gem::SystemExitException => e
      e.exit_code.zero? or raise
    end
    gem "io_splice"
    require "io/splice"
    spec = Gem.loaded_specs.fetch("io_splice")
    spec.extensions.empty? && spec.dependencies.empty? or abort "it is not precompiled"
    binary = "lib/io_splice/\#{RUBY_VERSION[/\\d+\\.\\d+/]}/io_splice.so"
    $LOADED_FEATURES.include?(File.join(spec.full_gem_path, binary)) or abort "\#{binary} is not what was loaded"
    r, w = IO.pipe
    copy, into = IO.pipe
    IO.vmsplice(w, ["hello ", IO::Splice::Pages.new("world")])
    IO.tee(r, into, 11)
    Dir.chdir(home) do
      IO.splice(r, nil, (out = File.new("out", "w")), 0, 11, IO::Splice::WAITALL)
      out.close
      IO::Splice.copy_stream("out", "copied")
      [copy.readpartial(11), File.read("copied")] == ["hello world"] * 2 or abort "the bytes are not right"
    end
    puts "\#{spec.full_name} works on Ruby \#{RUBY_VERSION} (\#{RUBY_PLATFORM})"
  end
RUBY

# What rb-sys is to know of a Ruby that it cannot ask, since that is of another machine.
def rbconfig_of_aarch64(ruby)
  out = IO.popen(["bin/aarch64-ruby", ruby, "-rjson", "-e", <<~'RUBY'], &:read)
    print JSON.generate([ENV.fetch("QEMU_LD_PREFIX"), RbConfig::CONFIG])
  RUBY
  tree, config = JSON.parse(out)
  headers = config.slice("rubyhdrdir", "rubyarchhdrdir").transform_values { |dir| File.join(tree, dir) }
  config.merge(headers, "CROSS_COMPILING" => "yes").transform_keys { |key| "RBCONFIG_#{key}" }
end

def cross_compile(ruby, binary)
  env = { "CARGO_TARGET_DIR" => "tmp/native/target",
          "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER" => "aarch64-linux-gnu-gcc" }
  sh(env.merge(rbconfig_of_aarch64(ruby)), "cargo", "build", "--quiet", "--release", "--locked",
     "--package", "io_splice", "--target", AARCH64, verbose: false)
  cp "tmp/native/target/#{AARCH64}/release/libio_splice.so", binary, verbose: false
end

# What RubyGems picks here from an index of all gems; those are without files.
def chosen_from_index
  specs = [GEMSPEC.dup, *PLATFORMS.map { |platform| NativeGem.new(platform, NATIVE_RUBIES).spec }]
  Dir.mktmpdir do |dir|
    mkdir "#{dir}/gems", verbose: false
    specs.each do |spec|
      spec.files = spec.extensions = []
      file = "#{dir}/gems/#{spec.full_name}.gem"
      Gem::DefaultUserInteraction.use_ui(Gem::SilentUI.new) { Gem::Package.build(spec, true, false, file) }
    end
    sh("gem", "generate_index", "--directory", dir, out: File::NULL, verbose: false)
    sh("gem", "install", "--no-document", "--install-dir", "#{dir}/home", "--clear-sources",
       "--source", "file://#{dir}", "io_splice", out: File::NULL, verbose: false)
    Dir.children("#{dir}/home/gems").first
  end
end

desc "Build the precompiled gem for x86_64, with a binary for each Ruby that can be had here"
task native: :compile do
  missing = NATIVE_RUBIES - RUBIES_HERE
  warn "Not to be published: it has no binary for Ruby #{missing.join(", ")}." if missing.any?
  NativeGem.new("x86_64-linux", RUBIES_HERE).build do |ruby, binary|
    sh(*in_tree(ruby), "cat", "lib/io_splice/io_splice.so", out: binary, verbose: false)
  end
end

desc "Build the gem file"
task gem: :build

namespace :native do
  desc "Install the precompiled gem into an empty place under each Ruby, and use it there, without Rust"
  task check: :native do
    gem = NativeGem.new("x86_64-linux", RUBIES_HERE)
    RUBIES_HERE.each { |ruby| gem.check(*in_tree(ruby), ruby == OWN_RUBY ? RbConfig.ruby : "ruby") }
  end

  desc "See that RubyGems picks the precompiled gem for this machine from an index of all of them"
  task :choose do
    chosen = chosen_from_index
    chosen == "#{GEMSPEC.full_name}-#{Gem::Platform.local}" or abort "RubyGems #{Gem::VERSION} picks #{chosen}"
    puts "RubyGems #{Gem::VERSION} picks #{chosen}"
  end

  desc "Cross-compile the precompiled gem for aarch64"
  task :aarch64 do
    sh "rustup", "target", "add", AARCH64
    NativeGem.new("aarch64-linux", RUBIES_HERE).build { |ruby, binary| cross_compile(ruby, binary) }
  end

  namespace :aarch64 do
    desc "The same as native:check for aarch64, under QEMU"
    task check: "native:aarch64" do
      gem = NativeGem.new("aarch64-linux", RUBIES_HERE)
      RUBIES_HERE.each { |ruby| gem.check("bin/aarch64-ruby", ruby) }
    end
  end

  desc "Say which Rubies a precompiled gem is to have binaries for"
  task(:rubies) { puts NATIVE_RUBIES.join(",") }

  desc "Check that a precompiled gem file can be published"
  task :verify, [:file] do |_, args|
    platform = Gem::Package.new(args.fetch(:file)).spec.platform
    NativeGem.new(platform, NATIVE_RUBIES, args.fetch(:file)).verify
  end
end
