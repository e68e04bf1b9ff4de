# frozen_string_literal: true

require "cgi"

module Bench
  # Draws bars from left to right as SVG. Its colours can be read on white and on black.
  class Chart
    GREY = "#6e7781"
    COLOURS = ["#e8590c", "#228be6", GREY].freeze
    WIDTH = 720
    LABELS = 200
    VALUES = 60
    BAR = 14
    GAP = 8
    TOP = 48

    # @param caption [String] what the bars are
    # @param series [Array<String>] what each bar of a row is
    # @param rows [Array<Array(String, Array<Numeric>)>] a label, and the length of each bar; nil: none
    # @param digits [Integer] of the numbers behind the bars
    # @param line [Numeric, nil] where a line is drawn from top to bottom
    def initialize(caption, series, rows, digits:, line: nil)
      @caption = caption
      @series = series
      @rows = rows
      @digits = digits
      @line = line
      @most = [line, *rows.flat_map(&:last)].compact.max
    end

    def to_s
      <<~SVG
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 #{WIDTH} #{height}" font-family="sans-serif" font-size="13">
        #{[text(0, 14, @caption), *legend, *rule, *bars].join("\n")}
        </svg>
      SVG
    end

    private

    def height = TOP + (@rows.size * row_height)
    def row_height = (@series.size * BAR) + GAP
    def scale(value) = ((WIDTH - LABELS - VALUES) * value.fdiv(@most)).round(1)

    def legend
      return [] if @series.size == 1

      @series.each_with_index.flat_map do |name, i|
        x = LABELS + (i * 250)
        [rect(x, 24, 10, 10, COLOURS.fetch(i)), text(x + 16, 34, name)]
      end
    end

    def rule
      return [] unless @line

      x = LABELS + scale(@line)
      [%(<path d="M#{x} #{TOP - 6}V#{height}" stroke="#{GREY}" stroke-dasharray="3"/>)]
    end

    def bars
      @rows.each_with_index.flat_map do |(label, values), row|
        y = TOP + (row * row_height)
        [text(LABELS - 8, y + ((row_height - GAP) / 2) + 5, label, "end"),
         *values.each_with_index.filter_map { |value, i| value && bar(y + (i * BAR), value, i) }]
      end
    end

    def bar(top, value, index)
      number = format("%.#{@digits}f", value)
      [rect(LABELS, top, scale(value), BAR - 2, COLOURS.fetch(index)),
       text(LABELS + scale(value) + 5, top + 11, number)]
    end

    def rect(left, top, width, height, colour)
      %(<rect x="#{left}" y="#{top}" width="#{width}" height="#{height}" fill="#{colour}"/>)
    end

    def text(left, base, words, anchor = nil)
      anchor = %( text-anchor="#{anchor}") if anchor
      %(<text x="#{left}" y="#{base}" fill="#{GREY}"#{anchor}>#{CGI.escapeHTML(words)}</text>)
    end
  end
end
