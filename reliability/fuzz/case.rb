# frozen_string_literal: true

require "json"

module Fuzz
  # One call, as a line of JSON: its name, the recipes of its arguments, and options. A recipe is a scalar, which
  # stands for itself, or an array with a name and its details. Equal recipes are one object.
  #
  #   ["splice", [["reader", "data"], null, ["file", "w"], null, 100], {"in": "thread", "ending": "close"}]
  #
  # Options:
  # - keywords: recipes by name
  # - block: the steps of a block
  # - in: "thread", "fiber", "scheduler"; otherwise the main thread
  # - ending: how a call that still runs after a while is ended: "kill", "close", "feed", "signal"; otherwise "raise"
  # - stress: with GC.stress
  # - core_ext: in a process that has loaded io/splice/core_ext
  class Case
    THROWN = :"thrown by an object"
    PAGES = IO::Splice::Pages
    Closed = Class.new(StandardError)

    # How to make each call of the public methods.
    CALLS = {
      **%i[splice trysplice tee trytee vmsplice].to_h do |name|
        [name.to_s, ->(*args, **keywords, &block) { IO.public_send(name, *args, **keywords, &block) }]
      end,
      **%i[splice trysplice tee trytee vmsplice copy_stream full partial tee_stream relay].to_h do |name|
        ["Splice.#{name}", ->(*args, **keywords, &block) { IO::Splice.public_send(name, *args, **keywords, &block) }]
      end,
      **%i[pipe_size pipe_size=].to_h do |name|
        method = IO.instance_method(name)
        ["IO##{name}", ->(io = nil, *args, **keywords) { method.bind_call(io, *args, **keywords) }]
      end,
      **%i[new allocate].to_h do |name|
        ["Pages.#{name}", ->(*args, **keywords, &block) { PAGES.public_send(name, *args, **keywords, &block) }]
      end,
      **%i[bytesize to_s slice == eql? hash inspect].to_h do |name|
        method = PAGES.instance_method(name)
        ["Pages##{name}", ->(pages = nil, *args, **keywords) { method.bind_call(pages, *args, **keywords) }]
      end,
      **%i[dup clone freeze instance_of?].to_h do |name|
        ["Pages##{name}", ->(pages = nil, *args) { (pages in PAGES) && pages.public_send(name, *args) }]
      end,
      **%i[copy_stream tee_stream relay].to_h do |name|
        ["Background##{name}", ->(*args, **keywords) { IO::Splice.background.public_send(name, *args, **keywords) }]
      end,
      "IO.copy_stream" => ->(*args, **keywords, &block) { IO.copy_stream(*args, **keywords, &block) },
    }.freeze

    attr_reader :name, :arguments, :options

    def self.parse(line)
      name, arguments, options = JSON.parse(line, max_nesting: 30)
      new(name, arguments, options || {})
    end

    def self.read(path)
      File.readlines(path, chomp: true).grep(/\A\[/).map { |line| parse(line) }
    end

    def initialize(name, arguments, options = {})
      @name = name
      @arguments = arguments
      @options = options
    end

    def to_s = JSON.generate([name, arguments, options].tap { |all| all.pop if options.empty? })

    def keywords(builder)
      @options.fetch("keywords", {}).to_h { |name, item| [name.to_sym, builder.make(item)] }
    end

    def invoke(arguments, keywords, builder)
      block = builder.block(@options["block"]) if @options["block"]
      return in_the_background(arguments, keywords) if background?

      CALLS.fetch(@name).call(*arguments, **keywords, &block)
    end

    # Begins a transfer and ends it, whatever comes. When the call raises, nothing has been closed.
    def in_the_background(arguments, keywords)
      open = arguments.flatten(1).grep(IO).select { |io| open?(io) }
      transfer = CALLS.fetch(@name).call(*arguments, **keywords)
    rescue Overdue # which may come when all is taken over
      raise
    rescue StandardError
      others = @options["ending"] == "close" || actors?
      raise Closed, "an end was closed by a call that raised" unless others || open.all? { |io| open?(io) }

      raise
    else
      transfer.wait(0.001)
      transfer.cancel.wait
    ensure
      Thread.handle_interrupt(Object => :never) { IO::Splice.background.transfers.each(&:cancel).each(&:wait) }
    end

    # One that was only allocated is not.
    def open?(io)
      !io.closed?
    rescue IOError
      false
    end

    def background? = @name.start_with?("Background")

    # Whether more than one object is for a descriptor that may be closed.
    def closes_others? = background? && @options.dig("keywords", "close") != false && to_s.include?('"for_fd"')

    # Whether it must not wait, whatever its ends are.
    def never_waits?
      return false if actors? || @options["stress"]

      case @name
      when /try/ then true
      when /splice\z|tee\z/ then nonblock?
      else !@name.match?(/copy_stream|full|partial|tee_stream|relay/)
      end
    end

    def nonblock?
      flags = @arguments[{ "vmsplice" => 2, "tee" => 3, "splice" => 5 }.fetch(@name.delete_prefix("Splice."))]
      flags.is_a?(Integer) && flags.anybits?(IO::Splice::F_NONBLOCK)
    end

    # Whether code of the fuzzer's own runs in the call.
    def actors? = to_s.match?(/"(actor|basic|disguised|block)"/)

    # Whether it is ended by closing an end, in the main thread.
    def closed? = @options.values_at("ending", "in") == ["close", nil] && !actors?

    # Whether objects may say of themselves what is not true.
    def liars? = to_s.match?(/"(respond_to(_missing)?\?|is_a\?|kind_of\?|nil\?|method_missing)"/)

    def recursive? = to_s.include?('"recurse"')

    def option(name) = @options[name]
  end
end
