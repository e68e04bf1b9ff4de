# frozen_string_literal: true

module Soak
  # copy_stream from objects.
  class Objects < Operation
    private

    def operate(way)
      @way = way.match?(/close_source|io_timeout/) ? :none : way
      whole = stream
      Dir.mktmpdir("soak") do |dir|
        @dir = dir
        from, given = give(whole)
        len = random.rand(0..whole.bytesize) if chance(3)
        offset = random.rand(0..whole.bytesize) if %i[path pathname].include?(from) && chance(3)
        copy(whole, from, given, len, offset)
      end
    end

    def give(whole)
      path = File.join(@dir, "source")
      from = one_of(source_kinds)
      File.binwrite(path, whole) if from.start_with?("path")
      given = { stringio: StringIO.new(whole), reader: FanOut::Reader.new(whole), path:, pathname: Pathname(path) }
      [from, given[from]]
    end

    def copy(whole, from, given, len, offset)
      whole = whole.byteslice(offset..) if offset
      len = [len, whole.bytesize].min if len
      to = one_of(target_kinds)
      to = one_of(streams) if @way.match?(/close|reset/)
      doing("copy_stream of #{len.inspect} at #{offset.inspect} from #{from} to #{to}, #{whole.bytesize} B, #{@way}")
      target = target(to, leave_after: (random.rand(0..whole.bytesize) if @way == :reset)) unless to == :path
      # What comes from an object, Ruby itself writes.
      tasks.far(target.io) if target && !target.file? && !target.object?
      output = target ? target.io : File.join(@dir, "target")
      outcome = call("copy_stream of objects", @way, -> { target.io.close }) do
        IO::Splice.copy_stream(given, output, len, offset)
      end
      expect(outcome, @way)
      check(whole, len, outcome, target)
    ensure
      target&.finish
    end

    # An object has no place for what cannot be delivered.
    def check(whole, len, outcome, target)
      arrived = target ? target.arrived : arrived_at_path
      return prefix(whole, arrived, "what has come") unless outcome.kind == :value && !target&.left?

      equal(len || whole.bytesize, outcome.value, "copied")
      same(whole.byteslice(0, outcome.value), arrived, "what has come")
    end

    def source_kinds = %i[stringio reader]
    def target_kinds = [*streams, :file, :append, :stringio]

    def arrived_at_path
      path = File.join(@dir, "target")
      File.exist?(path) ? File.binread(path) : "".b
    end
  end

  # copy_stream from paths, or to them.
  class Paths < Objects
    private

    def source_kinds = %i[path pathname]
    def target_kinds = [*super, :path, :path]
  end
end
