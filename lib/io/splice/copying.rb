# frozen_string_literal: true

class IO
  module Splice
    # What stands between the arguments of a copy and the two descriptors that it is made between: paths are
    # opened, and objects that transform what passes through them are used through their own methods.
    # @private
    module Copying
      # A copy of a file to its own path, which would empty it first.
      SameFile = Class.new(ArgumentError)

      module_function

      # What Kernel's own method says, also of a BasicObject. Kept in a constant it would be out of a Ractor's reach.
      def kernel_call(object, name, ...) = Kernel.instance_method(name).bind_call(object, ...)

      def can?(end_, name)
        case end_
        when Object then end_.respond_to?(name)
        else kernel_call(end_, :respond_to?, name)
        end
      end

      # How each end is used: an IO or a number, the path of a file, or nil if it has methods of its own. Nothing is
      # opened before all of them are known to be of a right kind.
      def resolve(src, *dsts)
        [resolve_source(src), *dsts.map { |dst| resolve_target(dst) }]
      end

      def kind(end_)
        nil.equal?(end_) ? "nil" : "a #{kernel_call(end_, :class)}"
      end

      # Yields all ends, with the paths among them opened; closes only what it opened. A file that is there keeps its
      # content until everything else is known to be good: those who copy empty it then.
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
          yield file
        ensure
          file&.close
        end
      end

      # For what would be left half done by an exception, such as Ruby's close, which then has forgotten a descriptor
      # that is still open.
      def without_interrupts(&) = Thread.handle_interrupt(Object => :never, &)

      # Says in an exception how far a call came.
      def mark(exception, with, variable, bytes)
        return exception if exception.frozen?

        exception.extend(with)
        exception.instance_variable_set(variable, bytes)
        exception
      end

      # Gives bytes back that an object has given and nobody has taken, if it can take them.
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
