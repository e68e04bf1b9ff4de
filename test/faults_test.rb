# frozen_string_literal: true

require "test_helper"
require "etc"
require "support/relay_sides"

# What goes wrong outside: disks that are full, limits of the process, peers that break off or never read, files that
# change meanwhile. Each has its error or its other way, and nothing is lost.
class TestFaults < Minitest::Test
  include RelaySides

  KINDS = %i[file pipe tcp unix].freeze
  STREAMS = %i[pipe tcp unix].freeze
  # What splice can move between.
  TO_PIPE = %i[file pipe tcp unix].product([:pipe]).freeze
  FROM_PIPE = [:pipe].product(%i[pipe tcp unix]).freeze
  SPLICEABLE = (TO_PIPE | FROM_PIPE).freeze

  SIZE = 300_000
  MIB = 1 << 20
  LIMIT = 100_000
  # What is left of the memory: too little for the one thing or the other.
  ROOM = [50_000, 200_000, 500_000].freeze

  # A disk that gets full

  KINDS.each do |from|
    %w[wb ab].each do |mode|
      define_method "test_copy_stream_from_#{from}_to_a_full_disk_in_mode_#{mode}_goes_on_when_there_is_room" do
        with_small_disk do |dir|
          source = source(from, pattern(SIZE))
          File.open("#{dir}/target", mode) do |target|
            assert_raises(Errno::ENOSPC) { copy_stream(source, target) }
            assert_operator target.size, :>, 0
            assert_equal target.size, target.pos
            File.unlink("#{dir}/filler")
            assert_equal SIZE - target.size, copy_stream(source, target)
          end
          assert_bytes pattern(SIZE), File.binread("#{dir}/target")
        end
      end
    end
  end

  def test_copy_stream_from_an_offset_to_a_full_disk_leaves_the_position
    with_small_disk do |dir|
      source = tempfile(pattern(SIZE))
      source.pos = 7
      %w[wb ab].each do |mode|
        File.open("#{dir}/target", mode) do |target|
          assert_raises(Errno::ENOSPC) { copy_stream(source, target, SIZE - 5000, 5000) }
          assert_equal [7, target.size], [source.pos, target.pos]
          assert_bytes pattern(SIZE).byteslice(5000, target.size), File.binread(target.path)
          File.unlink(target.path)
        end
      end
    end
  end

  def test_full_to_a_full_disk_says_how_much_is_there
    with_small_disk { |dir| File.open("#{dir}/target", "wb") { |target| full_fails(Errno::ENOSPC, target) } }
  end

  def test_partial_to_a_full_disk_moves_what_fits
    with_small_disk { |dir| File.open("#{dir}/target", "wb") { |target| partial_fails(Errno::ENOSPC, target) } }
  end

  def test_tee_stream_to_a_full_disk_gives_the_others_as_much
    with_small_disk do |dir|
      KINDS.each do |from|
        File.open("#{dir}/target", "wb") { |target| tee_stream_fails(Errno::ENOSPC, from, target) }
        File.unlink("#{dir}/target")
      end
    end
  end

  def test_relay_to_a_full_disk_says_how_much_is_there
    with_small_disk { |dir| File.open("#{dir}/target", "wb") { |target| relay_fails(Errno::ENOSPC, target) } }
  end

  # A file that may not grow

  def test_copy_stream_from_an_offset_to_a_file_that_may_not_grow
    source = tempfile(pattern(SIZE))
    source.pos = 7
    with_file_size_limit do |target|
      assert_raises(Errno::EFBIG) { copy_stream(source, target, SIZE - 5000, 5000) }
      assert_equal [7, LIMIT], [source.pos, target.pos]
      assert_bytes pattern(SIZE).byteslice(5000, LIMIT), content(target)
    end
  end

  def test_full_to_a_file_that_may_not_grow
    with_file_size_limit { |target| full_fails(Errno::EFBIG, target) }
  end

  def test_partial_to_a_file_that_may_not_grow
    with_file_size_limit { |target| partial_fails(Errno::EFBIG, target) }
  end

  def test_relay_to_a_file_that_may_not_grow
    with_file_size_limit { |target| relay_fails(Errno::EFBIG, target) }
  end

  # No more descriptors

  def test_copy_stream_with_hardly_a_descriptor
    in_a_child do
      KINDS.product(KINDS, [0, 1, 2]).each do |from, to, free|
        source = source(from, pattern(SIZE))
        target, collect = target(to)
        assert_equal(SIZE, with_free_descriptors(free) { copy_stream(source, target) })
        assert_bytes pattern(SIZE), collect.call
      end
    end
  end

  def test_paths_without_descriptors_are_an_error_that_makes_no_file
    in_a_child do
      Dir.mktmpdir do |dir|
        File.binwrite("#{dir}/source", "content")
        2.times do |free|
          [-> { copy_stream("#{dir}/source", "#{dir}/target") },
           -> { IO::Splice.tee_stream("#{dir}/source", "#{dir}/target", "#{dir}/other") }].each do |copy|
            with_free_descriptors(free) { assert_raises(Errno::EMFILE, &copy) }
            assert_equal ["source"], Dir.children(dir)
          end
        end
        assert_equal 7, copy_stream("#{dir}/source", "#{dir}/target")
      end
    end
  end

  # Also when other threads could close these.
  def test_splice_needs_no_descriptors_of_its_own
    in_a_child do
      other = until_asleep(thread { Thread.stop })
      [%i[file pipe], %i[pipe file]].product([0, 1]).each do |(from, to), free|
        source = source(from, pattern(1000)).tap(&:wait_readable)
        target, collect = target(to)
        calls = [-> { IO.splice(source, nil, target, nil, 250) }, -> { IO.trysplice(source, nil, target, nil, 250) },
                 -> { IO::Splice.full(source, target, 250) }, -> { IO::Splice.partial(source, target, 250) }]
        with_free_descriptors(free) { assert_equal([250] * 4, calls.map(&:call)) }
        assert_bytes pattern(1000), collect.call
      end
      other.kill.join
    end
  end

  def test_a_copy_that_fails_without_descriptors_leaves_the_source_behind_what_was_written
    in_a_child do
      full = File.open("/dev/full", "ab")
      full.sync = true
      KINDS.each do |from|
        source = source(from, pattern(SIZE))
        with_free_descriptors(0) { assert_raises(Errno::ENOSPC) { copy_stream(source, full) } }
        assert_equal 0, source.pos if from == :file
        assert_bytes pattern(SIZE), source.read
      end
    end
  end

  def test_a_copy_between_numbers_that_fails_without_descriptors_leaves_the_file_behind_what_was_written
    in_a_child do
      full = File.open("/dev/full", "ab")
      source = tempfile(pattern(SIZE))
      with_free_descriptors(0) { assert_raises(Errno::ENOSPC) { copy_stream(source.fileno, full.fileno) } }
      assert_equal 0, source.pos
    end
  end

  def test_relay_in_a_fiber_without_descriptors_is_an_error_and_can_be_taken_up_again
    in_a_child do
      here, left = unix_pair
      there, right = unix_pair
      here.write("a request")
      error = nil
      with_scheduler do
        Fiber.schedule do
          with_free_descriptors(0) { IO::Splice.relay(left, right) }
        rescue Errno::EMFILE => e
          error = e
        end
      end
      assert_equal [9, 0], error&.bytes_relayed
      there.write("an answer")
      [here, there].each(&:close_write)
      assert_equal([0, 9], guarded { IO::Splice.relay(left, right) })
      assert_equal ["an answer", "a request"], [here, there].map(&:read)
    end
  end

  # No more memory

  KINDS.product(KINDS).each do |from, to|
    define_method "test_copy_stream_from_#{from}_to_#{to}_without_memory_is_an_error_or_works" do
      check_without_memory(from, to) { |source, target| copy_stream(source, target) }
    end
  end

  KINDS.each do |from|
    define_method "test_copy_stream_from_#{from}_in_append_mode_without_memory_is_an_error_or_works" do
      check_without_memory(from, :append) { |source, target| copy_stream(source, target) }
    end

    define_method "test_tee_stream_from_#{from}_without_memory_is_an_error_or_works" do
      check_without_memory(from, *KINDS, :append) { |source, *targets| IO::Splice.tee_stream(source, *targets) }
    end
  end

  def test_relay_without_memory_is_an_error_or_works
    ended = pipe.first
    null = closing(File.open(File::NULL, "w")).first
    @to_close[1].close
    STREAMS.zip(STREAMS.reverse).each do |from, to|
      check_without_memory(from, to) { |source, target| IO::Splice.relay([source, null], [ended, target]).first }
    end
  end

  def test_vmsplice_without_memory_is_an_error_or_works
    ROOM.product([pattern(SIZE), pattern(SIZE).scan(/.{1,60000}/mn)]).each do |room, data|
      target, collect = target(:pipe)
      put = said_in_a_child { without_memory(room) { IO.vmsplice(target, data) } }
      arrived = collect.call
      assert_bytes pattern(SIZE).byteslice(0, put || arrived.bytesize), arrived
    end
  end

  def test_a_gift_without_memory_stays_what_it_was
    experimental = Warning[:experimental]
    Warning[:experimental] = false
    in_a_child do
      buffer = IO::Buffer.new(MIB, IO::Buffer::MAPPED)
      buffer.set_string(pattern(MIB))
      reader, writer = pipe
      assert_nil(without_memory(50_000) { IO.vmsplice(writer, buffer, IO::Splice::F_GIFT) })
      assert_bytes pattern(MIB), buffer.get_string(0, MIB)
      arrived = thread { reader.read(MIB) }
      assert_equal MIB, IO.vmsplice(writer, buffer, IO::Splice::F_GIFT)
      assert_predicate buffer, :null?
      assert_bytes pattern(MIB), arrived.value
    end
  ensure
    Warning[:experimental] = experimental
  end

  # A peer that breaks off

  def test_full_from_a_connection_that_is_reset_says_how_much_came
    source, peer = tcp_pair
    target, collect = target(:pipe)
    peer.write("before")
    copy = until_asleep(thread { IO::Splice.full(source, target, 100) })
    close_with_a_reset(peer)
    error = assert_raises(Errno::ECONNRESET) { guarded { copy.value } }
    assert_kind_of IO::Splice::PartialWrite, error
    assert_equal [6, "before"], [error.bytes_written, collect.call]
  end

  def test_partial_from_a_connection_that_is_reset
    source, peer = tcp_pair
    target, collect = target(:pipe)
    copy = until_asleep(thread { IO::Splice.partial(source, target, 100) })
    close_with_a_reset(peer)
    assert_raises(Errno::ECONNRESET) { guarded { copy.value } }
    assert_empty collect.call
  end

  STREAMS.each do |from|
    define_method "test_copy_stream_from_#{from}_to_a_connection_that_is_reset_leaves_the_rest" do
      source = source(from, pattern(8 * MIB))
      peer, target = tcp_pair
      copied = 0
      copy = thread { IO::Splice.copy_stream(source, target) { |bytes| copied = bytes } }
      guarded { peer.read(MIB) }
      close_with_a_reset(peer)
      assert_raises(Errno::ECONNRESET, Errno::EPIPE) { guarded { copy.value } }
      rest = source.read
      assert_operator rest.bytesize, :<=, (8 * MIB) - [copied, MIB].max
      assert_bytes pattern(8 * MIB).byteslice((8 * MIB) - rest.bytesize..), rest
    end
  end

  def test_full_to_a_connection_that_is_reset_leaves_the_rest
    source = source(:pipe, pattern(8 * MIB))
    peer, target = tcp_pair
    copy = thread { IO::Splice.full(source, target, 8 * MIB) }
    guarded { peer.read(MIB) }
    close_with_a_reset(peer)
    error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { guarded { copy.value } }
    assert_operator error.bytes_written, :>=, MIB
    assert_bytes pattern(8 * MIB).byteslice(error.bytes_written..), source.read
  end

  def test_relay_between_connections_one_of_which_is_reset_while_it_is_written_to
    here, left = unix_pair
    there, right = tcp_pair
    relay = thread { IO::Splice.relay(left, right) }
    fill_in = thread { write_all(here, pattern(8 * MIB)) && here.close_write }
    guarded { there.read(MIB) }
    close_with_a_reset(there)
    error = assert_raises(Errno::ECONNRESET, Errno::EPIPE) { guarded { relay.value } }
    assert_operator error.bytes_relayed.first, :>=, MIB
    rest = left.read
    fill_in.join
    assert_bytes pattern(8 * MIB).byteslice(error.bytes_relayed.first..), rest
  end

  # A peer that never reads

  SPLICEABLE.each do |from, to|
    %i[timeout kill].each do |stop|
      define_method "test_full_from_#{from}_to_#{to}_that_nobody_reads_ends_by_#{stop}_and_loses_nothing" do
        source = source(from, pattern(4 * MIB))
        reader, writer = pair(to)
        stopped = Class.new(StandardError)
        copy = thread do
          Timeout.timeout(stop == :timeout ? 0.05 : nil, stopped) { IO::Splice.full(source, writer, 4 * MIB) }
        end
        until_settled(copy)
        copy.kill if stop == :kill
        error = stop == :kill ? guarded { copy.value } : assert_raises(stopped) { guarded { copy.value } }
        arrived = thread { reader.read }
        writer.close
        arrived = guarded { arrived.value }
        assert_operator arrived.bytesize, :<, 4 * MIB
        assert_equal arrived.bytesize, error.bytes_written if error
        assert_bytes pattern(4 * MIB), arrived + guarded { source.read }
      end
    end
  end

  # A connection may find more room meanwhile.
  (SPLICEABLE - [%i[pipe tcp]]).each do |from, to|
    define_method "test_partial_from_#{from}_to_#{to}_that_nobody_reads_takes_nothing" do
      source = source(from, pattern(100))
      reader, writer = pair(to)
      filled = fill(writer)
      copy = until_asleep(thread { IO::Splice.partial(source, writer, 100) })
      assert_raises(Timeout::Error) { Timeout.timeout(0.02) { IO::Splice.partial(source, writer, 100) } }
      copy.kill.join
      arrived = thread { reader.read }
      writer.close
      assert_bytes(("f" * filled).b + pattern(100), guarded { arrived.value + source.read })
    end
  end

  # A file that changes meanwhile

  def test_full_from_a_file_that_is_truncated_ends_there
    changing_while_it_waits(pattern(SIZE)) do |file, copy, rest|
      file.truncate(20 * 4096)
      arrived = rest.call
      error = assert_raises(EOFError) { guarded { copy.value } }
      assert_includes error.message, "81920 of #{SIZE}"
      assert_bytes pattern(81_920), arrived
      assert_equal 81_920, file.pos
    end
  end

  def test_full_from_a_file_that_is_truncated_before_what_was_sent_ends_there
    changing_while_it_waits(pattern(SIZE)) do |file, copy, rest|
      file.truncate(0)
      arrived = rest.call
      assert_raises(EOFError) { guarded { copy.value } }
      assert_equal [65_536, 65_536], [arrived.bytesize, file.pos]
    end
  end

  def test_full_from_a_file_that_grows_goes_on_to_its_length
    changing_while_it_waits(pattern(70_000)) do |file, copy, rest|
      File.binwrite("/proc/self/fd/#{file.fileno}", pattern(SIZE + 10).byteslice(70_000..), 70_000)
      arrived = rest.call
      assert_equal(SIZE, guarded { copy.value })
      assert_bytes pattern(SIZE), arrived
      assert_equal SIZE, file.pos
    end
  end

  def test_tee_stream_from_a_file_that_is_truncated_ends_there_for_all
    source = tempfile(pattern(6 * MIB))
    targets, collects = KINDS.map { |to| target(to) }.transpose
    copied = guarded { IO::Splice.tee_stream(source, *targets) { |bytes| source.truncate(bytes) } }
    assert_operator copied, :<, 6 * MIB
    assert_equal copied, source.pos
    assert_equal([copied] * KINDS.size, collects.map { |collect| collect.call.bytesize })
  end

  def test_tee_stream_from_a_file_that_is_truncated_is_too_short_for_a_length
    source = tempfile(pattern(6 * MIB))
    targets, collects = KINDS.map { |to| target(to) }.transpose
    assert_raises(EOFError) do
      guarded { IO::Splice.tee_stream(source, *targets, len: 6 * MIB) { |bytes| source.truncate(bytes) } }
    end
    assert_equal([source.pos] * KINDS.size, collects.map { |collect| collect.call.bytesize })
  end

  def test_tee_stream_from_a_file_that_grows_goes_on_to_its_new_end
    source = tempfile(pattern(3 * MIB))
    grown = pattern(4 * MIB)
    targets, collects = KINDS.map { |to| target(to) }.transpose
    once = true
    copied = guarded do
      IO::Splice.tee_stream(source, *targets) do
        File.binwrite("/proc/self/fd/#{source.fileno}", grown.byteslice((3 * MIB)..), 3 * MIB) if once
        once = false
      end
    end
    assert_equal 4 * MIB, copied
    collects.each { |collect| assert_bytes grown, collect.call }
  end

  def test_relay_from_a_file_that_is_truncated_ends_there
    input = tempfile(pattern(3 * MIB))
    far, near = unix_pair
    there, right = unix_pair
    far.close_write
    relay = thread { IO::Splice.relay([input, near], right) }
    until_settled(relay)
    input.truncate(MIB)
    there.close_write
    arrived = thread { there.read }
    relayed, back = guarded { relay.value }
    assert_equal [relayed, 0, relayed], [guarded { arrived.value }.bytesize, back, input.pos]
    assert_operator relayed, :<, 3 * MIB
    assert_empty far.read
  end

  private

  # What each call does when its target takes a part and no more

  def full_fails(kind, target)
    source = source(:pipe, pattern(SIZE))
    error = assert_raises(kind) { guarded { IO::Splice.full(source, target, SIZE) } }
    assert_match(/\bsplice: .*after #{target.size} bytes/, error.message)
    assert_kind_of IO::Splice::PartialWrite, error
    assert_equal [target.size] * 2, [error.bytes_written, target.pos]
    assert_split source, target
  end

  def partial_fails(kind, target)
    source = source(:pipe, pattern(SIZE))
    moved = 0
    assert_raises(kind) { guarded { loop { moved += IO::Splice.partial(source, target, SIZE) } } }
    assert_equal [target.size] * 2, [moved, target.pos]
    assert_split source, target
  end

  def tee_stream_fails(kind, from, target)
    source = source(from, pattern(SIZE))
    others, collects = STREAMS.map { |to| target(to) }.transpose
    error = assert_raises(kind) { guarded { IO::Splice.tee_stream(source, *others, target) } }
    assert_same target, error.target
    prefix = error.bytes_written.first
    assert_equal [prefix, prefix, prefix, target.size], error.bytes_written
    assert_operator prefix, :>=, target.size
    collects.each { |collect| assert_bytes pattern(prefix), collect.call }
    assert_bytes pattern(target.size), File.binread("/proc/self/fd/#{target.fileno}")
    assert_bytes pattern(SIZE).byteslice(prefix..), source.read
  end

  def relay_fails(kind, target)
    here, left = unix_pair
    there, right = unix_pair
    there.write("an answer")
    writing = thread { write_all(here, pattern(SIZE)) }
    error = assert_raises(kind) { guarded { IO::Splice.relay(left, [right, target]) } }
    assert_equal [target.size, 9], error.bytes_relayed
    assert_equal "an answer", here.readpartial(100)
    here.close_write if guarded { thread { left.read(SIZE - target.size) }.value }.then do |rest|
      assert_bytes pattern(SIZE).byteslice(target.size..), rest
    end
    guarded { writing.join }
    assert_bytes pattern(target.size), File.binread("/proc/self/fd/#{target.fileno}")
  end

  def assert_split(source, target)
    assert_operator target.size, :>, 0
    assert_bytes pattern(SIZE), File.binread("/proc/self/fd/#{target.fileno}") + source.read
  end

  # A file from which `full` is to move SIZE bytes, and waits because its pipe is full. Yields what reads the pipe.
  def changing_while_it_waits(content)
    file = tempfile(content)
    reader, writer = pipe
    copy = until_settled(thread { IO::Splice.full(file, writer, SIZE) })
    rest = lambda do
      arrived = thread { reader.binmode.read }
      thread { copy.join rescue nil }.join # rubocop:disable Style/RescueModifier -- the caller looks at how it ends
      writer.close
      guarded { arrived.value }
    end
    yield file, copy, rest
  end

  # Yields the path of a disk for 512 KiB, of which a file `filler` takes three quarters.
  def with_small_disk
    skip "only root can mount a disk" unless Process.uid.zero?
    Dir.mktmpdir do |dir|
      in_a_child do
        mount_tmpfs(dir, 512 << 10)
        File.binwrite("#{dir}/filler", "f" * (384 << 10))
        yield dir
      ensure
        libc("umount2", %i[voidp int], dir, DETACH)
      end
    end
  end

  # sys/mount.h, sched.h
  NEW_MOUNTS = 0x20000
  PRIVATE = (1 << 18) | 0x4000
  DETACH = 2

  # In a name space of its own, with which it vanishes.
  def mount_tmpfs(dir, size)
    libc("unshare", [:int], NEW_MOUNTS)
    begin
      mount(nil, "/", nil, PRIVATE, nil)
    rescue Errno::EINVAL
      nil # after chroot(2) it is no mount point
    end
    mount("tmpfs", dir, "tmpfs", 0, "size=#{size}")
  rescue SystemCallError => e
    skip "no disk can be mounted here: #{e.message}"
  end

  def mount(...) = libc("mount", %i[voidp voidp voidp long voidp], ...)

  def libc(name, types, *args)
    require "fiddle"
    types = types.map { |type| Fiddle.const_get("TYPE_#{type.to_s.upcase}") }
    answer = Fiddle::Function.new(Fiddle::Handle::DEFAULT[name], types, Fiddle::TYPE_INT).call(*args)
    raise SystemCallError.new(name, Fiddle.last_error) if answer.negative?
  rescue LoadError => e
    skip "this Ruby has no fiddle: #{e.message}"
  end

  # Yields a file that can have LIMIT bytes.
  def with_file_size_limit
    in_a_child do
      target = tempfile
      trap("XFSZ", "IGNORE")
      Process.setrlimit(:FSIZE, LIMIT)
      yield target
    end
  end

  # Copies in a child that can allocate little and has no descriptors for a pipe. What has arrived is a prefix for
  # every target, and for one of them all that has left the source.
  def check_without_memory(from, *to)
    ROOM.each do |room|
      source = source(from, pattern(SIZE))
      targets, collects = to.map { |kind| target(kind) }.transpose
      copied, rest = said_in_a_child do
        @writer&.close
        [with_free_descriptors(1) { without_memory(room) { yield source, *targets } }, source.read]
      end
      arrived = collects.map(&:call)
      arrived.each { |bytes| assert_bytes pattern(bytes.bytesize), bytes }
      assert_bytes pattern(SIZE), arrived.max_by(&:bytesize) + rest
      assert_equal [SIZE], arrived.map(&:bytesize).uniq if copied
    end
  end

  # Lets no more be allocated than this. An error that says so is nil.
  def without_memory(room)
    skip "Ruby 4's garbage collector aborts when it gets no memory" if RUBY_VERSION >= "4"

    limits = Process.getrlimit(:AS)
    Process.setrlimit(:AS, File.read("/proc/self/statm").to_i * Etc.sysconf(Etc::SC_PAGESIZE), limits.last)
    taken = []
    begin
      loop { taken << ("\0" * 50_000) }
    rescue NoMemoryError
      taken.pop(room / 50_000).each(&:clear)
    end
    yield
  rescue NoMemoryError, Errno::ENOMEM
    nil
  ensure
    Process.setrlimit(:AS, *limits) if limits
  end
end
