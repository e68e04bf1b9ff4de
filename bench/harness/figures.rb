# frozen_string_literal: true

module Bench
  # One number for each round.
  class Figures
    def initialize(values)
      @values = values.sort
    end

    def median = quantile(0.5)

    # The median, and in brackets the quartiles: what half of the rounds lay between.
    def to_s(digits = 0)
      format("%.#{digits}f (%.#{digits}f..%.#{digits}f)", median, quantile(0.25), quantile(0.75))
    end

    # The median, and how far the quartiles are from it, in the mean of both.
    def in_short(digits = 0)
      return "0" if median.zero?

      format("%.#{digits}f ±%.0f %%", median, 50.0 * (quantile(0.75) - quantile(0.25)) / median)
    end

    private

    def quantile(part)
      below, beyond = ((@values.size - 1) * part).divmod(1)
      return @values[below] if beyond.zero?

      @values[below] + (beyond * (@values[below + 1] - @values[below]))
    end
  end
end
