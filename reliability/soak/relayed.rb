# frozen_string_literal: true

module Soak
  # relay: a stream in each direction.
  class Relayed < Operation
    # One side of a relay, and who is on the other end of it.
    class Side
      attr_reader :given, :input, :output, :stream, :kind

      def initialize(kind, stream, tasks, random)
        @kind = kind
        @stream = stream
        @tasks = tasks
        @random = random
        kind == :pipes ? open_pipes : open_socket
        @urgent = UrgentWriter.new(@input, @far_out, stream.bytesize - ahead, random) if kind == :urgent
        tasks.far(@far_in, @far_out)
        @input.ungetbyte(stream.byteslice(0, ahead)) if ahead.positive?
        feed_seed = random.rand(1 << 32)
        drain_seed = random.rand(1 << 32)
        @feeder = tasks.go { feed(Random.new(feed_seed)) }
        @drain = tasks.go { drain(Random.new(drain_seed)) }
      end

      def all = [@input, @output, @far_in, @far_out].uniq

      def arrived
        kind == :pipes ? @output.close : close_write
        @arrived ||= @tasks.value_of(@drain)
      end

      def left
        @input.nonblock = true
        @input.read
      end

      def finish
        all.each { |io| io.close unless io.closed? }
        @tasks.value_of(@feeder)
      end

      private

      def ahead = @ahead ||= @random.rand(6).zero? ? @random.rand(0..[@stream.bytesize, 100_000].min) : 0

      def open_pipes
        @input, @far_out = Soak.pair(:pipe, @random)
        @far_in, @output = Soak.pair(:pipe, @random)
        @given = [@input, @output]
      end

      def open_socket
        @given, @far_in = Soak.pair(kind, @random)
        Soak.fill_error_queue(@given, @far_in) if kind == :errors
        @far_out = @far_in
        @input = @output = @given
      end

      def close_write
        @output.close_write unless @output.closed?
      rescue Errno::ENOTCONN
        nil
      end

      def feed(random)
        at = ahead
        while at < @stream.bytesize
          piece = @stream.byteslice(at, random.rand(1..200_000))
          @urgent ? @urgent.write(piece, at - ahead) : @far_out.write(piece)
          at += piece.bytesize
          sleep(random.rand * 0.001) if random.rand(10).zero?
        end
        @far_out.close_write
      rescue Errno::EPIPE, Errno::ECONNRESET, Errno::ENOTCONN, IOError
        raise unless @input.closed? || @far_out.closed?
      end

      def drain(random)
        arrived = String.new.b
        loop do
          arrived << @far_in.readpartial(random.rand(1..200_000))
          sleep(random.rand * 0.001) if random.rand(10).zero?
        end
      rescue EOFError
        arrived
      rescue Errno::ECONNRESET
        @input.closed? ? arrived : raise
      end
    end

    KINDS = %i[unix unix tcp pipes].freeze

    private

    def kinds = [*KINDS, *(streams & %i[urgent errors])]

    def operate(way)
      @way = { reset: :idle, close_target: :close_source }.fetch(way, way)
      @sides = Array.new(2) { Side.new(one_of(kinds), stream, tasks, random).tap { |side| @ends.concat(side.all) } }
      @relayed = [0, 0]
      @interruptions = random.rand(1..4)
      (1..5).each do |number|
        break if relay(number)
      end
      check
    ensure
      @sides&.each(&:finish)
    end

    def way
      (@interruptions -= 1) >= 0 || @way == :close_source ? @way : :none
    end

    # Whether it is over.
    def relay(number)
      a, b = @sides
      idle = { idle: random.rand * 0.005, none: chance(2) ? nil : 1000 }[way = self.way]
      doing("relay #{number}, #{a.stream.bytesize} bytes from #{a.kind}, #{b.stream.bytesize} from #{b.kind}, #{way}")
      timeouts(way, 0.0005 * random.rand(1..20))
      outcome = call("relay", way, -> { a.input.close }) { IO::Splice.relay(a.given, b.given, idle_timeout: idle) }
      timeouts(way, nil)
      expect(outcome, way)
      account(outcome, way)
      outcome.kind == :value || @sides.any? { |side| side.all.any?(&:closed?) }
    end

    def timeouts(way, seconds)
      return unless way == :io_timeout

      @sides.each do |side|
        [side.input, side.output].each do |io|
          io.timeout = seconds unless io.closed?
        end
      end
    end

    def expected?(error, way)
      way == :idle ? error.is_a?(IO::Splice::TimeoutError) : super
    end

    def account(outcome, way)
      error = outcome.error
      bytes = error.is_a?(IO::Splice::Relayed) ? error.bytes_relayed : outcome.result
      # Closed before it began.
      bytes ||= [0, 0] if error && way == :close_source
      raise Wrong, "not a Relayed: #{error.inspect}" if error && bytes.nil? && (outcome.counted || way == :idle)

      bytes = [0, 0] if outcome.kind == :gone && way == :counted
      @relayed = bytes && @relayed && @relayed.zip(bytes).map(&:sum)
      equal(@sides.map { |side| side.stream.bytesize }, @relayed, "relayed") if outcome.kind == :value && @relayed
      socket_closed(outcome)
    end

    def socket_closed(outcome)
      return if @way == :close_source

      closed = @sides.find { |side| side.kind != :pipes && side.given.closed? }
      raise Wrong, "a socket was closed" if closed

      closed = @sides.all? { |side| side.kind != :pipes || side.output.closed? }
      raise Wrong, "a pipe was not told of the end" if outcome.kind == :value && !closed
    end

    def check
      arrived = @sides.map { |side| side.output.closed? && side.kind != :pipes ? nil : side.arrived }
      @sides.zip(arrived.reverse).each_with_index do |(from, bytes), way|
        next unless bytes

        prefix(from.stream, bytes, "what has come, direction #{way}")
        equal(@relayed[way], bytes.bytesize, "relayed, direction #{way}") if @relayed
        unless from.input.closed?
          same(from.stream, bytes + from.left,
               "what has come and what is left, direction #{way}")
        end
      end
    end
  end
end
