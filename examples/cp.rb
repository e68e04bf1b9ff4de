#!/usr/bin/env ruby
# frozen_string_literal: true

# Copies a file and shows how far it is, by the ruby-progressbar gem.
#
#   ruby -Ilib examples/cp.rb SOURCE TARGET
#
# TARGET may be a directory.

require "io/splice"
require "ruby-progressbar"

source, target = ARGV
abort "usage: cp.rb SOURCE TARGET" unless target && ARGV.size == 2

trap(:INT, :SYSTEM_DEFAULT)
target = File.join(target, File.basename(source)) if File.directory?(target)
abort "cp.rb: #{source} is a directory" if File.directory?(source)
abort "cp.rb: #{source} and #{target} are the same file" if File.identical?(source, target)

begin
  File.open(source, "rb") do |input|
    size = input.stat.size? # nil: not known, as of a pipe
    bar = ProgressBar.create(title: File.basename(source), output: $stderr, total: size,
                             format: size ? "%t %B %p%% %r MB/s %e" : "%t %B %c bytes, %r MB/s",
                             rate_scale: ->(bytes) { bytes / 1_000_000 })
    File.open(target, "wb", input.stat.mode & 0o777) do |output|
      IO::Splice.copy_stream(input, output) { |bytes| bar.progress = size ? [bytes, size].min : bytes }
    end
    bar.finish
  end
rescue SystemCallError => e
  abort "cp.rb: #{e.message}"
end
