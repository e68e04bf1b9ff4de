# frozen_string_literal: true

module Soak
  # Another process has an end in common with the calls, in blocking mode, and never finds it in the other mode.
  class Neighbour < Operation
    include WithChild

    private

    def operate(_way)
      return unless forks?

      near, far = Ends.pair(one_of(%i[unix tcp])).each { |socket| socket.nonblock = false }
      over, done = IO.pipe
      pipe = IO.pipe
      @ends.push(near, far, over, done, *pipe)
      doing("#{near.inspect} is shared")
      neighbour = tasks.go { in_child { watch(near, over, done) } }
      150.times { exchange(near, far, *pipe) }
      done.close
      tasks.value_of(neighbour)
    end

    def watch(shared, over, done)
      done.close
      until over.read_nonblock(1, exception: false).nil?
        500.times do
          raise Wrong, "a shared end is not in blocking mode" if shared.fcntl(Fcntl::F_GETFL).anybits?(File::NONBLOCK)
        end
      end
    end

    # There, and back.
    def exchange(near, far, reader, writer)
      far.write("bytes")
      call("trysplice of a shared end", :none) { Thread.pass until IO.trysplice(near, nil, writer, nil, 5) == 5 }
      call("splice of a shared end", :none) { IO.splice(reader, nil, near, nil, 5, IO::Splice::F_NONBLOCK) }
      equal("bytes", far.read(5), "what has come back")
      far.write("bytes")
      call("copy_stream of a shared end", :none) { IO::Splice.copy_stream(near, writer, 5) }
      equal("bytes", reader.read(5), "what has come")
    end
  end
end
