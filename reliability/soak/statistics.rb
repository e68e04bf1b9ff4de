# frozen_string_literal: true

module Soak
  # What has been done. Each worker counts for itself, and the sums are made afterwards.
  class Statistics
    attr_reader :calls, :interruptions, :bytes

    def initialize
      @calls = Hash.new(0)
      @interruptions = Hash.new(0)
      @bytes = 0
    end

    def called(name) = @calls[name] += 1
    def interrupted(way) = @interruptions[way.to_s] += 1
    def checked(bytes) = @bytes += bytes

    def add(other)
      @bytes += other["bytes"]
      other["calls"].each { |name, count| @calls[name] += count }
      other["interruptions"].each { |way, count| @interruptions[way] += count }
    end

    def to_h = { "bytes" => bytes, "calls" => calls, "interruptions" => interruptions }

    def line
      "#{calls.values.sum} calls, #{interruptions.except("signals").values.sum} interrupted, " \
        "#{interruptions["signals"]} signals, #{bytes >> 20} MiB checked"
    end

    def full
      [["calls", calls], ["interruptions", interruptions]].map do |title, counts|
        "#{title}: #{counts.sort_by { |_, count| -count }.map { |name, count| "#{name} #{count}" }.join(", ")}"
      end
    end
  end
end
