# frozen_string_literal: true

# Makes a copy of 100 bytes between any two kinds of end for system_calls_test.rb: by `IO.copy_stream` with core_ext,
# and by Ruby's own.

require "fileutils"
require "tmpdir"
require_relative "counting"

IO.singleton_class.alias_method(:rubys_own, :copy_stream)
require "io/splice/core_ext"

BYTES = "x" * 100
DIRECTORY = Dir.mktmpdir("io_splice")
at_exit { FileUtils.rm_rf(DIRECTORY) }

def source(kind)
  path = File.join(DIRECTORY, "source").tap { |name| File.write(name, BYTES) }
  case kind
  when "path" then [path]
  when "file" then [File.open(path)]
  when "/dev/null" then [File.open(kind)]
  else
    reader, writer = connection(kind.delete_prefix("ended "))
    length = writer.write(BYTES)
    return [reader, length] unless kind.start_with?("ended ")

    writer.close
    [reader]
  end
end

def target(kind)
  path = File.join(DIRECTORY, "target")
  case kind
  when "path" then path
  when "file" then File.open(path, "w")
  when "/dev/null" then File.open(kind, "w")
  else connection(kind).tap { |pair| (@kept ||= []) << pair }.last
  end
end

kinds = %w[file path /dev/null pipe unix tcp]
ended = %w[pipe unix tcp].map { |kind| "ended #{kind}" } # copied to the end, with no length
%i[copy_stream rubys_own].product(kinds + ended, kinds) do |method, from, to|
  counted("#{method} #{from} to #{to}") do
    input, *length = source(from)
    output = target(to)
    expected = from == "/dev/null" ? 0 : BYTES.size
    -> { IO.public_send(method, input, output, *length) == expected or abort "#{from} to #{to}: bytes are missing" }
  end
end
