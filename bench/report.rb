# frozen_string_literal: true

# Makes BENCHMARKS.md and its charts from bench/results/*.json and bench/notes.md. The charts need gnuplot; without it
# they stay as they are.
#
#   ruby bench/report.rb

require_relative "harness"
require_relative "harness/chart"

include Bench # rubocop:disable Style/MixinUsage -- for its constants

ROOT = File.expand_path("..", __dir__)
BENCHES = {
  "call" => "A call",
  "routes" => "A copy",
  "small" => "Small copies",
  "growth" => "How a copy grows",
  "vmsplice" => "Memory into a pipe",
  "relay" => "A proxy",
  "background" => "A proxy in the background",
}.freeze

# A table of cells in Markdown.
def markdown(head, lines)
  [head, head.map { "---" }, *lines].map { |cells| "| #{cells.join(" | ")} |" }.join("\n")
end

def cell(row, peer, key, digits)
  figures = row.figures(peer, key) or return ""
  return "**#{figures.in_short(digits)}**" if peer == :gem

  ratio = row.ratio(peer, key)
  "#{figures.in_short(digits)}#{"<br>×#{ratio.to_s(2)}" if ratio}"
end

# One table for each metric; those that no peer has are left out.
def tables(table)
  table.metrics.map do |key, metric|
    peers = table.peers.select { |peer, _| table.rows.any? { |row| row.figures(peer, key) } }
    lines = table.rows.map do |row|
      [row.name, *peers.keys.map { |peer| cell(row, peer, key, metric.digits) }]
    end
    "#{metric.unit}, #{metric.better} is better:\n\n#{markdown(["", *peers.values], lines)}"
  end
end

# One table for all metrics of the gem, with how many times as much it has as each peer.
def table_across(table)
  lines = table.rows.map do |row|
    [row.name, *table.metrics.map { |key, metric| cell_across(row, key, metric, table.peers.keys - [:gem]) }]
  end
  peers = table.peers.values
  "#{peers.first}, and × #{peers.drop(1).join(", ")}:\n\n#{markdown(["", *table.metrics.values.map(&:unit)], lines)}"
end

def cell_across(row, key, metric, others)
  figures = row.figures(:gem, key) or return ""
  ratios = others.filter_map { |peer| row.ratio(peer, key) }.map { |ratio| " ×#{format("%.2f", ratio.median)}" }
  "#{format("%.#{metric.digits}f", figures.median)}#{ratios.join}"
end

# What each byte costs where there are many, and what a copy costs where there are none.
def growth(table)
  first, from, *, last = table.rows.sort_by(&:x).then { |rows| [rows.first, rows.find { |row| row.x >= MIB }, *rows] }
  return unless first.rounds[:gem].key?(:time) && from && last.x > from.x

  texts = table.peers.map do |peer, title|
    least, some, most = [first, from, last].map { |row| row.figures(peer, :time).median }
    memory = [first, last].map { |row| row.figures(peer, :memory)&.median }
    more = ", and #{format("%d", memory.last - memory.first)} KiB more memory for the largest" if memory.all?
    each = (most - some) / (last.x - from.x) * MIB
    "#{title} #{format("%.1f", least)} us, and #{format("%.0f", each)} us a MiB#{more}"
  end
  "The smallest copy, and each MiB beyond the first: #{texts.join("; ")}."
end

def section(name, data)
  tables = data[:tables].map { |table| Table.from(table) }
  head = data[:versions].map { |peer, version| "#{peer}: #{version}" }
  ["## #{BENCHES.fetch(name, name)}",
   "`rake bench:#{name}`, #{data[:rounds]} rounds, #{data[:taken]}.#{" With #{head.join("; ")}." unless head.empty?}",
   *tables.flat_map { |table| part(name, table) }]
end

def part(name, table)
  charts = table.chart ? Chart.draw(name, table).map { |title, path| "![#{title}](#{path})" } : []
  ["### #{table.title}", *table.about, *charts, (growth(table) if table.chart&.fetch(:x, nil) == "bytes"),
   "<details><summary>Figures</summary>", *(table.across ? table_across(table) : tables(table)), "</details>"].compact
end

def goals(all)
  lines = all.flat_map do |name, data|
    data[:tables].flat_map do |hash|
      table = Table.from(hash)
      table.goals.map do |row, goal, outcome|
        reached = goal.reached?(outcome) ? "yes" : "**no**"
        [name, table.title, table.words(row, goal), goal.bound, outcome.to_s(2), reached]
      end
    end
  end
  reached = lines.count { |line| line.last == "yes" }
  ["## Goals", "#{reached} of #{lines.size} are reached. These are not:",
   markdown(%w[bench part figure goal measured], lines.reject { |line| line.last == "yes" }.map { |line| line[..-2] }),
   "<details><summary>All of them</summary>",
   markdown(%w[bench part figure goal measured reached], lines), "</details>"]
end

all = BENCHES.keys.to_h { |name| [name, File.join(Results::DIRECTORY, "#{name}.json")] }
             .select { |_, path| File.exist?(path) }
             .transform_values { |path| JSON.parse(File.read(path), symbolize_names: true) }
abort "nothing measured yet: run `rake bench`" if all.empty?

machines = all.values.map { |data| data.slice(:processors, :memory, :kernel, :ruby) }.uniq.map do |one|
  "#{one[:processors]}, #{one[:memory]} MiB, #{one[:kernel]}, #{one[:ruby]}"
end
text = [
  "# Benchmarks",
  "Made by `rake bench` on #{machines.join("; and on ")}. It makes this page anew on any Linux machine, in about a " \
  "quarter of an hour.",
  File.read(File.join(__dir__, "notes.md")).strip,
  *goals(all),
  *all.flat_map { |name, data| section(name, data) }
]
File.write(File.join(ROOT, "BENCHMARKS.md"), "#{text.join("\n\n")}\n")
puts "BENCHMARKS.md"
