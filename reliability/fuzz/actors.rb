# frozen_string_literal: true

module Fuzz
  # What objects of the fuzzer raise. The gem must pass it on as it is.
  class Own < StandardError; end

  # Recipes for objects whose methods do what the recipe says, step by step.
  module Actors
    TWICE = Own.new("twice") # raised by an error's own methods
    ERRORS = {
      "Own" => -> { Own.new("own") }, "IOError" => -> { IOError.new("own") }, "EPIPE" => -> { Errno::EPIPE.new("own") },
      "EOFError" => -> { EOFError.new("own") }, "EAGAIN" => -> { Errno::EAGAIN.new("own") },
      "frozen" => -> { Own.new("own").freeze }, "NoMemoryError" => -> { NoMemoryError.new("own") },
      "mute" => -> { Own.new("").tap { |own| def own.message = raise(TWICE) } },
      "stiff" => -> { Own.new("own").tap { |own| def own.extend(*) = raise(TWICE) } }
    }.freeze

    METHODS = %w[
      to_io to_int to_i to_str to_ary to_a to_path readpartial read write close fileno each respond_to? nil?
      respond_to_missing? method_missing is_a? kind_of? class == eql? hash inspect to_s coerce to_f to_r div peer_cert
      binmode flush instance_of? to_hash to_proc sysread read_nonblock write_nonblock bytesize call
    ].freeze

    def make_actor(roles) = enact(Object.new, roles)

    # One that cannot even be asked for its class.
    def make_basic(roles) = enact(BasicObject.new, roles)

    # A String, an Array or an Integer-like object with some methods of its own.
    def make_disguised(item, roles)
      object = make(item)
      object.frozen? ? object : enact(object, roles)
    end

    def enact(object, roles)
      builder = self
      singleton = (class << object; self; end)
      roles.each do |name, steps|
        singleton.send(:define_method, name) { |*args, **| builder.perform(self, name, steps, args) }
      end
      object
    end

    # The value of the last step is the method's.
    def perform(object, name, steps, args)
      steps.inject(nil) { |_, (step, *details)| send(:"step_#{step}", object, name, args, *details) }
    rescue StandardError => e
      @raised << e
      raise
    end

    def block(steps) = ->(*args) { perform(nil, "block", steps, args) }

    private

    def step_raise(_, _, _, name)
      error = ERRORS.fetch(name).call
      @raised << error
      raise error
    end

    def step_throw(*)
      @thrown = true
      throw(:own, Case::THROWN)
    end

    def step_return(_, _, _, item) = make(item)

    def step_self(object, *) = object

    # What IO#write says, or other than that.
    def step_count(_, _, args, more = 0) = (args.first in String) ? args.first.bytesize + more : more

    # So many pieces of data, and then the end as `name` tells of it.
    def step_data(object, name, args, size, times)
      @calls[[object.__id__, name]] += 1
      return end_of(name) if @calls[[object.__id__, name]] > times

      data = "d" * [size, *args.grep(Integer)].min
      (args[1] in String) ? args[1].replace(data) : data
    end

    def end_of(name)
      return nil if name == "read"

      raise EOFError, "end of an object"
    end

    def step_close(_, _, _, index)
      argument = @arguments[index]
      argument.close if (argument in IO) && argument.fileno > 2
    rescue IOError
      nil
    end

    def step_free(_, _, _, index)
      argument = @arguments[index]
      argument.free if argument in IO::Buffer
    rescue IO::Buffer::LockedError
      nil
    end

    def step_mutate(*)
      @arguments.each do |argument|
        case argument
        when String then argument.replace("mutated" * 9) unless argument.frozen?
        when Array then argument.frozen? || argument.clear
        end
      end
    end

    # Calls the gem again, from within a call.
    def step_again(*)
      reader, writer = %w[reader writer].map { |end_| make([end_, "data", 9]) }
      copied = IO::Splice.copy_stream("read", "/dev/null", 100)
      IO.trysplice(reader, nil, make(%w[writer empty 8]), nil, copied)
      IO.vmsplice(writer, "again", IO::Splice::F_NONBLOCK)
    end

    # The same call with the same arguments, to a certain depth or until the stack ends.
    def step_recurse(_, _, _, depth)
      return if (@depth += 1) > depth

      @case.invoke(@arguments, @case.keywords(self), self)
    end

    def step_collect(*) = GC.start

    def step_compact(*) = GC.respond_to?(:compact) && GC.compact

    def step_pass(*) = 3.times { Thread.pass }

    def step_sleep(*) = sleep(0.001)

    def step_exit(*)
      @raised << SystemExit.new(0, "own")
      raise @raised.last
    end

    def step_kill(*) = Thread.current == Thread.main || Thread.current.kill

    def step_fork(*) = Process.wait(fork { exit!(0) })

    def step_gets(_, _, _, index) = (@arguments[index].gets if @arguments[index] in IO)
  end
end
