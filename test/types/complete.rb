# frozen_string_literal: true

# Compares what there is at run time with what sig/ declares: modules, public methods, constants and their types.

require "rbs/test"
require_relative "signatures"
require_relative "../support/documentation"

class PublicAPI
  # What is public for the sake of other classes of the gem only.
  INTERNAL = Documentation.internal_names.freeze

  attr_reader :methods, :constants

  def initialize
    before = names_of(IO)
    require "io/splice"
    require "io/splice/core_ext"
    require "io/splice/rack"
    @methods = { "IO" => names_of(IO) - before }
    @constants = {}
    walk(IO::Splice)
    @methods.each { |owner, names| names.reject! { |name| INTERNAL.include?("#{owner}#{name}") } }
  end

  private

  def walk(mod, name = mod.name)
    @methods[name] = names_of(mod)
    mod.constants(false).each do |constant|
      path = "#{name}::#{constant}"
      case value = mod.const_get(constant)
      when Module then walk(value, path)
      else @constants[path] = value
      end
    end
  end

  # A module function is a private method as well. What has an `initialize` has a `new`.
  def names_of(mod)
    functions = mod.private_instance_methods(false) & mod.singleton_methods(false)
    makers = mod.private_instance_methods(false).include?(:initialize) ? [:new] : []
    (mod.singleton_methods(false) | makers).map { |name| ".#{name}" } +
      (mod.public_instance_methods(false) + functions).map { |name| "##{name}" }
  end
end

def compare(what, there, declared)
  (there - declared).map { |name| "#{what} #{name} has no signature" } +
    (declared - there).map { |name| "#{what} #{name} has a signature and does not exist" }
end

def full_names(methods) = methods.flat_map { |owner, names| names.map { |name| "#{owner}#{name}" } }

api = PublicAPI.new
signatures = Signatures.new
builder = RBS::DefinitionBuilder.new(env: Signatures.environment.resolve_type_names)
types = RBS::Test::TypeCheck.new(self_class: Object, builder:, sample_size: nil, unchecked_classes: [])

wrong = compare("module", api.methods.keys, signatures.methods.keys) +
        compare("method", full_names(api.methods), full_names(signatures.methods)) +
        compare("constant", api.constants.keys, signatures.constants.keys)
wrong += signatures.constants.filter_map do |name, type|
  "constant #{name} is no #{type}" unless types.value(api.constants[name], type)
end
abort wrong.join("\n") if wrong.any?
puts "#{full_names(api.methods).size} methods and #{api.constants.size} constants have their signatures"
