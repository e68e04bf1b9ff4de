# frozen_string_literal: true

require "json"
require_relative "figures"

module Bench
  # What is measured: its unit, whether "more" or "less" of it is better, and how many digits of it mean something.
  Metric = Struct.new(:unit, :better, :digits, keyword_init: true)

  # The least or the most that the gem's figure may be, or its ratio to that of the peer `beside`.
  Goal = Struct.new(:metric, :beside, :least, :most, keyword_init: true) do
    def reached?(figures)
      (least.nil? || figures.median >= least) && (most.nil? || figures.median <= most)
    end

    def bound = least ? ">= #{least}" : "<= #{most}"
  end

  # One line of a table. `rounds`: by peer and metric the number of each round, nil where there is none.
  Row = Struct.new(:name, :rounds, :goals, keyword_init: true) do
    def figures(peer, metric)
      numbers = rounds.dig(peer, metric)
      Figures.new(numbers) if numbers&.all?
    end

    # How many times as much as the peer the gem has, round by round.
    def ratio(peer, metric)
      own, others = [:gem, peer].map { |one| rounds.dig(one, metric) }
      return unless own&.all? && others && others.all? && others.none?(&:zero?)

      Figures.new(own.zip(others).map { |mine, other| mine.fdiv(other) })
    end

    def outcome(goal)
      goal.beside ? ratio(goal.beside, goal.metric) : figures(:gem, goal.metric)
    end
  end

  # Rows that have the same peers and metrics. `across`: whether figures.md has one table of it, with a column for each
  # metric, instead of a table for each.
  Table = Struct.new(:title, :peers, :metrics, :rows, :about, :across, keyword_init: true) do
    def self.from(hash)
      rows = hash[:rows].map do |row|
        Row.new(**row, goals: row[:goals].map { |goal| goal_from(goal) })
      end
      new(**hash, rows:, metrics: hash[:metrics].transform_values { |metric| Metric.new(**metric) })
    end

    def self.goal_from(hash)
      Goal.new(**hash, metric: hash[:metric].to_sym, beside: hash[:beside]&.to_sym)
    end

    def print_header
      puts "", title, *about
      puts "(median ± spread of the middle half; x: how many times that the gem has, by pairs)"
    end

    # @param values [Turns, Hash] as in {Row}
    def add(name, values, goals: [])
      print_header if rows.empty?
      values = values.values(metrics.keys) if values.is_a?(Turns)
      rows << (row = Row.new(name:, rounds: values, goals:))
      puts name
      metrics.each { |key, metric| puts line(row, key, metric) if peers.any? { |peer, _| row.figures(peer, key) } }
    end

    # The goals that have an outcome, with that.
    def goals
      rows.flat_map do |row|
        row.goals.filter_map { |goal| (outcome = row.outcome(goal)) && [row, goal, outcome] }
      end
    end

    # What a goal is about, in words.
    def words(row, goal)
      "#{row.name}: #{metrics[goal.metric].unit}#{" / #{peers[goal.beside]}" if goal.beside}"
    end

    private

    def line(row, key, metric)
      cells = peers.filter_map do |peer, title|
        figures = row.figures(peer, key) or next
        ratio = row.ratio(peer, key) unless peer == :gem
        "#{title} #{figures.in_short(metric.digits)}#{" x#{ratio.to_s(2)}" if ratio}".ljust(peer == :gem ? 26 : 44)
      end
      "  #{metric.unit.ljust(18)} #{cells.join(" ")}".rstrip
    end
  end

  # All that a bench finds out: printed as it comes, and kept as JSON when the bench was run as a whole.
  class Results
    DIRECTORY = File.expand_path("../results", __dir__)

    # @param options [Hash] as {Bench.options} gives them
    # @param versions [Hash] of the peers that are programs
    def initialize(name, options, versions = {})
      @name = name
      @options = options
      @head = { bench: name, rounds: options[:rounds], taken: Time.now.strftime("%F"), **Bench.machine, versions: }
      @tables = []
      $stdout.sync = true
      puts @head.values_at(:processors, :kernel, :ruby), "#{@head[:rounds]} rounds, in turns"
      versions.each { |peer, version| puts "#{peer}: #{version}" }
    end

    # @return [Table, nil] nil if this part of the bench is not to be run
    def table(title, peers:, metrics:, about: [], across: false)
      return unless title.include?(@options.fetch(:part, ""))

      metrics = metrics.transform_values { |(unit, better, digits)| Metric.new(unit:, better:, digits:) }
      Table.new(title:, peers:, metrics:, rows: [], about:, across:).tap { |table| @tables << table }
    end

    def finish
      @tables.empty? and abort "--part: no part has that in its name"
      return puts("", "Only a part, or too short: nothing is kept, and nothing said of goals.") unless @options[:whole]

      write
      print_missed
    end

    private

    def write
      FileUtils.mkdir_p(DIRECTORY)
      tables = @tables.map { |table| table.to_h.merge(rows: table.rows.map(&:to_h)) }
      # Ten digits of a nanosecond's fraction are of no use to anybody.
      text = JSON.generate({ **@head, tables: }.then { |all| plain(all) })
      File.write(File.join(DIRECTORY, "#{@name}.json"), "#{text.gsub(/\},\{"name"/, "},\n{\"name\"")}\n")
    end

    def plain(value)
      case value
      when Hash then value.transform_values { |one| plain(one) }
      when Array then value.map { |one| plain(one) }
      when Struct then plain(value.to_h)
      when Float then value.round([4 - Math.log10([value.abs, 1e-9].max).floor, 0].max)
      else value
      end
    end

    def print_missed
      missed = @tables.flat_map do |table|
        table.goals.reject { |_, goal, outcome| goal.reached?(outcome) }
             .map { |row, *goal| missed_words(table, row, *goal) }
      end
      puts "", missed.empty? ? "All goals reached." : ["Goals missed:", *missed]
    end

    def missed_words(table, row, goal, outcome)
      "  #{table.title}: #{table.words(row, goal)} #{outcome.to_s(2)}, not #{goal.bound}"
    end
  end
end
