# frozen_string_literal: true

module Inject
  Failed = Class.new(StandardError)

  # What has to be true after a call, whatever was answered to it.
  class Verdict
    # When these come, a call has to go on; but one that must not wait may say EAGAIN.
    GOES_ON = ["EINTR", "EAGAIN", UNTRUE_END].freeze

    def initialize(case_, sources, targets, value, error)
      @case = case_
      @sources = sources
      @targets = targets
      @value = value
      @error = error
    end

    def check(shot)
      check_error(shot) if @error
      # A target has all only when nothing is left to come from its source.
      @rests = @sources.map(&:rest) unless @case.keeps || @case.rest == :none
      @case.ways.each_with_index { |indices, way| check_way(way, indices) }
      @error ? check_counts : check_value
    end

    private

    def check_error(shot)
      return if @error.is_a?(NoMemoryError) && shot&.errno == "ENOMEM"

      fail!("raised #{@error.class}: #{@error.message}") unless @error.is_a?(SystemCallError)
      check_errno(shot) unless @error.errno == @case.fails
    end

    def check_errno(shot)
      allowed = shot && (@case.nonblock || !GOES_ON.include?(shot.errno))
      right = allowed && @error.is_a?(Errno.const_get(shot.errno))
      fail!("raised #{@error.inspect}") unless right
      # What Ruby waits with has Ruby's own words.
      fail!("does not name the call") unless shot.call == :ppoll || @error.message.match?(@case.named)
    end

    # Bytes have arrived as far as they have left, in order.
    def check_way(way, indices)
      @targets.values_at(*indices).each do |target|
        same!(expected(way).byteslice(0, target.arrived.bytesize), target.arrived, "what arrived")
        check_position(target)
      end
      return if @case.rest == :none

      @case.keeps ? check_kept(@sources[way]) : check_rest(way, indices)
    end

    def expected(way)
      return @case.expected.call if @case.expected.respond_to?(:call)

      @case.expected ? @sources[way].bytes.byteslice(*@case.expected) : @sources[way].bytes
    end

    def check_position(target)
      position = target.position
      fail!("a target stands at #{position}") unless [nil, target.arrived.bytesize].include?(position)
    end

    def check_kept(source)
      fail!("the source has moved to #{source.position}") unless [nil, 0].include?(source.position)
      same!(source.bytes, source.rest, "the source")
    end

    def check_rest(way, indices)
      most = @targets.values_at(*indices).map(&:arrived).max_by(&:bytesize)
      same!(@sources[way].bytes, most + @rests[way], "what arrived and the rest")
    end

    def check_value
      fail!("returned #{@value.inspect} in spite of all") if @case.fails
      fail!("returned #{@value.inspect}, #{sizes} arrived") if said.zip != arrived
      fail!("#{sizes} arrived, not all") unless @case.partly || arrived == all
    end

    # Of each way, on which all targets have the same.
    def arrived = @case.ways.map { |indices| sizes.values_at(*indices).uniq }

    def said = @value == :EAGAIN && @case.nonblock ? [0] : [@value].flatten

    def all = @case.ways.each_index.map { |way| [expected(way).bytesize] }

    def check_counts
      told = counts or return
      fail!("#{told} are said to have arrived, #{sizes} have") if told != sizes
    end

    # What an error says of how far it came; nil when it says nothing of the kind.
    def counts
      return @error.bytes_relayed if @error.is_a?(IO::Splice::Relayed)
      return [@error.bytes_written].flatten if @error.respond_to?(:bytes_written)

      [0] if @case.counted
    end

    def sizes = @targets.map { |target| target.arrived.bytesize }

    def same!(expected, actual, what)
      return if expected.b == actual.b

      at = (0..expected.bytesize).find { |index| expected.getbyte(index) != actual.getbyte(index) }
      fail!("#{what}: #{expected.bytesize} bytes expected, #{actual.bytesize} got, different from #{at} on")
    end

    def fail!(message)
      raise Failed, "#{message}#{" (after #{@error.inspect})" if @error}"
    end
  end
end
