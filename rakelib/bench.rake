# frozen_string_literal: true

BENCHES = FileList["bench/*.rb"].exclude("bench/harness.rb")

namespace :bench do
  BENCHES.each do |path|
    desc "Run #{path}; options go in brackets: `rake 'bench:#{path.pathmap("%n")}[--quick]'`"
    task(path.pathmap("%n") => :compile) { |_, args| ruby path, *args.extras }
  end
end

desc "Run all benches"
task bench: BENCHES.pathmap("bench:%n")
