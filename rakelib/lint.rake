# frozen_string_literal: true

namespace :lint do
  desc "Check the form of the Rust code"
  task(:rustfmt) { sh "cargo", "fmt", "--all", "--check" }

  desc "Check the Rust code; a warning is an error"
  task(:clippy) { sh(*%w[cargo clippy --quiet --workspace --all-targets -- --deny warnings]) }

  desc "Compile with the oldest Rust that is promised, which rustup fetches"
  task :oldest_rust do
    oldest = File.read("Cargo.toml")[/^rust-version = "(.+)"$/, 1]
    sh({ "CARGO_TARGET_DIR" => "target/oldest" },
       "rustup", "run", "--install", oldest, *%w[cargo check --quiet --workspace --all-targets])
  end

  desc "Check the Ruby code"
  task(:rubocop) { sh "rubocop", "--format", "simple" }
end

desc "Run all lints"
task lint: %w[lint:rustfmt lint:clippy lint:rubocop]
