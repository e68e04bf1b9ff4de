# frozen_string_literal: true

require_relative "../splice"

class IO
  module Splice
    # Puts this gem's engine behind `IO.copy_stream`, for all its users: FileUtils, Net::HTTP, Rack servers.
    # What it means stays as Ruby documents it; where an object has to be used, Ruby's own does it.
    #
    # @example
    #   require "io/splice/core_ext"
    #   IO.copy_stream("/proc/self/exe", "copy", 1000) # => 1000
    module CoreExt
      # Ruby's own `IO.copy_stream`, faster.
      #
      # @example
      #   require "io/splice/core_ext"
      #   File.write("short", "five!")
      #   IO.copy_stream("short", "copy", 1000) # => 5
      #
      # @param src [IO, String, #to_path, #readpartial, #read] where the bytes come from
      # @param dst [IO, String, #to_path, #write] where they go
      # @param copy_length [Integer, nil] how many bytes; nil: to the end
      # @param src_offset [Integer, nil] the byte of the file to begin with, whose position then stays; nil: from
      #   where `src` stands
      # @return [Integer] the bytes copied, fewer than `copy_length` at the end of the input
      # @raise [SystemCallError, IOError, ArgumentError, TypeError] as Ruby's own
      # @see Splice.copy_stream
      # @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
      def copy_stream(src, dst, copy_length = nil, src_offset = nil)
        return super unless Copying.file?(src) && Copying.file?(dst) && plain?(copy_length) && plain?(src_offset)

        dst.to_io.binmode if dst.respond_to?(:to_io)
        Copying.copy(src, dst, copy_length, src_offset)
      rescue Copying::SameFile
        super
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
