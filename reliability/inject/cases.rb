# frozen_string_literal: true

# Every call between every kind of ends.
module Inject
  # A call between ends.
  #
  # from, to::  kinds of ends, see Source and Target
  # ways::      which of the targets belong to which of the sources
  # expected::  offset and length of the bytes that are to arrive, or a Proc that says them
  # partly::    whether fewer may arrive
  # keeps::     whether the source stays as it is
  # rest::      :none when what is left cannot be looked at
  # fails::     the errno that it ends with without any injection
  # ready::     what to do with the ends before; the call is given what it says, too
  # never::     calls that are never answered with an error: what they do has no other way
  # counted::   whether the error says how much has moved, if something has
  Case = Struct.new(:name, :from, :to, :call, :ways, :expected, :partly, :keeps, :rest, :fails, :counted, :nonblock,
                    :fiber, :ready, :named, :never, keyword_init: true)

  CASES = {} # rubocop:disable Style/MutableConstant -- filled below

  FROM = %i[file pipe unix tcp blocking_pipe blocking_unix proc].freeze
  TO = %i[file append pipe unix tcp blocking_pipe blocking_unix].freeze
  # From a socket in blocking mode a single call goes through memory: what it has taken is lost when the pipe then
  # refuses it, as only one does whose last reader leaves in that very moment. So there is no `blocking_unix` here.
  TO_PIPE = %i[file unix tcp blocking_pipe pipe late_unix late_pipe].product(%i[pipe]).freeze
  FROM_PIPE = %i[pipe].product(%i[file unix blocking_unix blocking_pipe]).freeze

  module_function

  def add(name, from, to, **more, &call)
    from = [*from]
    to = [*to]
    name = "#{name} #{from.join("+")} to #{to.join("+")}"
    named = /#{name[/\A(?:try)?(tee|vmsplice)/, 1] || "splice"}/
    CASES[name] = Case.new(name:, from:, to:, call:, ways: [to.each_index.to_a], named:, **more)
  end

  # Descriptors that a case may leave behind: the gem keeps a few pipes for the next copies.
  def kept(case_) = 2 * [case_.to.size, 1].max

  # Errors of paths and of what Ruby waits with have Ruby's own words.
  ANY = //

  FROM.product(TO) do |from, to|
    add("copy_stream", from, to, named: ANY) { |source, target| IO::Splice.copy_stream(source, target) }
  end

  %i[file pipe unix tcp].product(%i[file append pipe unix]) do |from, to|
    add("copy_stream of 80000", from, to, expected: [0, 80_000], named: ANY) do |source, target|
      IO::Splice.copy_stream(source, target, 80_000)
    end
  end

  %i[file append pipe unix].each do |to|
    add("copy_stream from 5000", :file, to, expected: [5000, 80_000], keeps: true, named: ANY) do |source, target|
      IO::Splice.copy_stream(source, target, 80_000, 5000)
    end
  end

  %i[ahead_file ahead_pipe ahead_unix].product(%i[file append pipe unix]) do |from, to|
    add("copy_stream", from, to, named: ANY) { |source, target| IO::Splice.copy_stream(source, target) }
  end

  %i[file pipe unix ahead_unix number_file].product(%i[full gone]) do |from, to|
    fails = to == :full ? Errno::ENOSPC::Errno : Errno::EPIPE::Errno
    never = %i[lseek] if from == :number_file
    add("copy_stream", from, to, fails:, never:, named: ANY) do |source, target|
      IO::Splice.copy_stream(source, target)
    end
  end

  %i[number_append number_unix].each do |to|
    add("copy_stream", :number_file, to, named: ANY) { |source, target| IO::Splice.copy_stream(source, target) }
  end

  add("copy_stream", :path, :path, rest: :none, named: ANY) { |source, target| IO::Splice.copy_stream(source, target) }

  %i[late_unix late_blocking_unix late_pipe narrow_unix].product(%i[unix pipe file]) do |from, to|
    add("copy_stream", from, to, named: ANY) { |source, target| IO::Splice.copy_stream(source, target) }
  end

  %i[unix blocking_unix late_unix].each do |from|
    add("copy_stream with progress", from, :unix, named: ANY) do |source, target|
      IO::Splice.copy_stream(source, target) { nil }
    end
    add("copy_stream in a fiber", from, :pipe, fiber: true, named: ANY) do |source, target|
      IO::Splice.copy_stream(source, target)
    end
  end

  # Bytes are there.
  READY = ->(source, *) { source.wait_readable && nil }
  TRY = { partly: true, counted: true, nonblock: true, ready: READY }.freeze
  KEEP = { partly: true, counted: true, keeps: true }.freeze

  (TO_PIPE + FROM_PIPE).each do |from, to|
    add("full", from, to, expected: [0, 90_000], counted: true) do |source, target|
      IO::Splice.full(source, target, 90_000)
    end
    add("partial", from, to, partly: true, counted: true) do |source, target|
      IO::Splice.partial(source, target, 70_000)
    end
    next if from.start_with?("late_")

    add("trysplice", from, to, **TRY) do |source, target|
      IO::Splice.trysplice(source, nil, target, nil, 70_000)
    end
  end

  add("splice from 5000", :file, :pipe, expected: [5000, 60_000], **KEEP) do |source, target|
    IO.splice(source, 5000, target, nil, 60_000)
  end

  add("tee", :late_pipe, :pipe, **KEEP) { |source, target| IO.tee(source, target, 4000) }

  %i[pipe blocking_pipe].product(%i[pipe blocking_pipe]) do |from, to|
    add("tee", from, to, **KEEP, ready: READY) { |source, target| IO.tee(source, target, 4000) }
    add("trytee", from, to, **KEEP, **TRY) { |source, target| IO.trytee(source, target, 4000) }
  end

  STRINGS = [PATTERN, "short", "", PATTERN.byteslice(0, 5000)].freeze
  MEMORY = { rest: :none, counted: true }.freeze
  PIECES = ["head", IO::Splice::Pages.new(PATTERN), "foot"].freeze

  GIFT = (PATTERN * 2).byteslice(0, 131_072).freeze

  def gift
    IO::Buffer.new(GIFT.bytesize, IO::Buffer::MAPPED).tap { |buffer| buffer.set_string(GIFT) }
  end

  %i[pipe blocking_pipe].each do |to|
    { "a string" => PATTERN, "a short string" => "short", "strings" => STRINGS, "pages" => PIECES[1],
      "pages and strings" => PIECES }.each do |what, data|
      add("vmsplice of #{what}", [], to, expected: -> { [*data].map(&:to_s).join }, **MEMORY) do |target|
        IO.vmsplice(target, data)
      end
    end
    add("vmsplice of new pages", [], to, expected: -> { PATTERN }, **MEMORY) do |target|
      IO.vmsplice(target, IO::Splice::Pages.new(PATTERN))
    end
    add("vmsplice of a gift", [], to, expected: -> { GIFT }, ready: ->(_) { gift }, **MEMORY) do |target, buffer|
      IO.vmsplice(target, buffer, IO::Splice::F_GIFT)
    ensure
      raise Failed, "the gift has changed" unless buffer.null? || buffer.get_string(0, GIFT.bytesize) == GIFT
    end
  end

  TARGETS = [%i[pipe unix file], %i[append tcp]].freeze

  (FROM + %i[ahead_unix ahead_file narrow_unix]).product(TARGETS) do |from, to|
    add("tee_stream", from, to, named: ANY) { |source, *targets| IO::Splice.tee_stream(source, *targets) }
  end

  # They are given a page at a time.
  (FROM - [:proc]).each do |from|
    to = %i[blocking_pipe blocking_unix file]
    add("tee_stream of 20000", from, to, expected: [0, 20_000], named: ANY) do |source, *targets|
      IO::Splice.tee_stream(source, *targets, len: 20_000)
    end
  end

  add("tee_stream of 80000", :unix, %i[pipe unix], expected: [0, 80_000], named: ANY) do |source, *targets|
    IO::Splice.tee_stream(source, *targets, len: 80_000)
  end

  %i[unix file].product([%i[pipe full file], %i[gone unix]]) do |from, to|
    fails = to.include?(:full) ? Errno::ENOSPC::Errno : Errno::EPIPE::Errno
    add("tee_stream", from, to, fails:, named: ANY) { |source, *targets| IO::Splice.tee_stream(source, *targets) }
  end

  %i[unix late_unix].each do |from|
    add("tee_stream in a fiber", from, %i[pipe unix], fiber: true, named: ANY) do |source, *targets|
      IO::Splice.tee_stream(source, *targets)
    end
  end

  RELAYS = [%i[unix unix], %i[tcp unix], %i[pipe tcp], %i[blocking_unix pipe], %i[blocking_unix blocking_unix],
            %i[ahead_unix unix], %i[late_unix late_unix], %i[late_pipe unix]].freeze

  RELAYS.each do |from|
    to = from.map { |kind| kind.to_s.sub(/ahead_|late_/, "").to_sym }
    [false, true].each do |fiber|
      add("relay#{" in a fiber" if fiber}", from, to, ways: [[0], [1]], fiber:, named: ANY) do |a, b, to_b, to_a|
        IO::Splice.relay([a, to_a], [b, to_b])
      end
    end
  end
end
