# frozen_string_literal: true

require "rb_sys/extensiontask"

GEMSPEC = Gem::Specification.load("io_splice.gemspec")

RbSys::ExtensionTask.new("io_splice", GEMSPEC) do |ext|
  ext.lib_dir = "lib/io_splice"
  ext.no_native = true # that is in native.rake
  ext.source_pattern = "../**/*.{rs,toml}" # a change of the core counts, too
  ext.cross_compiling { |spec| NativeGem.describe(spec) }
end
