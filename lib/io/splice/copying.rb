# frozen_string_literal: true

class IO
  module Splice
    # Turns the arguments of a copy into descriptors: opens paths, and tells which objects are used through their own
    # methods.
    # @private
    module Copying
      # Raised for a copy of a file to its own path, which would empty it first.
      SameFile = Class.new(ArgumentError)

      module_function

      # Calls Kernel's own method, also on a BasicObject. A Ractor could not reach the method in a constant.
      def kernel_call(object, name, ...)
        Kernel.instance_method(name).bind_call(object, ...)
      end

      def can?(end_, name)
        case end_
        when Object then end_.respond_to?(name)
        else kernel_call(end_, :respond_to?, name)
        end
      end

      # How each end is used: an IO or a number, the path of a file, or nil if it has its own methods. Nothing is opened
      # before all of them have a valid type.
      def resolve(src, *dsts)
        [resolve_source(src), *dsts.map { |dst| resolve_target(dst) }]
      end

      def kind(end_)
        nil.equal?(end_) ? "nil" : "a #{kernel_call(end_, :class)}"
      end

      # Yields all ends, with the paths among them opened; closes only what it opened. An existing file keeps its
      # content until everything else is known to be good: the copy empties it then.
      def open_ends((src, *dsts), src_offset)
        open_path(src, File::RDONLY) do |input|
          check_ends(src_offset, input, *dsts)
          open_targets(dsts) { |outputs| yield input, *outputs }
        end
      end

      def open_targets(dsts, *outputs, &)
        return yield outputs if outputs.size == dsts.size

        open_path(dsts[outputs.size], File::WRONLY | File::CREAT) { |output| open_targets(dsts, *outputs, output, &) }
      end

      def open_path(end_, mode)
        return yield end_ unless end_.is_a?(String)

        begin
          file = Opened.new(end_, mode)
          result = yield file
          file.finish
          result
        ensure
          file&.close
        end
      end

      # For code that an exception must not interrupt, such as Ruby's close, which then forgets an open descriptor.
      def without_interrupts(&)
        Thread.handle_interrupt(Object => :never, &)
      end

      # Extends an exception with the bytes that a call has moved.
      def mark(exception, with, variable, bytes)
        return exception if exception.frozen?

        exception.extend(with)
        exception.instance_variable_set(variable, bytes)
        exception
      end

      # The exception of a copy whose input has ended before `len` bytes.
      def ended_early(copied, len)
        partial_write(EOFError.new("end of file reached after #{copied} of #{len} bytes"), copied)
      end

      def partial_write(error, bytes)
        bytes.zero? ? error : mark(error, PartialWrite, :@bytes_written, bytes)
      end

      # Returns bytes to the object that they were read from, if it accepts them.
      def unread_object(src, bytes)
        without_interrupts do
          next unread_tls(src, bytes) if tls?(src)

          src.pos -= bytes.bytesize
        rescue StandardError
          begin
            src.ungetbyte(bytes)
          rescue StandardError
            nil
          end
        end
      end
    end
    private_constant :Copying
  end
end
