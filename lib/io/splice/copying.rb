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

        opened(src, File::RDONLY) do |input|
          opened(dst, File::WRONLY | File::CREAT | File::TRUNC) do |output|
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
      def asked(object, name, ...) = Kernel.instance_method(name).bind_call(object, ...)

      def can?(end_, name)
        case end_
        when Object then end_.respond_to?(name)
        else asked(end_, :respond_to?, name)
        end
      end

      def check_ends(src, *dsts)
        check_source(src)
        dsts.each { |dst| check_target(dst) }
      end

      def check_source(src)
        return if descriptor?(src) || can?(src, :readpartial) || can?(src, :read)

        raise TypeError, "#{kind(src)} is no source: it has no descriptor, no path and no method readpartial or read"
      end

      def check_target(dst)
        return if descriptor?(dst) || can?(dst, :write)

        raise TypeError, "#{kind(dst)} is no target: it has no descriptor, no path and no method write"
      end

      def kind(end_)
        nil.equal?(end_) ? "nil" : "a #{asked(end_, :class)}"
      end

      # Yields what is to be copied from or to, an IO or a number; closes only what it opened.
      def opened(end_, mode, &)
        case end_
        when IO, Integer then yield end_
        else can?(end_, :to_io) ? yield(io_behind(end_)) : open_and_close(end_, mode, &)
        end
      end

      def io_behind(end_)
        IO.try_convert(end_) or raise TypeError, "#{kind(end_)} is no IO: its to_io gives nil"
      end

      def open_and_close(path, mode)
        file = Opened.new(path, mode)
        yield file.fileno
      ensure
        file&.close
      end

      # For what would be left half done by an exception, such as Ruby's close, which then has forgotten a descriptor
      # that is still open.
      def undisturbed(&) = Thread.handle_interrupt(Object => :never, &)

      # As Ruby's own copy_stream takes it.
      def io_of(input)
        input.is_a?(Integer) ? IO.for_fd(input, autoclose: false) : input
      end

      # Ruby's own copy_stream, also when core_ext has put this gem in its place.
      def rubys_own
        own = IO.method(:copy_stream)
        own = own.super_method while own.owner.name == "IO::Splice::CoreExt"
        own
      end
    end
    private_constant :Copying

    # Copies from one end to the other, in the fastest way that the two allow: `copy_file_range`, `sendfile`,
    # `splice` straight or through a pipe of its own, or by reading and writing. When the kernel refuses a way,
    # the copy goes on by the next, from exactly where it stands.
    #
    # What Ruby has read ahead from `src` goes first, and what it has still to write to `dst` is written
    # before. Afterwards both stand right behind the bytes that were copied, also after an error or an
    # exception. What cannot be delivered then goes back into `src`: by its position, or into Ruby's read
    # buffer. It waits as every call here does: see {Splice}.
    #
    # @example A file to a socket
    #   here, there = UNIXSocket.pair
    #   IO::Splice.copy_stream("/proc/self/status", here)
    #   there.readpartial(5) # => "Name:"
    # @example A part of a file into another, with progress
    #   IO::Splice.copy_stream("/proc/self/exe", "copy", 1000, 24) { |bytes| puts bytes } # => 1000
    #
    # @param src [IO, Integer, String, #to_path, #readpartial, #read, #to_io] where the bytes come from. A path is
    #   opened, and closed. An object with `readpartial` or `read` is used through that; one that has nothing
    #   but `to_io` is used through it.
    # @param dst [IO, Integer, String, #to_path, #write, #to_io] where they go. A file at a path is made, or emptied.
    # @param len [Integer, nil] how many bytes; nil: to the end
    # @param src_offset [Integer, nil] the byte of the file to begin with, whose position then stays; nil: from
    #   where `src` stands
    # @yieldparam bytes_so_far [Integer] now and then, and at the end
    # @return [Integer] the bytes copied
    # @raise [EOFError] if the input ends before `len`, after what there was has been delivered
    # @raise [IOError] if an IO is closed, meanwhile too, or not open for that direction
    # @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    # @raise [Errno::EPIPE, Errno::ECONNRESET, Errno::ENOSPC, Errno::ENOENT] and others, as the kernel says
    # @raise [Errno::ESPIPE] if `src_offset` is given for a pipe or a socket
    # @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    # @raise [ArgumentError] if `len` or `src_offset` is negative, or an object has an offset
    # @raise [RangeError] if `src_offset` is larger than any file, or a descriptor than any descriptor
    # @raise [TypeError] if an argument is of the wrong kind
    # @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
    # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.copy_stream(src, dst, len = nil, src_offset = nil, &)
      copied = Copying.copy(src, dst, len, src_offset, &)
      raise EOFError, "end of file reached after #{copied} of #{len} bytes" if len && copied < len

      copied
    end

    # Moves exactly `len` bytes; one end is a pipe.
    #
    # @example
    #   r, w = IO.pipe
    #   File.open("/proc/self/exe") { |file| IO::Splice.full(file, w, 1000) } # => 1000
    #
    # @param src [IO, Integer, #to_io] where the bytes come from
    # @param dst [IO, Integer, #to_io] where they go
    # @param len [Integer] how many bytes
    # @param src_offset [Integer, nil] the byte of the file to begin with; nil: from where it stands
    # @return [Integer] `len`
    # @raise [EOFError] if the input ends first, after what there was has been moved
    # @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {splice}
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.full(src, dst, len, src_offset = nil)
      moved = splice(src, src_offset, dst, nil, len, WAITALL)
      raise EOFError, "end of file reached after #{moved} of #{len} bytes" if moved < len

      moved
    end

    # Moves up to `len` bytes in one go; one end is a pipe. Waits until there is something to move.
    #
    # @example
    #   r, w = IO.pipe
    #   _, out = IO.pipe
    #   w << "some"
    #   IO::Splice.partial(r, out, 100) # => 4
    #   w.close
    #   IO::Splice.partial(r, out, 100) # => nil
    #
    # @param (see .full)
    # @return [Integer, nil] the bytes moved; nil at the end of the input
    # @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {splice}
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.partial(src, dst, len, src_offset = nil)
      splice(src, src_offset, dst, nil, len)
    rescue EOFError
      nil
    end
  end
end
