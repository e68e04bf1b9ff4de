# frozen_string_literal: true

require "test_helper"
require "rbconfig"
require "support/relay_sides"
require "support/select_scheduler"

# Containers deny system calls by seccomp(2): with EPERM, or with ENOSYS as if the kernel were older. Copies have
# another way then; a call that is the system call itself says so.
class TestDeniedCalls < Minitest::Test
  include RelaySides

  # linux/audit.h and asm/unistd.h of each machine.
  CALLS = %i[splice tee vmsplice copy_file_range sendfile mremap madvise prctl epoll_create1 preadv2 pwritev2 pipe2
             fcntl].freeze
  MACHINES = {
    "x86_64" => [0xC000003E, [275, 276, 278, 326, 40, 25, 28, 157, 291, 327, 328, 293, 72]],
    "aarch64" => [0xC00000B7, [76, 77, 75, 285, 71, 216, 233, 167, 20, 286, 287, 59, 25]],
  }.freeze
  AUDIT_ARCH, NUMBERS = MACHINES[RbConfig::CONFIG["host_cpu"]]

  ANSWERS = [Errno::EPERM, Errno::ENOSYS].freeze
  COPYING = %i[splice tee vmsplice copy_file_range sendfile].freeze
  # What a copy can do without.
  DENIED = [*COPYING.map { |call| [call] }, COPYING, [:pipe2], [:set_pipe_size], %i[preadv2 pwritev2]].freeze
  KINDS = %i[file append pipe tcp unix blocking_pipe blocking_unix].freeze
  SOURCES = (KINDS - [:append]).freeze
  MIDDLE = %i[file pipe blocking_unix].freeze
  STREAMS = %i[pipe tcp unix].freeze
  SIZE = 300_000
  MIB = 1 << 20
  Late = Class.new(StandardError)

  # A test for each answer, and for each of several lists of calls.
  def self.test_denied(name, lists = [[]], answers: ANSWERS, &test)
    answers.product(lists) do |answer, calls|
      words = [name, *calls, answer.name.delete_prefix("Errno::")]
      define_method("test_#{words.join("_")}") { instance_exec(answer, calls, &test) }
    end
  end

  def setup
    skip "no system call numbers for #{RbConfig::CONFIG["host_cpu"]}" unless NUMBERS
    super
  end

  # What has another way

  test_denied "copy_stream_does_without", DENIED do |answer, calls|
    in_a_child do
      copies = SOURCES.product(KINDS).map { |from, to| [source(from, pattern(SIZE)), *target(to)] }
      deny(answer, *calls)
      copies.each do |source, target, collect|
        assert_equal 200_000, copy_stream(source, target, 200_000)
        assert_equal 200_000, source.pos if source.is_a?(File)
        assert_equal 100_000, copy_stream(source, target)
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  test_denied "copy_stream_from_an_offset_does_without", DENIED do |answer, calls|
    in_a_child do
      source = tempfile(pattern(SIZE))
      source.pos = 7
      copies = KINDS.map { |to| target(to) }
      deny(answer, *calls)
      copies.each do |target, collect|
        assert_equal 200_000, copy_stream(source, target, 200_000, 5000)
        assert_equal 95_000, copy_stream(source, target, nil, 205_000)
        assert_bytes pattern(SIZE).byteslice(5000..), collect.call
      end
      assert_equal 7, source.pos
    end
  end

  test_denied "tee_stream_does_without", DENIED do |answer, calls|
    in_a_child do
      copies = SOURCES.map { |from| [source(from, pattern(SIZE)), KINDS.map { |to| target(to) }.transpose] }
      deny(answer, *calls)
      copies.each do |source, (targets, collects)|
        assert_equal(SIZE, guarded { IO::Splice.tee_stream(source, *targets) })
        collects.each { |collect| assert_bytes pattern(SIZE), collect.call }
      end
    end
  end

  test_denied "relay_does_without", DENIED do |answer, calls|
    in_a_child do
      relays = STREAMS.product(STREAMS).map { |kinds| kinds.map { |kind| side(kind) } }
      deny(answer, *calls)
      relays.each { |left, right| assert_exchange(left, right, pattern(SIZE), pattern(SIZE).reverse) }
    end
  end

  test_denied "vmsplice_of_strings_does_without", DENIED do |answer, calls|
    in_a_child do
      pieces = [pattern(SIZE), pattern(70_000), "short", ""]
      targets = %i[pipe blocking_pipe].product([pieces, *pieces]).map { |kind, data| [data, *target(kind)] }
      deny(answer, *calls)
      targets.each do |data, target, collect|
        expected = [data].join
        assert_equal(expected.bytesize, guarded { IO.vmsplice(target, data) })
        assert_bytes expected, collect.call
      end
    end
  end

  test_denied "copy_stream_from_the_middle_on_does_without", DENIED, answers: [Errno::EPERM] do |answer, calls|
    MIDDLE.each do |from|
      in_a_child do
        copies = KINDS.map { |to| [source(from, pattern(MIB + 200_000)), *target(to)] }
        copies.each do |source, target, collect|
          denied = false
          copied = thread do
            guarded do
              IO::Splice.copy_stream(source, target) do |bytes|
                deny(answer, *calls) unless denied || bytes.zero?
                denied = true
              end
            end
          end.value
          assert denied
          assert_equal MIB + 200_000, copied
          assert_bytes pattern(MIB + 200_000), collect.call
        end
      end
    end
  end

  test_denied "tee_stream_from_the_middle_on_does_without", DENIED, answers: [Errno::EPERM] do |answer, calls|
    MIDDLE.each do |from|
      in_a_child do
        source = source(from, pattern(MIB + 200_000))
        targets, collects = KINDS.map { |to| target(to) }.transpose
        denied = false
        copied = guarded do
          IO::Splice.tee_stream(source, *targets) do
            deny(answer, *calls) unless denied
            denied = true
          end
        end
        assert_equal MIB + 200_000, copied
        collects.each { |collect| assert_bytes pattern(MIB + 200_000), collect.call }
      end
    end
  end

  test_denied "copies_of_a_file_onto_itself_end_without_copying_calls" do |answer|
    in_a_child do
      Dir.mktmpdir do |dir|
        File.binwrite("#{dir}/file", pattern(SIZE))
        File.open("#{dir}/file", "rb") do |source|
          File.open("#{dir}/file", "ab") do |target|
            deny(answer, *COPYING)
            assert_equal SIZE, copy_stream(source, target)
          end
        end
        assert_bytes pattern(SIZE) * 2, File.binread("#{dir}/file")
      end
    end
  end

  test_denied "a_pipe_is_not_copied_into_itself_without_copying_calls" do |answer|
    in_a_child do
      r, w = pipe
      _, other = pipe
      w.write("stays")
      deny(answer, *COPYING)
      assert_raises(Errno::EINVAL) { guarded { IO::Splice.tee_stream(r, w, other) } }
      assert_equal "stays", r.readpartial(100)
    end
  end

  test_denied "what_was_read_ahead_goes_first_without_copying_calls" do |answer|
    in_a_child do
      copies = SOURCES.product(KINDS).map { |from, to| [source(from, "head\n".b + pattern(SIZE)), *target(to)] }
      copies.each { |source,| assert_equal "head\n", source.gets }
      deny(answer, *COPYING)
      copies.each do |source, target, collect|
        assert_equal SIZE, copy_stream(source, target)
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  test_denied "pages_do_without_what_makes_them_quick" do |answer|
    in_a_child do
      target, collect = target(:pipe)
      # Newer Rubies end when their own madvise is denied.
      deny(answer, *(RUBY_VERSION < "3.2" ? [:madvise] : []), :prctl, :mremap)
      pages = [pattern(SIZE), pattern(3 * MIB), "short"].map { |string| IO::Splice::Pages.new(string) }
      assert_equal([pattern(SIZE), pattern(3 * MIB), "short"], pages.map(&:to_s))
      put = guarded { IO.vmsplice(target, [pages, "and a string", pages[1].slice(5, 10)].flatten) }
      assert_equal SIZE + (3 * MIB) + 5 + 12 + 10, put
      expected = pages.map(&:to_s).join + "and a string#{pattern(15).byteslice(5..)}".b
      pages = nil
      GC.start
      assert_bytes expected, collect.call
    end
  end

  test_denied "a_gift_does_without_mremap" do |answer|
    with_gift do |buffer, reader, writer|
      deny(answer, :mremap)
      arrived = thread { reader.read(MIB) }
      assert_equal(MIB, guarded { IO.vmsplice(writer, buffer, IO::Splice::F_GIFT) })
      assert_predicate buffer, :null?
      assert_bytes pattern(MIB), arrived.value
    end
  end

  test_denied "relay_in_a_fiber_without_epoll_works_or_can_be_taken_up_again" do |answer|
    in_a_child do
      here, left = unix_pair
      there, right = unix_pair
      here.write("a request")
      said = in_a_fiber do
        deny(answer, :epoll_create1)
        there.write("an answer")
        IO::Splice.relay(left, right, idle_timeout: 0.05)
      rescue answer, IO::Splice::TimeoutError => e
        e
      end
      assert_equal [9, 9], said.bytes_relayed
      [here, there].each(&:close_write)
      assert_equal([0, 0], guarded { IO::Splice.relay(left, right) })
      assert_equal ["an answer", "a request"], [here, there].map(&:read)
    end
  end

  test_denied "tee_stream_in_a_fiber_without_epoll_works_or_can_be_taken_up_again" do |answer|
    in_a_child do
      peer, source = unix_pair
      target, collect = target(:unix)
      other, collect_other = target(:pipe)
      peer.write("all of it")
      said = in_a_fiber do
        deny(answer, :epoll_create1)
        Timeout.timeout(0.05, Late) { IO::Splice.tee_stream(source, target, other) }
      rescue answer, Late => e
        e
      end
      assert_equal [9, 9], said.bytes_written
      peer.close
      assert_equal(0, guarded { IO::Splice.tee_stream(source, target, other) })
      assert_equal ["all of it"] * 2, [collect, collect_other].map(&:call)
    end
  end

  # What has none

  test_denied "splice_full_and_partial_say_that_splice_is_denied" do |answer|
    in_a_child do
      ends = [%i[file pipe], %i[tcp pipe], %i[pipe file], %i[pipe unix], %i[pipe pipe]]
      ends.map! { |from, to| [source(from, pattern(1000)).tap(&:wait_readable), *target(to)] }
      deny(answer, :splice)
      ends.each do |source, target, collect|
        [-> { IO.splice(source, nil, target, nil, 1000) }, -> { IO.trysplice(source, nil, target, nil, 1000) },
         -> { IO.splice(source, nil, target, nil, 1000, IO::Splice::WAITALL) },
         -> { IO::Splice.full(source, target, 1000) }, -> { IO::Splice.partial(source, target, 1000) }].each do |call|
          check_denied(answer, /\bsplice\b/) { call.call }
        end
        assert_equal 0, source.pos if source.is_a?(File)
        assert_empty collect.call
        assert_bytes pattern(1000), source.read
      end
    end
  end

  test_denied "full_that_is_denied_in_the_middle_says_how_much_has_moved" do |answer|
    in_a_child do
      source = source(:unix, pattern(SIZE))
      reader, writer = pipe.each(&:binmode)
      deny = denier(answer, :splice)
      denied = false
      handler = trap(:USR1) do
        deny.call
        denied = true
      end
      kick = thread do
        sleep 0.001 until reader.wait_readable && Thread.main.stop?
        Process.kill(:USR1, Process.pid)
        sleep 0.001 until denied
        reader.read(10_000)
      end
      error = assert_raises(answer) { guarded { IO::Splice.full(source, writer, SIZE) } }
      trap(:USR1, handler)
      arrived = kick.value
      writer.close
      arrived += reader.read
      assert_kind_of IO::Splice::PartialWrite, error
      assert_equal error.bytes_written, arrived.bytesize
      assert_bytes pattern(SIZE), arrived + source.read
    end
  end

  test_denied "tee_says_that_it_is_denied" do |answer|
    in_a_child do
      r, w = pipe
      copy, into = pipe
      w.write("stays")
      deny(answer, :tee)
      check_denied(answer, /\btee\b/) { IO.tee(r, into, 5) }
      check_denied(answer, /\btee\b/) { IO.trytee(r, into, 5) }
      check_denied(answer, /\btee\b/) { IO.tee(r, into, 5, IO::Splice::WAITALL) }
      into.close
      assert_equal ["stays", ""], [r.readpartial(100), copy.read]
    end
  end

  test_denied "vmsplice_of_pages_says_that_it_is_denied" do |answer|
    in_a_child do
      target, collect = target(:pipe)
      pages = IO::Splice::Pages.new(pattern(SIZE))
      deny(answer, :vmsplice)
      check_denied(answer, /\bvmsplice\b/) { IO.vmsplice(target, pages) }
      error = assert_raises(answer) { IO.vmsplice(target, ["head", pages]) }
      assert_equal 4, error.bytes_written
      assert_equal "head", collect.call
    end
  end

  test_denied "a_gift_that_is_denied_stays_what_it_was" do |answer|
    with_gift do |buffer, reader, writer|
      deny(answer, :vmsplice)
      check_denied(answer, /\bvmsplice\b/) { IO.vmsplice(writer, buffer, IO::Splice::F_GIFT) }
      assert_bytes pattern(MIB), buffer.get_string(0, MIB)
      buffer.free
      writer.close
      assert_empty reader.read
    end
  end

  test_denied "the_size_of_a_pipe_that_is_denied_says_so" do |answer|
    in_a_child do
      r, w = pipe
      before = w.pipe_size
      deny(answer, :set_pipe_size)
      assert_raises(answer) { w.pipe_size = MIB }
      assert_equal before, r.pipe_size
    end
  end

  private

  def check_denied(answer, name, &)
    error = assert_raises(answer) { guarded(&) }
    assert_match name, error.message
    refute_kind_of IO::Splice::PartialWrite, error
  end

  def with_gift
    experimental = Warning[:experimental]
    Warning[:experimental] = false
    in_a_child do
      buffer = IO::Buffer.new(MIB, IO::Buffer::MAPPED)
      buffer.set_string(pattern(MIB))
      yield buffer, *pipe
    end
  ensure
    Warning[:experimental] = experimental
  end

  def in_a_fiber
    said = nil
    guarded do
      thread do
        Fiber.set_scheduler(SelectScheduler.new)
        Fiber.schedule { said = yield }
      end.join
    end
    said
  end

  # From here on these calls of this thread, and of those that it starts, have this answer.
  def deny(answer, *calls) = denier(answer, *calls).call

  def denier(answer, *calls)
    require "fiddle"
    instructions = [
      instruction(LOAD, 4), instruction(JUMP_IF_EQUAL, AUDIT_ARCH, 1, 0), instruction(RETURN, ALLOW),
      *calls.map { |call| denial(call, answer::Errno) }, instruction(RETURN, ALLOW)
    ].join
    program = [instructions.bytesize / 8, instructions].pack("Sx6P")
    types = [Fiddle::TYPE_INT, Fiddle::TYPE_LONG, Fiddle::TYPE_VOIDP, Fiddle::TYPE_LONG, Fiddle::TYPE_LONG]
    prctl = Fiddle::Function.new(Fiddle::Handle::DEFAULT["prctl"], types, Fiddle::TYPE_INT)
    lambda do
      next if prctl.call(PR_SET_NO_NEW_PRIVS, 1, nil, 0, 0).zero? &&
              prctl.call(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0).zero?

      error = SystemCallError.new("prctl", Fiddle.last_error)
      raise error if error.is_a?(Errno::EINVAL) && File.read("/proc/self/status").include?("Seccomp:")

      skip "no filter of system calls here: #{error.message}"
    end
  rescue LoadError => e
    skip "this Ruby has no fiddle: #{e.message}"
  end

  PR_SET_NO_NEW_PRIVS = 38
  PR_SET_SECCOMP = 22
  SECCOMP_MODE_FILTER = 2
  # linux/bpf_common.h: BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JEQ | BPF_K, BPF_RET | BPF_K
  LOAD = 0x20
  JUMP_IF_EQUAL = 0x15
  RETURN = 0x06
  # linux/seccomp.h: SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO
  ALLOW = 0x7fff0000
  ERRNO = 0x00050000

  def denial(call, errno)
    answer = instruction(RETURN, ERRNO | errno)
    # The lower half of the second argument.
    answer = instruction(LOAD, 24) + instruction(JUMP_IF_EQUAL, 1031, 0, 1) + answer if call == :set_pipe_size
    number = CALLS.zip(NUMBERS).to_h.fetch(call == :set_pipe_size ? :fcntl : call)
    instruction(LOAD, 0) + instruction(JUMP_IF_EQUAL, number, 0, answer.bytesize / 8) + answer
  end

  def instruction(code, value, if_true = 0, if_false = 0) = [code, if_true, if_false, value].pack("SCCL")
end
