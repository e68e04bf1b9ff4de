# frozen_string_literal: true

# Runs one example, in a process of its own: `ruby example_runner.rb PROGRAM FILE LINE CLAIMED_LINES...`

require "io/splice"
require "socket"
require_relative "self_signed"

Thread.report_on_exception = false

class << self
  # What the guides take for granted. Each is made when it is first asked for.
  def file = @file ||= File.open("file", "r+b")
  def socket = connection(:socket)
  def client = connection(:client)
  def upstream = connection(:upstream)
  def upload = connection(:upload)
  def ssl = @ssl ||= encrypted
  def key = @key ||= OpenSSL::PKey::EC.generate("prime256v1")
  def checksum = @checksum ||= IO.popen("sha256sum >sums", "w")
  def r = (@pipe ||= IO.pipe).first
  def w = (@pipe ||= IO.pipe).last

  def certificate = @certificate ||= SelfSigned.certificate(key)

  # As in config.ru, and as `config.middleware` of a Rails application.
  def use(middleware, ...) = middleware.new(->(_env) { [200, {}, []] }, ...)
  def config = @config ||= Struct.new(:middleware).new(self)
  def insert_before(_index, middleware, ...) = use(middleware, ...)

  private

  # The side of a server. The other one says something and then nothing more, and takes whatever comes.
  def encrypted
    require "openssl"
    context = OpenSSL::SSL::SSLContext.new
    context.cert = certificate
    context.key = key
    sides = UNIXSocket.pair
    Thread.new do
      client = OpenSSL::SSL::SSLSocket.new(sides.last).tap(&:connect)
      client.write("hello\n")
      client.__send__(:stop)
      client.read
    end
    OpenSSL::SSL::SSLSocket.new(sides.first, context).tap(&:accept)
  end

  # When a relay has brought it to its end, the name stands for the next one.
  def connection(name)
    @connections ||= {}
    @connections[name]&.send("", 0)
    @connections[name] ||= connect
  rescue Errno::EPIPE
    @connections[name] = connect
  end

  # The other side says something and then nothing more, and takes whatever comes.
  def connect
    here, there = UNIXSocket.pair
    there.write("hello\n")
    there.close_write
    Thread.new { IO.copy_stream(there, File::NULL) }
    here
  end

  def __says(line, value, said)
    (@said ||= []) << line
    return value if value == said && value.instance_of?(said.class)

    abort "line #{line} says #{said.inspect} and not #{value.inspect}"
  end

  def __came_to(lines)
    never = lines - @said.to_a
    abort "never came to the end of line #{never.first}" if never.any?
  end
end

FILES = { "file" => 20_000, "big.iso" => 20_000, "index.html" => 200 }.freeze
FILES.each { |name, lines| File.binwrite(name, "0123456789abcde\n" * lines) }

# A local variable here would be one of the example too.
eval(File.read(ARGV[0]), TOPLEVEL_BINDING, ARGV[1], ARGV[2].to_i) # rubocop:disable Security/Eval -- what it is for
__came_to(ARGV.drop(3).map(&:to_i))
