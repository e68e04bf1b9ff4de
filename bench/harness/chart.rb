# frozen_string_literal: true

require "open3"
require_relative "../harness"

module Bench
  # Draws a table by gnuplot: a chart for each metric. Its colours can be read on white and on black.
  module Chart
    DIRECTORY = File.expand_path("../charts", __dir__)
    GREY = "#808890"
    COLOURS = ["#e8590c", "#228be6", "#2f9e44", "#9c36b5", "#c09000", "#1098ad", "#e64980", GREY].freeze

    module_function

    # @return [Hash] by title the path of each chart, from the root of the project
    def draw(bench, table)
      table.metrics.filter_map do |key, metric|
        peers = table.peers.select { |peer, _| table.rows.any? { |row| row.figures(peer, key)&.median&.positive? } }
        next if peers.empty?

        name = "#{bench}-#{table.title.downcase.gsub(/[^a-z0-9]+/, "-")}-#{key}.svg"
        path = File.join(DIRECTORY, name)
        plot(path, script(table, metric, peers), data(table, key, peers)) if Bench.which("gnuplot")
        ["#{table.title}: #{metric.unit}", "bench/charts/#{name}"] if File.exist?(path)
      end.to_h
    end

    def plot(path, script, data)
      FileUtils.mkdir_p(DIRECTORY)
      svg, errors, status = Open3.capture3("gnuplot", stdin_data: "$data << END\n#{data}END\n#{script}")
      status.success? or abort "gnuplot: #{errors}"
      # Its own numbers would differ from one version to the next.
      File.write(path, svg.sub(%r{<desc>.*?</desc>\n?}m, ""))
    end

    def data(table, key, peers)
      table.rows.map do |row|
        medians = peers.keys.map { |peer| row.figures(peer, key)&.median || "NaN" }
        "#{row.x || 0} #{row.name.inspect} #{medians.join(" ")}\n"
      end.join
    end

    def script(table, metric, peers)
      bars = table.chart.fetch(:kind) == "bars"
      width = bars ? [[table.rows.size * (peers.size + 1) * 12, 640].max, 1200].min : 760
      <<~SETTINGS + (bars ? bars(peers) : lines(table.chart.fetch(:x), table.rows.map(&:x), peers))
        set terminal svg size #{width},#{bars ? 460 : 420} dynamic enhanced font "sans-serif,13"
        set title "#{table.title}: #{metric.unit} (#{metric.better} is better)" noenhanced textcolor rgb "#{GREY}"
        set border 3 linecolor rgb "#{GREY}"
        set tics nomirror textcolor rgb "#{GREY}"
        set xtics noenhanced
        set grid ytics linecolor rgb "#{GREY}" linewidth 0.3
        set key outside top center horizontal noenhanced textcolor rgb "#{GREY}"
      SETTINGS
    end

    def bars(peers)
      columns = peers.values.each_with_index.map do |title, i|
        "$data using #{i + 3}:xtic(2) title \"#{title}\" linecolor rgb \"#{COLOURS[i % COLOURS.size]}\""
      end
      <<~PLOT
        set style data histogram
        set style histogram clustered gap 1
        set style fill solid noborder
        set xtics rotate by -30
        set rmargin 14
        set yrange [0:*]
        plot #{columns.join(", ")}
      PLOT
    end

    def lines(title, places, peers)
      columns = peers.values.each_with_index.map do |peer, i|
        "$data using 1:#{i + 3}:xtic(2) with linespoints linecolor rgb \"#{COLOURS[i % COLOURS.size]}\" " \
          "linewidth 2 pointtype 7 pointsize 0.5 title \"#{peer}\""
      end
      <<~PLOT
        set logscale xy
        set xrange [#{places.min * 0.7}:#{places.max * 1.4}]
        set xlabel "#{title}" textcolor rgb "#{GREY}"
        plot #{columns.join(", ")}
      PLOT
    end
  end
end
