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
      # A file ends where it does when the copy begins, as with Ruby's own, which is private as `IO.ruby_copy_stream`.
      #
      # @example
      #   require "io/splice/core_ext"
      #   File.write("short", "five!")
      #   IO.copy_stream("short", "copy", 1000) # => 5
      #
      # @overload copy_stream(src, dst, copy_length = nil, src_offset = nil)
      #   @param src [IO, String, #to_path, #readpartial, #read] where the bytes come from
      #   @param dst [IO, String, #to_path, #write] where they go
      #   @param copy_length [Integer, nil] how many bytes; nil: to the end
      #   @param src_offset [Integer, nil] the byte of the file to begin with, whose position then stays; nil: from
      #     where `src` stands
      #   @return [Integer] the bytes copied, fewer than `copy_length` at the end of the input
      #   @raise [SystemCallError, IOError, ArgumentError, TypeError, FrozenError] as Ruby's own
      # @see Splice.copy_stream
      # @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
      def copy_stream(*args)
        return ruby_copy_stream(*args) unless args.size.between?(2, 4) && Copying::InPlaceOfRuby.files?(*args)

        begin
          Copying::InPlaceOfRuby.copy(*args)
        rescue Copying::SameFile
          ruby_copy_stream(*args)
        end
      rescue StandardError => e
        raise Copying::InPlaceOfRuby.as_rubys(e)
      end
    end

    module Copying
      # What Ruby's own copy_stream does before it copies, and what it asks of objects, in the same order.
      # @private
      module InPlaceOfRuby
        OWN = File.expand_path("..", __dir__).freeze
        LABEL = RUBY_VERSION >= "3.4" ? ":in 'IO.copy_stream'" : ":in `copy_stream'"

        module_function

        # Whether the bytes go from one descriptor to another, and all else is what both understand in the same way.
        def files?(src, dst, *numbers)
          file?(src) && file?(dst) && (numbers.empty? || numbers.all? { |number| plain?(number) })
        end

        def copy(src, dst, copy_length = nil, src_offset = nil)
          return copy_between(src, dst, copy_length, src_offset) if src.is_a?(IO) && dst.is_a?(IO)

          open_end(src, File::RDONLY) do |input|
            Copying.check_reader(input) if input.is_a?(IO)
            open_end(dst, File::WRONLY | File::CREAT) do |output|
              Copying.prepare_writer(output) if output.is_a?(IO)
              Copying.copy_between(input, output, copy_length, src_offset, true)
            end
          end
        end

        def copy_between(input, output, copy_length, src_offset)
          Copying.check_reader(input)
          Copying.prepare_writer(output)
          Copying.copy_between(input, output, copy_length, src_offset, true)
        end

        # An error with a backtrace that begins at the caller, as that of a method in C does.
        def as_rubys(error)
          lines = error.backtrace.to_a
          outside = lines.drop_while { |line| line.start_with?(OWN) }
          return error if error.frozen? || outside.size == lines.size || outside.empty?

          error.set_backtrace([outside.first.sub(/:in .*\z/, LABEL), *outside])
          error
        end

        def file?(end_)
          case end_
          when IO, String then true
          else Copying.can?(end_, :to_path)
          end
        end

        def plain?(number)
          case number
          when nil then true
          when Integer then number.between?(0, (2**63) - 1)
          end
        end

        def open_end(end_, mode, &)
          Copying.open_path(IO.try_convert(end_) || File.path(end_), mode | File::NOCTTY, &)
        end
      end
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
