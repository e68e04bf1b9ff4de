# frozen_string_literal: true

require_relative "results"
require_relative "chart"

module Bench
  # What BENCHMARKS.md shows: for each question a chart and a table, sorted by gain.
  class Page
    NAMES = { "shm" => "tmpfs", "tcp" => "TCP", "unix" => "UNIX" }.freeze
    PROXIES = { "one way" => "one way", "both ways" => "both ways", "one way, over 64 connections" => "64 connections" }
              .freeze

    # @param tables [Hash{String => Array<Table>}] by bench
    # @param charts [String] the directory of the charts
    def initialize(tables, charts)
      @tables = tables
      @charts = charts
    end

    def copies
      rows = table("routes", "Every route, 256 MiB").rows.sort_by { |row| cpu(row) }
      chart("copies", "CPU of a copy, in per cent of what IO.copy_stream uses (less is better)", ["io_splice"],
            rows.map { |row| [route(row), [100 * cpu(row)]] }, digits: 0, line: 100)
      markdown(["from, to", "CPU s a GiB", "IO.copy_stream", "times the CPU", "times the speed"], rows.map do |row|
        [route(row), *%i[gem ruby].map { |peer| number(row.figures(peer, :cpu), 2) }, row.ratio(:ruby, :cpu).to_s(2),
         row.ratio(:ruby, :speed).to_s(1)]
      end)
    end

    def proxies
      table = table("relay", "Transfers, 256 MiB")
      rows = PROXIES.keys.map { |name| table.rows.find { |row| row.name == name } }
      figures = table.peers.to_h { |peer, title| [title, rows.map { |row| row.figures(peer, :cpu)&.median }] }
      figures = figures.sort_by { |_, medians| medians.first }
      chart("proxies", "CPU seconds of a TCP proxy for each GiB (less is better)", ["one connection", "64 connections"],
            figures.map { |title, medians| [title, medians.values_at(0, 2)] }, digits: 2)
      markdown(["CPU s a GiB", *PROXIES.values],
               figures.map { |title, medians| [title, *medians.map { |one| format("%.2f", one) }] })
    end

    def downloads
      table = table("rack", "A small page of Puma beside slow downloads")
      row = table.rows.first
      markdown([row.name, "pages a second without", "beside them"], table.peers.map do |peer, title|
        [title, *%i[alone beside].map { |metric| number(row.figures(peer, metric), 0) }]
      end)
    end

    def beside
      table = table("background", "Good connections beside bad ones")
      row = table.rows.first
      markdown([row.name, "seconds alone", "beside them", "times as long"], table.peers.map do |peer, title|
        [title, *%i[alone beside].map { |metric| number(row.figures(peer, metric), 2) },
         row.figures(peer, :times).to_s(1)]
      end)
    end

    def idle
      table = table("background", "Idle connections")
      row = table.rows.first
      peers = table.peers.sort_by { |peer, _| row.figures(peer, :memory).median }
      chart("idle", "Memory of the process for each idle TCP relay, in KiB (less is better)", ["KiB"],
            peers.map { |peer, title| [title, [row.figures(peer, :memory).median]] }, digits: 1)
      markdown([row.name, "KiB each", "threads of the process"], peers.map do |peer, title|
        [title, number(row.figures(peer, :memory), 1), number(row.figures(peer, :threads), 0)]
      end)
    end

    def small
      # Objects are left to Ruby's own, and a copy of nothing costs less than the clock is off.
      rows = table("small", "Small copies with core_ext").rows.reject { |row| row.name.match?(/\AStringIO|, 0 B\z/) }
      rows = rows.map { |row| [row.name, gain(row)] }.sort_by { |_, (mean)| mean }
      chart("small", "CPU of IO.copy_stream with core_ext, in per cent of Ruby's own (less is better)", ["core_ext"],
            rows.map { |name, (mean)| [name, [100 * mean]] }, digits: 0, line: 100)
      markdown(["from", "times the CPU, mean of all targets", "best", "worst"], rows.map do |name, values|
        [name, *values.map { |value| format("%.2f", value) }]
      end)
    end

    def pages
      rows = table("vmsplice", "A pipe of 1M, a reader that reads").rows.select { |row| row.name.start_with?("Pages") }
      rows = rows.sort_by { |row| row.ratio(:write, :cpu).median }
      chart("pages", "CPU seconds of the writer for each GB (less is better)", ["IO::Splice::Pages", "IO#write"],
            rows.map { |row| [row.name, %i[gem write].map { |peer| row.figures(peer, :cpu).median }] }, digits: 2)
      markdown(["each time", "CPU s a GB", "IO#write", "times the CPU", "times the speed"], rows.map do |row|
        [row.name, *%i[gem write].map { |peer| number(row.figures(peer, :cpu), 2) }, row.ratio(:write, :cpu).to_s(2),
         row.ratio(:write, :speed).to_s(1)]
      end)
    end

    def self.markdown(head, lines)
      [head, head.map { "---" }, *lines].map { |cells| "| #{cells.join(" | ")} |" }.join("\n")
    end

    private

    def table(bench, title)
      @tables.fetch(bench) { abort "not measured yet: run `rake bench:#{bench}`" }.find { |one| one.title == title }
    end

    def markdown(...) = self.class.markdown(...)
    def number(figures, digits) = format("%.#{digits}f", figures.median)
    def cpu(row) = row.ratio(:ruby, :cpu).median
    def route(row) = row.name.gsub(/\w+/) { |word| NAMES.fetch(word, word) }

    # The geometric mean of how many times as much it is for each target, the least and the most.
    def gain(row)
      ratios = (row.rounds[:gem].keys - [:StringIO]).filter_map { |target| row.ratio(:ruby, target)&.median }
      [Math.exp(ratios.sum { |ratio| Math.log(ratio) } / ratios.size), *ratios.minmax]
    end

    def chart(name, caption, series, rows, digits:, line: nil)
      File.write(File.join(@charts, "#{name}.svg"), Chart.new(caption, series, rows, digits:, line:))
    end
  end
end
