# frozen_string_literal: true

require_relative "../splice"

class IO
  module Splice
    # Replaces `IO.copy_stream` by this gem's engine for all its users, such as FileUtils, Net::HTTP and Rack servers.
    # Its meaning stays as Ruby documents it. Copies from or to an object are left to Ruby's own method.
    #
    # @example
    #   require "io/splice/core_ext"
    #   IO.copy_stream("/proc/self/exe", "copy", 1000) # => 1000
    module CoreExt
      # @!method copy_stream(src, dst, copy_length = nil, src_offset = nil)
      #   Ruby's own `IO.copy_stream`, with less CPU. A file is copied to the size that it has when the copy begins.
      #   Ruby's own method remains as the private `IO.ruby_copy_stream`.
      #
      #   @example
      #     require "io/splice/core_ext"
      #     File.write("short", "five!")
      #     IO.copy_stream("short", "copy", 1000) # => 5
      #
      #   @param src [IO, String, #to_path, #readpartial, #read] the source
      #   @param dst [IO, String, #to_path, #write] the target
      #   @param copy_length [Integer, nil] how many bytes; nil: to the end
      #   @param src_offset [Integer, nil] the byte of the file to begin with; its position then stays. nil: begin at
      #     the position
      #   @return [Integer] the bytes copied, fewer than `copy_length` at the end of the input
      #   @raise [SystemCallError, IOError, ArgumentError, TypeError, FrozenError] as Ruby's own
      #   @see Splice.copy_stream
      #   @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
      Copying.define_copy_stream(self)
    end
  end

  # It replaces Ruby's own method. With `prepend` it would bypass a later alias or definition of `IO.copy_stream`.
  class << self
    unless private_method_defined?(:ruby_copy_stream)
      alias ruby_copy_stream copy_stream
      private :ruby_copy_stream
    end
    define_method(:copy_stream, Splice::CoreExt.instance_method(:copy_stream))
  end
end
