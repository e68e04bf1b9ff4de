# frozen_string_literal: true

require "rubygems/package_task"
require "tmpdir"

GEM_FILE = "pkg/#{GEMSPEC.full_name}.gem".freeze

file GEM_FILE => GEMSPEC.files do
  mkdir_p "pkg", verbose: false
  sh "gem", "build", "--quiet", "--strict", "--output", GEM_FILE, "io_splice.gemspec"
end

desc "Build the gem file"
task build: GEM_FILE

# Where Cargo builds for installs from the gem file, so that a second time is quick.
BUILD_CACHE = File.expand_path("../tmp/gem-target", __dir__)

def install_gem(home, *options, env: {})
  rm_rf home, verbose: false
  sh({ "GEM_HOME" => home, "CARGO_TARGET_DIR" => BUILD_CACHE, "RB_SYS_CARGO_TARGET_DIR" => BUILD_CACHE, **env },
     "gem", "install", "--quiet", "--local", *options, GEM_FILE)
end

# What ri knows of the gem: the calls, and nothing but those.
def check_ri(home)
  pages = ["--no-standard-docs", "--no-pager", "--doc-dir", File.join(home, "doc", GEMSPEC.full_name, "ri")]
  known = IO.popen(["ri", *pages, "--list"], &:readlines).map(&:chomp)
  # RubyGems leaves an empty page of what `:nodoc:` hides.
  described = ->(name) { IO.popen(["ri", *pages, name], &:read).match?(/methods/i) }
  strange = known.grep_v(/\AIO\b/) + known.grep(/Copying/).select(&described)
  strange.empty? or abort "ri has #{strange.join(", ")}"
  %w[IO.splice IO::Splice.copy_stream IO::Splice.tee_stream IO::Splice::Background#relay].each do |name|
    sh "ri", *pages, name, out: File::NULL, verbose: false
  end
end

namespace :install do
  desc "Install the gem from its file into DIR, unless this very file is there already"
  task :into, [:dir] => :build do |_, args|
    home = File.expand_path(args.fetch(:dir))
    installed = File.join(home, "cache", File.basename(GEM_FILE))
    install_gem(home, "--no-document") unless File.exist?(installed) && FileUtils.identical?(installed, GEM_FILE)
  end

  desc "Build the gem, install it into an empty gem home with a space in its path and no locale, and load it there"
  task check: :build do
    Dir.mktmpdir do |dir|
      home = File.join(dir, "a home")
      install_gem(home, "--document", "ri", env: { "LC_ALL" => "C" })
      check_ri(home)
      sh({ "GEM_HOME" => home, "RUBYLIB" => nil }, RbConfig.ruby, "-e", <<~RUBY, chdir: "/", verbose: false)
        gem "io_splice"
        require "io_splice"
        home = File.realpath(ENV["GEM_HOME"])
        $LOADED_FEATURES.grep(/io_splice/).all? { |path| path.start_with?(home) } or
          abort "it was loaded from elsewhere: \#{$LOADED_FEATURES.grep(/io_splice/)}"
        r, w = IO.pipe
        r2, w2 = IO.pipe
        IO.vmsplice(w, "the installed gem works\n")
        IO.splice(r, nil, w2, nil, 24)
        print r2.readpartial(24)
      RUBY
    end
  end
end
