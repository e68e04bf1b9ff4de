# frozen_string_literal: true

# A Rack app that puts another server behind Puma. It takes over the connection (full hijack), passes the request
# on, and hands both connections to the background: what comes back, a download or a WebSocket, does not come into
# Ruby, and holds no thread of Puma nor any other of Ruby's.
#
#   UPSTREAM=HOST:PORT puma -Ilib examples/rack_hijack.ru
#
# Requests without a body, GET and HEAD, are passed on. Without an upstream the answer is 502.

require "io/splice"
require "socket"

CONNECT_TIMEOUT = 5 # seconds
IDLE_TIMEOUT = 300
HOST, _, PORT = ENV.fetch("UPSTREAM").rpartition(":")

# These are about the connection, or not from the request at all.
NOT_PASSED_ON = %w[CONNECTION EXPECT KEEP_ALIVE TE TRANSFER_ENCODING UPGRADE VERSION].freeze

def head_of(env)
  query = "?#{env["QUERY_STRING"]}" unless env["QUERY_STRING"].to_s.empty?
  upgrade = env["HTTP_UPGRADE"]
  fields = env.filter_map { |name, value| [name.delete_prefix("HTTP_"), value] if name.start_with?("HTTP_") }
  fields = fields.to_h.except(*NOT_PASSED_ON).transform_keys { |name| name.tr("_", "-") }
  fields["CONNECTION"] = upgrade ? "Upgrade" : "close"
  fields["UPGRADE"] = upgrade if upgrade
  ["#{env["REQUEST_METHOD"]} #{env["PATH_INFO"]}#{query} HTTP/1.1", *fields.map { |field| field.join(": ") }, "\r\n"]
    .join("\r\n")
end

def pass_on(client, upstream)
  IO::Splice.background.relay(client, upstream, idle_timeout: IDLE_TIMEOUT) do |transfer|
    warn "rack_hijack: #{transfer.error.message}" if transfer.error
  end
rescue SystemCallError, IOError => e
  # Nothing has been taken over.
  warn "rack_hijack: #{e.message}"
  client.close
  upstream.close
end

run(lambda do |env|
  next [405, { "allow" => "GET, HEAD" }, []] unless %w[GET HEAD].include?(env["REQUEST_METHOD"])

  begin
    upstream = TCPSocket.new(HOST.delete("[]"), PORT, connect_timeout: CONNECT_TIMEOUT)
    upstream.write(head_of(env))
  rescue SystemCallError, SocketError, IOError => e
    upstream&.close
    next [502, { "content-type" => "text/plain" }, ["#{e.message}\n"]]
  end
  pass_on(env["rack.hijack"].call, upstream)
  [200, {}, []] # for nobody: the connection is ours
end)
