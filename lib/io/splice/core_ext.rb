# frozen_string_literal: true

require_relative "../splice"

class IO
  module Splice
    # Puts this gem's engine behind `IO.copy_stream`, for all its users: FileUtils, Net::HTTP, Rack servers.
    # What it means stays as Ruby documents it; where an object has to be used, Ruby's own does it.
    #
    # @example
    #   require "io/splice/core_ext"
    #   IO.copy_stream("/proc/self/exe", "/dev/null", 1000) # => 1000
    module CoreExt
      # @param src [IO, String, #to_path, #readpartial, #read]
      # @param dst [IO, String, #to_path, #write]
      # @param copy_length [Integer, nil] bytes; nil: to the end
      # @param src_offset [Integer, nil]
      # @return [Integer] the bytes copied, fewer than `copy_length` at the end of the input
      # @raise [SystemCallError, IOError, ArgumentError, TypeError] as Ruby's own
      # @see Splice.copy_stream
      def copy_stream(src, dst, copy_length = nil, src_offset = nil)
        return super unless Copying.file?(src) && Copying.file?(dst) && plain?(copy_length) && plain?(src_offset)

        dst.to_io.binmode if dst.respond_to?(:to_io)
        Copying.copy(src, dst, copy_length, src_offset)
      end

      private

      # A number that Ruby and this gem understand in the same way.
      def plain?(number)
        number.nil? || (number.is_a?(Integer) && number.between?(0, (2**63) - 1))
      end
    end
  end

  singleton_class.prepend(Splice::CoreExt)
end
