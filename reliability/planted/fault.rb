# frozen_string_literal: true

module Planted
  ROOT = File.expand_path("../..", __dir__)

  # A mistake that somebody could make.
  #
  # breaks::      what goes wrong then
  # file::        where it is made
  # text::        what is there, exactly once
  # replacement:: what is there with the mistake
  # check::       the command that has to fail
  Fault = Struct.new(:name, :breaks, :file, :text, :replacement, :check, keyword_init: true) do
    # Why it cannot be planted; nil if it can.
    def stale
      path = File.join(ROOT, file)
      return "STALE: #{file} does not exist" unless File.file?(path)

      count = File.read(path, encoding: "UTF-8").scan(text).size
      "STALE: its text is in #{file} #{count} times" unless count == 1
    end

    def planted(source) = source.sub(text) { replacement }
  end
end
