# frozen_string_literal: true

require "rake/testtask"

namespace :test do
  desc "Test the core: what knows Linux and no Ruby"
  task :core do
    sh "cargo", "test", "--quiet", "--package", "io_splice_core"
  end

  Rake::TestTask.new(ruby: :compile) do |test|
    test.description = "Test the gem as its users see it"
    test.libs = %w[lib test]
    test.warning = true
    # Warnings are errors, before the first file is parsed, and a test that hangs is named.
    test.ruby_opts = ["-rsupport/strict", "-rsupport/watched"]
    test.test_files = FileList["test/**/*_test.rb"]
  end
end

desc "Test both floors"
task test: %w[test:core test:ruby]
