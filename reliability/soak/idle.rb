# frozen_string_literal: true

module Soak
  # Nothing moves, whatever poll(2) says: the timeout comes, and no byte is lost.
  class Idle < Operation
    KINDS = %i[unix tcp urgent errors].freeze

    private

    def operate(_way)
      kinds = Array.new(2) { one_of(KINDS) }
      sides = kinds.map { |kind| side(kind) }
      full = chance(2)
      bytes = held_up(*sides) if full
      seconds = random.rand * 0.1
      doing("relay of nothing between #{kinds}#{", to a full output" if full}, idle_timeout #{seconds}")
      outcome = call("relay of nothing", :none) { IO::Splice.relay(*sides.map(&:first), idle_timeout: seconds) }
      raise Wrong, "no timeout, but #{outcome.value.inspect}" unless outcome.error.is_a?(IO::Splice::TimeoutError)

      input = sides.first.first
      # What TCP calls full may have room a moment later.
      bytes = bytes&.byteslice(outcome.error.bytes_relayed.first..)
      equal(bytes, input.readpartial(100), "left") unless bytes.to_s.empty?
      copy_nothing(input) if IO.method_defined?(:timeout=)
    end

    def side(kind)
      near, far = Soak.pair(kind, random)
      tasks.far(near, far)
      @ends.push(near, far)
      Soak.fill_error_queue(near, far) if kind == :errors
      far.send("!", Socket::MSG_OOB) if kind == :urgent
      [near, far]
    end

    # What comes from the first has no room in the second.
    def held_up((_, far), (full, _))
      full.nonblock = true
      nil while full.write_nonblock("x" * 4096, exception: false) != :wait_writable
      "bytes that wait".tap { |bytes| far.write(bytes) }
    end

    def copy_nothing(input)
      input.timeout = random.rand(0.001..0.1)
      outcome = call("copy_stream of nothing", :none) { IO::Splice.copy_stream(input, File::NULL) }
      raise Wrong, "no timeout, but #{outcome.value.inspect}" unless outcome.error.is_a?(IO::TimeoutError)
    end
  end
end
