# frozen_string_literal: true

require "delegate"
require "openssl"
require "pathname"
require "set"
require "zlib"

module Fuzz
  # Recipes for what has no descriptor of its own.
  module Values
    MAPPED = "mapped" # a file that nobody changes: reading memory of a file that got shorter is a SIGBUS

    THINGS = {
      "nan" => -> { Float::NAN }, "infinity" => -> { Float::INFINITY }, "rational" => -> { 3r }, "complex" => -> { 3i },
      "object" => -> { Object.new }, "basic" => -> { BasicObject.new }, "class" => -> { IO }, "module" => lambda {
                                                                                                            IO::Splice
                                                                                                          },
      "proc" => -> { proc {} }, "lambda" => -> { ->(_) {} }, "method" => -> { 1.method(:+) }, "range" => -> { 1.. },
      "time" => -> { Time.at(0) }, "struct" => -> { Struct.new(:to_io).new }, "set" => -> { Set[1] },
      "thread" => -> { Thread.current }, "mutex" => -> { Mutex.new }, "exception" => -> { IOError.new("own") },
      "enumerator" => -> { [1].each }, "lazy" => -> { (1..).lazy }, "random" => -> { Random.new(1) },
      "regexp" => -> { /x/ }, "binding" => -> { binding }, "argf" => -> { ARGF }, "env" => -> { ENV },
      "encoding" => -> { Encoding::UTF_8 }, "Pages" => -> { IO::Splice::Pages }, "recursive" => -> { Values.recursive },
      "queue" => -> { Queue.new.tap(&:close) }, "default" => -> { Hash.new { |hash, key| hash[key] = hash } }
    }.freeze

    def self.recursive = [].tap { |array| array << array }

    def make_thing(name) = THINGS.fetch(name).call

    def make_symbol(name) = name.to_sym

    def make_float(text) = Float(text)

    # 1 << bits, and a little more or less.
    def make_integer(bits, more = 0, sign = 1) = sign * ((1 << bits) + more)

    def make_string(encoding, size, how = "plain")
      content = "s" * size
      content << { "invalid" => "\xFF\xFE", "null" => "\0" }.fetch(how, "")
      string = content.force_encoding(encoding)
      case how
      when "frozen" then string.freeze
      when "shared" then string.dup
      when "part" then string.byteslice((size / 2)..)
      when "subclass" then Class.new(String).new(string)
      else string
      end
    end

    def make_path(name) = name.dup

    def make_pathname(name) = Pathname(name)

    def make_array(*items) = items.map { |item| make(item) }

    # What is frozen cannot be closed.
    def make_frozen(item) = make(item).tap { |made| made.freeze unless made in Dir | IO | Tempfile }

    def make_many(count, item) = Array.new(count, make(item))

    def make_deep(depth) = depth.times.inject([]) { |array, _| [array] }

    def make_hash(key, value) = { key.to_sym => make(value) }

    def make_stringio(text = "content") = StringIO.new(text.dup)

    def make_closed_stringio = StringIO.new("content").tap(&:close)

    def make_delegated(item) = SimpleDelegator.new(make(item))

    def make_ssl(item) = OpenSSL::SSL::SSLSocket.new(make(item))

    def make_gzip(item) = Zlib::GzipWriter.new(make(item)).tap { |writer| @quiet << writer }

    def make_pages(size, from = 0, length = nil)
      pages = IO::Splice::Pages.new("p" * size)
      length ? pages.slice(from, length) : pages
    end

    # IO::Buffers in every state. Slices are freed before what they are slices of.
    BUFFERS = {
      "internal" => ->(_) { IO::Buffer.new(100) }, "mapped" => ->(_) { IO::Buffer.new(8192) },
      "given" => ->(_) { IO::Buffer.new(100, IO::Buffer::MAPPED) }, "empty" => ->(_) { IO::Buffer.new(0) },
      "freed" => ->(_) { IO::Buffer.new(8192).tap(&:free) },
      "locked" => ->(builder) { IO::Buffer.new(8192).tap { |buffer| builder.locks << Values.lock(buffer) } },
      "slice" => ->(builder) { builder.buffer("mapped").slice(100, 200) },
      "nothing" => ->(builder) { builder.buffer("mapped").slice(0, 0) },
      "stale" => ->(builder) { builder.buffer("mapped").then { |whole| whole.slice(0, 9).tap { whole.free } } },
      "resized" => lambda { |builder|
                     builder.buffer("mapped").then do |whole|
                       whole.slice(0, 9).tap do
                         whole.resize(99_999)
                       end
                     end
                   },
      "of" => ->(_) { IO::Buffer.for("string".dup) }, "of_frozen" => ->(_) { IO::Buffer.for("string") },
      "file" => ->(_) { File.open(MAPPED, "r+b") { |file| IO::Buffer.map(file) } },
      "readonly" => ->(_) { File.open(MAPPED) { |file| IO::Buffer.map(file, nil, 0, IO::Buffer::READONLY) } },
      "private" => ->(_) { File.open(MAPPED, "r+b") { |file| IO::Buffer.map(file, nil, 0, IO::Buffer::PRIVATE) } },
      "subclass" => ->(_) { Class.new(IO::Buffer).new(8192) }, "allocated" => ->(_) { IO::Buffer.allocate }
    }.freeze

    def make_buffer(kind, _number = 0) = buffer(kind)

    def buffer(kind) = BUFFERS.fetch(kind).call(self).tap { |buffer| @buffers << buffer }

    # For as long as the case lasts: only a block, here that of a fiber, keeps a buffer locked.
    def self.lock(buffer)
      fiber = Fiber.new { buffer.locked { Fiber.yield } }
      fiber.resume
      fiber
    end
  end
end
