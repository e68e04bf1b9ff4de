# frozen_string_literal: true

class IO
  module Splice
    module Rack
      # What of which file a response is: all of it, or the range that `Content-Range` names.
      # @private
      class FilePart
        NO_BODY = [204, 205, 304].freeze
        CONTENT_RANGE = %r{\Abytes (\d+)-(\d+)/(\d+)\z}
        # In front of a FIFO nobody waits, should it have taken the place of the file.
        MODE = ::File::RDONLY | ::File::NONBLOCK | ::File::NOCTTY

        class << self
          # Opened: nil unless all that the response says is true of the file.
          def of(status, fields, body, min_size)
            return if status < 200 || NO_BODY.include?(status) || fields.key?("transfer-encoding")
            return if (status == 206) != fields.key?("content-range")

            part = new(fields)
            part if part.open(body, min_size)
          end

          # Rack::Files answers to `to_path` for whole files only; what it makes of a range is known by its ranges.
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

        # Whether there is such a part.
        def measure(stat)
          first, last, size = @range || [0, stat.size - 1, stat.size]
          @offset = first
          @length = last - first + 1
          stat.file? && size == stat.size && last < size && @length.positive?
        end

        # What encodes a body takes its length away: a file that is encoded itself has one. A file that is the body
        # shows what is behind its position, and the path may be another's by now.
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
