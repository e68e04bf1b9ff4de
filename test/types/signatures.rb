# frozen_string_literal: true

require "rbs"

# What sig/ declares, without what RBS knows of Ruby itself.
class Signatures
  DIRECTORY = Pathname("#{__dir__}/../../sig").expand_path

  def self.environment(**options)
    loader = RBS::EnvironmentLoader.new(**options)
    loader.add(path: DIRECTORY)
    RBS::Environment.from_loader(loader)
  end

  def initialize
    @environment = self.class.environment(core_root: nil)
  end

  # @return [Hash{String => Array<String>}] by module, its methods as `.name` and `#name`; a module function is both
  def methods
    @environment.class_decls.to_h do |name, entry|
      [plain(name), entry.decls.flat_map { |part| part.decl.members.flat_map { |member| names_of(member) } }]
    end
  end

  # @return [Hash{String => RBS::Types}] the types of the constants that are no modules
  def constants
    @environment.constant_decls.to_h { |name, entry| [plain(name), entry.decl.type] }
  end

  private

  def plain(name) = name.to_s.delete_prefix("::")

  MARKS = { instance: ["#"], singleton: ["."], singleton_instance: [".", "#"] }.freeze
  private_constant :MARKS

  def names_of(member)
    case member
    when RBS::AST::Members::MethodDefinition, RBS::AST::Members::AttrReader
      MARKS.fetch(member.kind).map { |mark| "#{mark}#{member.name}" }
    else []
    end
  end
end
