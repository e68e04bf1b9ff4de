# frozen_string_literal: true

class IO
  module Splice
    # Extends an exception that ended a {Splice.tee_stream}.
    #
    # @example
    #   gone, broken = IO.pipe
    #   gone.close
    #   begin
    #     IO::Splice.tee_stream("/proc/self/exe", "copy", broken, len: 1000)
    #   rescue IO::Splice::PartialTee => e
    #     e.class            # => Errno::EPIPE
    #     e.target == broken # => true
    #     e.bytes_written    # => [1000, 0]
    #   end
    #
    # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
    module PartialTee
      # @return [Object, nil] the target that caused it, as it was given; nil if no target did. An IOError or
      #   SystemCallError that an object raises counts as caused by it; anything else may come from elsewhere.
      attr_reader :target

      # @return [Array<Integer>] the bytes that each target has got, in the order of the targets
      attr_reader :bytes_written
    end

    # @private
    module Copying # :nodoc: all
      # Passes what is written to it on to several outputs.
      # @private
      class Broadcast # :nodoc:
        PORTION = 32 << 10 # half a pipe: the reader works while the next is on its way

        def initialize(outputs, hand_over, progress)
          @outputs = outputs
          @hand_over = hand_over
          @progress = progress
          write("") # raises for an output that is not open for writing, before anything is read
        end

        # Reads from an object as Ruby's own copy_stream does, in larger portions.
        def copy_from(src, len)
          name = Copying.can?(src, :readpartial) ? :readpartial : :read
          buffer = +"".b
          copied = 0
          until copied == len
            passed_on = pass_on(src, name, [len && (len - copied), PORTION].compact.min, buffer) or break
            copied += passed_on
          end
          copied
        end

        def write(bytes)
          @hand_over.tee_between(bytes, nil, @outputs)
          @progress&.call(@hand_over.taken.first) unless bytes.empty?
          bytes.bytesize
        end

        private

        # Bytes that no output has taken go back to the source, if it accepts them.
        def pass_on(src, name, most, buffer)
          before = @hand_over.taken.max
          bytes = passed_on = nil
          Thread.handle_interrupt(Object => :on_blocking) { bytes = read_from(src, name, most, buffer) }
          passed_on = bytes && write(bytes)
        ensure # also when the thread is killed, and after a throw
          Copying.unread_object(src, bytes.byteslice((@hand_over.taken.max - before)..)) if bytes && !passed_on
        end

        def read_from(src, name, most, buffer)
          bytes = name == :read ? src.read(most, buffer) : src.readpartial(most, buffer)
          case bytes
          when nil then return
          when String then buffer = bytes
          end
          buffer unless name == :read && buffer.empty?
        rescue EOFError
          nil
        end
      end

      # Reads from pages as from an IO.
      # @private
      class PagesReader # :nodoc:
        attr_accessor :pos

        def initialize(pages)
          @pages = pages
          @pos = 0
        end

        def readpartial(most, buffer)
          part = @pages.slice(@pos, [most, @pages.bytesize - @pos].min)
          raise EOFError, "end of file reached" if part.bytesize.zero?

          @pos += part.bytesize
          buffer.replace(part.to_s)
        end
      end

      # Writes to the targets without a descriptor. Their errors are kept until the other targets have the same bytes.
      # @private
      class HandOver # :nodoc:
        # These do not keep the string that they are given, so its memory is released at once; any other object may, and
        # gets a new one. With fresh memory for each portion, compressing takes a quarter more CPU.
        KEEP_NOTHING = %w[StringIO Zlib::GzipWriter OpenSSL::Buffering].freeze

        # @return [Array<Integer>] the bytes that each of the targets has taken
        attr_reader :taken

        def initialize(dsts)
          @dsts = dsts
          @taken = [0] * dsts.size
          @keep_nothing = Hash.new { |known, index| known[index] = KEEP_NOTHING.include?(write_of(dsts[index])) }
          @failures = {}
          @hand_over = ->(index, bytes) { bytes ? write(index, bytes) : raise(@failures.fetch(index)) }
        end

        def tee_between(src, len, outputs, &progress)
          Copying.tee_between(src, len, @hand_over, @taken, *outputs, &progress)
        end

        private

        def write(index, bytes)
          # Counts what was taken before an interrupt can arrive.
          most = bytes.bytesize
          Thread.handle_interrupt(Object => :on_blocking) do
            @taken[index] += count_of(@dsts[index].write(bytes), most)
          end
          bytes.clear if @keep_nothing[index]
          true
        rescue SystemCallError, IOError => e
          @failures[index] = e
          false
        end

        # The name of the class that defines the target's `write`; not all of these classes are loaded.
        def write_of(dst)
          Copying.kernel_call(dst, :method, :write).owner.name
        rescue NameError
          nil
        end

        def count_of(written, most)
          case written
          when Integer then return [written, most].min unless written.negative?
          end
          raise TypeError, "write returned #{Copying.kind(written)}, expected a byte count"
        end
      end

      module_function

      # @return [Integer] the bytes copied, which may be fewer than `len`
      def tee(src, dsts, len, &progress)
        check_copy(len, nil)
        hand_over = HandOver.new(dsts)
        open_ends(resolve_for_tee(src, dsts), nil) do |input, *outputs|
          next hand_over.tee_between(input, len, outputs, &progress) if input

          tee_object(src, outputs, len, hand_over, &progress)
        end
      rescue PartialTee => e
        e.instance_variable_set(:@target, e.target && dsts[e.target])
        raise
      end

      # What is of the only target's making, and never of the source's.
      OF_A_TARGET = [Errno::EPIPE, Errno::ENOSPC, Errno::EDQUOT, Errno::EFBIG].freeze

      # As {Splice.copy_stream}, but an exception says what it does for several targets.
      def tee_to_one(src, dst, len, &)
        Splice.copy_stream(src, dst, len, &)
      rescue SystemCallError, IOError, PartialWrite => e
        target = e.instance_variable_get(:@target)
        target = dst if OF_A_TARGET.any? { |error| e.is_a?(error) }
        mark(e, PartialTee, :@bytes_written, [e.is_a?(PartialWrite) ? e.bytes_written : 0])
        raise mark(e, PartialTee, :@target, target)
      end

      # The last of several targets could be meant as what it is in {Splice.copy_stream}: a length. Returns the length.
      def check_targets(dsts, len)
        raise ArgumentError, "nothing to copy to: give at least one target" if dsts.empty?
        return len unless false.equal?(len)

        *others, last = dsts
        return if !integer?(last) || others.all? { |dst| integer?(dst) }

        raise ArgumentError, "#{last} could be a length or a descriptor: write len: #{last}, or say by len: nil that " \
                             "it is a descriptor"
      end

      def integer?(dst)
        case dst
        when Integer then true
        else false
        end
      end

      def tee_ended_early(copied, len, targets)
        error = EOFError.new("end of file reached after #{copied} of #{len} bytes")
        mark(error, PartialTee, :@bytes_written, [copied] * targets)
      end

      # A TLS socket is read by its own methods.
      def resolve_for_tee(src, dsts)
        resolve_tls(src, *dsts).tap { |ends| ends[0] = nil if tls?(ends[0]) }
      end

      def pages?(src)
        case src
        when Pages then true
        else false
        end
      end

      def tee_object(src, outputs, len, hand_over, &progress)
        src = PagesReader.new(src) if pages?(src)
        copied = Broadcast.new(outputs, hand_over, progress).copy_from(src, len)
        outputs.grep(Opened, &:empty) if copied.zero?
        progress&.call(copied)
        copied
      rescue Exception => e # rubocop:disable Lint/RescueException -- it is raised again, extended
        raise mark(e, PartialTee, :@bytes_written, hand_over.taken) # also when it was the source that failed
      end
    end

    # Copies from one source to several targets, each of which gets every byte. The kernel duplicates them by `tee`
    # where it can. It waits as every call: see {Splice}.
    #
    # It works in portions of at most 1 MiB, and takes the next when every target has the last. So the slowest sets the
    # pace. When a target fails, the others first get the rest of the portion, so that they have the same bytes, and
    # then the error is raised. An exception from another thread (`Thread#raise`, `Timeout`) does not wait for that.
    # Either is extended with {PartialTee}. (A second exception that arrives meanwhile replaces the first and is not
    # extended.)
    #
    # With one target it is {copy_stream}. Files at paths are emptied when every target is open. A target that is given
    # twice gets every byte twice.
    #
    # @example A download that is kept, and passed on, and hashed
    #   download, server = UNIXSocket.pair
    #   server.write("all of it") && server.close
    #   here, there = UNIXSocket.pair
    #   sum = IO.popen("md5sum", "r+")
    #   IO::Splice.tee_stream(download, "kept", there, sum) # => 9
    #   File.read("kept")    # => "all of it"
    #   here.readpartial(99) # => "all of it"
    #   sum.close_write
    #   sum.read             # => "1eac3d201685bb617a85ea2ff672b5b3  -\n"
    #
    # @param src [IO, Integer, String, Pages, #to_path, #readpartial, #read, #to_io] the source, as for {copy_stream}
    # @param dsts [Array<IO, Integer, String, #to_path, #write, #to_io>] the targets, as for {copy_stream}.
    #   An Integer that comes last, after targets that are not Integers, could be meant as a length: then give `len:`
    # @param len [Integer, nil, false] how many bytes; nil or false: to the end
    # @yieldparam bytes_so_far [Integer] the bytes that every target has: after each portion, ten times a second while
    #   one moves slowly, and at the end
    # @return [Integer] the bytes copied to each target
    # @raise [EOFError] if the input ends before `len`, after what there was has been delivered
    # @raise [PartialTee] mixed into any exception raised after a copy to several targets has begun
    # @raise [Errno::EPIPE, Errno::ECONNRESET, Errno::ENOSPC, Errno::ENOENT] and others of the kernel
    # @raise [Errno::EINVAL] if a target is the same pipe as the source
    # @raise [ArgumentError] if there is no target, `len` is negative, or a target is the path of the source
    # @raise [Errno::EBADF, IOError, IO::TimeoutError, RangeError, TypeError] as every call: see {Splice}
    # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.tee_stream(src, *dsts, len: false, &progress)
      len = Copying.check_targets(dsts, len)
      return Copying.tee_to_one(src, dsts.first, len, &progress) if dsts.size == 1

      copied = Copying.tee(src, dsts, len, &progress)
      raise Copying.tee_ended_early(copied, len, dsts.size) if len && copied < len

      copied
    end
  end
end
