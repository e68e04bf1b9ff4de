# frozen_string_literal: true

class IO
  module Splice
    module Rack
      # The body of a response that is sent in the background. The server calls {#hand_over} when the headers are out.
      # If it does not, or its socket has no descriptor for the bytes, this is the app's body.
      # @private
      class Hijack
        def initialize(part, body, options, on_end)
          @part = part
          @body = body
          @options = options
          @on_end = on_end
        end

        def hand_over(socket)
          begin_transfer(socket) || write_to(socket)
        ensure
          close
        end

        def each(&block) = @body.each(&block)

        # The app's body is closed in the server's thread, not when the transfer ends: what an app frees then may belong
        # to the thread. The file stays open.
        def close
          return if @closed

          @closed = true
          @part.close
          @body.close if @body.respond_to?(:close)
        end

        private

        # A call that raises has taken nothing over: without a descriptor or thread, the server's thread sends the file.
        def begin_transfer(socket)
          return unless socket.is_a?(::IO)

          Splice.background.copy_stream(@part.file, socket, @part.length, @part.offset, **@options, &@on_end)
        rescue SystemCallError, IOError
          nil
        end

        def write_to(socket)
          each { |bytes| socket.write(bytes) }
        ensure
          socket.close
        end
      end
      private_constant :Hijack
    end
  end
end
