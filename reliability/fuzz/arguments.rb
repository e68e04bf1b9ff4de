# frozen_string_literal: true

module Fuzz
  # Recipes of every kind, by chance. What includes this has `chance` and `pick`.
  module Arguments
    # No number here is that of a descriptor of the fuzzer's own or of Ruby's, which are below 70.
    BITS = [7, 8, 12, 16, 30, 31, 32, 62, 63, 64, 100].freeze
    SIZES = [0, 1, 70, 100, 4096, 65_536, 100_000, 1_000_000].freeze
    PLAIN = [nil, true, false, "", "text", 0.5, -1.5, 70, %w[symbol stdin], %w[float 1e300]].freeze
    FLAGS = [0, 1, 2, 2, 2, 4, 8, 10, 1 << 31, (1 << 31) | 2, nil].freeze
    ENCODINGS = %w[UTF-8 ASCII-8BIT US-ASCII UTF-16LE UTF-32BE UTF-7 EUC-JP ISO-8859-1].freeze
    PATHS = %w[read large nothing both written log . fifo missing/file loop unreadable /dev/null /dev/zero /dev/full
               /proc/self/status].push("", "n" * 300, "nul\0", "a space").freeze

    # What each of these is made by, as often as it stands there.
    ENDS = %i[reader reader writer writer socket socket socket file file file fifo tty special rare number number number
              wrapped wrapped].freeze
    DATA = %i[bytes bytes bytes bytes pages pages list list many odd_list string_like disguised].freeze
    ANYTHING = %i[plain plain plain integer integer thing thing data end end path stream odd listed actor actor].freeze

    def end = send(pick(ENDS))

    def input = chance(0.7) ? reader : self.end

    def output = chance(0.7) ? writer : self.end

    def side
      return ["array", input, output] if chance(0.15)

      chance(0.7) ? socket : self.end
    end

    def source = send(pick(%i[input end path stream]))

    def target = send(pick(%i[output end path stream]))

    def data = send(pick(DATA))

    def anything = send(pick(ANYTHING))

    # Ends

    def state = pick(States::ALL.keys)

    def reader = ["reader", state, @random.rand(2)]

    def writer = ["writer", state, @random.rand(2)]

    def socket = [pick(%w[socket peer]), pick(%w[UNIX UNIX UNIX TCP DGRAM SEQPACKET]), state, @random.rand(2)]

    def file = ["file", pick(Ends::FILES.keys), @random.rand(2)]

    def fifo = ["fifo", state]

    def tty = ["tty", pick(%w[master slave]), pick(%w[data empty])]

    def special = ["special", pick(Specials::NAMES)]

    def number = ["number", simple_end]

    def simple_end = send(pick(%i[reader writer socket file]))

    def idle_socket = ["idle_socket", pick(%w[STREAM DGRAM LISTENING]), @random.rand(2)]

    def rare
      pick([["allocated", pick(%w[IO File Socket UNIXSocket])], ["standard", pick(%w[in out])], ["dir"], ["tempfile"],
            ["ahead_file", pick([1, 10, 9000])], ["far_file", pick([1, 4999, 5000, 1 << 40, 1 << 62])],
            chance(0.1) ? ["popen"] : idle_socket, idle_socket, 399, 0, 1])
    end

    def wrapped
      pick([["closed", simple_end], ["half_closed", simple_end, pick(%w[read write])], ["for_fd", simple_end],
            ["subclass", simple_end], ["delegated", simple_end], ["ssl", socket], ["delegated", ["ssl", socket]],
            ["actor", { "to_io" => [["return", simple_end]] }]])
    end

    def path = [pick(%w[path path pathname]), pick(PATHS)]

    def stream
      pick([["stringio"], ["closed_stringio"], %w[gzip].push(%w[file w]), actor, self.end,
            ["actor", { pick(%w[read readpartial]) => [["data", pick(SIZES.drop(1)), @random.rand(4)]] }],
            ["actor", { "write" => [*steps.take(1), ["count", pick([0, 0, 0, 0, -1, 1, 1 << 64, -100])]] }]])
    end

    # Numbers

    def length = chance(0.8) ? pick(SIZES) : integer

    def offset
      return nil if chance(0.6)

      chance(0.6) ? pick(SIZES) : integer
    end

    def flags = chance(0.7) ? pick(FLAGS) : integer

    def integer
      return pick([-1, -2, 0, 1, 399, 1 << 31, -(1 << 31)]) if chance(0.2)

      ["integer", pick(BITS), pick([-1, 0, 0, 1]), pick([1, 1, -1])]
    end

    # Bytes

    def bytes
      return ["buffer", pick(Values::BUFFERS.keys), @random.rand(2)] if chance(0.4)

      ["string", pick(ENCODINGS), pick(SIZES), pick(%w[plain plain frozen shared part invalid null subclass])]
    end

    def pages
      return anything if chance(0.05)

      pick([["pages", pick(SIZES)], ["pages", 5000, @random.rand(4000), @random.rand(1000)]])
    end

    def list = ["array", *Array.new(@random.rand(5)) { data }]

    # Ruby inspects what has not a method that it looks for, and that may take a while.
    def many
      item = bytes
      size = item.grep(Integer).max || 1
      ["many", [pick([0, 1, 1024, 1025, 3000]), 8_000_000 / [size, 1].max].min, item]
    end

    def odd_list = pick([["frozen", ["array", bytes]], %w[thing recursive], ["deep", pick([3, 500])]])

    def string_like = ["actor", { "to_str" => [*steps.take(2), ["return", bytes]] }]

    def disguised
      ["disguised", pick([bytes, ["array", bytes]]), { pick(%w[to_str to_ary bytesize each]) => steps }]
    end

    # Anything

    def plain = pick(PLAIN)

    def thing = ["thing", pick(Values::THINGS.keys)]

    def odd = pick([["hash", pick(%w[len flags x]), nil], ["delegated", 70], ["many", 3000, nil], ["deep", 1000]])

    def listed = [pick(%w[array frozen array]), self.end]

    def actor
      roles = Array.new(1 + @random.rand(2)) { [pick(Actors::METHODS), steps] }.to_h
      [chance(0.3) ? "basic" : "actor", roles]
    end

    STEPS = [["close", 0], ["close", 1], ["close", 2], ["free", 1], ["mutate"], ["mutate"], ["again"], ["pass"],
             ["collect"], ["sleep"], ["gets", 0], ["recurse", 3], ["recurse", 1]].freeze
    RARE_STEPS = [["compact"], ["fork"], ["exit"], ["kill"], ["recurse", 100_000], %w[raise NoMemoryError]].freeze

    def steps
      made = Array.new(@random.rand(3)) { pick(chance(0.01) ? RARE_STEPS : STEPS) }
      made << pick([["raise", pick(Actors::ERRORS.keys)], ["throw"], ["self"], ["return", result], ["return", result],
                    ["return", result], ["count", pick([0, 0, 1, -1])], ["data", pick(SIZES), @random.rand(3)]])
    end

    def result = chance(0.5) ? self.end : pick([nil, true, 1, 0, -1, "text", 1.5, integer, bytes, %w[symbol x]])
  end
end
