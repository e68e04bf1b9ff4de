# frozen_string_literal: true

class IO
  module Splice
    # Which directions of a TLS connection the kernel does (kTLS). In these, {copy_stream}, {tee_stream}, {relay} and
    # {background} move bytes through its descriptor, and the kernel encrypts or decrypts them. In the others, the first
    # three use the socket's own methods.
    #
    # OpenSSL hands a connection to the kernel if its context asks for that, and if it can: Linux with the module `tls`,
    # OpenSSL 3.0 (3.2 to read with TLS 1.3), and a cipher that the kernel knows. See the guide "TLS".
    #
    # @example A server that lets the kernel encrypt
    #   require "openssl"
    #   context = OpenSSL::SSL::SSLContext.new
    #   context.options |= OpenSSL::SSL::OP_ENABLE_KTLS
    #   client, = UNIXSocket.pair
    #   ssl = OpenSSL::SSL::SSLSocket.new(client, context)
    #   IO::Splice.ktls(ssl) # => []
    #
    # @param ssl [OpenSSL::SSL::SSLSocket] the connection
    # @return [Array<Symbol>] `[]`, `[:write]`, `[:read]` or `[:read, :write]`; `[]` also before the handshake is done,
    #   after an error of the connection, and when it is closed
    # @raise [TypeError] if it is not an `OpenSSL::SSL::SSLSocket`
    # @see https://docs.kernel.org/networking/tls.html Kernel TLS
    # @see https://man7.org/linux/man-pages/man2/getsockopt.2.html getsockopt(2)
    # @see https://docs.openssl.org/3.0/man3/SSL_CTX_set_options/ SSL_CTX_set_options(3)
    def self.ktls(ssl)
      raise TypeError, "#{Copying.kind(ssl)} is not an OpenSSL::SSL::SSLSocket" unless Copying.tls?(ssl)

      Copying.ktls(ssl)
    end

    # @private
    module Copying # :nodoc: all
      module_function

      def ktls(ssl)
        io = ssl.to_io
        return [] if io.closed? || ssl.state.to_s.strip != "SSLOK"

        %i[read write].zip(kernel_tls(io)).filter_map { |direction, done| direction if done }
      end

      def kernel_reads?(end_)
        tls?(end_) && !read_buffer(end_).nil? && ktls(end_).include?(:read)
      end

      def kernel_writes?(end_)
        tls?(end_) && ktls(end_).include?(:write)
      end

      # The socket below, if the kernel encrypts for it in that direction: nothing waits in OpenSSL or in Ruby then.
      def tls_socket(ssl, output)
        if output
          return unless kernel_writes?(ssl)

          ssl.flush
        else
          return unless kernel_reads?(ssl)
          raise IOError, "bytes are read ahead of the #{ssl.class}, which must be taken out first" if decrypted?(ssl)
        end
        ssl.to_io
      end

      # Whether OpenSSL or Ruby has bytes that the kernel does not have any more.
      def decrypted?(ssl)
        decrypted(ssl).positive?
      end

      def decrypted(ssl)
        ssl.pending + read_buffer(ssl).bytesize
      end

      # Ruby's, which has no public name, but one or the other, by version; nil if it has neither.
      def read_buffer(ssl)
        ssl.instance_variable_get(:@rbuffer) || ssl.instance_variable_get(:@rbuf)
      end

      # Puts bytes back in front of those that the socket has still to give.
      def unread_tls(ssl, bytes)
        read_buffer(ssl)&.prepend(bytes.b)
      end

      # What OpenSSL and Ruby have decrypted is found with the bare sockets by those who use them in the block. If they
      # have not taken it, which an exception says, it goes back.
      def lend_decrypted(inputs)
        inputs = inputs.select { |input| tls?(input) }
        inputs.each { |ssl| ssl.to_io.ungetbyte(take_decrypted(ssl)) if decrypted?(ssl) }
        taken = yield
      ensure
        inputs.each { |ssl| take_back(ssl) } unless taken
      end

      def take_decrypted(ssl)
        bytes = String.new
        bytes << ssl.read_nonblock(decrypted(ssl)) while decrypted?(ssl)
        bytes
      rescue StandardError
        unread_tls(ssl, bytes)
        raise
      end

      # Copies from or to a TLS socket, through the kernel as far as that encrypts.
      def copy_tls(src, dst, len, src_offset, &progress)
        from, to = resolve_tls(src, dst)
        return copy_by_methods(src, dst, len, src_offset, &progress) unless from && to && !(src_offset && tls?(src))

        check_copy(len, src_offset)
        return copy_from_tls(src, to, len, &progress) if tls?(src)

        open_ends([from, to], src_offset) { |input, output| copy_between(input, output, len, src_offset, &progress) }
      end

      # As {resolve}; an SSLSocket is used as a descriptor in the directions that the kernel does.
      def resolve_tls(src, *dsts)
        ends = resolve(src, *dsts)
        ends[0] ||= src if kernel_reads?(src)
        dsts.each_with_index { |dst, index| ends[index + 1] ||= dst if kernel_writes?(dst) }
        ends
      end

      # What OpenSSL has decrypted goes first. When the kernel stops, it stands at a record that is not data, or at the
      # end: what that is, OpenSSL says with the next byte.
      def copy_from_tls(ssl, dst, len, &)
        open_targets([dst]) { |(output)| copy_records(ssl, output, len, &) }
      ensure
        without_interrupts { take_back(ssl) }
      end

      def copy_records(ssl, output, len, &progress)
        copied = 0
        so_far = progress && ->(bytes) { progress.call(copied + bytes) }
        loop do
          moved = copy_record(ssl, output, len && (len - copied), &so_far)
          return copied if moved.zero?

          copied += moved
        end
      rescue Exception => e # rubocop:disable Lint/RescueException -- it goes on, and tells how far this came
        raise partial_write(e, copied.to_i + (e.is_a?(PartialWrite) ? e.bytes_written : 0))
      end

      def copy_record(ssl, output, left, &)
        moved = decrypted?(ssl) ? 0 : copy_between(ssl, output, left, nil, &)
        moved.zero? ? copy_decrypted(ssl, output, left, &) : moved
      end

      # What could not be delivered went back into Ruby's buffer of the bare socket, where nobody looks for it.
      def take_back(ssl)
        bytes = String.new
        portion = nil
        bytes << portion until ssl.closed? || (portion = read_ahead(ssl.to_io)).empty?
        unread_tls(ssl, bytes)
      end

      def copy_decrypted(ssl, output, most, &)
        copy_from_object(ssl, output, [[decrypted(ssl), 1].max, most].compact.min, &)
      end
    end
  end
end
