# frozen_string_literal: true

BENCHES = FileList["bench/{call,routes,small,growth,vmsplice,relay,background,rack,tls}.rb"]

namespace :bench do
  BENCHES.each do |path|
    desc "Run #{path}; options go in brackets: `rake 'bench:#{path.pathmap("%n")}[--quick]'`"
    task(path.pathmap("%n") => :compile) { |_, args| ruby path, *args.extras }
  end
end

desc "Check that all benches work"
task("bench:quick" => :compile) { BENCHES.each { |path| ruby path, "--quick" } }

desc "Make BENCHMARKS.md, its charts, and bench/results/*.md from the figures on record"
task("bench:report") { ruby "bench/report.rb" }

desc "Run all benches, and make BENCHMARKS.md (a quarter of an hour)"
task bench: [*BENCHES.pathmap("bench:%n"), "bench:report"]
