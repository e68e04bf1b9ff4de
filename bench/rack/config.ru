# frozen_string_literal: true

# A small page, and a file to download: MODE says how the file is sent.

FILE = ENV.fetch("FILE")

# A body that is a file, as Rack::Files has one.
Download = Struct.new(:to_path) do
  def each
    File.open(to_path, "rb") do |file|
      while (part = file.read(16_384))
        yield part
      end
    end
  end
end

case ENV.fetch("MODE")
when "gem"
  require "io/splice/rack"
  use IO::Splice::Rack::Sendfile
when "nginx"
  require "rack"
  use Rack::Sendfile, "X-Accel-Redirect", [["#{File.dirname(FILE)}/", "/files/"]]
end

run(lambda do |env|
  head = { "content-type" => "text/plain" }
  next [200, head, ["a small page\n"]] unless env["PATH_INFO"] == "/file"

  [200, { **head, "content-length" => File.size(FILE).to_s }, Download.new(FILE)]
end)
