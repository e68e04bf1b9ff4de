# frozen_string_literal: true

# The newer Rubies that users have, each in a Debian tree: see bin/with-ruby. 3.3-async is 3.3 beside a real scheduler.
RUBIES = %w[3.3 3.3-async 3.4].freeze

namespace :matrix do
  RUBIES.each do |version|
    desc "Compile and test the gem on Ruby #{version}"
    task(version) { sh "bin/with-ruby", version }
  end
end

desc "Compile and test the gem on this Ruby, and on the others in trees of their own"
task matrix: ["test:ruby", *RUBIES.map { |version| "matrix:#{version}" }]
