# frozen_string_literal: true

# Proves the tests and attacks: plants known faults into a copy of the tree, one at a time, and runs the check that has
# to find each.
#
#   ruby reliability/planted.rb [NAME...]     those faults; all, when none is named
#   ruby reliability/planted.rb --list        what there is; nothing is run
#
# Each check is first run without a fault, and must run a test and pass. With the fault it must fail, or hang. The
# copy is in tmp/planted/tree, what the checks say in tmp/planted/*.log. The exit status is 1 when a fault is not found,
# does not compile or has gone stale, which means that the text which it replaces is not in its file exactly once.

require "optparse"
require_relative "planted/faults"
require_relative "planted/tree"
require_relative "planted/trial"

list = false
limit = 120
OptionParser.new("Usage: ruby #{$PROGRAM_NAME} [NAME...] [options]") do |parser|
  parser.on("--list", "show the faults") { list = true }
  parser.on("--limit SECONDS", Integer, "what takes longer hangs (#{limit})") { |seconds| limit = seconds }
end.parse!

unknown = ARGV - Planted::FAULTS.map(&:name)
unknown.empty? or abort "no such fault: #{unknown.join(", ")}"
faults = Planted::FAULTS.select { |fault| ARGV.empty? || ARGV.include?(fault.name) }

if list
  faults.each { |fault| puts "#{fault.name}: #{fault.breaks}\n  #{fault.stale || fault.check}" }
  exit faults.none?(&:stale)
end

$stdout.sync = true
exit Planted::Trial.new(Planted::Tree.new(limit)).run(faults)
