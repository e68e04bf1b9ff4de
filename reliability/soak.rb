# frozen_string_literal: true

# The soak: random operations of the whole API on random ends in many threads and fibers at once, while they are
# interrupted in every way. Every stream carries a pattern of its own; what is lost, repeated, foreign, left open or
# stuck is a failure, with a seed to repeat it.
#
#   ruby -Ilib reliability/soak.rb [SECONDS] [--seed N] [--threads N]

require "fcntl"
require "fileutils"
require "io/nonblock"
require "io/splice"
require "io/wait"
require "json"
require "optparse"
require "pathname"
require "socket"
require "stringio"
require "tempfile"
require "timeout"
require "tmpdir"
require_relative "../test/support/fuse"
require_relative "../test/support/select_scheduler"

# The soak.
module Soak
  begin
    require "async"
    SCHEDULERS = [SelectScheduler, Async::Scheduler].freeze
  rescue LoadError
    SCHEDULERS = [SelectScheduler].freeze
  end

  def self.scheduler(seed) = SCHEDULERS[seed % SCHEDULERS.size].new
end

%w[tape statistics tasks signals hostile ends operation move offsets tee put fan_out relayed objects forked idle
   sharing neighbour background memory round supervisor].each { |name| require_relative "soak/#{name}" }

options = { seconds: 60, seed: Random.new_seed % (1 << 32), threads: 6, round: 4, kinds: [*Soak::Round::KINDS, "long"],
            except: [], compact: true, hostile: [] }
OptionParser.new do |parser|
  parser.banner = "ruby -Ilib reliability/soak.rb [SECONDS] [options]"
  parser.on("--seed N", Integer, "what all rounds follow from") { |seed| options[:seed] = seed }
  parser.on("--threads N", Integer, "how many threads in a round") { |threads| options[:threads] = threads }
  parser.on("--seconds-a-round N", Float) { |seconds| options[:round] = seconds }
  parser.on("--kind KIND", "only rounds of this kind: threads, mixed, fibers, long") { |kind| options[:kinds] = [kind] }
  parser.on("--round KIND:SEED", "only that round, again and again") do |round|
    kind, seed = round.split(":")
    options.update(kinds: [kind], round_seed: Integer(seed))
  end
  parser.on("--operation NAME:SEED", "only that operation, again and again") do |operation|
    name, seed = operation.split(":")
    options[:operation] = [name, Integer(seed)]
  end
  parser.on("--except NAME", "leave an operation out") { |name| options[:except] << name }
  parser.on("--hostile KINDS", Array, "more to look for: all, or some of #{Soak::HOSTILE.keys.join(",")}") do |kinds|
    options[:hostile] = kinds == ["all"] ? Soak::HOSTILE.keys : kinds
    unknown = options[:hostile] - Soak::HOSTILE.keys
    abort "no such kind: #{unknown.join(", ")}" unless unknown.empty?
  end
  parser.on("--[no-]compact", "whether the garbage collector compacts") { |compact| options[:compact] = compact }
  parser.on("--guard SECONDS", Float, "what takes longer is stuck (#{Soak::GUARD})") { |guard| Soak.guard = guard }
end.parse!
options[:seconds] = Float(ARGV.first) if ARGV.first
Soak.hostile = options[:hostile]

exit Soak::Supervisor.new(options).run
