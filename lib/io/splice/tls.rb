# frozen_string_literal: true

class IO
  module Splice
    # Which directions of a TLS connection the kernel encrypts or decrypts: kTLS. {copy_stream}, {tee_stream}, {relay} and
    # {background} then move bytes through its descriptor in these directions, encrypted by the kernel. In the others
    # they use the socket's own methods.
    #
    # OpenSSL hands a connection to the kernel if its context asks for that, and if it can: Linux with the module `tls`,
    # OpenSSL 3.0 (for what is read with TLS 1.3: 3.2), and a cipher that the kernel knows. The guide "TLS" says more.
    #
    # @example A server that lets the kernel encrypt
    #   require "openssl"
    #   context = OpenSSL::SSL::SSLContext.new
    #   context.options |= OpenSSL::SSL::OP_ENABLE_KTLS
    #   client, = UNIXSocket.pair
    #   ssl = OpenSSL::SSL::SSLSocket.new(client, context)
    #   IO::Splice.ktls(ssl) # => []
    #
    # @param ssl [OpenSSL::SSL::SSLSocket]
    # @return [Array<Symbol>] `[]`, `[:write]`, `[:read]` or `[:read, :write]`; nothing before the handshake is done, after
    #   an error of the connection, and when it is closed
    # @raise [TypeError] if it is not an `OpenSSL::SSL::SSLSocket`
    # @see https://docs.kernel.org/networking/tls.html Kernel TLS
    # @see https://docs.openssl.org/3.0/man3/SSL_CTX_set_options/ SSL_CTX_set_options(3)
    def self.ktls(ssl)
      raise TypeError, "#{Copying.kind(ssl)} is not an OpenSSL::SSL::SSLSocket" unless Copying.tls?(ssl)

      Copying.ktls(ssl)
    end

    # @private
    module Copying
      module_function

      def tls?(end_) = !!defined?(::OpenSSL::SSL::SSLSocket) && ::OpenSSL::SSL::SSLSocket === end_

      def ktls(ssl)
        io = ssl.to_io
        return [] if io.closed? || ssl.state.to_s.strip != "SSLOK"

        %i[read write].zip(kernel_tls(io)).filter_map { |direction, done| direction if done }
      end

      def kernel_reads?(end_) = tls?(end_) && ktls(end_).include?(:read)

      def kernel_writes?(end_) = tls?(end_) && ktls(end_).include?(:write)

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
      def decrypted?(ssl) = decrypted(ssl).positive?

      def decrypted(ssl) = ssl.pending + ssl.instance_variable_get(:@rbuf).to_s.bytesize

      # Copies from or to a TLS socket, through the kernel as far as that encrypts.
      def copy_tls(src, dst, len, src_offset, &progress)
        target = kernel_writes?(dst) ? dst : (resolve_end(dst, "target", :write) unless tls?(dst))
        if target && kernel_reads?(src) && !src_offset
          copy_from_tls(src, target, len, &progress)
        elsif target && !tls?(src) && descriptor?(src)
          check_copy(len, src_offset)
          ends = [resolve_end(src, "source"), target]
          open_ends(ends, src_offset) { |*both| copy_between(*both, len, src_offset, &progress) }
        else
          copy(src, dst, len, src_offset, &progress)
        end
      end

      def copy_from_tls(ssl, dst, len, &progress)
        check_copy(len, nil)
        open_targets([dst]) do |(output)|
          copied = 0
          so_far = progress && ->(bytes) { progress.call(copied + bytes) }
          until copied == len
            left = len && (len - copied)
            held = decrypted(ssl)
            if held.zero?
              copied += copy_between(ssl, output, left, nil, &so_far)
              break if copied == len

              # It stands at a record that is not data, or at the end: what that is, OpenSSL says with the next byte.
              held = 1
            end
            portion = copy_by_methods(ssl, output, [held, left].compact.min, &so_far)
            break if portion.zero?

            copied += portion
          end
          copied
        end
      end

      def copy_by_methods(src, output, len, &) = tee_any([output], [nil, output], src, len, nil, &)
    end
  end
end
