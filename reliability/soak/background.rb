# frozen_string_literal: true

module Soak
  # For what goes on in the background: how it is begun, and how it ends.
  class InTheBackground < Operation
    include WithChild

    # What it may end with, besides well.
    ERRORS = { cancel: IO::Splice::Cancelled, close: IO::Splice::Cancelled, idle: IO::Splice::TimeoutError }.freeze
    INTERRUPTS = %i[raise counted kill timeout throw handler].freeze

    private

    # `way` is how the wait is interrupted, which the transfer does not notice.
    def begin_with(way)
      @way = INTERRUPTS.include?(way) ? way : :none
      @how = one_of(%i[none none rate cancel cancel idle reset close drain])
      # What a stuck disk has is not known when the transfer is given up.
      @how = :none if Soak.hostile?("fuse") && ERRORS.key?(@how)
      @close = chance(2)
      own = %i[close drain].include?(@how)
      @background = own ? IO::Splice::Background.new(threads: random.rand(1..3)) : IO::Splice.background
      @told = Thread::Queue.new
    end

    def terms
      terms = { close: @close }
      terms[:idle_timeout] = @how == :idle ? random.rand * 0.01 : 1000 if @how == :idle || chance(4)
      terms[:rate] = 20_000_000 if @how == :rate
      terms
    end

    # Its block is called once, whatever others raise.
    def block
      told = @told
      raises = chance(20)
      lambda do |transfer|
        told << transfer
        raise "this is well" if raises
      end
    end

    # Returns when it has ended, and its block was called.
    def finish(transfer)
      fork_beside(transfer) if forks? && chance(20)
      sleep(random.rand * 0.005) if @how != :none
      transfer.cancel if @how == :cancel
      @background.close if @how == :close
      equal(true, @background.drain, "drained") if @how == :drain && @way == :none
      call("Transfer#wait", @way) { transfer.wait }
      equal(transfer, transfer.wait, "the transfer")
      equal(transfer, @told.pop, "whom the block was called with")
      equal(0, @told.size, "how often it was called again")
      check_own if %i[close drain].include?(@how)
    end

    def check_own
      equal(true, @background.drain, "drained")
      equal([0, 1], @background.stats.values_at(:under_way, :begun), "statistics") unless @how == :rate
    end

    # It has ended before the child was forked, or it is none of the child's.
    def fork_beside(transfer)
      in_child do |_|
        equal([true, 0], [transfer.done?, IO::Splice.background.size], "a transfer of the parent's")
        equal(9, IO::Splice.background.copy_stream("/dev/zero", File::NULL, 9).value, "copied")
      end
    end

    def may_fail_with?(error)
      expected = ERRORS[@how]
      (expected && error.is_a?(expected)) || (@how == :reset && GONE.any? { |gone| error.is_a?(gone) })
    end

    # Counts what an operation as such does, and looks at the ends that the caller keeps.
    def watched(name)
      @statistics.called(name)
      conditions = Soak.conditions(@ends)
      transfer = yield
      finish(transfer)
      @statistics.interrupted(@how) if transfer.error
      compare_conditions(conditions, name)
      transfer
    end
  end
  Operation.all.delete("in_the_background")

  # copy_stream and tee_stream.
  class BackgroundCopy < InTheBackground
    private

    def operate(way)
      begin_with(way)
      @stream = stream
      make_ends
      @len = random.rand(0..@stream.bytesize + random.rand(2)) if chance(3)
      doing("#{@stream.bytesize} bytes, #{@len.inspect} of them, from #{@source.kind} to #{@targets.map(&:kind)}, " \
            "close: #{@close}, #{@how}")
      check(watched("Background#copy_stream") { copy })
    ensure
      [@source, *@targets].compact.each(&:finish)
      @background&.close if %i[close drain].include?(@how)
    end

    def make_ends
      leave_after = random.rand(0..@stream.bytesize) if @how == :reset
      kinds = Array.new([1, 1, 2, 3].sample(random:)) { one_of([*streams, :file, :append]) }
      kinds[0] = one_of(streams) if leave_after
      @targets = []
      kinds.each_with_index { |kind, at| @targets << target(kind, leave_after: (leave_after if at.zero?)) }
      @source = source(one_of([*streams, :file]), @stream, ahead: chance(6))
    end

    def copy
      ios = @targets.map(&:io)
      return @background.tee_stream(@source.io, *ios, len: @len, **terms, &block) if ios.size > 1

      @background.copy_stream(@source.io, ios.first, @len, **terms, &block)
    end

    def check(transfer)
      error = transfer.error
      check_error(error) if error
      arrived = @targets.map(&:arrived)
      arrived.each { |bytes| prefix(@stream, bytes, "what has come") }
      most = arrived.map(&:bytesize).max
      left = @targets.any?(&:left?)
      check_counts(transfer, arrived) unless left
      check_rest(arrived.max_by(&:bytesize), most) unless @close || left
    end

    def check_error(error)
      return if error.is_a?(EOFError) && @len && @len > @stream.bytesize

      raise error unless may_fail_with?(error)
    end

    def check_counts(transfer, arrived)
      equal(arrived.map(&:bytesize).max, transfer.bytes, "bytes")
      expected = [@len, @stream.bytesize].compact.min
      arrived.each { |bytes| equal(expected, bytes.bytesize, "what has come") } unless transfer.error
    end

    def check_rest(arrived, most)
      equal(most, @source.taken, "the source's position") if @source.taken
      same(@stream, arrived + @source.left, "what has come and what is left")
    end
  end

  # relay
  class BackgroundRelay < InTheBackground
    private

    def operate(way)
      begin_with(way)
      @how = :none if @how == :reset
      kinds = [*Relayed::KINDS, *(streams & %i[urgent errors])]
      @sides = Array.new(2) do
        Relayed::Side.new(one_of(kinds), stream, tasks, random).tap { |side| @ends.concat(side.all) }
      end
      doing("#{@sides.map { |side| [side.kind, side.stream.bytesize] }}, close: #{@close}, #{@how}")
      check(watched("Background#relay") { @background.relay(*@sides.map(&:given), **terms, &block) })
    ensure
      @sides&.each(&:finish)
      @background&.close if %i[close drain].include?(@how)
    end

    def check(transfer)
      raise transfer.error if transfer.error && !may_fail_with?(transfer.error)

      equal(@close, @sides.any? { |side| side.input.closed? }, "whether the ends are closed")
      equal(@sides.map { |side| side.stream.bytesize }, transfer.bytes, "relayed") unless transfer.error
      arrived = @sides.map(&:arrived).reverse
      @sides.each_with_index { |from, way| check_way(transfer, from, arrived[way], way) }
    end

    # A connection that is closed with bytes in it that nobody has read is reset, and what was under way is lost.
    def check_way(transfer, from, arrived, way)
      prefix(from.stream, arrived, "what has come, direction #{way}")
      return if @close && transfer.error

      equal(transfer.bytes[way], arrived.bytesize, "relayed, direction #{way}")
      same(from.stream, arrived + from.left, "what has come and what is left, direction #{way}") unless @close
    end
  end

  # Many that are over at once.
  class BackgroundShort < InTheBackground
    SHORT = 50

    private

    def operate(_way)
      doing("#{SHORT} short transfers")
      @statistics.called("short transfers")
      pairs = Array.new(SHORT) { Soak.pair(:pipe, random).tap { |_, writer| writer.write("short") } }
      @ends.concat(pairs.flatten)
      transfers = pairs.map do |reader, writer|
        IO::Splice.background.copy_stream(reader, File::NULL).tap { writer.close }
      end
      equal([5] * SHORT, transfers.map(&:value), "copied")
    end
  end

  # Peers that do what they like hold up nobody.
  class BackgroundPeers < InTheBackground
    HOSTILE = 100
    GOOD = 100
    SIZE = 30_000

    private

    def operate(_way)
      doing("#{GOOD} good connections beside #{HOSTILE} hostile ones")
      @statistics.called("hostile peers")
      @background = IO::Splice::Background.new
      hostile = Array.new(HOSTILE) { |number| be_hostile(number) }
      GOOD.times { check_good }
      hostile.each_slice(2) { |peer,| reset(peer) }
    ensure
      @background&.close
    end

    def connection(kind = one_of(%i[unix tcp])) = Ends.pair(kind).each { |io| @ends << io }

    def be_hostile(number)
      near, far = connection(number % 4 == 2 ? :tcp : :unix)
      back, = connection(:unix)
      case number % 5
      when 0 then @background.copy_stream("/dev/zero", near) # and it never reads
      when 1 then @background.relay(near, back, rate: 1) && far.write("x" * 100)
      when 2 then @background.relay(near, back) && far.send("!", Socket::MSG_OOB)
      when 3 then @background.relay(near, back) && far.close_write
      when 4 then @background.tee_stream("/dev/zero", near, File::NULL)
      end
      far
    end

    def check_good
      bytes = @tape.cut(SIZE, self.class.name)
      client, front = connection
      back, server = connection
      transfer = @background.relay(front, back)
      tasks.far(client, server)
      client.write(bytes)
      client.close_write
      same(bytes, server.read, "what has come through")
      server.write(bytes.reverse)
      server.close
      same(bytes.reverse, client.read, "what has come back")
      equal([SIZE, SIZE], transfer.value, "relayed")
    end

    def reset(peer)
      peer.setsockopt(Socket::Option.linger(true, 0)) unless peer.is_a?(UNIXSocket)
      peer.close
    end
  end
end
