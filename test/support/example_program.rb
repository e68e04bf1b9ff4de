# frozen_string_literal: true

require "ripper"

# Makes of an example a program that checks what the example says: the value behind `# =>` is that of the statement
# that ends in front of it.
class ExampleProgram
  Unclear = Class.new(StandardError)

  CLAIM = /\A(.*\S)\s+# => (.+)\z/
  # What a literal or the name of a constant consists of.
  LITERAL = %i[on_int on_float on_tstring_beg on_tstring_content on_tstring_end on_symbeg on_const on_label on_sp
               on_comma on_lbracket on_rbracket on_lbrace on_rbrace].freeze
  WORDS = ["nil", "true", "false", "::", "..", "=>", "-"].freeze

  # Whether it can be compared as it stands. Prose cannot, nor is anything here to be worked out.
  def self.literal?(text)
    Ripper.sexp(text) && [nil, *Ripper.lex(text)].each_cons(2).all? do |before, (_, kind, token)|
      LITERAL.include?(kind) || WORDS.include?(token) || (before && before[1] == :on_symbeg)
    end
  end

  # The lines that say a value.
  attr_reader :claims

  def initialize(example)
    @lines = example.code.lines(chomp: true)
    @first = example.line
    @claims = []
  end

  def to_s
    checked = @lines.dup
    @lines.each_with_index.select { |line, _| line.include?("# =>") }.each do |line, index|
      code, value = read(line, index)
      from = statement(code, index)
      claims << (@first + index)
      checked[index] = "#{code}), (#{value}))"
      checked[from] = "__says(#{@first + index}, (#{checked[from]}"
    end
    checked.join("\n")
  end

  private

  def read(line, index)
    code, value = line.match(CLAIM)&.captures
    unclear(index, "nothing stands before `# =>`") unless code
    unclear(index, "`#{value}` is no literal and no constant") unless self.class.literal?(value)
    [code, value]
  end

  # The line in which the statement begins that ends in this one.
  def statement(code, index)
    index.downto(0).find { |from| Ripper.sexp([*@lines[from...index], code].join("\n")) } or
      unclear(index, "no statement ends before `# =>`")
  end

  def unclear(index, why) = raise(Unclear, "line #{@first + index}: #{why}")
end
