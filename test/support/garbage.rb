# frozen_string_literal: true

module SpliceTest
  def stressed
    GC.stress = true
    yield
  ensure
    GC.stress = false
  end

  def compaction?
    GC.respond_to?(:compact) && GC.compact && true
  rescue NotImplementedError
    false
  end
end
