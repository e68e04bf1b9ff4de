# frozen_string_literal: true

# Makes single calls between any two kinds of end for system_calls_test.rb.

require "tempfile"
require_relative "counting"
require "io/splice"

BYTES = "x" * 100

def source(kind)
  if kind == "file"
    file = Tempfile.new("io_splice")
    file << BYTES
    file.tap(&:rewind)
  else
    reader, writer = connection(kind)
    writer << BYTES
    reader.tap(&:wait_readable)
  end
end

def target(kind)
  case kind
  when "file" then Tempfile.new("io_splice").to_io
  when "/dev/null" then File.open(kind, "w")
  else connection(kind).tap { |pair| (@kept ||= []) << pair }.last
  end
end

pairs = %w[file unix tcp].product(%w[pipe]) + %w[pipe].product(%w[pipe file /dev/null unix tcp])
%i[splice trysplice].product(pairs) do |call, (from, to)|
  counted("#{call} #{from} to #{to}") do
    input = source(from).to_io
    output = target(to)
    -> { IO.public_send(call, input, nil, output, nil, 1000) == 100 or abort "#{from} to #{to}: bytes are missing" }
  end
end
counted("tee pipe to pipe") do
  input = source("pipe")
  output = target("pipe")
  -> { IO.tee(input, output, 1000) == 100 or abort "bytes are missing" }
end
