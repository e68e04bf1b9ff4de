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
    small: "File.write(\"\#{dir}/s\", 'x' * 99); File.open(\"\#{dir}/s\") { |s| [IO.copy_stream(s, dst), s.pos] }",
    small_to_a_pipe: "File.write(\"\#{dir}/s\", 'x' * 99); [IO.copy_stream(\"\#{dir}/s\", w), r.readpartial(200)]",
    small_to_null: "null = File.open(File::NULL, 'w'); src.seek(-9, IO::SEEK_END); IO.copy_stream(src, null)",
    small_from_the_middle: <<~RUBY,
      File.write("\#{dir}/s", (1..99).to_a.join)
      File.open("\#{dir}/s") { |s| s.pos = 40; [IO.copy_stream(s, dst), s.pos] }
    RUBY
    small_and_an_offset: <<~RUBY,
      File.write("\#{dir}/s", (1..99).to_a.join)
      File.open("\#{dir}/s") { |s| [IO.copy_stream(s, dst, nil, 30), IO.copy_stream(s, dst, 5, 30), s.pos] }
    RUBY
    small_with_more_put_back_than_it_has: <<~RUBY,
      File.write("\#{dir}/s", "small")
      File.open("\#{dir}/s") { |s| s.ungetbyte("y" * 500); [IO.copy_stream(s, dst), s.pos] }
    RUBY
    small_appended: "src.seek(-9, IO::SEEK_END); File.open(dst.path, 'a') { |a| a << 'x'; IO.copy_stream(src, a) }",
    many_small_pieces_into_a_pipe: <<~RUBY,
      q, v = IO.pipe
      40.times { w << "x" && IO.copy_stream(r, v, 1) }
      q.readpartial(99)
    RUBY
    small_pieces_as_they_come: <<~RUBY,
      q, v = IO.pipe
      IO.popen("for i in $(seq 40); do echo $i; sleep 0.003; done") { |io| IO.copy_stream(io, v) }
      q.readpartial(999)
    RUBY
    small_messages_of_a_socket_into_a_pipe: <<~RUBY,
      require "socket"
      a, b = UNIXSocket.pair
      40.times { b << "x" }
      b.close
      [IO.copy_stream(a, w), r.readpartial(99)]
    RUBY
    ended_pipe_to_a_full_one: <<~RUBY,
      loop { w.write_nonblock("x" * 4096) } rescue IO::WaitWritable
      a, b = IO.pipe
      b.close
      IO.copy_stream(a, w)
    RUBY
    ended_sockets_to_full_ones: <<~RUBY,
      require "socket"
      [UNIXSocket.pair, UNIXSocket.pair].then do |(a, b), (c, d)|
        loop { c.write_nonblock("x" * 4096) } rescue IO::WaitWritable
        b.close
        IO.copy_stream(a, c)
      end
    RUBY
    file_at_its_end_to_a_full_blocking_socket: <<~RUBY,
      require "socket"
      require "io/nonblock"
      c, d = UNIXSocket.pair
      loop { c.write_nonblock("x" * 4096) } rescue IO::WaitWritable
      c.nonblock = false
      src.seek(0, IO::SEEK_END)
      [IO.copy_stream(src, c), File.open(File::NULL) { |null| IO.copy_stream(null, c) }]
    RUBY
    ended_pipe_to_a_broken_one: "r.close; a, b = IO.pipe; b.close; IO.copy_stream(a, w)",
    ended_socket_to_a_broken_pipe: "require 'socket'; r.close; a, b = UNIXSocket.pair; b.close; IO.copy_stream(a, w)",
    child_whose_parent_leaves: <<~'RUBY',
      copying = "$stderr.reopen($stdout) && IO.copy_stream(STDIN, STDOUT)"
      IO.popen([RbConfig.ruby, *$options, "-rrbconfig", "-e", copying], "r+") { |io| io.write("bar") && io.read(3) }
      $?.exitstatus
    RUBY
    offset_of_a_socket: <<~RUBY,
      require "socket"
      require "io/nonblock"
      [true, false].map do |nonblock|
        a, b = UNIXSocket.pair
        a.nonblock = nonblock
        b << "0123456789"
        [(IO.copy_stream(a, dst, 4, 2) rescue $!.class.name), a.readpartial(99)]
      end
    RUBY
    offset_of_an_empty_blocking_pipe: "require 'io/nonblock'; r.nonblock = false; IO.copy_stream(r, dst, 4, 0)",
    messages_made_of_a_stream: <<~RUBY,
      require "socket"
      a, b = UNIXSocket.pair(:DGRAM)
      Thread.new { w << "x" * 50_000 && w.close }
      count = IO.copy_stream(r, a, 50_000)
      a.close
      [count, [b.recv(99_999).size, b.recv(99_999).size].sum >= 16_384]
    RUBY
    what_can_only_be_waited_for: <<~RUBY,
      process = IO.for_fd(syscall(434, Process.pid, 0))
      [[process, dst], [File.open(src.path), process]].map { |ends| IO.copy_stream(*ends) rescue $!.class.name }
    RUBY
    timeout: <<~RUBY,
      r.timeout = 0.05 if r.respond_to?(:timeout=)
      Thread.new { sleep(0.2) && w << "late" && w.close }
      IO.copy_stream(r, dst)
    RUBY
    path_onto_itself: "File.write(\"\#{dir}/s\", 'x'); [IO.copy_stream(\"\#{dir}/s\", \"\#{dir}/s\"), " \
                      "File.size(\"\#{dir}/s\")]",
    directory_source_and_a_target_that_is_there: "File.write(\"\#{dir}/o\", 'x'); " \
                                                 "(IO.copy_stream(dir, \"\#{dir}/o\") rescue File.size(\"\#{dir}/o\"))",
    same_file_overwritten: "File.open(src.path, 'r+') { |same| IO.copy_stream(src, same, 10) }",
    subclass: "File.copy_stream(src, dst, 3)",
    method_itself: "m = IO.method(:copy_stream); [m.owner, m.arity, m.name].map(&:to_s)",
    asks_in_order: <<~RUBY,
      o = ->(name, io, path) {
        object = Object.new
        object.define_singleton_method(:respond_to?) { |m, *a| asked << [name, :respond_to?, m]; super(m, *a) }
        object.define_singleton_method(:to_io) { asked << [name, :to_io]; io }
        object.define_singleton_method(:to_path) { asked << [name, :to_path]; path }
        object
      }
      asked = []
      [[src, 1], [nil, src.path]].product([[dst, 1], [nil, "\#{dir}/o"]]).map do |(from, to)|
        asked = []
        [IO.copy_stream(o.call(:src, *from), o.call(:dst, *to)), asked.reject { |line| line[1] == :respond_to? }]
      end
    RUBY
    asks_only_the_source_when_that_is_missing: <<~RUBY,
      asked = []
      t = Object.new
      t.define_singleton_method(:to_path) { asked << :to_path; "\#{dir}/o" }
      [(IO.copy_stream("\#{dir}/missing", t) rescue $!.message.sub(dir, "")), asked, Dir.children(dir)]
    RUBY
    to_path_that_raises: "o = Object.new; def o.to_path = raise(NoMethodError, 'none'); IO.copy_stream(o, dst)",
    to_path_of_nothing: "o = Object.new; def o.to_path = nil; IO.copy_stream(o, dst)",
    to_path_of_nothing_with_read: "o = StringIO.new('a'); def o.to_path = nil; IO.copy_stream(o, dst)",
    to_io_that_is_no_io: "o = Object.new; def o.to_path = 'a'; def o.to_io = 1; IO.copy_stream(o, dst)",
    to_io_before_to_path: "o = Object.new; s = src; o.define_singleton_method(:to_io) { s }; " \
                          "def o.to_path = raise('never'); IO.copy_stream(o, dst)",
    private_to_path: "o = Object.new; def o.to_path = 'a'; o.singleton_class.send(:private, :to_path); " \
                     "IO.copy_stream(o, dst)",
    basic_object: "o = BasicObject.new; IO.copy_stream(o, dst)",
    frozen_source: "f = File.open(src.path).freeze; IO.copy_stream(f, dst)",
    frozen_target: "f = File.open(dst.path, 'w').freeze; IO.copy_stream(src, f)",
    uninitialized_source: "IO.copy_stream(IO.allocate, dst)",
    uninitialized_target: "IO.copy_stream(src, IO.allocate)",
    target_stays_as_it_is_when_the_source_is_missing: <<~RUBY,
      dst.set_encoding("UTF-16LE")
      (IO.copy_stream("\#{dir}/missing", dst) rescue nil)
      [dst.external_encoding.to_s, dst.binmode?]
    RUBY
    both_halves_of_a_process: <<~RUBY,
      IO.popen("cat >/dev/null", "r+") do |io|
        io.set_encoding("UTF-16LE")
        [IO.copy_stream(src, io), io.external_encoding.to_s, io.binmode?]
      end
    RUBY
    # Not which system call it was, nor the line of code that Ruby shows.
    messages: <<~RUBY,
      ["\#{dir}/missing", dir, "a\0b", 1, nil, Object.new.tap { |o| def o.to_path = 5 }].map do |source|
        IO.copy_stream(source, dst)
      rescue StandardError => e
        [e.class, e.message.lines.first.gsub(dir, "").sub(/ - [a-z_]+$/, "").chomp].map(&:to_s)
      end
    RUBY
    messages_about_the_target: <<~RUBY,
      ["\#{dir}/missing/file", dir, "a\0b", r, src].map do |target|
        IO.copy_stream(src, target)
      rescue StandardError => e
        [e.class, e.message.gsub(dir, "")].map(&:to_s)
      end
    RUBY
    backtraces: <<~RUBY,
      [["\#{dir}/missing", dst], [src, r], [src, 1], [dst, dst], [src, "\#{dir}/missing/a"]].map do |arguments|
        IO.copy_stream(*arguments)
      rescue StandardError => e
        e.backtrace.map { |line| line[/[^:]*:[0-9]+/] }.uniq
      end
    RUBY
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

    $options = ARGV
    cases = Marshal.load($stdin.binmode.read)
    $stdout.binmode.write(Marshal.dump(cases.transform_values { |code| outcome(code) }))
  RUBY

  def self.outcomes
    @outcomes ||= [[], ["-I", LIB, "-rio/splice/core_ext"]].map do |options|
      input = { stdin_data: Marshal.dump(CASES), binmode: true }
      out, status = Open3.capture2(RbConfig.ruby, "-W0", *options, "-e", PROGRAM, "--", *options, **input)
      raise "the program failed" unless status.success?

      Marshal.load(out) # rubocop:disable Security/MarshalLoad
    end
  end

  CASES.each_key do |name|
    define_method "test_#{name}_is_as_with_ruby_itself" do
      rubys, gems = guarded(200) { self.class.outcomes }.map { |outcomes| outcomes.fetch(name) }
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
    method = "IO::Splice::CoreExt.instance_method(:copy_stream)"
    assert_equal "true", with_core_ext("print IO.method(:copy_stream).unbind.inspect == IO.singleton_class." \
                                       "instance_method(:copy_stream).inspect && !!#{method}")
  end

  # What others do to the method

  BESIDE = {
    alias_chain: <<~RUBY,
      class << IO
        alias_method :copy_stream_without_log, :copy_stream
        def copy_stream(*args) = ($log << args.size) && copy_stream_without_log(*args)
      end
    RUBY
    alias_chain_twice: <<~RUBY,
      2.times do |turn|
        IO.singleton_class.class_eval do
          alias_method :"copy_stream_\#{turn}", :copy_stream
          define_method(:copy_stream) { |*args| ($log << turn) && send(:"copy_stream_\#{turn}", *args) }
        end
      end
    RUBY
    prepend: "IO.singleton_class.prepend(Module.new { def copy_stream(*args) = ($log << args.size) && super })",
    refinement: <<~RUBY,
      module Logged
        refine(IO.singleton_class) { def copy_stream(*) = super.tap { |count| $log << count } }
      end
      using Logged
    RUBY
    definition: "def IO.copy_stream(*args) = ($log << :mine) && send(:ruby_copy_stream, *args)",
    stub: "old = IO.method(:copy_stream); IO.define_singleton_method(:copy_stream) { |*args| old.call(*args) }",
    loaded_again: "3.times { load File.join($LOADED_FEATURES.grep(/core_ext.rb/).first) }",
    subclass: "class File; def self.copy_stream(*) = super; end",
  }.freeze

  BESIDE.each do |name, code|
    quiet = !code.include?("$log")
    define_method("test_it_lives_beside_#{name}") do
      assert_equal "[5, \"files\", 7, \"objects\", true]", with_core_ext(<<~RUBY)
        require "stringio"
        require "tempfile"
        $VERBOSE = nil
        $log = []
        #{code}
        source, target = Tempfile.new, Tempfile.new
        source.write("files")
        source.rewind
        copied = IO.copy_stream(source, target)
        object = StringIO.new
        count = IO.copy_stream(StringIO.new("objects"), object)
        target.rewind
        print [copied, target.read, count, object.string, $log.any? || #{quiet}].inspect
      RUBY
    end
  end

  def test_in_a_ractor
    assert_equal "[5, 3]", with_core_ext(<<~'RUBY')
      require "stringio"
      copied = Ractor.new do
        r, w = IO.pipe
        out, into = IO.pipe
        w << "files"
        w.close
        [IO.copy_stream(r, into), IO.copy_stream(StringIO.new("abc"), into)]
      end
      print (copied.respond_to?(:take) ? copied.take : copied.value).inspect
    RUBY
  end

  # As Ruby's own: a server has announced how long a file is. What takes the bytes makes the file grow meanwhile.
  def test_a_file_that_grows_is_copied_to_the_end_that_it_had_at_first
    assert_equal "3000000", with_core_ext(<<~RUBY)
      require "socket"
      require "tempfile"
      source = Tempfile.new
      source.write("x" * 3_000_000)
      source.flush
      near, far = UNIXSocket.pair
      taking = Thread.new do
        far.readpartial(1)
        File.write(source.path, "y" * 100_000, mode: "a")
        far.read.size
      end
      print IO.copy_stream(source.path, near)
      near.close
      taking.value
    RUBY
  end

  # At first it is a small copy. How much there is shows as it comes.
  def test_a_stream_that_comes_in_small_and_large_pieces_is_copied_whole
    assert_equal "[]", with_core_ext(<<~'RUBY')
      require "socket"
      require "tmpdir"
      server = TCPServer.new("127.0.0.1", 0)
      file = File.join(Dir.mktmpdir, "file")
      pairs = {
        pipe: -> { IO.pipe(binmode: true) }, unix: -> { UNIXSocket.pair }, packets: -> { UNIXSocket.pair(:SEQPACKET) },
        tcp: -> { TCPSocket.new("127.0.0.1", server.local_address.ip_port).then { |one| [server.accept, one] } },
        file: -> { File.open(file, "wb").then { |near| [File.open(file, "rb"), near] } }
      }
      pieces = [1, 100, 16_384, 16_384, 5, 70_000, 300_000, 1].map { |size| Random.bytes(size) }
      wrong = %i[pipe unix tcp].product(pairs.keys).reject do |from, to|
        reader, writer = pairs[from].call
        far, near = pairs[to].call
        writing = Thread.new do
          pieces.each { |piece| writer.write(piece) && sleep(0.002) }
          writer.close
        end
        reading = Thread.new do
          got = +"".b
          while (part = far.recv(1 << 18)) && !part.empty? do got << part end
          got
        end if to == :packets
        reading ||= Thread.new { far.read } unless to == :file
        copied = IO.copy_stream(reader, near)
        [near, reader].each(&:close)
        writing.join
        got = reading ? reading.value : far.read
        [copied, got] == [pieces.sum(&:size), pieces.join]
      end
      FileUtils.rm_r(File.dirname(file))
      print wrong.inspect
    RUBY
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
