# frozen_string_literal: true

require "test_helper"
require "openssl"
require "socket"
require "support/programs"
require "support/tls"

# The examples that speak TLS, among real clients and servers.
class TestTLSExamples < Minitest::Test
  include ExamplePrograms

  def setup
    super
    needs "curl", "openssl"
    File.write(path("key"), server_context.key.to_pem)
    File.write(path("cert"), server_context.cert.to_pem)
    make_files("www")
  end

  def test_serves_files_by_https
    port = https_files
    [[], ["--tls-max", "1.2"], ["--limit-rate", "40M"]].each do |options|
      assert_equal LARGE_SHA256, Digest::SHA256.hexdigest(get("#{port}/large", *options))
    end
    assert_equal SMALL, get("#{port}/small")
  end

  def test_serves_nothing_from_outside_the_directory
    port = https_files
    File.write(path("secret"), "secret")
    File.symlink(path("secret"), path("www/link"))
    ["/../secret", "/link", "/missing", "/"].each do |request|
      assert_equal "404", get("#{port}#{request}", "--path-as-is", "-w", STATUS)
    end
  end

  def test_a_client_of_openssl_sees_the_end
    _, output = start_talking("sh", "-c", "printf 'GET /small HTTP/1.1\r\n\r\n' | openssl s_client -quiet -ign_eof " \
                                          "-connect 127.0.0.1:#{https_files} 2>#{path("client.err")}")
    assert_operator guarded { output.read }, :end_with?, SMALL
    refute_match(/unexpected eof/, File.read(path("client.err")))
  end

  def test_terminates_tls_in_front_of_a_server
    needs "nginx"
    backend = listening_socket
    nginx(backend)
    port = tls_proxy(backend)
    [[], ["--tls-max", "1.2"]].each do |options|
      assert_equal LARGE_SHA256, Digest::SHA256.hexdigest(get("#{port}/large", *options))
    end
    get("#{port}/uploaded", "-T", path("www/large"))
    assert_equal LARGE_SHA256, Digest::SHA256.file(path("www/uploaded")).hexdigest
    connections = get("#{port}/small", "-w", CONNECTIONS, "https://127.0.0.1:#{port}/small")
    assert_equal 2, connections.scan(SMALL.chomp).size
  end

  private

  def https_files
    _, output = start_talking(*example("https_files.rb", path("www"), "0", path("cert"), path("key")))
    Integer(guarded { output.gets }.to_s[/\d+$/], 10)
  end

  def tls_proxy(backend)
    upstream = "127.0.0.1:#{backend.local_address.ip_port}"
    _, output = start_talking(*example("tls_proxy.rb", "0", upstream, path("cert"), path("key")))
    Integer(guarded { output.gets }.to_s[/\d+$/], 10)
  end

  def get(where, *options) = curl("--insecure", *options, "https://127.0.0.1:#{where}")
end
