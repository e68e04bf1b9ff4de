# frozen_string_literal: true

require_relative "ends"
require_relative "specials"
require_relative "values"
require_relative "actors"

module Fuzz
  # Makes the arguments of one case, and takes them away again.
  class Builder
    include Ends
    include Specials
    include Values
    include Actors

    # What the fuzzer's own objects have raised, and whether they have thrown something.
    attr_reader :raised, :thrown, :arguments, :ios, :locks

    def initialize(kase)
      @case = kase
      @made = {}
      @ios = []
      @numbers = []
      @locks = []
      @buffers = []
      @quiet = []
      @raised = []
      @calls = Hash.new(0)
      @depth = 0
    end

    def make_arguments
      @arguments = [] # what is made first may be looked at by the steps of what is made then
      @case.arguments.each { |item| @arguments << make(item) }
      @arguments
    end

    def make(recipe)
      return recipe.dup if recipe.is_a?(String)
      return recipe unless recipe.is_a?(Array)

      @made.fetch(recipe) do
        # What is half made when an interrupt comes would not be taken away.
        Thread.handle_interrupt(Object => :never) do
          @made[recipe] = public_send("make_#{recipe.first}", *recipe.drop(1))
        end
      end
    end

    # An IO of this case, which is closed after it.
    def own(io)
      @ios << io
      io
    end

    def dispose
      @quiet.each { |writer| quietly { writer.close } }
      @ios.reverse_each { |io| quietly { close(io) } }
      @numbers.each { |number| quietly { IO.for_fd(number).close } }
      free_buffers
    end

    private

    # Slices before what they are slices of.
    def free_buffers
      @locks.each { |fiber| quietly { fiber.resume } }
      @buffers.reverse_each { |buffer| quietly { buffer.free } }
    end

    # What Ruby has still to write might wait for ever, so that goes where standard output goes: to nobody.
    def close(io)
      return if io.respond_to?(:closed?) && io.closed?

      Specials.dup2($stdout, io) if io.is_a?(IO)
      io.close
    end

    def quietly
      yield
    rescue IOError, SystemCallError, IO::Buffer::LockedError, Zlib::Error, FiberError
      nil
    end
  end
end
