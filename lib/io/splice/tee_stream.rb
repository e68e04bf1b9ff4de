# frozen_string_literal: true

class IO
  module Splice
    # Extends an exception that ended a {Splice.tee_stream}.
    module PartialTee
      # @return [Object, nil] the one of the targets whose error it is, as it was given; nil if it is of none. What an
      #   object raises is its error if it is an IOError or a SystemCallError; anything else may come from outside.
      attr_reader :target

      # @return [Array<Integer>] the bytes that each of the targets has got, in their order
      attr_reader :bytes_written
    end

    module Copying
      # Hands on to several outputs what is written to it.
      class Broadcast
        attr_reader :bytes_written

        def initialize(outputs, hand_over, progress)
          @outputs = outputs
          @hand_over = hand_over
          @progress = progress
          @bytes_written = [0] * outputs.size
          write("") # so that an output that is not open for it is told of before anything is read
        end

        def write(bytes)
          Copying.tee_between(bytes, nil, @hand_over, *@outputs)
          @bytes_written.map! { |written| written + bytes.bytesize }
          @progress&.call(@bytes_written.first) unless bytes.empty?
          bytes.bytesize
        rescue PartialTee => e
          @bytes_written = @bytes_written.zip(e.bytes_written).map(&:sum)
          raise
        end
      end

      # Brings bytes to those targets that have no descriptor. Their errors are kept until the others have the same
      # bytes.
      class HandOver
        def initialize(dsts)
          @dsts = dsts
          @taken = [0] * dsts.size
          @failures = {}
        end

        def to_proc
          ->(index, bytes) { bytes ? write(index, bytes) : raise(@failures.fetch(index)) }
        end

        # An interrupt may have come when an object had taken its bytes and had not said so yet.
        def correct(exception)
          exception.instance_variable_set(:@target, exception.target && @dsts[exception.target])
          @dsts.each_with_index do |dst, index|
            exception.bytes_written[index] = @taken[index] unless Copying.descriptor?(dst)
          end
        end

        private

        def write(index, bytes)
          # What was taken counts before an interrupt may come.
          Thread.handle_interrupt(Object => :on_blocking) do
            written = @dsts[index].write(bytes)
            @taken[index] += written
            written
          end
        rescue SystemCallError, IOError => e
          @failures[index] = e
          false
        end
      end

      module_function

      # @return [Integer] the bytes copied, which may be fewer than `len`
      def tee(src, dsts, len, &progress)
        check_copy(len, nil) # before a file is emptied
        dsts.each { |dst| check_target(dst) }
        hand_over = HandOver.new(dsts)
        descriptor?(src) or return tee_object(src, dsts, len, hand_over, progress)

        opened(src, File::RDONLY) do |input|
          open_all(dsts) { |outputs| tee_between(input, len, hand_over.to_proc, *outputs, &progress) }
        end
      rescue PartialTee => e
        hand_over.correct(e)
        raise
      end

      def check_target(dst)
        descriptor?(dst) || dst.respond_to?(:write) or
          raise TypeError, "a #{dst.class} is no target: it has no descriptor, no path and no method write"
      end

      # Opens those that have a descriptor; in the place of the others is nil.
      def open_all(dsts, *outputs, &)
        return yield outputs if outputs.size == dsts.size

        dst = dsts[outputs.size]
        return open_all(dsts, *outputs, nil, &) unless descriptor?(dst)

        opened(dst, File::WRONLY | File::CREAT | File::TRUNC) { |io| open_all(dsts, *outputs, io, &) }
      end

      def tee_object(src, dsts, len, hand_over, progress)
        open_all(dsts) do |outputs|
          broadcast = Broadcast.new(outputs, hand_over.to_proc, progress)
          rubys_own.call(src, broadcast, len).tap { |copied| progress&.call(copied) }
        rescue StandardError => e
          raise mark_partial_tee(e, broadcast)
        end
      end

      # Says how far it came, also when it was the source that failed.
      def mark_partial_tee(exception, broadcast)
        return exception if exception.frozen? || broadcast.nil?

        exception.extend(PartialTee)
        exception.instance_variable_set(:@bytes_written, broadcast.bytes_written)
        exception
      end
    end

    # Copies from one end to several, each of which gets every byte, duplicated in the kernel by `tee` where it
    # can take that.
    #
    # It goes by portions of at most 1 MiB: the next one is taken when all have the last. So the slowest sets the
    # pace, and none gets more than the others can still catch up on. When one fails, the others first get the
    # rest of the portion, so that they hold the same bytes, and then the error is raised. An exception from outside
    # (`Thread#raise`, `Timeout`) does not wait for that; it tells who has how much. Either is a {PartialTee}.
    #
    # With one target it is {copy_stream}. It waits as every call here does: see {Splice}.
    #
    # @example A download that is kept, and passed on, and hashed
    #   here, there = UNIXSocket.pair
    #   digest, bytes = IO.pipe
    #   sum = spawn("sha256sum", in: digest, out: File::NULL)
    #   File.open(File::NULL, "a") do |log|
    #     IO::Splice.tee_stream("/proc/self/status", log, there, bytes) # => the size
    #   end
    #   bytes.close
    #   Process.wait(sum)
    #   here.readpartial(5) # => "Name:"
    #
    # @param src [IO, Integer, String, #to_path, #readpartial, #read, #to_io] where the bytes come from, as for
    #   {copy_stream}
    # @param dsts [Array<IO, Integer, String, #to_path, #write, #to_io>] where they go: pipes, sockets, files (in append
    #   mode too), and objects with `write`, in any mixture
    # @param len [Integer, nil] how many bytes; nil: to the end
    # @yieldparam bytes_so_far [Integer] after each portion, and at the end
    # @return [Integer] the bytes that each has got
    # @raise [EOFError] if the input ends before `len`, after what there was has been delivered
    # @raise [Errno::EPIPE, Errno::ECONNRESET, Errno::ENOSPC] and others, as the kernel says
    # @raise [Errno::EINVAL] if a target is the very pipe that is copied from
    # @raise [IOError] if an IO is closed, meanwhile too, or not open for that direction
    # @raise [IO::TimeoutError] after `IO#timeout` (Ruby 3.2)
    # @raise [ArgumentError] if there is no target, or `len` is negative
    # @raise [TypeError] if an argument is of the wrong kind, or a target is none
    # @see https://man7.org/linux/man-pages/man2/tee.2.html tee(2)
    # @see https://man7.org/linux/man-pages/man2/splice.2.html splice(2)
    def self.tee_stream(src, *dsts, len: nil, &progress)
      raise ArgumentError, "nothing to copy to: give at least one target" if dsts.empty?
      return copy_stream(src, dsts.first, len, &progress) if dsts.size == 1

      copied = Copying.tee(src, dsts, len, &progress)
      raise EOFError, "end of file reached after #{copied} of #{len} bytes" if len && copied < len

      copied
    end
  end
end
