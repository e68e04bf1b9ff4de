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
      # @!method copy_stream(src, dst, copy_length = nil, src_offset = nil)
      #   Ruby's own `IO.copy_stream`, faster.
      #
      #   A file ends where it does when the copy begins, as with Ruby's own, which is private as `IO.ruby_copy_stream`.
      #
      #   @example
      #     require "io/splice/core_ext"
      #     File.write("short", "five!")
      #     IO.copy_stream("short", "copy", 1000) # => 5
      #
      #   @param src [IO, String, #to_path, #readpartial, #read] where the bytes come from
      #   @param dst [IO, String, #to_path, #write] where they go
      #   @param copy_length [Integer, nil] how many bytes; nil: to the end
      #   @param src_offset [Integer, nil] the byte of the file to begin with, whose position then stays; nil: from
      #     where `src` stands
      #   @return [Integer] the bytes copied, fewer than `copy_length` at the end of the input
      #   @raise [SystemCallError, IOError, ArgumentError, TypeError, FrozenError] as Ruby's own
      #   @see Splice.copy_stream
      #   @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
      Copying.define_copy_stream(self)
    end
  end

  # It takes the place of Ruby's own, which stays reachable: in front of it (`prepend`), it would pass over whoever
  # aliases or defines `IO.copy_stream` later.
  class << self
    unless private_method_defined?(:ruby_copy_stream)
      alias ruby_copy_stream copy_stream
      private :ruby_copy_stream
    end
    define_method(:copy_stream, Splice::CoreExt.instance_method(:copy_stream))
  end
end
