# frozen_string_literal: true

Gem::Specification.new do |spec|
  spec.name = "io_splice"
  # The version stands in Cargo.toml alone.
  spec.version = File.read(File.join(__dir__, "Cargo.toml"))[/^version = "(.+)"$/, 1]
  spec.authors = ["The io_splice authors"]
  spec.summary = "Zero-copy I/O for Ruby: splice, tee and vmsplice on Linux"
  spec.description = "Moves bytes between files, pipes and sockets inside the Linux kernel, " \
                     "without passing them through Ruby strings: splice(2), tee(2), vmsplice(2). " \
                     "For Linux 5.10 or later, and Ruby 3.1 or later."
  spec.homepage = "https://github.com/io-splice/io_splice"
  spec.license = "MIT"
  spec.required_ruby_version = ">= 3.1"
  spec.metadata = {
    "source_code_uri" => spec.homepage,
    "changelog_uri" => "#{spec.homepage}/blob/main/CHANGELOG.md",
    "bug_tracker_uri" => "#{spec.homepage}/issues",
    "documentation_uri" => "#{spec.homepage}/tree/main/docs/guides",
    "rubygems_mfa_required" => "true",
  }
  spec.files = Dir.chdir(__dir__) do
    Dir["lib/**/*.rb", "sig/**/*.rbs", "ext/*/*.{rb,rs,toml}", "ext/*/src/**/*.rs", "examples/*.{rb,ru}",
        "docs/**/*.{md,svg}", "bench/charts/copies.svg", "Cargo.{toml,lock}",
        "{README,CHANGELOG,CONTRIBUTING,CODE_OF_CONDUCT,SECURITY}.md", "LICENSE", ".yardopts"]
  end
  spec.extensions = ["ext/io_splice/extconf.rb"]
  spec.extra_rdoc_files = %w[README.md CHANGELOG.md]
  # For ri: the public calls, and neither the Rust nor what is private.
  hidden = %w[copying relay_tls background/under_way rack/file_part rack/hijack].join("|")
  spec.rdoc_options = ["--markup", "markdown", "--main", "README.md", "--title", "io_splice",
                       "--exclude", "\\Aext/", "--exclude", "\\.so\\z", "--exclude", "io/splice/(#{hidden})\\.rb"]
  # For people: RubyGems cannot check it. What only a build needs comes last.
  spec.requirements = ["Linux 5.10 or later", "glibc 2.34 or later, or musl, for a precompiled gem",
                       "Rust 1.85 or later, libclang and the network, to build it"]
  spec.add_dependency "rb_sys", "~> 0.9.87"
end
