# frozen_string_literal: true

# Reads the YARD comments of lib/, and the Ruby in the guides, without YARD.
module Documentation
  ROOT = File.expand_path("../..", __dir__)
  # What is said of the system calls in system_calls.rb is for ri: see .yardopts.
  SOURCES = (Dir.glob("lib/**/*.rb", base: ROOT).sort - ["lib/io/splice/system_calls.rb"]).freeze
  GUIDES = Dir.glob("{*.md,docs/**/*.md}", base: ROOT).sort.freeze

  # What is named by its module and one of these signs in front.
  NAMES = {
    "." => /\Adef self\.([^\s(]+)/,
    "#" => /\A(?:def (?!self\.)|alias |attr_reader :)([^\s(]+)/,
    "::" => /\A(?:(?:module|class) (?=[A-Z])|(?=\w+ = ))([A-Z]\w*)/,
  }.freeze

  # Ruby for readers, and where it stands.
  Example = Struct.new(:file, :line, :code) do
    def to_s = "#{file}:#{line}"
  end

  Tag = Struct.new(:kind, :text, :line) do
    # What a reference to the tags of another method names, and the one parameter of which they are, if it says one.
    def reference = text.match(/\A(?<parameter>\w+ )?\(see (?<method>\S+)\)/)
  end

  # A comment, the code that it belongs to, and the modules around it.
  Comment = Struct.new(:file, :line, :lines, :code, :namespace) do
    # As in YARD: `IO.tee`, `IO#pipe_size`, `IO::Splice`; nil for what needs no comment of this kind.
    def name
      sign, = NAMES.find { |_, pattern| pattern.match?(code) }
      [namespace, code[NAMES[sign], 1]].reject(&:empty?).join(sign) if sign
    end

    def parameters
      signature = (overload || code)[/\A(?:def )?\S+?\((.*)\)/, 1].to_s
      signature.split(", ").grep_v(/\A&/).map { |parameter| parameter[/\w+/] }
    end

    # The signature that is documented in place of that of the code.
    def overload = lines.filter_map { |text,| text[/\A@overload (.*)/, 1] }.first

    # A tag, and what is indented below it. Those of an overload are themselves indented.
    def own_tags
      lines = overload ? self.lines.map { |text| text.sub(/\A  (?=@|  )/, "") } : self.lines
      lines.each_with_index.slice_before { |text, _| text.match?(/\A\S/) }.filter_map do |group|
        kind, rest = group.first.first.match(/\A@(\w+) ?(.*)/)&.captures
        Tag.new(kind, [rest, *group.drop(1).map(&:first)].join("\n"), line + group.first.last) if kind
      end
    end

    # With those that are said to be the same as another method's.
    def tags
      whole = lines.first.to_s[/\A\(see (\S+)\)/, 1]
      return Documentation.comment(whole).tags if whole

      own_tags.flat_map do |tag|
        reference = tag.reference or next tag

        other = Documentation.comment(reference[:method].sub(/\A[.#]/, "#{namespace}\\0"))
        other.tags.select { |theirs| theirs.kind == tag.kind && theirs.text.start_with?(reference[:parameter].to_s) }
      end
    end

    def internal? = own_tags.any? { |tag| tag.kind == "private" }

    def texts(kind) = tags.select { |tag| tag.kind == kind }.map(&:text)

    def examples
      own_tags.select { |tag| tag.kind == "example" && !tag.reference }.map do |tag|
        Example.new(file, tag.line + 1, tag.text.lines.drop(1).map { |text| text.delete_prefix("  ") }.join)
      end
    end
  end

  module_function

  def comments = @comments ||= SOURCES.flat_map { |file| comments_of(file) }

  def comment(name) = comments.find { |comment| comment.name == name }

  # What is public in Ruby, and not for users.
  def internal_names
    comments.select(&:internal?).filter_map(&:name).map { |name| name.sub("#initialize", ".new") }
  end

  # The blocks of Ruby in a guide.
  def guide_examples
    GUIDES.flat_map do |file|
      text = File.read(File.join(ROOT, file))
      text.enum_for(:scan, /^( *)```ruby\n(.*?)^\1```$/m).map do
        found = Regexp.last_match
        Example.new(file, found.pre_match.count("\n") + 2, found[2].gsub(/^#{found[1]}/, ""))
      end
    end
  end

  # What `@!parse` says of the constants that are defined in Rust.
  def parsed_constants
    SOURCES.flat_map { |file| File.read(File.join(ROOT, file)).scan(/^ *#   ([A-Z]\w+) = (.+)$/) }.to_h
  end

  def comments_of(file)
    lines = File.readlines(File.join(ROOT, file), chomp: true)
    runs = lines.each_with_index.chunk_while { |(a, _), (b, _)| comment?(a) == comment?(b) }
    runs.each_cons(2).select { |run, _| comment?(run.first.first) }.flat_map do |run, below|
      text = run.map { |line, _| line.sub(/\A\s*# ?/, "") }
      next [] if private?(lines, run.first.last)

      around = namespace(lines, run.first.last)
      directives(text, below.first.first.strip).map do |offset, code, body|
        Comment.new(file, run.first.last + offset + 1, body, code, around)
      end
    end
  end

  def comment?(line) = line.match?(/\A\s*#/)

  # A comment is of the code below it, or of the method that its directive names.
  def directives(text, below)
    return [[0, below, text]] unless text.first.start_with?("@!method ")

    text.slice_when { |_, line| line.start_with?("@!method ") }.inject([]) do |all, (head, *body)|
      offset = all.sum { |_, _, before| before.size + 1 }
      all << [offset + 1, head.sub("@!method ", "def "), body.map { |line| line.delete_prefix("  ") }]
    end
  end

  # Whether a line stands below `private` in the body around it.
  def private?(lines, index)
    indent = lines[index][/\A */]
    around = lines.first(index).reverse.take_while { |line| line.empty? || line.start_with?(indent) }
    around.include?("#{indent}private")
  end

  # The modules that are open above a line, by their indentation.
  def namespace(lines, index)
    indent = lines[index][/\A */].size
    lines.first(index).reverse.filter_map do |line|
      found = line.match(/\A( *)(?:module|class) (\w+)/)
      next unless found && found[1].size < indent

      indent = found[1].size
      found[2]
    end.reverse.join("::")
  end
end
