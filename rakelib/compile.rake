# frozen_string_literal: true

require "rb_sys/extensiontask"

GEMSPEC = Gem::Specification.load("io_splice.gemspec")

# An older RubyGems takes a gem for musl for one for glibc: Debian 12's would install it there.
def need_rubygems_that_knows_musl(spec)
  spec.required_rubygems_version = ">= 3.3.22" if spec.platform.to_s.end_with?("musl")
end

RbSys::ExtensionTask.new("io_splice", GEMSPEC) do |ext|
  ext.lib_dir = "lib/io_splice"
  ext.no_native = true # that is in native.rake
  ext.cross_compiling { |spec| need_rubygems_that_knows_musl(spec) }
  ext.source_pattern = "../**/*.{rs,toml}" # a change of the core counts, too
  ext.cross_compiling { |spec| NativeGem.describe(spec) }
end
