# frozen_string_literal: true

require "test_helper"
require "rbconfig"

# callcc out of Ruby code that a call runs, and back into it after the call has ended. In a process of its own, as that
# warns, and once was a crash.
class TestContinuation < Minitest::Test
  LIB = File.expand_path("../lib", __dir__)

  PRELUDE = <<~RUBY
    require "continuation"
    require "io/splice"
    r, w = IO.pipe
    out, into = IO.pipe
    file = File.open(IO::NULL, "w")
    w.write "bytes" * 1000
    leave = ->(io, name) { Object.new.tap { |o| o.define_singleton_method(name) { |*| callcc { |k| $back ||= k }; io } } }
    def again
      times = 0
      result = begin yield rescue RuntimeError end
      GC.start
      return puts(result.inspect) if $times == 3

      $times = $times.to_i + 1
      $back.call
    end
  RUBY

  {
    "splice" => "IO.splice(leave.(r, :to_io), nil, into, nil, 5)",
    "tee" => "IO.tee(leave.(r, :to_io), into, 5)",
    "vmsplice" => 'IO.vmsplice(leave.(into, :to_io), ["text" * 1000, "y" * 9, IO::Splice::Pages.new("page")], 2)',
    "vmsplice of what becomes a string" => 'IO.vmsplice(into, ["text" * 1000, leave.("text", :to_str)], 2)',
    "full" => "IO::Splice.full(leave.(r, :to_io), into, 5)",
    "copy_stream, in its block" => "IO::Splice.copy_stream(r, file, 5) { callcc { |k| $back ||= k } }",
    "copy_stream, in the read of an object" => "IO::Splice.copy_stream(leave.('text', :read), file, 4)",
    "copy_stream, in the write of an object" => "IO::Splice.copy_stream(r, leave.(5, :write), 5)",
    "copy_stream from object to object" => "IO::Splice.copy_stream(leave.('text', :read), leave.(4, :write), 4)",
    "copy_stream of an object to a path" => "IO::Splice.copy_stream(leave.('text', :read), IO::NULL, 4)",
    "copy_stream of a path to an object" => "IO::Splice.copy_stream('/proc/self/exe', leave.(4, :write), 4)",
    "copy_stream, where an object takes back what it gave" =>
      "out.close; src = leave.(nil, :ungetbyte); def src.read(*) = 'text'; IO::Splice.copy_stream(src, into, 4)",
    "copy_stream, beside another thread" =>
      "Thread.new { sleep }; IO::Splice.copy_stream(leave.('text', :read), into, 4)",
    "tee_stream, in its block" => "IO::Splice.tee_stream(r, file, file, len: 5) { callcc { |k| $back ||= k } }",
    "Pages" => "IO::Splice::Pages.new(leave.('text', :to_str)).to_s",
  }.each do |name, call|
    define_method(:"test_#{name}") do
      script = "#{PRELUDE}again { #{call} }\nputs :alive"
      said = IO.popen([RbConfig.ruby, "-W0", "-I", LIB, "-e", script], err: %i[child out], &:read)
      assert_match(/^alive$/, said.lines.last.to_s, said)
    end
  end
end
