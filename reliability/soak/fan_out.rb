# frozen_string_literal: true

module Soak
  # tee_stream: each target has a prefix, as long as it is said to be, and the source stands behind the longest.
  class FanOut < Operation
    # These may come when the call has just returned.
    AFTERWARDS = %i[raise timeout handler].freeze

    # It has nothing but `readpartial`.
    class Reader
      def initialize(bytes) = @io = StringIO.new(bytes)
      def readpartial(...) = @io.readpartial(...)
    end

    private

    def operate(way)
      @way = way
      @stream = stream
      make_targets
      @given = give_source
      len = random.rand(0..@stream.bytesize + random.rand(2)) if chance(3)
      doing("tee_stream of #{len.inspect} from #{@from}, #{@stream.bytesize} bytes, to #{@targets.map(&:kind)}, #{way}")
      io_timeout(way, *[@source].compact, *@targets.reject(&:object?))
      outcome = call("tee_stream", way, close) { tee_stream(len) }
      no_io_timeout(*[@source].compact, *@targets.reject(&:object?))
      check(outcome, len)
    ensure
      [@source, *@targets].compact.each(&:finish)
    end

    def make_targets
      kinds = Array.new(random.rand(2..5)) { one_of([*streams, :file, :append, :stringio, :object]) }
      kinds[0] = one_of(streams) if @way.match?(/close_target|reset/)
      # A handler may raise when an object has taken the bytes and nobody has counted them yet: Ruby asks it right
      # behind each method, also one in C.
      kinds.map! { |kind| Target::OBJECTS.include?(kind) ? :pipe : kind } if @way == :handler
      leave_after = random.rand(0..@stream.bytesize) if @way == :reset
      @targets = []
      kinds.each_with_index { |kind, at| @targets << target(kind, leave_after: (leave_after if at.zero?)) }
    end

    def give_source
      @from = one_of([*streams, :file, :stringio, :reader])
      @from = one_of([*streams, :file]) if @way == :close_source
      case @from
      when :stringio then StringIO.new(@stream)
      when :reader then Reader.new(@stream)
      else (@source = source(@from, @stream, ahead: chance(6))).io
      end
    end

    def close
      case @way
      when :close_source then -> { @source.io.close }
      when :close_target then -> { @targets.first.io.close }
      end
    end

    def tee_stream(len)
      targets = @targets.map(&:io)
      return IO::Splice.tee_stream(@given, *targets, len:) if len.to_i.even?

      so_far = -1
      IO::Splice.tee_stream(@given, *targets, len:) do |bytes|
        raise Wrong, "the count goes from #{so_far} to #{bytes}" if bytes < so_far

        so_far = bytes
      end
    end

    def check(outcome, len)
      short = outcome.error.is_a?(EOFError) && len && len > @stream.bytesize
      expect(outcome, @way) unless short
      arrived = @targets.map(&:arrived)
      arrived.each_with_index { |bytes, at| prefix(@stream, bytes, "what has come to target #{at}") }
      sizes = arrived.map(&:bytesize)
      equal([outcome.result] * sizes.size, sizes, "what has come") if outcome.kind == :value && @way != :reset
      check_error(outcome, sizes) if outcome.error && !short
      check_left(outcome, sizes)
    end

    # What was read by the one that left is not all that it was sent.
    def check_error(outcome, sizes)
      error = outcome.error
      unless error.is_a?(IO::Splice::PartialTee)
        return if sizes.all?(&:zero?) || @way == :throw || outcome.again
        return if AFTERWARDS.include?(@way) && sizes.uniq.size == 1

        raise Wrong, "no PartialTee: #{error.inspect}, though there have come #{sizes}"
      end
      told = error.bytes_written
      return equal(told, sizes, "what has come, and is told") unless @way == :reset

      equal(told.drop(1), sizes.drop(1), "what has come to those that are there, and is told")
      raise Wrong, "#{sizes.first} bytes have come to the one that left, told are #{told}" if told.first < sizes.first
      raise Wrong, "unequal prefixes: #{told}" if told.drop(1).uniq.size > 1
    end

    def check_left(outcome, sizes)
      return if @source.nil? || @source.io.closed?

      left = @source.left
      most = outcome.error.is_a?(IO::Splice::PartialTee) ? outcome.error.bytes_written.max : nil
      most ||= @way == :reset ? @stream.bytesize - left.bytesize : sizes.max
      same(@stream.byteslice(most..), left, "what is left after #{most} bytes of which #{sizes} came")
    end
  end
end
