# frozen_string_literal: true

# The system calls of IO::Splice, as methods that tell their parameters to irb and to Method#parameters. Those of IO are
# native, since this layer would be a tenth of what the shortest call costs. YARD has what is said of both in splice.rb;
# the comments here are for ri.
class IO
  # rubocop:disable Metrics/ParameterLists -- the system call's own

  ##
  # :singleton-method: splice
  # :call-seq: splice(io_in, off_in, io_out, off_out, len, flags = 0)
  #
  # Moves bytes between a pipe and something else, or between two pipes: splice(2). See IO::Splice.splice.

  ##
  # :singleton-method: trysplice
  # :call-seq: trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
  #
  # IO.splice that never waits: it returns :EAGAIN, and nil at the end of the input. See IO::Splice.trysplice.

  ##
  # :singleton-method: tee
  # :call-seq: tee(io_in, io_out, len, flags = 0)
  #
  # Duplicates what is in one pipe into another: tee(2). See IO::Splice.tee.

  ##
  # :singleton-method: trytee
  # :call-seq: trytee(io_in, io_out, len, flags = 0)
  #
  # IO.tee that never waits: it returns :EAGAIN, and nil at the end of the input. See IO::Splice.trytee.

  ##
  # :singleton-method: vmsplice
  # :call-seq: vmsplice(io, data, flags = 0)
  #
  # Puts memory into a pipe: vmsplice(2). See IO::Splice.vmsplice.

  ##
  # :method: pipe_size
  # The capacity of a pipe, in bytes: `F_GETPIPE_SZ` of fcntl(2). `pipe_size=` asks for another, which the kernel
  # rounds up: `F_SETPIPE_SZ`.

  module Splice
    module_function

    # Moves up to `len` bytes between a pipe and something else, or between two pipes: splice(2). Waits, unless
    # `flags` say F_NONBLOCK: then it raises Errno::EAGAIN. Raises EOFError at the end of the input.
    #
    # * `io_in`, `io_out`: an IO, an Integer descriptor, or what has `to_io`; one of the two is a pipe
    # * `off_in`, `off_out`: the byte of a file to begin with, whose position then stays; nil: from its position on
    # * `flags`: F_MOVE, F_NONBLOCK, F_MORE, WAITALL
    #
    # Returns the bytes moved.
    def splice(io_in, off_in, io_out, off_out, len, flags = 0)
      IO.splice(io_in, off_in, io_out, off_out, len, flags)
    end

    # As Splice.splice with F_NONBLOCK, but returns :EAGAIN if it would have to wait, and nil at the end of the input.
    def trysplice(io_in, off_in, io_out, off_out, len, flags = 0)
      IO.trysplice(io_in, off_in, io_out, off_out, len, flags)
    end

    # Duplicates up to `len` bytes of what is in one pipe into another, and leaves them in the first: tee(2). Waits,
    # unless `flags` say F_NONBLOCK. Returns the bytes duplicated.
    def tee(io_in, io_out, len, flags = 0)
      IO.tee(io_in, io_out, len, flags)
    end

    # As Splice.tee with F_NONBLOCK, but returns :EAGAIN if it would have to wait, and nil at the end of the input.
    def trytee(io_in, io_out, len, flags = 0)
      IO.trytee(io_in, io_out, len, flags)
    end

    # Puts memory into a pipe, all of it: vmsplice(2). `data` is a String, an IO::Buffer, an IO::Splice::Pages, or an
    # Array of them. Whoever reads gets what it held when the call was made. Returns the bytes put in.
    def vmsplice(io, data, flags = 0)
      IO.vmsplice(io, data, flags)
    end
  end

  # rubocop:enable Metrics/ParameterLists
end
