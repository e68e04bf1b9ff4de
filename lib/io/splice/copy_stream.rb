# frozen_string_literal: true

class IO
  module Splice
    # Copies from one end to the other, in the fastest way that the two allow: `copy_file_range`, `sendfile`,
    # `splice` straight or through a pipe of its own, or by reading and writing. When the kernel refuses a way,
    # the copy goes on by the next, from exactly where it stands.
    #
    # Others may use the same open files at once: a copy reserves what it reads and writes, as read(2) and write(2) do.
    # Messages of a socket are taken whole.
    #
    # What Ruby has read ahead from `src` goes first, and what it has still to write to `dst` is written
    # before. Afterwards both stand right behind the bytes that were copied, also after an error or an
    # exception. What cannot be delivered then goes back into `src`: by its position, or into Ruby's read
    # buffer. (A thread that waits in a read of that IO meanwhile overwrites what went back into the buffer, as it
    # overwrites what `IO#ungetbyte` puts there.) It waits as every call here does: see {Splice}.
    #
    # A file at a path is emptied when nothing can be wrong any more with the arguments and with what they name, and,
    # where an object is read from, when that has been read for the first time. So what is there stays if the
    # source is closed, say. A file that was made for the copy stays too, empty. A file is not copied to its own path:
    # it would be emptied before.
    #
    # An object that is written to may keep and change the strings that it is given. What it says that it has not taken
    # of one, it is given again. What an object that is read from gives beyond `len` goes back into it.
    #
    # Bytes are copied as they are, whatever encodings and newlines the IOs convert, and the modes of both stay as they
    # are. (`IO.copy_stream` makes its target binary for good.)
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
    # @param dst [IO, Integer, String, #to_path, #write, #to_io] where they go. A file at a path is made, or emptied
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
    # @raise [Errno::EMSGSIZE] if a message of a socket is longer than what is still wanted; it is not taken
    # @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    # @raise [ArgumentError] if `len` or `src_offset` is negative, an object has an offset, or `dst` is the path of the
    #   file that is to be copied
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
      moved = Copying.splice_reserved(src, src_offset, dst, nil, len, WAITALL)
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
      Copying.splice_reserved(src, src_offset, dst, nil, len)
    rescue EOFError
      nil
    end
  end
end
