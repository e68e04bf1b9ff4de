# frozen_string_literal: true

class IO
  module Splice
    # Copies from one end to the other in the fastest way that the two allow: `copy_file_range`, `sendfile`, `splice`
    # directly or through a pipe, or reading and writing. If the kernel refuses a way, the copy falls back to the next
    # one, at the same position. It waits as every call: see {Splice}.
    #
    # **Positions.** Bytes that Ruby has read ahead from `src` go first, and bytes that it still has to write to `dst`
    # are written before. Afterwards both ends are positioned right after the last byte that was copied, also after an
    # exception. What could not be delivered goes back to `src`: by its position, or into Ruby's read buffer. (A thread
    # that is reading from that IO at the time overwrites it there, as it overwrites the bytes of `IO#ungetbyte`. An
    # Integer has no buffer: what an interrupted copy took from a stream and the output does not accept at once is
    # lost.)
    #
    # **Files.** Other threads and processes may use the same open files: a copy reserves what it reads and writes, as
    # read(2) and write(2) do. A file at a path is emptied only when all arguments have proved good and, if an object is
    # read from, after its first read. So it keeps its content if the source is closed, say. A file created for a copy
    # that fails stays, empty. A file is never copied to its own path.
    #
    # **Objects.** An object that is written to may keep and change the strings that it is given. Bytes that its `write`
    # did not take are given to it again. Bytes beyond `len` from an object that is read from go back to it.
    #
    # Bytes are copied as they are, whatever encodings and newlines the IOs convert, and both keep their modes.
    # (`IO.copy_stream` makes its target binary for good.) Messages of a socket are taken whole.
    #
    # @example A file to a socket
    #   here, there = UNIXSocket.pair
    #   IO::Splice.copy_stream("/proc/self/status", here)
    #   there.readpartial(5) # => "Name:"
    # @example A part of a file into another, with progress
    #   IO::Splice.copy_stream("/proc/self/exe", "copy", 1000, 24) { |bytes| puts bytes } # => 1000
    #
    # @param src [IO, Integer, String, Pages, #to_path, #readpartial, #read, #to_io] the source. A path is opened, and
    #   closed. {Pages} are written from where they are.
    #   An object with `readpartial` or `read` is used through that method, one with only `to_io` through its IO.
    # @param dst [IO, Integer, String, #to_path, #write, #to_io] the target. A file at a path is created, or emptied
    # @param len [Integer, nil] how many bytes; nil: to the end
    # @param src_offset [Integer, nil] the byte of the file to begin with; its position then stays. nil: begin at the
    #   position
    # @yieldparam bytes_so_far [Integer] after each MiB, ten times a second while bytes move slowly, and at the end
    # @return [Integer] the bytes copied
    # @raise [EOFError] if the input ends before `len`, after what there was has been delivered
    # @raise [PartialWrite] mixed into any exception raised after bytes have moved
    # @raise [Errno::EPIPE, Errno::ECONNRESET, Errno::ENOSPC, Errno::ENOENT] and others of the kernel, also at the close
    #   of the file at a path: a network file system may report a full disk only then
    # @raise [Errno::ESPIPE] if `src_offset` is given for a pipe or a socket
    # @raise [Errno::EMSGSIZE] if a message of a socket is longer than the remaining length; it is not taken
    # @raise [ArgumentError] if `len` or `src_offset` is negative, an object is given an offset, or `dst` is the path of
    #   the source
    # @raise [Errno::EBADF, IOError, IO::TimeoutError, RangeError, TypeError] as every call: see {Splice}
    # @see https://man7.org/linux/man-pages/man2/copy_file_range.2.html copy_file_range(2)
    # @see https://man7.org/linux/man-pages/man2/sendfile.2.html sendfile(2)
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.copy_stream(src, dst, len = nil, src_offset = nil, &)
      copied = Copying.copy(src, dst, len, src_offset, &)
      raise Copying.ended_early(copied, len) if len && copied < len

      copied
    end

    # Moves exactly `len` bytes; one end is a pipe.
    #
    # @example
    #   r, w = IO.pipe
    #   File.open("/proc/self/exe") { |file| IO::Splice.full(file, w, 1000) } # => 1000
    #
    # @param src [IO, Integer, #to_io] the source
    # @param dst [IO, Integer, #to_io] the target
    # @param len [Integer] how many bytes
    # @param src_offset [Integer, nil] the byte of the file to begin with; nil: begin at its position
    # @return [Integer] `len`
    # @raise [EOFError] if the input ends first, after what there was has been moved
    # @raise [PartialWrite] mixed into any exception raised after bytes have moved
    # @raise [ArgumentError] if there is a block
    # @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {splice}
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.full(src, dst, len, src_offset = nil)
      raise ArgumentError, "full takes no block: copy_stream does" if block_given?

      moved = Copying.splice_reserved(src, src_offset, dst, nil, len, WAITALL)
      raise Copying.ended_early(moved, len) if moved < len

      moved
    end

    # Moves 1 to `len` bytes in one call; one end is a pipe. Waits until there are bytes to move.
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
    # @raise [ArgumentError] if there is a block
    # @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {splice}
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.partial(src, dst, len, src_offset = nil)
      raise ArgumentError, "partial takes no block: copy_stream does" if block_given?

      Copying.splice_reserved(src, src_offset, dst, nil, len)
    rescue EOFError
      nil
    end
  end
end
