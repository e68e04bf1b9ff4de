# frozen_string_literal: true

require "test_helper"
require "digest"
require "open3"
require "rbconfig"
require "shellwords"

# One-liners in pipelines of a shell, whose pipes and files are in blocking mode.
class TestShell < Minitest::Test
  SIZE = 3_000_001
  PASS_ON = "loop { IO.splice($stdin, nil, $stdout, nil, 1 << 20) }"

  def test_between_two_pipes
    assert_passes_on "cat input | RUBY | cat > output"
  end

  def test_from_a_file_to_a_pipe
    assert_passes_on "RUBY < input | cat > output"
  end

  def test_from_a_pipe_to_a_file
    assert_passes_on "cat input | RUBY > output"
  end

  def test_several_in_a_row
    assert_passes_on "cat input | RUBY | RUBY | RUBY | cat > output"
  end

  def test_by_numbers
    assert_passes_on "cat input | RUBY | cat > output", "loop { IO.splice(0, nil, 1, nil, 70_000) }"
  end

  def test_waitall_passes_on_all_at_once
    assert_passes_on "cat input | RUBY | cat > output",
                     "IO.splice($stdin, nil, $stdout, nil, #{SIZE}, IO::Splice::WAITALL) == #{SIZE} or abort"
  end

  def test_tee_and_splice_make_two_copies
    script = <<~RUBY
      copy = IO.for_fd(3)
      loop do
        count = IO.tee($stdin, $stdout, 65_536)
        IO.splice($stdin, nil, copy, nil, count, IO::Splice::WAITALL)
      end
    RUBY
    assert_passes_on "cat input | RUBY 3> copy | cat > output", script, %w[output copy]
  end

  def test_vmsplice_to_a_pipe
    assert_passes_on "RUBY | cat > output", 'IO.vmsplice($stdout, File.binread("input"))'
  end

  def test_what_ruby_has_to_write_comes_before_what_is_spliced
    output, = run_in_a_directory("printf world | RUBY | cat > output",
                                 '$stdout.print("hello "); IO.splice($stdin, nil, $stdout, nil, 100)')
    assert_equal "hello world", output["output"]
  end

  def test_a_reader_that_leaves_early_is_an_error_and_not_a_hang
    _, errors = run_in_a_directory("cat input | RUBY | head -c 1 > output", PASS_ON)
    assert_match(/Broken pipe/, errors)
  end

  def test_an_output_in_append_mode_is_refused_and_nothing_is_lost
    script = "IO.splice($stdin, nil, $stdout, nil, 100) rescue warn($!.inspect); print $stdin.read"
    files, errors = run_in_a_directory("printf first > output; printf second | RUBY >> output", script)
    assert_match(/\A#<Errno::EINVAL: .*append/, errors)
    assert_equal "firstsecond", files["output"]
  end

  def test_two_files_are_refused
    _, errors = run_in_a_directory("RUBY < input > output", PASS_ON)
    assert_match(/neither end is a pipe/, errors)
  end

  private

  def assert_passes_on(pipeline, script = PASS_ON, into = %w[output])
    files, errors = run_in_a_directory(pipeline, "begin; #{script}; rescue EOFError; end")
    assert_empty errors
    into.each { |name| assert_equal Digest::SHA256.hexdigest(pattern(SIZE)), Digest::SHA256.hexdigest(files[name]) }
  end

  # What is in the files afterwards, and what the commands had to say.
  def run_in_a_directory(pipeline, script)
    ruby = Shellwords.join([RbConfig.ruby, "-I", LIB, "-rio/splice", "-e", script])
    Dir.mktmpdir do |dir|
      File.binwrite(File.join(dir, "input"), pattern(SIZE))
      _, errors, = guarded { Open3.capture3("sh", "-c", pipeline.gsub("RUBY") { ruby }, chdir: dir) }
      [Dir.children(dir).to_h { |name| [name, File.binread(File.join(dir, name))] }, errors]
    end
  end
end
