# frozen_string_literal: true

require_relative "kind"

# What goes on in the background
module Memory
  kind("Background#copy_stream of a path to a device", share: 0.01) do
    -> { IO::Splice.background.copy_stream("/proc/self/stat", File::NULL).value }
  end

  kind("Background#copy_stream of sockets", share: 0.01) do
    lambda do
      client, front = UNIXSocket.pair
      back, server = UNIXSocket.pair
      client << "bytes"
      client.close
      transfer = IO::Splice.background.copy_stream(front, back, &:bytes)
      server.read
      transfer.value
      server.close
    end
  end

  kind("Background#tee_stream that is cancelled, of ends that are lent", share: 0.01) do
    r, w = filled_pipe
    full = full_pipe
    lambda do
      transfer = IO::Splice.background.tee_stream(r, full.last, NULL, close: false)
      w << "x" if transfer.cancel.wait.bytes.positive?
    end
  end

  kind("Background#relay that is refused", share: 0.1) do
    near, = UNIXSocket.pair
    raising(ArgumentError) { IO::Splice.background.relay(near, near, rate: 0) }
  end

  kind("Background.new, relay, drain", share: 0.002, settle: 1) do
    lambda do
      client, front = UNIXSocket.pair
      back, server = UNIXSocket.pair
      background = IO::Splice::Background.new(threads: 2)
      background.relay(front, back)
      [client, server].each { |far| far << "bytes" and far.close_write and far.close }
      background.drain
    end
  end
end
