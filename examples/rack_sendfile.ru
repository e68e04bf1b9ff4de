# frozen_string_literal: true

# Serves the files of a directory with Puma. Those of 64 KiB and more are sent in the background: a client that takes
# an hour for one holds no thread of Puma.
#
#   DIRECTORY=/srv/files puma -Ilib examples/rack_sendfile.ru
#
# For Rails, in config/application.rb:
#
#   require "io/splice/rack"
#   config.middleware.insert_before 0, IO::Splice::Rack::Sendfile

require "io/splice/rack"
require "rack"

# In front of all other middleware.
use IO::Splice::Rack::Sendfile, min_size: 65_536, idle_timeout: 60 do |transfer, env|
  env["rack.errors"].puts("#{env["PATH_INFO"]}: #{transfer.error.message}") if transfer.error
end

# When Puma ends, downloads have 10 seconds to end too.
at_exit { IO::Splice.background.drain(10) }

run Rack::Files.new(ENV.fetch("DIRECTORY", "."))
