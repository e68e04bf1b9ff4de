# frozen_string_literal: true

require_relative "kind"

# What raises
module Memory
  kind("Errno::EAGAIN") do
    r, w = IO.pipe
    _, into = IO.pipe
    raising(Errno::EAGAIN) { w && IO.splice(r, nil, into, nil, 1, IO::Splice::F_NONBLOCK) }
  end

  kind("EOFError") do
    r, w = IO.pipe
    _, into = IO.pipe
    w.close
    raising(EOFError) { IO.splice(r, nil, into, nil, 1) }
  end

  kind("EOFError of a copy", share: 0.1) do
    r, w = IO.pipe
    w.close
    raising(EOFError) { IO::Splice.copy_stream(r, NULL, 5) }
  end

  kind("TypeError") { raising(TypeError) { IO.splice(:nothing, nil, NULL, nil, 1) } }
  kind("TypeError of a piece") do
    _, w = IO.pipe
    raising(TypeError) { IO.vmsplice(w, ["string", :nothing]) }
  end
  kind("ArgumentError") { raising(ArgumentError) { IO.splice(0, nil, NULL, nil, -1) } }
  kind("Errno::EBADF") { raising(Errno::EBADF) { IO.tee(1 << 20, NULL, 1) } }
  kind("Errno::EINVAL with a reason", share: 0.1) do
    from = file
    raising(Errno::EINVAL) { IO.splice(from, nil, NULL, nil, 1) }
  end

  kind("IOError of a closed IO") do
    r, w = IO.pipe
    r.close
    raising(IOError) { IO.splice(r, nil, w, nil, 1) }
  end

  kind("IOError of bytes that are read ahead") do
    r, w = IO.pipe
    r.ungetbyte("x")
    raising(IOError) { IO.splice(r, nil, w, nil, 1) }
  end

  kind("Errno::EPIPE after a part, with WAITALL", share: 0.01) do
    lambda do
      r, w = filled_pipe("some")
      out, into = IO.pipe
      interrupting(-> { raising(EOFError) { IO::Splice.full(r, into, 9) }.call }, ->(_) { w.close })
      [r, out, into].each(&:close)
    end
  end

  kind("PartialTee", share: 0.01) do
    r, w = IO.pipe
    out, into = IO.pipe
    gone, broken = IO.pipe
    gone.close
    lambda do
      w << "bytes"
      raising(IO::Splice::PartialTee) { IO::Splice.tee_stream(r, into, broken, len: 5) }.call
      IO.splice(out, nil, NULL, nil, 5)
      r.read_nonblock(5, exception: false)
    end
  end
end
