# frozen_string_literal: true

require_relative "builder"
require_relative "case"
require_relative "arguments"

module Fuzz
  # Makes up cases: each argument is mostly of the kind that belongs there, and now and then anything at all.
  class Generator
    include Arguments

    # The kinds of the arguments, and how many of them may be left out.
    CALLS = {
      "splice" => [%i[input offset output offset length flags], 1], "tee" => [%i[input output length flags], 1],
      "vmsplice" => [%i[output data flags], 1], "copy_stream" => [%i[source target length offset], 2],
      "full" => [%i[input output length offset], 1], "partial" => [%i[input output length offset], 1],
      "relay" => [%i[side side], 0], "tee_stream" => [%i[source target target target], 2],
      "IO#pipe_size" => [%i[end], 0], "IO#pipe_size=" => [%i[end length], 0], "Pages.new" => [%i[bytes], 0],
      "Pages.allocate" => [[], 0], "Pages#slice" => [%i[pages length length], 1], "Pages#==" => [%i[pages data], 0],
      "Pages#eql?" => [%i[pages data], 0], "Pages#instance_of?" => [%i[pages anything], 0]
    }.freeze
    WEIGHTS = { "splice" => 6, "vmsplice" => 6, "Splice.copy_stream" => 9, "IO.copy_stream" => 3, "Splice.relay" => 4,
                "Splice.tee_stream" => 5, "Background#copy_stream" => 3, "Background#relay" => 2 }.freeze
    NAMES = (Case::CALLS.keys + WEIGHTS.flat_map { |name, weight| [name] * weight }).freeze
    # How probable each option is, and what it may be.
    OPTIONS = {
      "in" => [0.06, %w[thread thread fiber scheduler]], "ending" => [0.3, %w[kill close close feed feed signal]],
      "stress" => [0.0001, [true]]
    }.freeze

    def initialize(random, seeds, core_ext: false)
      @random = random
      @seeds = seeds
      @core_ext = core_ext
    end

    def make_case
      kase = !@seeds.empty? && chance(0.25) ? mutant(pick(@seeds)) : fresh
      @core_ext ? kase.options["core_ext"] = true : kase.options.delete("core_ext")
      kase
    end

    private

    def fresh
      name = callable(pick(NAMES))
      arguments = kinds(name).map { |kind| chance(0.9) ? send(kind) : anything }
      arguments << anything if chance(0.02)
      Case.new(name, arguments, options(name))
    end

    def kinds(name)
      kinds, optional = CALLS.fetch(name.sub(/\A(Splice\.|IO\.|Background#)/, "").delete_prefix("try"), [%i[pages], 0])
      kinds.take(chance(0.02) ? @random.rand(kinds.size + 1) : kinds.size - @random.rand(optional + 1))
    end

    # Ruby's own copy_stream is not what is looked at.
    def callable(name) = @core_ext ? name : name.sub("IO.copy", "Splice.copy")

    # What is known to be worth something, with one thing changed.
    def mutant(kase)
      name = callable(chance(0.1) ? pick(NAMES) : kase.name)
      Case.new(name, changed(kase.arguments), chance(0.5) ? options(name) : kase.options.dup)
    end

    def changed(arguments)
      place = @random.rand(arguments.size + 1)
      arguments.take(place).push(send(pick(%i[anything anything end data length])), *arguments.drop(place + 1))
    end

    def options(name)
      made = surroundings
      made["block"] = steps if chance(name.match?(/stream/) ? 0.2 : 0.01)
      often = name.match?(/relay|tee_stream/) ? 0.4 : 0.01
      made["keywords"] = keywords(name) if chance(name.match?(/Background/) ? 0.8 : often)
      made
    end

    def surroundings
      made = OPTIONS.filter_map { |option, (probability, values)| [option, pick(values)] if chance(probability) }.to_h
      made["in"] ||= "thread" if made["ending"] == "kill"
      made
    end

    def keywords(name)
      return { pick(%w[len idle_timeout flags rate close]) => anything } if chance(0.1)
      return terms if name.start_with?("Background")

      if name.match?(/relay/)
        { "idle_timeout" => idle_timeout }
      else
        { "len" => chance(0.8) ? length : anything }
      end
    end

    def terms
      { "close" => chance(0.3), "idle_timeout" => idle_timeout, "rate" => chance(0.7) ? pick([nil, 0, 1, -1]) : length }
        .select { |name, _| name == "close" || chance(0.3) }
    end

    def idle_timeout = chance(0.7) ? pick([0, 0.0001, 0.001, 1, -1, nil, %w[float 1e300], %w[thing nan]]) : anything

    def chance(probability) = @random.rand < probability

    def pick(list) = list[@random.rand(list.size)]
  end
end
