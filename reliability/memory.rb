# frozen_string_literal: true

# Makes millions of calls of each kind and sees that memory, mappings and descriptors stay what they were, and that a
# system call makes no object of Ruby's.
#
#     ruby -Ilib reliability/memory.rb [CALLS] [--only NAME]
#
# CALLS (10,000,000) are those of a kind that takes less than about 5 us; the slower ones make a tenth, a hundredth or a
# thousandth of them, as the table says. A call is what the name of its kind says: with two calls in it, both. Each kind
# has a process of its own. It has grown when it needs 1 MiB more at the end than when half of its calls were made: a
# leak of one byte a call shows from two million calls on. The exit status is 1 then.

if ENV["MALLOC_ARENA_MAX"] != "1"
  # Each thread would take a heap of its own, and what is freed would be kept; both would pass for growth.
  settled = { "MALLOC_ARENA_MAX" => "1", "MALLOC_TRIM_THRESHOLD_" => "131072", "MALLOC_MMAP_THRESHOLD_" => "131072" }
  exec(settled, RbConfig.ruby, *$LOAD_PATH.map { |path| "-I#{path}" }, __FILE__, *ARGV)
end

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "optparse"
%w[kind system_calls copies background errors interrupts fibers measurement].each do |name|
  require_relative "memory/#{name}"
end

Warning[:experimental] = false # IO::Buffer in Ruby 3.1
Thread.report_on_exception = false

calls = 10_000_000
only = nil
OptionParser.new("Usage: ruby -Ilib #{$PROGRAM_NAME} [CALLS] [--only NAME]") do |parser|
  parser.on("--only NAME", "those kinds that have this in their names") { |name| only = name }
  parser.parse!
rescue OptionParser::ParseError => e
  abort e.message
end
calls = Integer(ARGV.first, exception: false) || abort("CALLS is a number") unless ARGV.empty?
calls.positive? or abort "CALLS is more than 0"
kinds = Memory::KINDS.select { |kind| only.nil? || kind.name.include?(only) }
kinds.empty? and abort "no kind has that in its name: #{Memory::KINDS.map(&:name).join("; ")}"

FORMAT = "%-60s %9s %9s %9s %9s %9s %9s %8s %5s\n"
$stdout.sync = true
puts "Ruby #{RUBY_VERSION}, io_splice #{IO::Splice::VERSION}; memory (anonymous, resident) in KiB"
printf(FORMAT, "kind", "calls", "ns/call", "warm", "half", "end", "growth", "obj/call", "fds")
failed = kinds.reject do |kind|
  measurement = Memory::Measurement.new(kind, calls)
  printf(FORMAT, *measurement.columns)
  measurement.wrong.each { |wrong| puts "  GROWS: #{wrong}" }.empty?
end
failed.empty? or abort <<~WORDS
  failed: #{failed.map(&:name).join("; ")}
  repeat: ruby -Ilib #{$PROGRAM_NAME} #{calls} --only NAME
WORDS
