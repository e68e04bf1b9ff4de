# frozen_string_literal: true

# The tests of the core for what this machine is not: the C library of Alpine, and another processor, which QEMU's user
# mode stands in for.
MUSL = "x86_64-unknown-linux-musl"

# What that lacks, and the tests that need it.
QEMU_LACKS = {
  "TCGETS2, by which rustix asks for the settings of a terminal" => %w[
    background::terminals_are_copied_too
    blocking::the_peer_holds_up_a_blocking_terminal_only
    blocking_ends::a_full_output_is_not_waited_for
    blocking_ends::an_empty_input_is_not_waited_for
    blocking_ends::bytes_that_are_there_move
    splice::a_terminal_to_a_pipe_and_back_where_the_kernel_can
  ],
  "execve(2) of a program for aarch64, unless binfmt_misc knows it" => %w[
    background::a_disk_that_is_stuck_holds_up_nothing_but_its_own
    background::an_engine_stops_although_a_disk_is_stuck_and_its_threads_end_when_that_goes_on
  ],
}.freeze

def test_core_for(target, env = {}, *options)
  sh "rustup", "target", "add", target
  sh(env, "cargo", "test", "--quiet", "--package", "io_splice_core", "--target", target, *options, verbose: false)
end

namespace :test do
  desc "Test the core with the C library musl, as on Alpine"
  task(:musl) { test_core_for(MUSL) }

  desc "Test the core for aarch64, under QEMU"
  task :aarch64 do
    env = { "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER" => "aarch64-linux-gnu-gcc",
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER" => "qemu-aarch64-static -L /usr/aarch64-linux-gnu" }
    QEMU_LACKS.each { |what, tests| puts "QEMU lacks #{what}; left out: #{tests.join(", ")}" }
    skipped = QEMU_LACKS.values.flatten.flat_map { |name| ["--skip", name] }
    test_core_for(AARCH64, env, "--no-fail-fast", "--", *skipped)
  end

  namespace :aarch64 do
    desc "Run Ruby tests for aarch64, under QEMU: `rake 'test:aarch64:ruby[test/tee_test.rb]'`"
    task :ruby do |_, args|
      stage = "tmp/aarch64"
      sh "rustup", "target", "add", AARCH64
      rm_rf stage, verbose: false
      mkdir_p stage, verbose: false
      cp_r %w[bin docs examples lib sig test Cargo.toml], stage, verbose: false
      cross_compile(OWN_RUBY, "#{stage}/lib/io_splice/io_splice.so")
      files = args.extras.map { |file| "./#{file}" }
      sh({ "SLOWNESS" => "10" }, "bin/aarch64-ruby", OWN_RUBY, *%w[-w -Ilib -Itest -rtest_helper -e],
         "ARGV.each { |file| require file }; ARGV.clear", *files, chdir: stage, verbose: false)
    end
  end
end
