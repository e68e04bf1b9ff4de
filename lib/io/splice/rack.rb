# frozen_string_literal: true

require_relative "../splice"

class IO
  module Splice
    # Middleware for Rack. It does not load Rack.
    #
    # @example
    #   require "io/splice/rack"
    #   IO::Splice::Rack::Sendfile.new(->(env) { [200, {}, ["hello"]] }).call({}) # => [200, {}, ["hello"]]
    module Rack
    end
  end
end

require_relative "rack/file_part"
require_relative "rack/hijack"
require_relative "rack/sendfile"
