# frozen_string_literal: true

require "test_helper"
require "open3"
require "rbconfig"

# The same program in two processes, with Ruby's own `IO.copy_stream` and with this gem's in its place:
# what comes out has to be the same.
class TestCoreExt < Minitest::Test
  # In every case `dir` is an empty directory, `src` a file open for reading whose content is `text`, `dst` a
  # file open for writing, `r` and `w` a pipe. What the case returns is compared, or the exception's class, and
  # then how `src` and `dst` are.
  CASES = {
    whole_file: "IO.copy_stream(src, dst)",
    length: "IO.copy_stream(src, dst, 10)",
    length_zero: "IO.copy_stream(src, dst, 0)",
    length_nil: "IO.copy_stream(src, dst, nil)",
    length_beyond_the_end: "IO.copy_stream(src, dst, 1_000_000)",
    length_at_the_end: "src.seek(0, IO::SEEK_END); IO.copy_stream(src, dst, 5)",
    negative_length: "IO.copy_stream(src, dst, -1)",
    float_length: "IO.copy_stream(src, dst, 10.9)",
    length_with_to_int: "l = Object.new; def l.to_int = 4; IO.copy_stream(src, dst, l)",
    string_length: "IO.copy_stream(src, dst, '10')",
    symbol_length: "IO.copy_stream(src, dst, :a)",
    false_length: "IO.copy_stream(src, dst, false)",
    huge_length: "IO.copy_stream(src, dst, 2**70)",
    offset: "IO.copy_stream(src, dst, nil, 5)",
    offset_and_length: "IO.copy_stream(src, dst, 10, 5)",
    offset_at_the_end: "IO.copy_stream(src, dst, nil, text.bytesize)",
    offset_beyond_the_end: "IO.copy_stream(src, w, nil, 1_000_000)",
    offset_beyond_the_end_with_length: "IO.copy_stream(src, dst, 5, 1_000_000)",
    offset_zero: "src.read(3); IO.copy_stream(src, dst, 4, 0)",
    negative_offset: "IO.copy_stream(src, dst, 10, -1)",
    very_negative_offset: "IO.copy_stream(src, dst, 10, -10)",
    very_negative_length: "IO.copy_stream(src, dst, -10)",
    float_offset: "IO.copy_stream(src, dst, 10, 1.5)",
    string_offset: "IO.copy_stream(src, dst, 10, '1')",
    huge_offset: "IO.copy_stream(src, dst, 10, 2**70)",
    offset_of_a_pipe: "w << 'abc'; w.close; IO.copy_stream(r, dst, 1, 1)",
    offset_of_an_object: "IO.copy_stream(StringIO.new('abcdef'), dst, 3, 1)",
    no_arguments: "IO.copy_stream",
    one_argument: "IO.copy_stream(src)",
    five_arguments: "IO.copy_stream(src, dst, 1, 1, 1)",
    block_is_ignored: "called = 0; [IO.copy_stream(src, dst) { called += 1 }, called]",
    source_nil: "IO.copy_stream(nil, dst)",
    target_nil: "IO.copy_stream(src, nil)",
    source_integer: "IO.copy_stream(src.fileno, dst)",
    target_integer: "IO.copy_stream(src, dst.fileno)",
    source_without_methods: "IO.copy_stream(Object.new, dst)",
    target_without_methods: "IO.copy_stream(src, Object.new)",
    only_to_io_source: "o = Object.new; o.define_singleton_method(:to_io) { src }; IO.copy_stream(o, dst)",
    only_to_io_target: "o = Object.new; o.define_singleton_method(:to_io) { dst }; IO.copy_stream(src, o)",
    to_path_source: "o = Object.new; o.define_singleton_method(:to_path) { src.path }; IO.copy_stream(o, dst)",
    to_path_target: <<~RUBY,
      o = Object.new
      o.define_singleton_method(:to_path) { "\#{dir}/other" }
      [IO.copy_stream(src, o), File.read("\#{dir}/other")]
    RUBY
    source_not_for_reading: "IO.copy_stream(dst, w)",
    target_not_for_writing: "IO.copy_stream(src, r)",
    source_closed: "src.close; IO.copy_stream(src, dst)",
    target_closed: "dst.close; IO.copy_stream(src, dst)",
    paths: "[IO.copy_stream(src.path, \"\#{dir}/other\"), File.read(\"\#{dir}/other\")]",
    pathnames: "require 'pathname'; o = Pathname(dir) / 'o'; [IO.copy_stream(Pathname(src.path), o), o.read]",
    path_length_offset: "[IO.copy_stream(src.path, \"\#{dir}/other\", 7, 3), File.read(\"\#{dir}/other\")]",
    path_truncates: "File.write(\"\#{dir}/other\", 'x' * 20_000); [IO.copy_stream(src.path, \"\#{dir}/other\"), " \
                    "File.size(\"\#{dir}/other\")]",
    new_file_mode: "IO.copy_stream(src, \"\#{dir}/other\"); File.stat(\"\#{dir}/other\").mode",
    missing_source: "IO.copy_stream(\"\#{dir}/missing\", dst)",
    missing_source_makes_no_target: "IO.copy_stream(\"\#{dir}/no\", \"\#{dir}/t\") rescue Dir.children(dir)",
    missing_directory: "IO.copy_stream(src, \"\#{dir}/missing/file\")",
    directory_source: "IO.copy_stream(dir, dst)",
    directory_target: "IO.copy_stream(src, dir)",
    null_in_path: "IO.copy_stream(\"a\\0b\", dst)",
    full_disk: "begin; File.open('/dev/full', 'w') { |full| IO.copy_stream(src, full) }; ensure src.close; end",
    closed_reader: "r.close; IO.copy_stream(src, w)",
    read_ahead: "src.gets; IO.copy_stream(src, dst)",
    read_ahead_longer_than_length: "src.gets; IO.copy_stream(src, dst, 3)",
    read_ahead_exactly_length: "src.ungetbyte('abc'); IO.copy_stream(src, dst, 3)",
    read_ahead_shorter_than_length: "src.ungetbyte('abc'); IO.copy_stream(src, dst, 100)",
    read_ahead_with_offset: "src.gets; IO.copy_stream(src, dst, 10, 2)",
    read_ahead_of_a_pipe: "w << text; w.close; r.gets; [IO.copy_stream(r, dst, 8), r.read(5)]",
    read_ahead_then_object: "src.gets; s = StringIO.new; [IO.copy_stream(src, s, 9), s.string]",
    read_ahead_characters: "src.set_encoding('utf-8:utf-16le'); src.getc; src.ungetc('a'); IO.copy_stream(src, dst)",
    unwritten: "dst.sync = false; dst.write('before '); IO.copy_stream(src, dst)",
    unwritten_to_a_pipe: "w.sync = false; w.write('before '); IO.copy_stream(src, w, 4); w.close; r.read",
    to_a_pipe: "IO.copy_stream(src, w); w.close; r.read == text",
    from_a_pipe: "w << text; w.close; IO.copy_stream(r, dst)",
    pipe_length_leaves_the_rest: "w << text; [IO.copy_stream(r, dst, 6), r.readpartial(4)]",
    pipe_short_count: "w << 'abc'; w.close; IO.copy_stream(r, dst, 6)",
    target_encoding: "dst.set_encoding('utf-8:utf-16le'); IO.copy_stream(src, dst); " \
                     "[dst.external_encoding, dst.internal_encoding, dst.binmode?].map(&:to_s)",
    target_is_binary_afterwards: "IO.copy_stream(src, dst); [dst.external_encoding.to_s, dst.binmode?]",
    source_encoding: "IO.copy_stream(src, dst); [src.external_encoding.to_s, src.binmode?]",
    pipe_encodings: "q, v = IO.pipe; w.close; IO.copy_stream(r, v); " \
                    "[r, v].flat_map { |io| [io.external_encoding.to_s, io.binmode?] }.tap { [q, v].each(&:close) }",
    universal_newlines: "File.write(\"\#{dir}/crlf\", \"a\\r\\nb\\r\\n\"); File.open(\"\#{dir}/crlf\", 'rt') { |f| " \
                        "IO.copy_stream(f, dst) }",
    from_stringio: "IO.copy_stream(StringIO.new(text), dst)",
    from_stringio_with_length: "s = StringIO.new(text); [IO.copy_stream(s, dst, 9), s.pos]",
    to_stringio: "s = StringIO.new; [IO.copy_stream(src, s), s.string == text]",
    to_stringio_with_length_and_offset: "s = StringIO.new; [IO.copy_stream(src, s, 9, 4), s.string]",
    stringio_to_stringio: "s = StringIO.new; [IO.copy_stream(StringIO.new(text), s, 9), s.string]",
    stringio_negative_length: "IO.copy_stream(StringIO.new('abc'), dst, -1)",
    stringio_nonsense_length: "IO.copy_stream(StringIO.new('abc'), dst, 'a')",
    readpartial_only: <<~RUBY,
      o = Object.new
      calls = []
      o.define_singleton_method(:readpartial) { |*args| (calls << args.size).size > 2 ? raise(EOFError) : 'abc' }
      [IO.copy_stream(o, dst), calls]
    RUBY
    read_only: <<~RUBY,
      o = Object.new
      calls = []
      o.define_singleton_method(:read) { |*args| (calls << args.size).size > 2 ? nil : 'abc' }
      [IO.copy_stream(o, dst), calls]
    RUBY
    write_only: <<~RUBY,
      o = Object.new
      got = +""
      o.define_singleton_method(:write) { |bytes| got << bytes; bytes.bytesize }
      [IO.copy_stream(src, o, 20), got]
    RUBY
    short_writes_of_an_object: <<~RUBY,
      o = Object.new
      got = +""
      o.define_singleton_method(:write) { |bytes| got << bytes[0]; 1 }
      [IO.copy_stream(src, o, 20), got]
    RUBY
    object_raises: "o = Object.new; def o.write(_) = raise(ArgumentError); IO.copy_stream(src, o)",
    append_mode: "File.open(\"\#{dir}/a\", 'a') { |a| a << 'x'; IO.copy_stream(src, a) }; File.size(\"\#{dir}/a\")",
    tempfiles: "require 'tempfile'; t = Tempfile.new; [IO.copy_stream(src, t, 30), t.pos, t.size].tap { t.close! }",
    file_utils: "require 'fileutils'; FileUtils.cp(src.path, \"\#{dir}/o\"); File.read(\"\#{dir}/o\") == text",
    file_utils_copy_stream: "require 'fileutils'; FileUtils.copy_stream(src, dst)",
    megabytes_through_pipes: <<~RUBY,
      big = text * 300
      feeder = Thread.new { w.write(big); w.close }
      count = IO.copy_stream(r, dst)
      feeder.join
      count == big.bytesize && File.read(dst.path) == big
    RUBY
    megabytes_to_a_socket: <<~RUBY,
      require "socket"
      a, b = UNIXSocket.pair
      File.write("\#{dir}/big", text * 300)
      reader = Thread.new { b.read }
      count = IO.copy_stream("\#{dir}/big", a)
      a.close
      [count, reader.value == text * 300].tap { b.close }
    RUBY
    sockets_without_blocking: <<~RUBY,
      require "socket"
      a, b = UNIXSocket.pair
      c, d = UNIXSocket.pair
      reader = Thread.new { d.read }
      copy = Thread.new { IO.copy_stream(b, c).tap { c.close } }
      (text * 300).each_char.each_slice(100_000) { |slice| a.write(slice.join) }
      a.close
      [copy.value, reader.value == text * 300].tap { [b, d].each(&:close) }
    RUBY
    argf: "ARGV.replace([src.path]); IO.copy_stream(ARGF, dst)",
    argf_by_length: "ARGV.replace([src.path]); IO.copy_stream(ARGF, dst, 10)",
    same_file_overwritten: "File.open(src.path, 'r+') { |same| IO.copy_stream(src, same, 10) }",
    subclass: "File.copy_stream(src, dst, 3)",
    arity: "IO.method(:copy_stream).owner.is_a?(Module)",
  }.freeze

  PROGRAM = <<~'RUBY'
    require "stringio"
    require "tmpdir"

    def outcome(code)
      Dir.mktmpdir do |base|
        dir = "#{base}/empty"
        Dir.mkdir(dir)
        text = "line\n" + (0...5000).map { |number| "#{number} " }.join
        File.write("#{base}/src", text)
        File.open("#{base}/src") do |src|
          File.open("#{base}/dst", "w") do |dst|
            r, w = IO.pipe
            result = begin
              eval(code, binding)
            rescue Exception => e
              e.class.name
            end
            [r, w].each { |io| io.close unless io.closed? }
            [result, src.closed? || src.pos, dst.closed? || dst.pos, File.binread("#{base}/dst") == text,
             File.binread("#{base}/dst")[0, 200], File.size("#{base}/dst")]
          end
        end
      end
    end

    cases = Marshal.load($stdin.binmode.read)
    $stdout.binmode.write(Marshal.dump(cases.transform_values { |code| outcome(code) }))
  RUBY

  def self.outcomes
    @outcomes ||= [[], ["-I", LIB, "-rio/splice/core_ext"]].map do |options|
      input = { stdin_data: Marshal.dump(CASES), binmode: true }
      out, status = Open3.capture2(RbConfig.ruby, "-W0", *options, "-e", PROGRAM, **input)
      raise "the program failed" unless status.success?

      Marshal.load(out) # rubocop:disable Security/MarshalLoad
    end
  end

  CASES.each_key do |name|
    define_method "test_#{name}_is_as_with_ruby_itself" do
      rubys, gems = guarded { self.class.outcomes }.map { |outcomes| outcomes.fetch(name) }
      assert_equal rubys, gems
    end
  end

  # What is different, and meant to be

  def test_a_file_of_proc_is_copied
    assert_equal File.read("/proc/version"), with_core_ext(<<~RUBY)
      require "tmpdir"
      Dir.mktmpdir do |dir|
        IO.copy_stream("/proc/version", "\#{dir}/version")
        print File.read("\#{dir}/version")
      end
    RUBY
  end

  def test_it_goes_through_this_gem
    assert_equal "IO::Splice::CoreExt", with_core_ext("print IO.method(:copy_stream).owner")
  end

  def test_nothing_is_changed_without_asking
    out, = guarded do
      Open3.capture2(RbConfig.ruby, "-I#{LIB}", "-rio/splice", "-e", "print IO.method(:copy_stream).owner")
    end
    assert_equal "#<Class:IO>", out
  end

  def test_the_gems_own_copy_stream_keeps_its_end_of_file
    assert_equal "EOFError", with_core_ext(<<~RUBY)
      begin
        IO::Splice.copy_stream("/dev/null", "/dev/null", 1)
      rescue EOFError => e
        print e.class
      end
    RUBY
  end

  def test_an_http_response_is_received
    assert_equal "true", with_core_ext(<<~RUBY)
      require "net/http"
      require "socket"
      require "stringio"
      server = TCPServer.new("127.0.0.1", 0)
      body = "0123456789" * 100_000
      answer = Thread.new do
        client = server.accept
        nil until client.gets == "\\r\\n"
        client.write("HTTP/1.1 200 OK\\r\\nContent-Length: \#{body.bytesize}\\r\\nConnection: close\\r\\n\\r\\n")
        IO.copy_stream(StringIO.new(body), client)
        client.close
      end
      got = +""
      Net::HTTP.start("127.0.0.1", server.addr[1]) do |http|
        http.request_get("/") { |response| response.read_body { |part| got << part } }
      end
      answer.join
      print got == body
    RUBY
  end

  private

  def with_core_ext(program)
    out, status = guarded do
      Open3.capture2(RbConfig.ruby, "-W0", "-I", LIB, "-rio/splice/core_ext",
                     "-e", program)
    end
    assert_predicate status, :success?
    out
  end
end
