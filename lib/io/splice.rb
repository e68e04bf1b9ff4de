# frozen_string_literal: true

require "io_splice/io_splice"

class IO
  # `splice(2)`, `tee(2)` and `vmsplice(2)`: bytes move between files, pipes and sockets inside the
  # Linux kernel, without passing through Ruby strings.
  #
  # Every call is here as a module function and on {IO} as a singleton method: `IO::Splice.splice` and
  # `IO.splice` are the same.
  #
  # ## What all calls have in common
  #
  # **An io** is an {IO}, an Integer file descriptor, or an object with `to_io`. An `SSLSocket` and its
  # like are refused with `TypeError`: their `to_io` is the bare socket, on which the bytes would leave
  # unencrypted.
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
  # When {WAITALL} had moved something before an error, the message says how much.
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
    #   # For {vmsplice}: the pages are a gift to the kernel. With a String it changes nothing.
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
    #   @param flags [Integer] {F_MOVE}, {F_NONBLOCK}, {F_MORE}, {WAITALL}
    #   @return [Integer] the bytes moved: with {WAITALL} `len`, or fewer at the end of the input; else 1 to `len`
    #   @raise [EOFError] at the end of the input
    #   @raise [Errno::EAGAIN] if it would have to wait, with {F_NONBLOCK}
    #   @raise [Errno::EINVAL] if neither end is a pipe, both are the same one, the output is open in
    #     append mode, one of the ends does not support it, or a flag means nothing
    #   @raise [Errno::ESPIPE] if an offset is given for a pipe
    #   @raise [Errno::EPIPE] if nobody is left to read the output
    #   @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    #   @raise [IOError] if an IO is closed, not open for that direction, or has been read ahead
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [ArgumentError] if `len` or an offset is negative
    #   @raise [RangeError] if an offset is larger than any file, or a descriptor than any descriptor
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket
    #   @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)

    # @!method self.trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
    #   As {splice} with {F_NONBLOCK}, but says with a value that nothing was moved.
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
    #   @param (see .splice)
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
    #   @param flags [Integer] {F_NONBLOCK}, {WAITALL}
    #   @return [Integer] the bytes duplicated, 1 to `len`; none are consumed, so with {WAITALL} the first
    #     ones come again
    #   @raise [EOFError] if the input is empty and nobody is left to write to it
    #   @raise [Errno::EAGAIN] if it would have to wait, with {F_NONBLOCK}
    #   @raise [Errno::EINVAL] if one of them is no pipe, both are the same one, or a flag means nothing
    #   @raise [Errno::EPIPE] if nobody is left to read the output
    #   @raise [Errno::EBADF] if an Integer is no descriptor, or not one for that direction
    #   @raise [IOError] if an IO is closed, not open for that direction, or has been read ahead
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [ArgumentError] if `len` is negative
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.trytee(io_in, io_out, len, flags = 0)
    #   As {tee} with {F_NONBLOCK}, but says with a value that nothing was duplicated.
    #
    #   @example
    #     r, w = IO.pipe
    #     _, into = IO.pipe
    #     IO.trytee(r, into, 100) # => :EAGAIN
    #     w.close
    #     IO.trytee(r, into, 100) # => nil
    #
    #   @param (see .tee)
    #   @return [Integer] the bytes duplicated
    #   @return [:EAGAIN] if it would have to wait
    #   @return [nil] if the input is empty and nobody is left to write to it
    #   @raise [Errno::EINVAL] as {tee}
    #   @raise [Errno::EPIPE] as {tee}
    #   @raise [Errno::EBADF] as {tee}
    #   @raise [IOError] as {tee}
    #   @raise [ArgumentError] as {tee}
    #   @raise [TypeError] as {tee}
    #   @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)

    # @!method self.vmsplice(io, data, flags = 0)
    #   Puts strings into a pipe, all of them, in order. The reader gets what they held when the call was
    #   made, whatever becomes of them afterwards and wherever the bytes go on to.
    #
    #   @example Several strings in one call
    #     r, w = IO.pipe
    #     IO.vmsplice(w, ["HTTP/1.1 204 No Content\r\n", "\r\n"]) # => 27
    #     r.readpartial(27)                                       # => "HTTP/1.1 204 No Content\r\n\r\n"
    #
    #   @param io [IO, Integer, #to_io] the pipe
    #   @param data [String, Array<String>] any number of strings, of any length
    #   @param flags [Integer] {F_NONBLOCK}; {F_GIFT} is accepted and changes nothing, because the memory
    #     of a String belongs to Ruby's heap and cannot be given away
    #   @return [Integer] the bytes put in: all; with {F_NONBLOCK} as many as there was room for
    #   @raise [Errno::EAGAIN] if there was no room at all, with {F_NONBLOCK}
    #   @raise [Errno::EBADF] if it is no pipe, or not one to write to
    #   @raise [Errno::EPIPE] if nobody is left to read it; the message says how many bytes went in before
    #   @raise [Errno::EINVAL] if a flag means nothing
    #   @raise [IOError] if the IO is closed or not open for writing
    #   @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    #   @raise [TypeError] if an argument is of the wrong kind, or an SSLSocket
    #   @see https://man7.org/linux/man-pages/man2/vmsplice.2.html vmsplice(2)

    # The gem has descriptors of its own: pipes for copies, and duplicates for calls that may wait for a disk, so
    # that a `close` in another thread cannot bring them to the wrong file. A forked child must not keep them.
    # @private
    module CloseAfterFork
      def _fork
        pid = super
        Copying.close_after_fork if pid.zero?
        pid
      end
    end
    private_constant :CloseAfterFork
    Process.singleton_class.prepend(CloseAfterFork)
  end

  # @!method self.splice(io_in, off_in, io_out, off_out, len, flags = 0)
  #   @see Splice.splice
  # @!method self.trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
  #   @see Splice.trysplice
  # @!method self.tee(io_in, io_out, len, flags = 0)
  #   @see Splice.tee
  # @!method self.trytee(io_in, io_out, len, flags = 0)
  #   @see Splice.trytee
  # @!method self.vmsplice(io, data, flags = 0)
  #   @see Splice.vmsplice

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
  #   @param bytes [Integer]
  #   @raise [Errno::EPERM] beyond what a user may have (`/proc/sys/fs/pipe-max-size`)
  #   @raise [Errno::EBUSY] if more than that is in the pipe
  #   @raise [Errno::EINVAL] if it is negative or beyond 2 GiB
  #   @raise [Errno::EBADF] if this is no pipe
  #   @raise [IOError] if it is closed
  #   @raise [TypeError] if it is not an Integer
  #   @see https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html F_GETPIPE_SZ(2const)
end

require_relative "splice/copying"
