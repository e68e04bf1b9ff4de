# frozen_string_literal: true

class IO
  module Splice
    module Rack
      # Middleware that sends files in the background (see {Background}): the server's thread is free as soon as the
      # headers are out, however slow the client is. It must be in front of all other middleware.
      #
      # It sends each response whose body answers `to_path`, and the single range of `Rack::Files`, on a server with
      # partial hijack, such as Puma. The connection is closed after the file, as the headers say: no server takes it
      # back. If the file shrinks meanwhile, the client gets fewer bytes than `Content-Length`; if it grows, exactly
      # that many.
      #
      # **Everything else passes through unchanged**: no `rack.hijack?`, WEBrick, TLS in the server, `HEAD`, a status
      # without a body, `Transfer-Encoding`, several ranges, fewer than `min_size` bytes, what is not a regular file,
      # and a `Content-Length` or `Content-Range` that is not the file's.
      #
      # The app's body is closed when the transfer has begun, which is also when a logger logs. {Background#stats}
      # counts the transfers. The end of the process ends them: see {Background#drain}.
      #
      # @example In config.ru
      #   require "io/splice/rack"
      #
      #   def config(builder)
      #     builder.use IO::Splice::Rack::Sendfile, min_size: 65_536 do |transfer, env|
      #       warn "#{env["PATH_INFO"]}: #{transfer.error}" if transfer.error
      #     end
      #   end
      #
      # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
      class Sendfile
        FIELDS = %w[content-length content-range content-encoding transfer-encoding rack.hijack].freeze
        private_constant :FIELDS

        # @example
        #   require "io/splice/rack"
        #   app = ->(env) { [200, {}, File.open("big.iso")] }
        #   IO::Splice::Rack::Sendfile.new(app, rate: 1_000_000).class # => IO::Splice::Rack::Sendfile
        #
        # @param app [#call] the app behind it
        # @param min_size [Integer] the fewest bytes of a response; with fewer the connection is kept alive
        # @param idle_timeout [Numeric, nil] the seconds after which a client that accepts nothing is dropped
        # @param rate [Integer, nil] the most bytes a second for each response
        # @yieldparam transfer [Transfer] the transfer, when it has ended, also when it failed, in a thread of the
        #   background
        # @yieldparam env [Hash] the request
        # @return [Sendfile] the middleware
        # @raise [TypeError] if an argument has the wrong type
        # @raise [ArgumentError] if `min_size` is negative, or `idle_timeout` or `rate` is not positive
        def initialize(app, min_size: 65_536, idle_timeout: 60, rate: nil, &block)
          check("min_size", min_size, Integer, 0)
          check("idle_timeout", idle_timeout, Numeric) if idle_timeout
          check("rate", rate, Integer) if rate
          @app = app
          @min_size = min_size
          @options = { idle_timeout:, rate: }
          @block = block
        end

        # @example
        #   require "io/splice/rack"
        #   app = ->(env) { [200, { "content-length" => "5" }, ["hello"]] }
        #   IO::Splice::Rack::Sendfile.new(app).call({ "rack.hijack?" => true }).last # => ["hello"]
        #
        # @param env [Hash] the request
        # @return [Array(Integer, Hash, #each)] the response
        # @raise [Exception] what the app raises
        def call(env)
          response = @app.call(env)
          (part = part(env, *response)) ? in_background(env, part, *response) : response
        end

        private

        def check(name, value, type, least = nil)
          raise TypeError, "#{name}: #{value.class} given, expected #{type}" unless value.is_a?(type)
          return if least ? value >= least : value.positive?

          raise ArgumentError, "#{name}: #{value} given, expected #{least ? "#{least} or more" : "more than 0"}"
        end

        def part(env, status = nil, headers = nil, body = nil)
          return unless hijack?(env) && headers.respond_to?(:to_hash) && FilePart.file?(body)

          fields = fields(headers.to_hash)
          FilePart.of(status.to_i, fields, body, @min_size) unless fields.key?("rack.hijack")
        end

        def hijack?(env)
          # With TLS, Puma's socket is not an IO. WEBrick hands out a pipe, from which a thread of its own copies; its
          # client would not notice missing bytes.
          env["rack.hijack?"] && env["REQUEST_METHOD"] != "HEAD" &&
            !env["SERVER_SOFTWARE"].to_s.start_with?("WEBrick") &&
            env.fetch("SERVER_PROTOCOL", "HTTP/1.1").start_with?("HTTP/1.") &&
            (!env.key?("puma.socket") || env["puma.socket"].is_a?(::IO))
        end

        def fields(headers)
          headers.to_h { |name, value| [name.to_s.downcase, value.to_s] }.slice(*FIELDS)
        end

        def in_background(env, part, status, headers, body)
          hijack = Hijack.new(part, body, @options, @block && ->(transfer) { @block.call(transfer, env) })
          headers = headers.is_a?(Hash) ? headers.dup : headers.to_hash.dup
          headers["content-length"] = part.length.to_s unless fields(headers).key?("content-length")
          headers["rack.hijack"] = hijack.method(:hand_over)
          say_close(env, headers)
          [status, headers, hijack]
        end

        def say_close(env, headers)
          # It is the default of HTTP/1.0, but Puma would announce keep-alive if the client asked for it.
          headers.keys.grep(/\Aconnection\z/i).each { |name| headers.delete(name) }
          if [env["HTTP_VERSION"], env["SERVER_PROTOCOL"]].include?("HTTP/1.0")
            env["HTTP_CONNECTION"] = "close"
          elsif !env["HTTP_CONNECTION"].to_s.casecmp?("close")
            headers["connection"] = "close"
          end
        end
      end
    end
  end
end
