#!/usr/bin/env ruby
# frozen_string_literal: true

# Passes on what comes in and appends it to files, as tee -a does.
#
#   some_server 2>&1 | ruby -Ilib examples/log_tee.rb all.log today.log | grep ERROR
#
# When one of the outputs fails (the reader has left, a disk is full), it says so and goes on with the others.

require "io/splice"

trap(:INT, :SYSTEM_DEFAULT)
begin
  outputs = [$stdout, *ARGV.map { |path| File.open(path, "a") }]
rescue SystemCallError => e
  abort "log_tee: #{e.message}"
end

all_well = true
begin
  IO::Splice.tee_stream($stdin, *outputs)
rescue IO::Splice::PartialTee => e
  raise unless e.target

  # The others, if there are any, have the same bytes, and the next ones are still to be read.
  warn "log_tee: #{e.target.inspect}: #{e.message}"
  all_well = false
  outputs.delete(e.target)
  retry unless outputs.empty?
rescue SystemCallError => e
  abort "log_tee: #{e.message}"
end
exit all_well
