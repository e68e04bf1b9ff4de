# frozen_string_literal: true

# A precompiled gem has a binary for each Ruby, any other the one that was built for this.
compiled = "io_splice/#{RUBY_VERSION[/\d+\.\d+/]}/io_splice"
require File.exist?(File.join(__dir__, "..", "#{compiled}.so")) ? compiled : "io_splice/io_splice"

# Ruby's own class. It gets the system calls of {Splice}, which are the same as there, and the capacity of a pipe.
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
  #   @raise [Errno::EBADF] if this is no pipe
  #   @raise [IOError] if it is closed
  #   @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html F_GETPIPE_SZ(2const)

  # @!method pipe_size=(bytes)
  #   Asks for a capacity of the pipe. The kernel rounds it up; {#pipe_size} tells what it has become.
  #
  #   @example
  #     r, w = IO.pipe
  #     w.pipe_size = 100_000
  #     r.pipe_size # => 131072
  #
  #   @param bytes [Integer] how many it is to hold
  #   @return [Integer] `bytes`, as of every assignment
  #   @raise [Errno::EPERM] beyond what a user may have (`/proc/sys/fs/pipe-max-size`)
  #   @raise [Errno::EBUSY] if more than that is in the pipe
  #   @raise [Errno::EINVAL] if it is negative or beyond 2 GiB
  #   @raise [Errno::EBADF] if this is no pipe
  #   @raise [IOError] if it is closed
  #   @raise [TypeError] if it is not an Integer
  #   @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html F_GETPIPE_SZ(2const)

  # `splice(2)`, `tee(2)` and `vmsplice(2)`: bytes move between files, pipes and sockets inside the
  # Linux kernel, without passing through Ruby strings.
  #
  # Every call is here as a module function and on {IO} as a singleton method: `IO::Splice.splice` and
  # `IO.splice` are the same.
  #
  # ## What all calls have in common
  #
  # **An io** is an {IO}, an Integer file descriptor, or an object with `to_io`. So is an `SSLSocket` in a direction
  # that the kernel encrypts: see {ktls}. In any other it is refused with `TypeError`, as its like are: their `to_io`
  # is the bare socket, on which the bytes would leave unencrypted.
  #
  # **Waiting** is decided by the flags alone, not by `O_NONBLOCK`, which Ruby sets on every pipe and
  # socket: without {F_NONBLOCK} a call waits, with it, and in every `try…`, it does not. It waits through
  # the fiber scheduler where there is one, else without the GVL; other threads run. `IO#timeout` (Ruby
  # 3.2) is honoured. `Thread#raise`, `Thread#kill` and `Timeout` end the wait, and so does closing one
  # of the IOs in another thread, with `IOError`. Signals run their handlers and the wait goes on.
  #
  # **Ruby's buffers** lie between the program and the kernel. What Ruby has still to write is written
  # first. Bytes that Ruby has read ahead (`gets` does that) would be overtaken: `IOError` says so.
  #
  # **Errors** are the kernel's, as `Errno::*`. Where `EINVAL` hides the reason, the message gives it.
  # When something had moved before an exception, it is a {PartialWrite} and says how much.
  #
  # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
  # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
  # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)
  module Splice
    # @!parse
    #   # The version of this gem.
    #   VERSION = "5.0.0"
    #   # Move pages rather than copy them, if possible. Today's kernels take no notice of it.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_MOVE = 1
    #   # Do not wait: not for the pipe, and not for a socket, FIFO or terminal in blocking mode either.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_NONBLOCK = 2
    #   # More will follow at once. Left on for the last piece, the peer waits up to 200 ms for it.
    #   # @see https://man7.org/linux/man-pages/man2/splice.2.html
    #   F_MORE = 4
    #   # For {vmsplice}: an IO::Buffer is given away. With a String it changes nothing.
    #   # @see https://man7.org/linux/man-pages/man2/vmsplice.2.html
    #   F_GIFT = 8
    #   # This gem's own: go on until all of `len` has moved, or the input ends.
    #   WAITALL = 1 << 31
    #   # What a pipe takes in one piece, in bytes.
    #   # @see https://man7.org/linux/man-pages/man7/pipe.7.html
    #   PIPE_BUF = 4096
    #   # The capacity of a new pipe here, in bytes.
    #   # @see https://man7.org/linux/man-pages/man7/pipe.7.html
    #   PIPE_CAPA = 65_536
    #   # The size of a page of memory here, in bytes.
    #   PAGE_SIZE = 4096
    #   # For `IO#fcntl`; {IO#pipe_size} is the simpler way.
    #   # @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
    #   F_GETPIPE_SZ = 1032
    #   # For `IO#fcntl`; {IO#pipe_size=} is the simpler way.
    #   # @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
    #   F_SETPIPE_SZ = 1031

    # @!method self.splice(io_in, off_in, io_out, off_out, len, flags = 0)
    #   Moves bytes between a pipe and something else, or between two pipes.
    #
    #   Without an offset the kernel moves the position of a file without its lock: two threads or processes that use
    #   one open file at once get bytes twice, or overwrite each other's. Give offsets then, or use
    #   {Splice.copy_stream}, {Splice.full} or {Splice.partial}, which keep everybody's bytes.
    #
    #   @example Send the head of a file to a socket
    #     r, w = IO.pipe
    #     here, there = UNIXSocket.pair
    #     File.open("/proc/self/exe") { |file| IO.splice(file, 0, w, nil, 4096) }
    #     IO.splice(r, nil, here, nil, 4096) # => 4096
    #     there.readpartial(4)               # => "\x7FELF"
    #
    #   @param io_in [IO, Integer, #to_io] where the bytes come from; one of the two is a pipe
    #   @param off_in [Integer, nil] from which byte of a file, which then keeps its position; nil: from
    #     the position, which moves
    #   @param io_out [IO, Integer, #to_io] where they go
    #   @param off_out [Integer, nil] the like
    #   @param len [Integer] how many bytes at most; 0 is none, and what is more than the kernel takes
    #     in one call is clamped
    #   @param flags [Integer] {Splice::F_MOVE}, {Splice::F_NONBLOCK}, {Splice::F_MORE}, {Splice::WAITALL}
    #   @return [Integer] the bytes moved: with {Splice::WAITALL} `len`, or fewer at the end of the input; else 1
    #     to `len`
    #   @raise [EOFError] at the end of the input
    #   @raise [Errno::EAGAIN] if it would have to wait, with {Splice::F_NONBLOCK}
    #   @raise [PartialWrite] is in every exception that comes when something has moved already, with {Splice::WAITALL}
    #   @raise [Errno::EINVAL] if neither end is a pipe, both are the same one, the output is open in
    #     append mode, one of the ends does not support it, or a flag means nothing
    #   @raise [Errno::ESPIPE] if an offset is given for a pipe
    #   @raise [Errno::EPIPE] if nobody is left to read the output
    #   @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    #   @raise [IOError] if an IO is closed, not open for that direction, or has been read ahead
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [ArgumentError] if `len` or an offset is negative
    #   @raise [RangeError] if an offset is larger than any file, or a descriptor than any descriptor
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket that the kernel does not encrypt
    #   @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)

    # @!method self.trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
    #   As {splice} with {Splice::F_NONBLOCK}, but says with a value that nothing was moved.
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
    #   @raise [Errno::EINVAL] as {splice}
    #   @raise [Errno::ESPIPE] as {splice}
    #   @raise [Errno::EPIPE] as {splice}
    #   @raise [Errno::EBADF] as {splice}
    #   @raise [IOError] as {splice}
    #   @raise [ArgumentError] as {splice}
    #   @raise [RangeError] as {splice}
    #   @raise [TypeError] as {splice}
    #   @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)

    # @!method self.tee(io_in, io_out, len, flags = 0)
    #   Duplicates what is in one pipe into another. It stays in the first, to be read or spliced on.
    #
    #   @example Look at what goes by
    #     r, w = IO.pipe
    #     copy, into = IO.pipe
    #     w << "to both"
    #     IO.tee(r, into, 7)  # => 7
    #     copy.readpartial(7) # => "to both"
    #     r.readpartial(7)    # => "to both"
    #
    #   @param io_in [IO, Integer, #to_io] the pipe to look into
    #   @param io_out [IO, Integer, #to_io] another pipe
    #   @param len [Integer] how many bytes at most; 0 is none
    #   @param flags [Integer] {Splice::F_NONBLOCK}, {Splice::WAITALL}
    #   @return [Integer] the bytes duplicated, 1 to `len`; none are consumed, so with {Splice::WAITALL} the first
    #     ones come again
    #   @raise [EOFError] if the input is empty and nobody is left to write to it
    #   @raise [Errno::EAGAIN] if it would have to wait, with {Splice::F_NONBLOCK}
    #   @raise [PartialWrite] is in every exception that comes when something has moved already, with {Splice::WAITALL}
    #   @raise [Errno::EINVAL] if one of them is no pipe, both are the same one, or a flag means nothing
    #   @raise [Errno::EPIPE] if nobody is left to read the output
    #   @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    #   @raise [IOError] if an IO is closed, not open for that direction, or has been read ahead
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [ArgumentError] if `len` is negative
    #   @raise [RangeError] if a descriptor is larger than any descriptor
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket that the kernel does not encrypt
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.trytee(io_in, io_out, len, flags = 0)
    #   As {tee} with {Splice::F_NONBLOCK}, but says with a value that nothing was duplicated.
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
    #   @return [nil] if the input is empty and nobody is left to write to it
    #   @raise [Errno::EINVAL] as {tee}
    #   @raise [Errno::EPIPE] as {tee}
    #   @raise [Errno::EBADF] as {tee}
    #   @raise [IOError] as {tee}
    #   @raise [ArgumentError] as {tee}
    #   @raise [RangeError] as {tee}
    #   @raise [TypeError] as {tee}
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.vmsplice(io, data, flags = 0)
    #   Puts memory into a pipe, all of it, in order. The reader gets what it held when the call was
    #   made, whatever becomes of it afterwards and wherever the bytes go on to.
    #
    #   The bytes of a **String** and of an **IO::Buffer** are copied into the pipe, by the kernel, as `write` does it:
    #   at every size that is the quickest way to keep that promise. While the call waits, a long String costs no
    #   copy (Ruby shares its memory until somebody writes to it); a short one and a buffer cost one.
    #
    #   **{Splice::Pages}** are not copied, however often they are put in. Nor is an **IO::Buffer with
    #   {Splice::F_GIFT}**, which is given away: afterwards it is empty, as after `free`. It must own mapped pages, as
    #   `IO::Buffer.new` makes them from `IO::Buffer::PAGE_SIZE` on. If not all of it goes in ({Splice::F_NONBLOCK},
    #   an error, an interrupt), it stays as it was. While the call waits it is locked, and zeros are in it.
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
    #   @param data [String, IO::Buffer, Pages, Array] one of them, or any number of them, of any length, mixed
    #   @param flags [Integer] {Splice::F_NONBLOCK}; {Splice::F_GIFT}, which changes nothing for Strings (their
    #     memory belongs to Ruby's heap and cannot be given away) and {Splice::Pages}
    #   @return [Integer] the bytes put in: all; with {Splice::F_NONBLOCK} as many as there was room for
    #   @raise [Errno::EAGAIN] if there was no room at all, with {Splice::F_NONBLOCK}
    #   @raise [Errno::EBADF] if it is no pipe, or not one to write to
    #   @raise [Errno::EPIPE] if nobody is left to read it
    #   @raise [Errno::EINVAL] if a flag means nothing
    #   @raise [PartialWrite] is in every exception that comes when something has gone in already
    #   @raise [IOError] if the IO is closed or not open for writing
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [ArgumentError] if a buffer is to be given away that is a slice, locked, external, internal, read-only,
    #     shared, mapped from a file, or in the array twice; nothing has happened then
    #   @raise [IO::Buffer::AllocationError] if a buffer has no memory (any more)
    #   @raise [IO::Buffer::InvalidatedError] if a buffer is a slice of one that has no memory any more
    #   @raise [RangeError] if a descriptor is larger than any descriptor
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket that the kernel does not encrypt
    #   @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)

    # Bytes in pages of memory of their own, for what is sent again and again: a header, a template, a cached body.
    # {Splice.vmsplice} puts them into a pipe without copying them, any number of times.
    #
    # They are filled once and never written again, and when the object is collected the pages go back to the kernel
    # and not to other use. So whatever is on its way through pipes, sockets and other processes stays what it was.
    #
    # An object of this kind is frozen and can be shared between Ractors, and after `fork` both processes have it. It
    # takes whole pages ({PAGE_SIZE} each), of which the garbage collector knows. Small ones share 2 MiB of address
    # space, in one huge page where the system has them.
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
      #   @return [Pages] what owns them
      #   @raise [TypeError] if it is something else
      #   @raise [IO::Buffer::AllocationError] if a buffer has no memory (any more)
      #   @raise [NoMemoryError] if there are no pages, or if the process has too many mappings
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
      #   @return [String] a copy of the bytes, in the encoding of the String that they come from; those of a buffer
      #     are binary

      # @!method slice(offset, length = bytesize - offset)
      #   A part of the bytes, in the same pages: nothing is copied, and they stay as long as any part is in use.
      #
      #   @example
      #     IO::Splice::Pages.new("Hello").slice(1, 3).to_s # => "ell"
      #
      #   @param offset [Integer] where it begins, in bytes
      #   @param length [Integer] how many bytes
      #   @return [Pages] the part
      #   @raise [ArgumentError] if it is negative, or there are not so many bytes
      #   @raise [TypeError] if it is not an Integer

      # @!method ==(other)
      #   @example
      #     page = IO::Splice::Pages.new("Hello")
      #     page == IO::Splice::Pages.new("Hello") # => true
      #     page == "Hello"                        # => false
      #
      #   @param other [Object] anything
      #   @return [Boolean] whether those are pages with the same bytes

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
      def inspect = "#<#{self.class} #{bytesize} bytes>"

      # As {#==}.
      #
      # @example
      #   IO::Splice::Pages.new("Hello").eql?("Hello") # => false
      #
      # @return [Boolean] whether those are pages with the same bytes
      alias eql? ==
    end

    # Extends an exception that ended a call when something was already in: {vmsplice}, and {splice} and {tee}
    # with {WAITALL}. That holds for errors of the kernel and for exceptions from other threads; what is no
    # exception (`Thread#kill`, a `throw` such as that of a `Timeout` without a class) cannot carry it.
    #
    # @example
    #   r, w = IO.pipe
    #   putting = Thread.new { IO.vmsplice(w, "x" * 1_000_000) }
    #   putting.report_on_exception = false
    #   r.sysread(1) # once something is in
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
      # @return [Integer] the bytes that are in
      attr_reader :bytes_written
    end
  end
end

require_relative "splice/copying"
require_relative "splice/tls"
require_relative "splice/copy_stream"
require_relative "splice/relay"
require_relative "splice/relay_tls"
require_relative "splice/tee_stream"
require_relative "splice/background"
