# frozen_string_literal: true

# Calls every public method with arguments of every kind, and checks that nothing comes of it but what is documented.
#
#   ruby -Ilib reliability/fuzz.rb [SECONDS] [--seed N] [--case FILE] [--keep FILE]
#
# First it runs the cases in reliability/fuzz/corpus, then it makes up others from the seed until the time is up
# (60 seconds, unless it is said). A failure is printed with a file that repeats it: --case FILE runs the cases of a
# file and nothing else. --keep FILE writes one case of each kind of outcome to a file, which is how the corpus came
# to be.

# It asks objects for their class when a message is read, and theirs may raise anything.
if defined?(DidYouMean)
  exec(RbConfig.ruby, "--disable=did_you_mean", *$LOAD_PATH.map { |path| "-I#{path}" }, __FILE__, *ARGV)
end

require "optparse"
require "fileutils"
require "io/splice"
require_relative "fuzz/supervisor"

Warning[:experimental] = false
options = { seed: Random.new_seed % 1_000_000_000 }
OptionParser.new do |parser|
  parser.banner = "ruby -Ilib reliability/fuzz.rb [SECONDS] [options]"
  parser.on("--seed N", Integer)
  parser.on("--case FILE")
  parser.on("--keep FILE")
end.parse!(into: options)

seconds = Integer(ARGV.shift || 60) # nothing is left there that ARGF would open
puts "seed #{options[:seed]}"
supervisor = Fuzz::Supervisor.new(options[:seed])
kept = {}
supervisor.on_case { |kase, kind| kept[[kase.name, *kind]] ||= kase } if options[:keep]
if options[:case]
  supervisor.run(Fuzz::Case.read(options[:case]))
else
  corpus = Dir[File.join(__dir__, "fuzz", "corpus", "*.txt")].flat_map { |file| Fuzz::Case.read(file) }
  supervisor.run(corpus)
  supervisor.fuzz(seconds, corpus)
end
File.write(options[:keep], "#{kept.values.map(&:to_s).sort.join("\n")}\n") if options[:keep]

made = supervisor.kinds.reject { |kind, _| kind[1] == "not made" }
puts "#{supervisor.count} cases, #{supervisor.count - made.values.sum} of them could not be made, " \
     "#{made.size} kinds of outcome, #{supervisor.failures.size} kinds of failure"
exit supervisor.failures.empty?
