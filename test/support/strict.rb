# frozen_string_literal: true

# What makes a test silently not run is an error here: a warning of Ruby's about test/ or lib/ (`rake test` has them
# all, by `ruby -w`), and a test that another one replaces or that is private.
module Strict
  OWN = %w[lib test].map { |dir| File.join(File.expand_path("../..", __dir__), dir, "") }.freeze

  # They fail the run at its end, since an exception raised by a warning may be rescued.
  module Warnings
    def self.seen = @seen ||= []

    def warn(message, category: nil)
      path = message[/\A([^\n]+?):\d+: warning: /, 1]
      Warnings.seen << message if path && category != :experimental && File.expand_path(path).start_with?(*OWN)
      super
    end
  end

  # For Minitest::Test.
  module TestNames
    def method_added(name)
      super
      return unless name.start_with?("test_")

      raise NameError, "#{self}##{name} is private and never runs" if private_method_defined?(name)

      already = (@own_tests ||= {})[name] || ancestors.drop(1).find { |other| other.method_defined?(name, false) }
      raise NameError, "#{self}##{name} replaces that of #{already}, which never runs" if already

      @own_tests[name] = instance_method(name).source_location.join(":")
    end
  end
end

Warning.extend(Strict::Warnings)

process = Process.pid
at_exit do
  next if Process.pid != process || Strict::Warnings.seen.empty?

  warn "Warnings are errors here:", *Strict::Warnings.seen
  exit!(1)
end
