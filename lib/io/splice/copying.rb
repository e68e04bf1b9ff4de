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

      # @return [Integer] the bytes copied, which may be fewer than `len`
      def copy(src, dst, len, src_offset, &progress)
        # The one case that is worth being quick about.
        return copy_between(src, dst, len, src_offset, &progress) if IO === src && IO === dst

        check_copy(len, src_offset)
        src_end, dst_end = ends = resolve(src, dst)
        return tee_any([dst], ends, src, len, src_offset, &progress) unless src_end && dst_end

        open_ends(ends, src_offset) { |input, output| copy_between(input, output, len, src_offset, &progress) }
      end

      # Whether the bytes are those of a descriptor, and not of an object's own making.
      def descriptor?(end_)
        case end_
        when Integer then true
        else file?(end_) || only_to_io?(end_)
        end
      end

      # What Ruby's own copy_stream uses by its descriptor.
      def file?(end_)
        case end_
        when IO, String then true
        else can?(end_, :to_path) && !nil.equal?(end_.to_path)
        end
      end

      def only_to_io?(end_)
        can?(end_, :to_io) && %i[readpartial read write].none? { |name| can?(end_, name) }
      end

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
        [resolve_end(src, "source", :readpartial, :read), *dsts.map { |dst| resolve_end(dst, "target", :write) }]
      end

      def resolve_end(end_, role, *methods)
        case end_
        when IO, Integer then return end_
        end
        return can?(end_, :to_io) ? io_behind(end_) : File.path(end_) if descriptor?(end_)
        return if methods.any? { |name| can?(end_, name) }

        raise TypeError, "#{kind(end_)} cannot be a #{role}: " \
                         "it has no descriptor, no path and no method #{methods.join(" or ")}"
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

      def io_behind(end_)
        IO.try_convert(end_) or raise TypeError, "#{kind(end_)} is not an IO: its to_io gives nil"
      end

      # For what would be left half done by an exception, such as Ruby's close, which then has forgotten a descriptor
      # that is still open.
      def without_interrupts(&) = Thread.handle_interrupt(Object => :never, &)

      # As Ruby's own copy_stream takes it.
      def io_of(input)
        case input
        when IO then input
        when Integer then IO.for_fd(input, autoclose: false)
        else io_of(input.fileno)
        end
      end

      # Ruby's own copy_stream, also when core_ext has put this gem in its place.
      def original_copy
        IO.method(IO.respond_to?(:ruby_copy_stream, true) ? :ruby_copy_stream : :copy_stream)
      end
    end
    private_constant :Copying
  end
end
