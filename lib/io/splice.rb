# frozen_string_literal: true

# A precompiled gem has a binary for each Ruby, any other the one that was built for this.
compiled = "io_splice/#{RUBY_VERSION[/\d+\.\d+/]}/io_splice"
compiled = "io_splice/io_splice" unless File.exist?(File.join(__dir__, "..", "#{compiled}.so"))
begin
  require compiled
rescue LoadError => e
  raise if e.path != compiled # it is there, and something else is not

  raise LoadError, "io_splice is not compiled for Ruby #{RUBY_VERSION}: run `rake compile` in " \
                   "#{File.expand_path("../..", __dir__)}, or install the gem. (Bundler compiles what a Gemfile has " \
                   "by `git:`, and nothing that it has by `path:`.)"
end

# Ruby's own class. It gets the system calls of {Splice}, and the capacity of a pipe.
class IO
  # @!method self.splice(io_in, off_in, io_out, off_out, len, flags = 0)
  #   (see IO::Splice.splice)

  # @!method self.trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
  #   (see IO::Splice.trysplice)

  # @!method self.tee(io_in, io_out, len, flags = 0)
  #   (see IO::Splice.tee)

  # @!method self.trytee(io_in, io_out, len, flags = 0)
  #   (see IO::Splice.trytee)

  # @!method self.vmsplice(io, data, flags = 0)
  #   (see IO::Splice.vmsplice)

  # @!method pipe_size
  #   The pipe's capacity.
  #
  #   @example
  #     r, w = IO.pipe
  #     r.pipe_size # => 65536
  #
  #   @return [Integer] bytes
  #   @raise [Errno::EBADF] if this is not a pipe
  #   @raise [IOError] if it is closed
  #   @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html F_GETPIPE_SZ(2const)

  # @!method pipe_size=(bytes)
  #   Sets the capacity of the pipe. The kernel rounds it up: {#pipe_size} returns the result.
  #
  #   @example
  #     r, w = IO.pipe
  #     w.pipe_size = 100_000
  #     r.pipe_size # => 131072
  #
  #   @param bytes [Integer] the capacity
  #   @return [Integer] `bytes`
  #   @raise [Errno::EPERM] if it is more than a user may have (`/proc/sys/fs/pipe-max-size`)
  #   @raise [Errno::EBUSY] if more than that is in the pipe
  #   @raise [Errno::EINVAL] if it is negative or more than 2 GiB
  #   @raise [Errno::EBADF] if this is not a pipe
  #   @raise [IOError] if it is closed
  #   @raise [TypeError] if it is not an Integer
  #   @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html F_GETPIPE_SZ(2const)

  # `splice(2)`, `tee(2)` and `vmsplice(2)`: bytes move between files, pipes and sockets inside the
  # Linux kernel, without passing through Ruby strings.
  #
  # The system calls are module functions here and singleton methods of {IO}: `IO::Splice.splice` and `IO.splice` are
  # the same.
  #
  # ## What all calls have in common
  #
  # **An io** is an {IO}, an Integer file descriptor, or an object with `to_io`. An `SSLSocket` is one in a direction
  # that the kernel encrypts: see {ktls}. In the others it raises `TypeError`, because its `to_io` is the bare socket,
  # on which the bytes would leave unencrypted.
  #
  # **Waiting** is decided by the flags alone, not by `O_NONBLOCK`, which Ruby sets on every pipe and socket. With
  # {F_NONBLOCK}, and in {trysplice} and {trytee}, a call does not wait. Otherwise it waits through the fiber scheduler
  # if there is one, else without the GVL; other threads run. `IO#timeout` (Ruby 3.2), `Thread#raise`, `Thread#kill`,
  # `Timeout` and a `close` of one of the IOs in another thread end the wait. A signal runs its handler, and the wait
  # continues.
  #
  # **Ruby's buffers** lie between the program and the kernel. Bytes that Ruby still has to write are written first.
  # Bytes that Ruby has read ahead (`gets` does that) raise `IOError`, because later bytes would be sent before them.
  #
  # **Errors** are the kernel's, as `Errno::*`. If the kernel's `EINVAL` hides the reason, the message gives it. An
  # exception raised after bytes have moved is extended with {PartialWrite}, which says how many. Every call raises
  #
  # - `IOError` if an IO is closed, also by another thread meanwhile, or not open for that direction, or was read ahead
  # - `IO::TimeoutError` after `IO#timeout` (Ruby 3.2)
  # - `Errno::EBADF` if an Integer is not a descriptor, or not open for that direction
  # - `RangeError` if a number exceeds the range of a file descriptor or of a file offset
  # - `TypeError` if an argument has the wrong type, or is an `SSLSocket` that the kernel does not encrypt
  #
  # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
  # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
  # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)
  module Splice
    # @!parse
    #   # The version of this gem.
    #   VERSION = "5.1.0"
    #
    #   # Move pages instead of copying them, if possible. Today's kernels ignore it.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_MOVE = 1
    #
    #   # Do not wait: not for the pipe, and not for a socket, FIFO or terminal in blocking mode either.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_NONBLOCK = 2
    #
    #   # More will follow at once. Left on for the last piece, the peer waits up to 200 ms for it.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_MORE = 4
    #
    #   # For {vmsplice}: gives an IO::Buffer away. With a String it has no effect.
    #   # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html
    #   F_GIFT = 8
    #
    #   # This gem's own: continue until all of `len` has moved, or the input ends.
    #   WAITALL = 1 << 31
    #
    #   # The most bytes that a pipe takes atomically.
    #   # @see https://man7.org/linux/man-pages/man7/pipe.7.html
    #   PIPE_BUF = 4096
    #
    #   # The capacity of a new pipe here, in bytes.
    #   # @see https://man7.org/linux/man-pages/man7/pipe.7.html
    #   PIPE_CAPA = 65_536
    #
    #   # The size of a page of memory here, in bytes.
    #   PAGE_SIZE = 4096
    #
    #   # For `IO#fcntl`; {IO#pipe_size} is the simpler way.
    #   # @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
    #   F_GETPIPE_SZ = 1032
    #
    #   # For `IO#fcntl`; {IO#pipe_size=} is the simpler way.
    #   # @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
    #   F_SETPIPE_SZ = 1031

    # @!method self.splice(io_in, off_in, io_out, off_out, len, flags = 0)
    #   Moves bytes between a pipe and something else, or between two pipes.
    #
    #   Without an offset the kernel moves the position of a file without its lock: if two threads or processes use one
    #   open file at once, they get bytes twice, or overwrite each other's. Give offsets then, or use
    #   {Splice.copy_stream}, {Splice.full} or {Splice.partial}, which hold the lock.
    #
    #   @example Send the head of a file to a socket
    #     r, w = IO.pipe
    #     here, there = UNIXSocket.pair
    #     File.open("/proc/self/exe") { |file| IO.splice(file, 0, w, nil, 4096) }
    #     IO.splice(r, nil, here, nil, 4096) # => 4096
    #     there.readpartial(4)               # => "\x7FELF"
    #
    #   @param io_in [IO, Integer, #to_io] the input; it or the output is a pipe
    #   @param off_in [Integer, nil] the byte of a file to begin with; its position then stays. nil: begin at the
    #     position, which moves
    #   @param io_out [IO, Integer, #to_io] the output
    #   @param off_out [Integer, nil] as `off_in`, for the output
    #   @param len [Integer] the most bytes to move, 0 for none; clamped to what the kernel takes in one call
    #   @param flags [Integer] {Splice::F_MOVE}, {Splice::F_NONBLOCK}, {Splice::F_MORE}, {Splice::WAITALL}
    #   @return [Integer] the bytes moved, 1 to `len`; with {Splice::WAITALL} `len`, or fewer at the end of the input
    #   @raise [EOFError] at the end of the input
    #   @raise [Errno::EAGAIN] if it would have to wait, with {Splice::F_NONBLOCK}; an `IO::WaitReadable` if for the
    #     input, else an `IO::WaitWritable`
    #   @raise [PartialWrite] mixed into any exception raised after bytes have moved, with {Splice::WAITALL}
    #   @raise [Errno::EINVAL] if neither end is a pipe, both are the same pipe, the output is open in append mode, an
    #     end does not support it, or an unknown flag is given
    #   @raise [Errno::ESPIPE] if an offset is given for a pipe
    #   @raise [Errno::EPIPE] if the output has no reader
    #   @raise [ArgumentError] if `len` or an offset is negative
    #   @raise [Errno::EBADF, IOError, IO::TimeoutError, RangeError, TypeError] as every call: see {Splice}
    #   @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)

    # @!method self.trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
    #   As {splice} with {Splice::F_NONBLOCK}, but returns a value instead of raising when nothing can be moved.
    #
    #   @example
    #     r, w = IO.pipe
    #     _, out = IO.pipe
    #     IO.trysplice(r, nil, out, nil, 100) # => :EAGAIN
    #     w << "five!"
    #     IO.trysplice(r, nil, out, nil, 100) # => 5
    #     w.close
    #     IO.trysplice(r, nil, out, nil, 100) # => nil
    #
    #   @param (see IO::Splice.splice)
    #   @return [Integer] the bytes moved
    #   @return [:EAGAIN] if it would have to wait
    #   @return [nil] at the end of the input
    #   @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {splice}
    #   @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)

    # @!method self.tee(io_in, io_out, len, flags = 0)
    #   Duplicates what is in one pipe into another. The first pipe keeps it, to be read or spliced on.
    #
    #   @example Look at what goes by
    #     r, w = IO.pipe
    #     copy, into = IO.pipe
    #     w << "to both"
    #     IO.tee(r, into, 7)  # => 7
    #     copy.readpartial(7) # => "to both"
    #     r.readpartial(7)    # => "to both"
    #
    #   @param io_in [IO, Integer, #to_io] a pipe
    #   @param io_out [IO, Integer, #to_io] another pipe
    #   @param len [Integer] the most bytes to duplicate, 0 for none
    #   @param flags [Integer] {Splice::F_NONBLOCK}, {Splice::WAITALL}
    #   @return [Integer] the bytes duplicated, 1 to `len`; none are consumed, so with {Splice::WAITALL} the first ones
    #     come again
    #   @raise [EOFError] if the input is empty and has no writer
    #   @raise [Errno::EAGAIN] if it would have to wait, with {Splice::F_NONBLOCK}; an `IO::WaitReadable` if for the
    #     input, else an `IO::WaitWritable`
    #   @raise [PartialWrite] mixed into any exception raised after bytes have moved, with {Splice::WAITALL}
    #   @raise [Errno::EINVAL] if an end is not a pipe, both are the same pipe, or an unknown flag is given
    #   @raise [Errno::EPIPE] if the output has no reader
    #   @raise [ArgumentError] if `len` is negative
    #   @raise [Errno::EBADF, IOError, IO::TimeoutError, RangeError, TypeError] as every call: see {Splice}
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.trytee(io_in, io_out, len, flags = 0)
    #   As {tee} with {Splice::F_NONBLOCK}, but returns a value instead of raising when nothing can be duplicated.
    #
    #   @example
    #     r, w = IO.pipe
    #     _, into = IO.pipe
    #     IO.trytee(r, into, 100) # => :EAGAIN
    #     w.close
    #     IO.trytee(r, into, 100) # => nil
    #
    #   @param (see IO::Splice.tee)
    #   @return [Integer] the bytes duplicated
    #   @return [:EAGAIN] if it would have to wait
    #   @return [nil] if the input is empty and has no writer
    #   @raise [SystemCallError, IOError, ArgumentError, RangeError, TypeError] as {tee}
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.vmsplice(io, data, flags = 0)
    #   Puts memory into a pipe, all of it, in order. The reader gets what the memory held when the call was made,
    #   whatever happens to it afterwards and wherever the bytes go on to.
    #
    #   The kernel copies the bytes of a **String** and of an **IO::Buffer** into the pipe, as `write` does. While the
    #   call waits, a long String costs no further copy (Ruby shares its memory until it is written to); a short one and
    #   a buffer cost one.
    #
    #   **{Splice::Pages}** are not copied, however often they are put in. An **IO::Buffer with {Splice::F_GIFT}** is
    #   not copied but given away: afterwards it is empty, as after `free`. It must own mapped pages, as buffers of
    #   `IO::Buffer::PAGE_SIZE` bytes and more do. If not all of it goes in ({Splice::F_NONBLOCK}, an error, an
    #   interrupt), it stays as it was. While the call waits, it is locked and reads as zeros.
    #
    #   The call waits while the pipe is full. A new pipe holds 16 pieces of up to 4 KiB: to put in more and take it out
    #   in the same thread, enlarge the pipe first, by {IO#pipe_size=}.
    #
    #   @example Several strings in one call
    #     r, w = IO.pipe
    #     IO.vmsplice(w, ["HTTP/1.1 204 No Content\r\n", "\r\n"]) # => 27
    #     r.readpartial(27)                                       # => "HTTP/1.1 204 No Content\r\n\r\n"
    #
    #   @example A header for each, and a body that is never copied
    #     body = IO::Splice::Pages.new("x" * 30_000)
    #     r, w = IO.pipe
    #     IO.vmsplice(w, ["Content-Length: #{body.bytesize}\r\n\r\n", body]) # => 30025
    #
    #   @example Give a buffer away
    #     r, w = IO.pipe
    #     buffer = IO::Buffer.new(16_384)
    #     buffer.set_string("filled by a decoder")
    #     IO.vmsplice(w, buffer, IO::Splice::F_GIFT) # => 16384
    #     buffer.null?                               # => true
    #
    #   @param io [IO, Integer, #to_io] the pipe
    #   @param data [String, IO::Buffer, Pages, Array] one of them, or an Array of any number of them
    #   @param flags [Integer] {Splice::F_NONBLOCK}, {Splice::F_GIFT}; the latter has no effect on Strings, whose memory
    #     belongs to Ruby's heap, and on {Splice::Pages}
    #   @return [Integer] the bytes put in: all; with {Splice::F_NONBLOCK} as many as there was room for
    #   @raise [Errno::EAGAIN] if there was no room at all, with {Splice::F_NONBLOCK}; an `IO::WaitWritable`
    #   @raise [Errno::EPIPE] if the pipe has no reader
    #   @raise [Errno::EINVAL] if an unknown flag is given
    #   @raise [PartialWrite] mixed into any exception raised after bytes have gone in
    #   @raise [ArgumentError] if a buffer cannot be given away: a slice, a locked, external, internal, read-only or
    #     shared one, one mapped from a file, or one that is in the array twice; nothing has happened then
    #   @raise [IO::Buffer::AllocationError] if a buffer has no memory
    #   @raise [IO::Buffer::InvalidatedError] if a buffer is a slice of one that no longer has memory
    #   @raise [Errno::EBADF] if it is not a pipe open for writing
    #   @raise [IOError, IO::TimeoutError, RangeError, TypeError] as every call: see {Splice}
    #   @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)

    # Bytes in their own pages of memory, for data that is sent repeatedly: a header, a template, a cached body.
    # {Splice.vmsplice} puts them into a pipe without copying them, any number of times.
    #
    # The pages are filled once and never written to again. When the object is collected, they are returned to the
    # kernel, never reused. So bytes in flight through pipes, sockets and other processes stay what they were.
    #
    # The object is frozen and shareable between Ractors, and after `fork` both processes have it. It takes whole pages
    # ({PAGE_SIZE} each), which are reported to the garbage collector. Small objects share 2 MiB of address space, in
    # one huge page if the system has them.
    #
    # @example
    #   page = IO::Splice::Pages.new("<h1>Hello</h1>")
    #   r, w = IO.pipe
    #   3.times { IO.vmsplice(w, page) }
    #   r.readpartial(42) # => "<h1>Hello</h1><h1>Hello</h1><h1>Hello</h1>"
    #
    # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)
    class Pages
      # @!method self.new(data)
      #   Copies bytes into new pages.
      #
      #   @example
      #     IO::Splice::Pages.new("Hello").frozen? # => true
      #
      #   @param data [String, #to_str, IO::Buffer] the bytes
      #   @return [Pages] the pages
      #   @raise [TypeError] if it is anything else
      #   @raise [IO::Buffer::AllocationError] if a buffer has no memory
      #   @raise [NoMemoryError] if there is no memory, or if the process has too many mappings
      #     (`/proc/sys/vm/max_map_count`)

      # @!method bytesize
      #   @example
      #     IO::Splice::Pages.new("Grüße").bytesize # => 7
      #
      #   @return [Integer] how many bytes there are

      # @!method to_s
      #   @example
      #     IO::Splice::Pages.new("Grüße").to_s # => "Grüße"
      #
      #   @return [String] a copy of the bytes, in the encoding of the original String; binary if it was a buffer

      # @!method slice(offset, length = bytesize - offset)
      #   A part of the bytes, in the same pages, which stay as long as any part is in use. Nothing is copied.
      #
      #   @example
      #     IO::Splice::Pages.new("Hello").slice(1, 3).to_s # => "ell"
      #
      #   @param offset [Integer] where it begins, in bytes
      #   @param length [Integer] how many bytes
      #   @return [Pages] the part
      #   @raise [ArgumentError] if one is negative, or the part exceeds the bytes
      #   @raise [TypeError] if one is not an Integer

      # @!method ==(other)
      #   @example
      #     page = IO::Splice::Pages.new("Hello")
      #     page == IO::Splice::Pages.new("Hello") # => true
      #     page == "Hello"                        # => false
      #
      #   @param other [Object] anything
      #   @return [Boolean] whether it is pages with the same bytes

      # @!method hash
      #   @example
      #     page = IO::Splice::Pages.new("Hello")
      #     { page => 1 }[IO::Splice::Pages.new("Hello")] # => 1
      #
      #   @return [Integer] the same for the same bytes

      # @example
      #   IO::Splice::Pages.new("Hello").inspect # => "#<IO::Splice::Pages 5 bytes>"
      #
      # @return [String] the class and how many bytes there are
      def inspect
        "#<#{self.class} #{bytesize} bytes>"
      end

      # As {#==}.
      #
      # @example
      #   IO::Splice::Pages.new("Hello").eql?("Hello") # => false
      #
      # @return [Boolean] whether it is pages with the same bytes
      alias eql? ==
    end

    # Extends an exception that ended a call after bytes had moved: {vmsplice}, and {splice} and {tee} with {WAITALL}.
    # It can be an error of the kernel or an exception from another thread. `Thread#kill` and a `throw`, such as that of
    # a `Timeout` without a class, are not exceptions and cannot carry it.
    #
    # @example
    #   r, w = IO.pipe
    #   putting = Thread.new { IO.vmsplice(w, "x" * 1_000_000) }
    #   putting.report_on_exception = false
    #   r.sysread(1) # after the first bytes have gone in
    #   r.close
    #   begin
    #     putting.value
    #   rescue IO::Splice::PartialWrite => e
    #     e.class         # => Errno::EPIPE
    #     e.bytes_written # => 65536
    #   end
    #
    # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)
    module PartialWrite
      # @return [Integer] the bytes that have moved
      attr_reader :bytes_written
    end
  end
end

require_relative "splice/system_calls"
require_relative "splice/copying"
require_relative "splice/tls"
require_relative "splice/copy_stream"
require_relative "splice/relay"
require_relative "splice/relay_tls"
require_relative "splice/tee_stream"
require_relative "splice/background"
