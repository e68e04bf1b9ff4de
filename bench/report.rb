# frozen_string_literal: true

# Makes BENCHMARKS.md and its charts from bench/page.md.erb and bench/results/*.json; and from the same numbers, for
# maintainers, figures.md and goals.md beside them.
#
#   ruby bench/report.rb

require "erb"
require_relative "harness"
require_relative "harness/page"

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
  "rack" => "Downloads from a Rack server",
  "tls" => "TLS",
}.freeze

def markdown(...) = Page.markdown(...)

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

def section(name, data, tables)
  head = data[:versions].map { |peer, version| "#{peer}: #{version}" }
  ["## #{BENCHES.fetch(name)}",
   "`rake bench:#{name}`, #{data[:rounds]} rounds, #{data[:taken]}, on #{machine(data)}." \
   "#{" With #{head.join("; ")}." unless head.empty?}",
   *tables.flat_map do |table|
     ["### #{table.title}", *table.about, *(table.across ? table_across(table) : tables(table))]
   end]
end

def machine(data) = "#{data[:processors]}, #{data[:memory]} MiB, #{data[:kernel]}, #{data[:ruby][/\Aruby \S+/]}"

def goals(all)
  lines = all.flat_map do |name, tables|
    tables.flat_map do |table|
      table.goals.map do |row, goal, outcome|
        reached = goal.reached?(outcome) ? "yes" : "**no**"
        [name, table.title, table.words(row, goal), goal.bound, outcome.to_s(2), reached]
      end
    end
  end
  reached = lines.count { |line| line.last == "yes" }
  ["# Goals", "For maintainers, by `rake bench:report`. #{reached} of #{lines.size} are reached.",
   markdown(%w[bench part figure goal measured reached], lines)]
end

def write(path, paragraphs)
  File.write(File.join(ROOT, path), "#{paragraphs.join("\n\n")}\n")
  puts path
end

all = BENCHES.keys.to_h { |name| [name, File.join(Results::DIRECTORY, "#{name}.json")] }
             .select { |_, path| File.exist?(path) }
             .transform_values { |path| JSON.parse(File.read(path), symbolize_names: true) }
tables = all.transform_values { |data| data[:tables].map { |table| Table.from(table) } }
page = Page.new(tables, File.join(__dir__, "charts"))
template = ERB.new(File.read(File.join(__dir__, "page.md.erb")))
write("BENCHMARKS.md", [template.result_with_hash(page:).strip])
sections = all.flat_map { |name, data| section(name, data, tables[name]) }
write("bench/results/figures.md", [File.read(File.join(__dir__, "notes.md")).strip, *sections])
write("bench/results/goals.md", goals(tables))
