# frozen_string_literal: true

# In Ruby 3.1 an encoding that is loaded after there has been a Ractor is a deadlock.
%w[UTF-16 UTF-16LE].each { |encoding| "x".encode(encoding) }

module SpliceTest
  # What the block says in a Ractor of its own.
  def in_ractor(*args, &)
    experimental = Warning[:experimental]
    Warning[:experimental] = false
    ractor_value(Ractor.new(*args, &))
  ensure
    Warning[:experimental] = experimental
  end

  def ractor_value(ractor)
    guarded { ractor.respond_to?(:value) ? ractor.value : ractor.take }
  end
end

# For tests of what Ruby calls experimental and warns of: Ractors, in Ruby 3.1 IO::Buffer.
module Experimental
  def setup
    super
    @experimental = Warning[:experimental]
    Warning[:experimental] = false
  end

  def teardown
    Warning[:experimental] = @experimental
    super
  end

  private

  def ractor(...) = Ractor.new(...)
end
