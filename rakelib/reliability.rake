# frozen_string_literal: true

# The attacks of docs/reliability.md. What goes in brackets goes to the program: `rake soak[600,--seed,7]`.
ATTACKS = {
  soak: "Random operations under signals, exceptions and forks: `rake soak[SECONDS]`",
  fuzz: "Any arguments in any place: `rake fuzz[SECONDS]`",
  inject: "Every system call of a copy fails, in turn, with every plausible error: `rake inject[--quick]`",
  filesystems: "Copies between file systems, and their limits: `rake filesystems[ext4,xfs]` (root)",
  crowd: "A thousand relays at once in the background, most with a bad peer: `rake crowd[SECONDS]`",
  memory: "Millions of calls of each kind, and flat memory: `rake memory[CALLS]`",
  valgrind: "memcheck over the tests: `rake valgrind[test/tee_test.rb]`",
}.freeze

ATTACKS.each do |name, text|
  desc text
  task(name => :compile) { |_, args| ruby "-Ilib", "reliability/#{name}.rb", *args.extras }
end

desc "Plant known faults, and see that the checks find them: `rake planted[NAME]`, `rake planted[--list]`"
task(:planted) { |_, args| ruby "reliability/planted.rb", *args.extras }

desc "Check licences, sources and duplicates of the crates (needs cargo-deny)"
task(:deny) { sh(*%w[cargo deny check licenses bans sources]) }
