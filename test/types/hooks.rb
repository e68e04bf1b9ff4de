# frozen_string_literal: true

# Loaded before the tests, it checks every call of a method that sig/ declares. `rbs/test/setup` can hook only all of a
# class, which for IO would be Ruby's own methods too.

require "rbs/test"
require "io/splice"
require_relative "signatures"

RBS.logger_level = :warn

module CheckedCalls
  # RBS 2 does not see what a Delegator passes on.
  UNCHECKED = ["::Delegator"].freeze

  class << self
    attr_reader :called, :errors, :hooked

    def install
      @called = Hash.new(0)
      @errors = []
      builder = RBS::DefinitionBuilder.new(env: Signatures.environment.resolve_type_names)
      @hooked = Signatures.new.methods.flat_map do |module_name, names|
        next [] unless Object.const_defined?(module_name) # core_ext is not loaded

        names.map { |name| hook(Object.const_get(module_name), name, builder) }
      end
    end

    # Fails also for an error that a thread kept to itself.
    def report(pid = Process.pid)
      at_exit do
        next unless Process.pid == pid

        puts "#{called.values.sum} calls of #{called.size} of #{hooked.size} methods checked"
        errors.map { |error| error.message[0, 1000] }.uniq.each { |message| warn message }
        exit!(1) if errors.any? || called.empty?
      end
    end

    private

    def hook(owner, name, builder)
      kind = name.start_with?(".") ? :singleton : :instance
      type = RBS::Namespace.parse("::#{owner}").to_type_name
      definition = builder.public_send(:"build_#{kind}", type)
      checker = RBS::Test::Tester::MethodCallTester.new(
        kind == :singleton ? owner.singleton_class : owner, builder, definition,
        kind:, sample_size: nil, unchecked_classes: UNCHECKED
      )
      full_name = "#{owner}#{name}"
      RBS::Test::Observer.register(full_name, ->(receiver, trace) { check(full_name, checker, receiver, trace) })
      RBS::Test::Hook.public_send(:"hook_#{kind}_method", owner, name[1..].to_sym, key: full_name)
      full_name
    end

    # Tests give wrong arguments on purpose: those of a call that raises are not looked at.
    def check(name, checker, receiver, trace)
      return unless trace.method_call.return?

      called[name] += 1
      checker.call(receiver, trace)
    rescue RBS::Test::Tester::TypeError => e
      errors << e
      raise
    end
  end
end

CheckedCalls.report
CheckedCalls.install
