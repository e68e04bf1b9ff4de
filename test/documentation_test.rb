# frozen_string_literal: true

require "test_helper"
require "openssl"
require "io/splice/rack"
require "rbconfig"
require "support/documentation"
require "support/example_program"

# What is said of the gem, in comments and guides, is so.
class DocumentationTest < Minitest::Test
  RUNNER = File.expand_path("support/example_runner.rb", __dir__)
  MANUAL = %r{\Ahttps://man7\.org/linux/man-pages/man\d/\w+\.\w+\.html}

  # Blocks of the guides that cannot run here: the first line, and why not.
  NOT_RUN = {}.freeze

  # What the gem adds to Ruby, asked of a Ruby with it and one without.
  SURFACE = <<~RUBY
    methods = lambda do |name, mod|
      mod.singleton_methods(false).each { |method| puts name + "." + method.to_s }
      mod.public_instance_methods(false).each { |method| puts name + "#" + method.to_s }
      puts name + ".new" if mod.private_instance_methods(false).include?(:initialize)
      next if mod == IO

      mod.constants(false).each do |constant|
        puts name + "::" + constant.to_s
        value = mod.const_get(constant)
        methods.call(name + "::" + constant.to_s, value) if value.is_a?(Module) && value.name.start_with?(name)
      end
    end
    require "fcntl"
    methods.call("IO", IO)
    methods.call("IO::Splice", IO::Splice) if defined?(IO::Splice)
  RUBY

  # A good argument for each parameter, by its name. Others are nil.
  GOOD = { "flags" => 0, "data" => "abc", "len" => 3, "bytes" => 4096, "offset" => 0, "length" => 1 }.freeze
  INPUTS = %w[io_in src].freeze
  OUTPUTS = %w[io_out dst dsts io].freeze
  ENDS = [*INPUTS, *OUTPUTS, "a", "b"].freeze
  # The second is larger than any descriptor that is open.
  BAD = [-1, 1 << 24, 1 << 31, 1 << 64, 1.5, "x", nil, :x, [], Object.new].freeze

  Documentation.comments.flat_map(&:examples).each do |example|
    define_method("test_example_#{example}") { assert_runs(example) }
  end

  Documentation.guide_examples.each do |example|
    next if NOT_RUN.key?(example.code.lines.first.chomp)

    define_method("test_guide_#{example}") { assert_runs(example) }
  end

  def test_what_cannot_run_is_still_there
    assert_empty NOT_RUN.keys - Documentation.guide_examples.map { |example| example.code.lines.first.chomp }
  end

  def test_every_public_name_is_documented_and_no_other
    documented = Documentation.comments.reject { |comment| internal?(comment) }.filter_map(&:name)
    documented += Documentation.parsed_constants.keys.map { |name| "IO::Splice::#{name}" }
    documented -= %w[IO IO::Splice]
    assert_equal surface - Documentation.internal_names,
                 documented.map { |name| name.sub("#initialize", ".new") }.uniq.sort
  end

  def test_constants_have_the_values_that_are_documented
    of_this_machine = %w[PIPE_CAPA PAGE_SIZE]
    Documentation.parsed_constants.except(*of_this_machine).each do |name, value|
      assert_equal eval(value), IO::Splice.const_get(name), name # rubocop:disable Security/Eval -- `1 << 31`
    end
  end

  def test_every_method_says_what_it_takes_gives_and_raises_with_an_example_and_a_manual_page
    assert_empty(public_methods_documented.flat_map { |comment| gaps(comment) })
  end

  def test_an_exception_that_is_documented_exists
    later = IO.const_defined?(:TimeoutError) ? [] : %w[IO::TimeoutError]
    names = public_methods_documented.flat_map { |comment| raises(comment).map { |name| [comment, name] } }
    names.reject { |_, name| later.include?(name) }.each do |comment, name|
      assert_kind_of Module, exception(name), comment.name
    end
  end

  def test_bad_arguments_raise_what_is_documented
    comments = public_methods_documented.reject { |comment| comment.namespace.end_with?("CoreExt") }
    # In a thread, the stack of which keeps nothing from the garbage collector afterwards.
    undocumented = Thread.new { comments.flat_map { |comment| raised_but_not_said(comment) } }.value
    assert_empty undocumented.uniq
    # The threads of a background end soon after it has been collected. The pool keeps four pipes.
    guarded(10) { (GC.start || sleep(0.01)) until open_descriptors <= @descriptors + 8 }
    @descriptors += 8
  end

  def test_an_example_that_says_something_wrong_is_found
    {
      "1 + 1 # => 3" => "line 7 says 3 and not 2",
      "1 + 1 # => 2.0" => "says 2.0 and not 2",
      "[1,\n 2].sum # => 4" => "line 8 says 4",
      "begin\n  1\nrescue IOError\n  2 # => 2\nend" => "never came to the end of line 10",
      "1 + 1 # => the sum" => "`the sum` is no literal",
      "1 + 1 # => 1 + 1" => "`1 + 1` is no literal",
      "# => 2" => "nothing stands before",
      "nothing_such" => "nothing_such",
      "warn 'oh'" => "oh",
    }.each do |code, complaint|
      assert_includes outcome(Documentation::Example.new("planted", 7, code)).to_s, complaint
    end
  end

  def test_an_example_that_says_the_truth_is_accepted
    assert_nil outcome(Documentation::Example.new("planted", 1, <<~'RUBY'))
      a, b = [1,
              2].map do |n|
        n + 1 # => 2
        break [n, "x#y"]
      end # => [1, "x#y"]
      b.class                  # => String
      { b: nil, "c" => -1..2 } # => { b: nil, "c" => -1..2 }
      :"a b"                   # => :"a b"
    RUBY
  end

  private

  def assert_runs(example)
    complaint = outcome(example)
    assert_nil complaint, "#{example}\n#{example.code}"
  end

  # What is wrong with it, if anything is.
  def outcome(example)
    program = ExampleProgram.new(example)
    code = program.to_s
    claims = newer_ruby?(example) ? [] : program.claims
    Dir.mktmpdir do |dir|
      File.write("#{dir}/example.rb", code)
      File.open("#{dir}/errors", "w+") do |errors|
        status = run_program(dir, errors, "example.rb", example.file, example.line, *claims)
        errors.rewind
        said = errors.read
        "#{said}#{status unless status.success?}" unless status.success? && said.empty?
      end
    end
  rescue ExampleProgram::Unclear => e
    e.message
  end

  def run_program(dir, errors, *args)
    command = [RbConfig.ruby, "-W:no-experimental", "-I", LIB, RUNNER, *args.map(&:to_s)]
    pid = spawn(*command, chdir: dir, out: File::NULL, err: errors, in: File::NULL, pgroup: true)
    status_of(pid)
  ensure
    stop_group(pid)
  end

  # With what the example has started.
  def stop_group(pid)
    Process.kill(:KILL, -pid)
  rescue Errno::ESRCH
    nil
  end

  # An example may say in a comment which Ruby a part of it needs.
  def newer_ruby?(example)
    example.code.scan(/# .*Ruby (\d\.\d)/).flatten.any? { |version| version.to_f > RUBY_VERSION.to_f }
  end

  def internal?(comment)
    comment.internal? || comment.name&.match?(/\AIO::Splice::(Copying|Rack::(FilePart|Hijack))|#plain\?/)
  end

  def surface
    without, with = [[], %w[-rio/splice/core_ext -rio/splice/rack]].map do |options|
      IO.popen([RbConfig.ruby, "-I", LIB, *options, "-e", SURFACE], &:readlines).map(&:chomp)
    end
    (with - without).sort
  end

  def public_methods_documented
    Documentation.comments.select { |comment| comment.name&.match?(/[.#]/) && !internal?(comment) }
  end

  def gaps(comment)
    said = comment.texts("param").map { |text| text[/\A(\w+) \[.+?\] \S/, 1] || text }
    [
      *(comment.parameters - said).map { |name| "type and meaning of #{name}" },
      *(said - comment.parameters).map { |name| "the parameter that `#{name}` speaks of" },
      ("return" unless comment.texts("return").any? { |text| text.match?(/\A\[.+?\] \S/) }),
      ("raise" if comment.texts("raise").empty? && comment.parameters.any? && !comment.name.end_with?("==")),
      ("example" unless example?(comment)),
      ("manual page" unless manual_page?(comment))
    ].compact.map { |what| "#{comment.name} lacks: #{what}" }
  end

  # An attribute may be shown in the example of its module.
  def example?(comment)
    return true if comment.texts("example").any?

    around(comment).texts("example").any? { |text| text.include?(".#{comment.name[/\w+\z/]}") }
  end

  # A method of an object may leave it to its class.
  def manual_page?(comment)
    pages = comment.texts("see")
    pages += around(comment).texts("see") if comment.name.match?(/#|Pages/)
    pages.any?(MANUAL)
  end

  def around(comment) = Documentation.comment(comment.namespace)

  def raises(comment)
    comment.texts("raise").flat_map { |text| text[/\A\[(.+?)\]/, 1].split(", ") }
  end

  def exception(name)
    [IO::Splice, IO, Object].each { |home| return home.const_get(name) if home.const_defined?(name) }
    nil
  end

  def raised_but_not_said(comment)
    said = raises(comment).filter_map { |name| exception(name) }
    comment.parameters.product(BAD).filter_map do |parameter, value|
      next if ENDS.include?(parameter) && value.is_a?(String) # a path

      error = raised(comment, parameter, value)
      next if error.nil? || error.class.ancestors.intersect?(said)

      "#{comment.name}, #{parameter} #{value.inspect}: #{error.inspect}"
    end
  end

  # What comes of it when one argument is bad.
  def raised(comment, parameter, value)
    ends = []
    arguments = comment.parameters.to_h { |name| [name.to_sym, name == parameter ? value : good(name, ends)] }
    keywords = arguments.slice(*comment.code.scan(/(\w+): /).flatten.map(&:to_sym))
    receiver = receiver(comment, ends)
    name = comment.name[/[^.#]+\z/].sub("initialize", "new")
    guarded { receiver.public_send(name, *arguments.except(*keywords.keys).values, **keywords) }
    nil
  rescue StandardError => e
    e
  ensure
    ends.each(&:close)
  end

  def receiver(comment, ends)
    case comment.name
    when /\.\w+\z|#initialize\z/ then Object.const_get(comment.namespace)
    when /Background#/ then ends.push(IO::Splice::Background.new).last
    when /Transfer#/ then transfer(ends)
    when /Pages#/ then IO::Splice::Pages.new("abc")
    else good("io", ends)
    end
  end

  # One that does not end at once, so that its arguments are looked at.
  def transfer(ends)
    background = ends.push(IO::Splice::Background.new).last
    here, there = ends.concat(UNIXSocket.pair).last(2)
    Thread.new { sleep(0.05) && there.close }
    background.copy_stream(here, File::NULL)
  end

  def good(name, ends)
    case name
    when *INPUTS then ends.concat(IO.pipe).last(2).then { |r, w| w.write("abc") && w.close && r }
    when *OUTPUTS then ends.concat(IO.pipe).last
    when "a", "b" then ends.concat(UNIXSocket.pair).last(2).then { |here, there| there.close_write && here }
    else GOOD[name]
    end
  end
end
