# frozen_string_literal: true

require "open3"
require "shellwords"

namespace :test do
  desc "Test the core: what knows Linux and no Ruby"
  task :core do
    # All at once, since the Ruby tests run beside it.
    output, status = Open3.capture2e(*%w[cargo test --quiet --package io_splice_core])
    puts output
    status.success? or raise "the tests of the core have failed"
  end

  desc "Test the gem as its users see it: `rake test:ruby TEST=test/tee_test.rb N=/empty/ SEED=1`"
  task(ruby: :compile) do
    options = Shellwords.split(ENV.fetch("TESTOPTS", ""))
    options += ["--name", ENV["N"]] if ENV["N"]
    ruby "test/side_by_side.rb", *FileList[ENV.fetch("TEST", "test/**/*_test.rb")], *options
  end
end

desc "Test both floors, side by side"
task :test do
  core = Thread.new { Rake::Task["test:core"].invoke }
  core.report_on_exception = false
  Rake::Task["test:ruby"].invoke
ensure
  core.join
end
