# frozen_string_literal: true

require_relative "kind"

# The system calls
module Memory
  kind("trysplice of an empty pipe", objects: 0) do
    r, w = IO.pipe
    _, into = IO.pipe
    -> { w && IO.trysplice(r, nil, into, nil, 1) }
  end

  kind("trytee of an empty pipe", objects: 0) do
    r, w = IO.pipe
    _, into = IO.pipe
    -> { w && IO.trytee(r, into, 1) }
  end

  kind("splice there, trysplice back", objects: 0) do
    r, w = filled_pipe
    out, into = IO.pipe
    -> { IO.splice(r, nil, into, nil, 1) + IO.trysplice(out, nil, w, nil, 1) }
  end

  kind("splice to a socket, splice from a socket", objects: 0) do
    r, w = filled_pipe
    here, there = UNIXSocket.pair
    -> { IO.splice(r, nil, here, nil, 1) + IO.splice(there, nil, w, nil, 1) }
  end

  kind("splice from a file, splice to a file", share: 0.1, objects: 0) do
    r, w = IO.pipe
    from = file
    to = file
    -> { IO.splice(from, 0, w, nil, 5000) + IO.splice(r, nil, to, 0, 5000, IO::Splice::WAITALL) }
  end

  kind("tee, splice to a device", objects: 0) do
    r, w = filled_pipe
    out, into = IO.pipe
    -> { w && (IO.tee(r, into, 1) + IO.splice(out, nil, NULL, nil, 1)) }
  end

  kind("trytee with numbers, trysplice with numbers", objects: 0) do
    r, w = filled_pipe
    out, into = IO.pipe
    numbers = [r, out, into, NULL].map(&:fileno)
    lambda do
      from, duplicate, to, null = numbers
      w && (IO.trytee(from, to, 1) + IO.trysplice(duplicate, nil, null, nil, 1))
    end
  end

  # A vmsplice, and the pipe is empty again.
  def self.vmsplice(data, flags = 0)
    r, w = IO.pipe
    -> { IO.splice(r, nil, NULL, nil, IO.vmsplice(w, data, flags), IO::Splice::WAITALL) }
  end

  kind("vmsplice of a String", objects: 0) { vmsplice("string") }
  kind("vmsplice of a long String", objects: 0) { vmsplice(DATA) }
  kind("vmsplice of a String with F_GIFT", objects: 0) { vmsplice("string", IO::Splice::F_GIFT) }
  kind("vmsplice of an Array of Strings", objects: 0) { vmsplice(%w[one two three]) }
  kind("vmsplice of an IO::Buffer", objects: 0) { vmsplice(IO::Buffer.new(100)) }
  kind("vmsplice of Pages", objects: 0) { vmsplice(IO::Splice::Pages.new("string")) }
  kind("vmsplice of an Array of all", objects: 0) do
    pages = IO::Splice::Pages.new(DATA)
    vmsplice(["string", pages, IO::Buffer.new(100), pages.slice(5, 5)])
  end

  kind("vmsplice of what has to_str") do
    text = Object.new
    def text.to_str = "text"
    vmsplice(["string", text])
  end

  kind("vmsplice of an IO::Buffer with F_GIFT", share: 0.1) do
    r, w = IO.pipe
    -> { IO.splice(r, nil, NULL, nil, IO.vmsplice(w, IO::Buffer.new(16_384), IO::Splice::F_GIFT)) }
  end

  kind("vmsplice of a gift that does not fit", share: 0.1) do
    r, w = full_pipe
    raising(Errno::EAGAIN) do
      buffer = IO::Buffer.new(16_384)
      r && IO.vmsplice(w, buffer, IO::Splice::F_GIFT | IO::Splice::F_NONBLOCK)
    ensure
      buffer.free
    end
  end

  kind("vmsplice of half a gift", share: 0.01) do
    r, w = IO.pipe
    content = +""
    lambda do
      buffer = IO::Buffer.new(131_072)
      IO.vmsplice(w, buffer, IO::Splice::F_GIFT | IO::Splice::F_NONBLOCK)
      r.readpartial(131_072, content)
      buffer.free
    end
  end

  # They are cut from 2 MiB, of which more or less is touched when it is looked at.
  kind("Pages.new of a short String", bound: 4 * BOUND) { -> { IO::Splice::Pages.new("string") } }
  kind("Pages.new of 3 MiB", share: 0.001) do
    body = "b" * (3 << 20)
    -> { IO::Splice::Pages.new(body) }
  end
  kind("Pages#slice, Pages#to_s, Pages#==") do
    pages = IO::Splice::Pages.new(DATA)
    -> { pages.slice(100, 10).to_s && pages == pages.slice(0) }
  end
  kind("IO#pipe_size", objects: 0) do
    r, = IO.pipe
    -> { r.pipe_size }
  end
end
