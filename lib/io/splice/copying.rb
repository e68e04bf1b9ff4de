# frozen_string_literal: true

class IO
  module Splice
    # What stands between the arguments of a copy and the two descriptors that it is made between: paths are
    # opened, and objects that transform what passes through them are used through their own methods.
    # @private
    module Copying
      module_function

      # @return [Integer] the bytes copied, which may be fewer than `len`
      def copy(src, dst, len, src_offset, &progress)
        # The one case that is worth being quick about.
        return copy_between(src, dst, len, src_offset, &progress) if IO === src && IO === dst

        check_copy(len, src_offset) # before a file is emptied
        check_ends(src, dst)
        return tee_any(src, [dst], len, src_offset, &progress) unless descriptor?(src) && descriptor?(dst)

        with_fd(src, File::RDONLY) do |input|
          with_fd(dst, File::WRONLY | File::CREAT | File::TRUNC) do |output|
            copy_between(input, output, len, src_offset, &progress)
          end
        end
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

      def check_ends(src, *dsts)
        check_source(src)
        dsts.each { |dst| check_target(dst) }
      end

      def check_source(src)
        return if descriptor?(src) || can?(src, :readpartial) || can?(src, :read)

        raise TypeError,
              "#{kind(src)} cannot be a source: it has no descriptor, no path and no method readpartial or read"
      end

      def check_target(dst)
        return if descriptor?(dst) || can?(dst, :write)

        raise TypeError, "#{kind(dst)} cannot be a target: it has no descriptor, no path and no method write"
      end

      def kind(end_)
        nil.equal?(end_) ? "nil" : "a #{kernel_call(end_, :class)}"
      end

      # Yields what is to be copied from or to, an IO or a number; closes only what it opened.
      def with_fd(end_, mode, &)
        case end_
        when IO, Integer then yield end_
        else can?(end_, :to_io) ? yield(io_behind(end_)) : open_and_close(end_, mode, &)
        end
      end

      def io_behind(end_)
        IO.try_convert(end_) or raise TypeError, "#{kind(end_)} is not an IO: its to_io gives nil"
      end

      def open_and_close(path, mode)
        file = Opened.new(path, mode)
        yield file.fileno
      ensure
        file&.close
      end

      # For what would be left half done by an exception, such as Ruby's close, which then has forgotten a descriptor
      # that is still open.
      def without_interrupts(&) = Thread.handle_interrupt(Object => :never, &)

      # As Ruby's own copy_stream takes it.
      def io_of(input)
        input.is_a?(Integer) ? IO.for_fd(input, autoclose: false) : input
      end

      # Ruby's own copy_stream, also when core_ext has put this gem in its place.
      def original_copy
        own = IO.method(:copy_stream)
        own = own.super_method while own.owner.name == "IO::Splice::CoreExt"
        own
      end
    end
    private_constant :Copying
  end
end
