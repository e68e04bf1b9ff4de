# frozen_string_literal: true

require_relative "kind"

# In the fibers of a scheduler
module Memory
  kind("splice and tee, wait in fibers", share: 0.01, in_a_fiber: true) do
    r, w = IO.pipe
    out, into = IO.pipe
    Fiber.schedule { loop { IO.tee(r, into, 1) && IO.splice(r, nil, NULL, nil, 1) } }
    -> { IO.vmsplice(w, "x") && IO.splice(out, nil, NULL, nil, 1) }
  end

  kind("vmsplice, waits in a fiber", share: 0.01, in_a_fiber: true) do
    r, w = full_pipe
    Fiber.schedule { loop { r.readpartial(65_536) } }
    -> { IO.vmsplice(w, DATA) }
  end

  kind("copy_stream, waits in fibers", share: 0.01, in_a_fiber: true) do
    here, there = UNIXSocket.pair
    Fiber.schedule { loop { IO::Splice.copy_stream(there, there, 5) } }
    -> { here.write("bytes") && IO::Splice.copy_stream(here, NULL, 5) }
  end

  kind("relay, waits in fibers", share: 0.001, in_a_fiber: true) do
    lambda do
      client, front = UNIXSocket.pair
      back, server = UNIXSocket.pair
      Fiber.schedule do
        sleep 0
        [client, server].each { |far| far.write("bytes") && far.close_write }
      end
      IO::Splice.relay(front, back)
      [client, front, back, server].each(&:close)
    end
  end
end
