# frozen_string_literal: true

require "test_helper"
require "tmpdir"

# A Ruby that has no `rb_thread_io_blocking_region` any more: here the gem looks for one by another name.
class TestLaterRuby < Minitest::Test
  NAME = "rb_thread_io_blocking_region"

  def test_it_loads_and_tells_what_it_cannot_do
    assert_includes in_a_later_ruby("p IO::Splice::VERSION"), "_io_blocking_region: closing an IO neither ends a call"
  end

  def test_all_but_the_end_by_a_close_works
    said = in_a_later_ruby(<<~'RUBY')
      Thread.new { sleep } # so that the calls are made without the GVL
      r, w = IO.pipe
      out, into = IO.pipe
      moving = Thread.new { IO::Splice.copy_stream(r, into) }
      w.write("copied")
      w.close
      p moving.value, out.readpartial(100)
      waiting = Thread.new { IO.splice(out, nil, File.open(File::NULL, "w"), nil, 1) }
      Thread.pass until waiting.stop?
      waiting.kill.join
      p IO.vmsplice(into, "x"), IO.splice(out, nil, IO.pipe[1], nil, 10)
    RUBY
    assert_equal [6, "copied", 1, 1].map(&:inspect), said.lines.grep_v(/warning/).map(&:chomp)
  end

  private

  def in_a_later_ruby(code)
    Dir.mktmpdir do |dir|
      Dir.mkdir(File.join(dir, "io_splice"))
      library = $LOADED_FEATURES.grep(%r{io_splice/io_splice\.so\z}).first
      File.binwrite(File.join(dir, "io_splice", "io_splice.so"),
                    File.binread(library).gsub(NAME, NAME.sub("thread", "strand")))
      in_ruby(code, "-I", dir)
    end
  end
end
