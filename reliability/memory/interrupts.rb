# frozen_string_literal: true

require_relative "kind"

# What is interrupted while it waits
module Memory
  kind("splice, killed", share: 0.01) do
    r, w = IO.pipe
    _, into = IO.pipe
    -> { w && interrupting(-> { IO.splice(r, nil, into, nil, 1) }) }
  end

  kind("tee, ended by Thread#raise", share: 0.01) do
    r, w = IO.pipe
    _, into = IO.pipe
    -> { w && interrupting(-> { IO.tee(r, into, 1) }, ->(thread) { thread.raise(Interrupted) }) }
  end

  kind("splice, ended by closing", share: 0.01) do
    _, into = IO.pipe
    lambda do
      r, w = IO.pipe
      interrupting(-> { IO.splice(r, nil, into, nil, 1) }, ->(_) { r.close })
      w.close
    end
  end

  kind("vmsplice in the middle of a String, killed", share: 0.01) do
    r, w = IO.pipe
    long = "l" * 100_000
    content = +""
    lambda do
      interrupting(-> { IO.vmsplice(w, ["short", long]) })
      r.readpartial(200_000, content)
    end
  end

  kind("copy_stream between sockets, killed in the middle", share: 0.01) do
    here, there = UNIXSocket.pair
    full, peer = UNIXSocket.pair
    nil while full.write_nonblock(DATA, exception: false) != :wait_writable
    content = +""
    lambda do
      peer && (here << "bytes")
      interrupting(-> { IO::Splice.copy_stream(there, full) })
      there.readpartial(5, content)
    end
  end

  kind("relay, killed", share: 0.01) do
    client, front = UNIXSocket.pair
    back, server = UNIXSocket.pair
    -> { client && server && interrupting(-> { IO::Splice.relay(front, back) }) }
  end

  kind("splice, with a signal while it waits", share: 0.01) do
    Signal.trap(:USR1) { nil }
    r, w = IO.pipe
    turns = Queue.new
    sender = Thread.new do
      while turns.pop
        Process.kill(:USR1, Process.pid)
        w << "x"
      end
    end
    -> { sender && turns.push(true) && IO.splice(r, nil, NULL, nil, 1) }
  end

  kind("splice, waits in a thread", share: 0.01) do
    r, w = IO.pipe
    out, into = IO.pipe
    Thread.new { loop { IO.splice(r, nil, into, nil, 1) } }
    -> { IO.vmsplice(w, "x") && IO.splice(out, nil, NULL, nil, 1) }
  end
end
