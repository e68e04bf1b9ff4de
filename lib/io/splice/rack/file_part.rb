# frozen_string_literal: true

class IO
  module Splice
    module Rack
      # The file of a response, and the part of it: all, or the range that `Content-Range` names.
      # @private
      class FilePart
        NO_BODY = [204, 205, 304].freeze
        CONTENT_RANGE = %r{\Abytes (\d+)-(\d+)/(\d+)\z}
        # Does not wait if a FIFO has taken the place of the file.
        MODE = ::File::RDONLY | ::File::NONBLOCK | ::File::NOCTTY

        class << self
          # The opened part; nil unless all headers of the response match the file.
          def of(status, fields, body, min_size)
            return if status < 200 || NO_BODY.include?(status) || fields.key?("transfer-encoding")
            return if (status == 206) != fields.key?("content-range")

            part = new(fields)
            part if part.open(body, min_size)
          end

          # The body of Rack::Files answers `to_path` for whole files only; for a range it answers `ranges`.
          def file?(body)
            body.respond_to?(:to_path) || (body.respond_to?(:ranges) && body.respond_to?(:path))
          end
        end

        attr_reader :file, :offset, :length

        def initialize(fields)
          @range = fields["content-range"]&.match(CONTENT_RANGE)&.captures&.map(&:to_i)
          @whole = !fields.key?("content-range")
          @content_length = fields["content-length"]
          @encoded = fields.key?("content-encoding")
        end

        def open(body, min_size)
          path = path_of(body)
          return unless path.is_a?(String) && ::File.file?(path)

          @file = ::File.open(path, MODE)
          return true if measure(@file.stat) && @length >= min_size && meant?(body)

          close
        rescue SystemCallError, IOError, ArgumentError
          close
        end

        def close
          @file&.close
          nil
        end

        private

        def path_of(body)
          return unless @whole || @range
          return body.to_path if body.respond_to?(:to_path)

          body.path if @range && body.ranges == [@range[0]..@range[1]]
        end

        # Whether the file has that part.
        def measure(stat)
          first, last, size = @range || [0, stat.size - 1, stat.size]
          @offset = first
          @length = last - first + 1
          stat.file? && size == stat.size && last < size && @length.positive?
        end

        # Middleware that encodes a body removes its length; a file that is stored encoded has one. If the body is
        # itself an IO, it must be the file at that path, and its position the start of the part.
        def meant?(body)
          return @content_length == @length.to_s && shown_by?(body) if @content_length

          !@encoded && shown_by?(body)
        end

        def shown_by?(body)
          return true unless body.respond_to?(:to_io)

          io = body.to_io
          ::File.identical?(io, @file) && io.pos == @offset
        end
      end
      private_constant :FilePart
    end
  end
end
