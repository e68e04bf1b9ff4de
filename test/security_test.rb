# frozen_string_literal: true

require "test_helper"
require "delegate"
require "stringio"
require "support/copy_ends"
require "support/tls"

# What SECURITY.md promises, where it is not shown elsewhere already: memory on its way in test/vmsplice_memory_test.rb,
# copies that are stopped in test/copy_interrupts_test.rb, children in test/fork_test.rb.
class TestSecurity < Minitest::Test
  include CopyEnds
  include Experimental

  Pages = IO::Splice::Pages
  FOREIGN = ("foreign " * 1000).freeze

  # Memory: whoever has the bytes has no way to the memory that they came from

  SIZE = 12_288 # whole pages, which are all that a kernel could move
  DATA = {
    "a_string" => ->(bytes) { bytes.byteslice(1..).prepend(bytes[0]) }, # memory of its own
    "a_part_of_a_string" => ->(bytes) { "before#{bytes}after".byteslice(6, bytes.bytesize) },
    "a_buffer" => ->(bytes) { IO::Buffer.new(bytes.bytesize).tap { |buffer| buffer.set_string(bytes) } },
    "pages" => ->(bytes) { Pages.new(bytes) },
    "a_part_of_pages" => ->(bytes) { Pages.new("#{" " * 4096}#{bytes}").slice(4096) },
  }.freeze

  DATA.each do |name, make|
    define_method :"test_#{name}_and_what_has_arrived_of_it_have_nothing_in_common" do
      original = pattern(SIZE).dup
      data = make.call(original.dup)
      r, w = pipe
      out, into = pipe
      file = tempfile
      IO.vmsplice(w, data, data.is_a?(String) ? IO::Splice::F_GIFT : 0)
      IO.tee(r, into, SIZE)
      change(data)
      IO.splice(r, nil, file, nil, SIZE, IO::Splice::F_MOVE | IO::Splice::WAITALL)
      assert_bytes original, file.pread(SIZE, 0)

      now = bytes_of(data).dup
      file.pwrite("y" * SIZE, 0)
      assert_bytes original, out.read(SIZE)
      assert_bytes now, bytes_of(data)
    end
  end

  def test_a_gift_is_out_of_reach_of_who_gave_it
    r, w = pipe
    buffer = IO::Buffer.new(SIZE)
    buffer.set_string(pattern(SIZE))
    part = buffer.slice(0, 100)
    IO.vmsplice(w, buffer, IO::Splice::F_GIFT)
    assert_raises(IO::Buffer::InvalidatedError, IO::Buffer::AllocationError) { part.set_string("z") }
    # The next mappings take the place of the old one.
    others = Array.new(20) { IO::Buffer.new(SIZE).tap { |other| other.set_string("z" * SIZE) } }

    assert_bytes pattern(SIZE), r.read(SIZE)
  ensure
    part&.free
    others&.each(&:free)
  end

  # Objects on the way of a copy may keep what they are given, and what they gave.

  def test_an_output_that_changes_what_it_is_given_changes_nothing_for_the_others
    spoiler = Object.new
    spoiler.define_singleton_method(:write) { |bytes| bytes.bytesize.tap { bytes.replace("z" * bytes.bytesize) } }
    out, into = pipe
    last = StringIO.new
    [tempfile(pattern(5000)), StringIO.new(pattern(5000)), filled(pattern(5000))].each do |source|
      assert_equal(5000, guarded { IO::Splice.tee_stream(source, spoiler, into, spoiler, last, len: 5000) })
      assert_bytes pattern(5000), out.read(5000)
      assert_bytes pattern(5000), last.string
      last.reopen(+"")
    end
  end

  def test_a_source_that_changes_what_it_has_given_changes_nothing
    given = []
    source = Object.new
    source.define_singleton_method(:readpartial) do |_size, buffer = String.new|
      given.each { |bytes| bytes.frozen? || bytes.replace("z" * 4096) }
      raise EOFError if given.size == 3

      buffer.replace(given.size.to_s * 4096).tap { |bytes| given << bytes }
    end
    out, into = pipe
    other_out, other_into = pipe
    assert_equal(3 * 4096, guarded { IO::Splice.tee_stream(source, into, other_into) })
    [out, other_out].each { |reader| assert_bytes %w[0 1 2].map { |digit| digit * 4096 }.join, reader.read(3 * 4096) }
  end

  # Descriptors: another program never gets one

  HOLDING = %i[copy_stream tee_stream relay relay_in_a_fiber tee_stream_in_a_fiber].freeze

  # The numbers of what is open. The directory that is read for them has one too, and no more afterwards.
  def self.descriptors
    Dir.children("/proc/self/fd").select { |number| File.symlink?("/proc/self/fd/#{number}") }.map(&:to_i)
  end

  # Those of Ruby itself.
  Thread.new { nil }.join
  RUBYS = descriptors
  # What a new program has by right, and the directory that it reads.
  INHERITED = IO.popen(%w[ls /proc/self/fd], close_others: false, &:readlines).size

  HOLDING.each do |name|
    define_method :"test_what_#{name}_opens_is_close_on_exec" do
      while_holding(name) do
        gems_descriptors.each { |number| assert close_on_exec?(number), "#{number} is a #{link(number)}" }
      end
    end

    define_method :"test_a_program_that_is_started_during_#{name}_gets_none_of_its_descriptors" do
      while_holding(name) do
        assert_equal INHERITED, IO.popen(%w[ls /proc/self/fd], close_others: false, &:readlines).size
      end
    end
  end

  def test_files_that_are_opened_by_their_path_are_close_on_exec
    Dir.mktmpdir do |dir|
      File.write("#{dir}/from", pattern(100_000))
      before = descriptors
      seen = []
      IO::Splice.copy_stream("#{dir}/from", "#{dir}/to") do
        seen |= (descriptors - before).select { |number| link(number)&.start_with?(dir) }
                                      .map { |number| close_on_exec?(number) }
      end
      assert_equal [true], seen
    end
  end

  # Isolation: what one copy leaves behind, none of the next ones finds

  # How a copy that holds bytes ends before they are delivered. Each is given the thread, the target and its reader.
  ENDS = {
    "is_killed" => ->(copy, _, _) { copy.kill },
    "gets_an_exception" => ->(copy, _, _) { copy.raise(Stop) },
    "has_its_target_closed" => ->(_, target, _) { target.close },
    "loses_its_reader" => ->(_, _, reader) { reader.close },
  }.freeze
  CALLS = {
    copy_stream: ->(source, target, *) { IO::Splice.copy_stream(source, target) },
    tee_stream: ->(source, target, *) { IO::Splice.tee_stream(source, target, File::NULL, target) },
    relay: ->(source, target, silent, unused) { IO::Splice.relay([source, unused], [silent, target]) },
  }.freeze

  CALLS.each do |name, call|
    ENDS.each do |how, interrupt|
      define_method :"test_a_#{name}_that_#{how}_leaves_nothing_to_the_next_ones" do
        5.times do
          reader, target = unix_pair
          copy = stuck(call, target, unix_filled, pipe.first, pipe.last)
          interrupt.call(copy, target, reader)
          guarded { copy.join rescue nil } # rubocop:disable Style/RescueModifier
          assert_next_ones_are_clean
        end
      end
    end
  end

  def test_an_exception_of_the_block_leaves_nothing_to_the_next_ones
    5.times do
      target = unix_pair.last
      block = ->(_) { raise Stop }
      assert_raises(Stop) { guarded { IO::Splice.copy_stream(unix_filled, target, 8000, &block) } }
      assert_raises(Stop) { guarded { IO::Splice.tee_stream(filled(FOREIGN), target, pipe.last, len: 8000, &block) } }
      assert_next_ones_are_clean
    end
  end

  def test_an_output_that_fails_leaves_nothing_to_the_next_ones
    full = closing(File.open("/dev/full", "w")).first
    failing = Object.new.tap { |object| object.define_singleton_method(:write) { |_| raise Stop } }
    [full, failing].each do |output|
      assert_raises(Stop, Errno::ENOSPC) { guarded { IO::Splice.copy_stream(unix_filled, output, 8000) } }
      assert_raises(Stop, Errno::ENOSPC) do
        guarded { IO::Splice.tee_stream(unix_filled, output, StringIO.new, pipe.last, len: 8000) }
      end
      assert_next_ones_are_clean
    end
  end

  def test_an_input_that_is_too_short_leaves_nothing_to_the_next_ones
    source = unix_filled.tap { |socket| socket.peer.close }
    _, target = unix_pair
    assert_raises(EOFError) { guarded { IO::Splice.copy_stream(source, target, 9000) } }
    assert_next_ones_are_clean
  end

  # Children: what the parent has idle or in use is not the child's

  def test_parent_and_child_have_no_idle_pipe_in_common
    out, into = pipe
    go, start = pipe
    fill_the_pool
    child = fork_child do
      reader, target = unix_pair
      filled = fill(target)
      copy = stuck(CALLS[:copy_stream], target, unix_filled)
      into.write("the pipe is full")
      go.read(1)
      reader.read(filled)
      assert_equal FOREIGN, reader.read(FOREIGN.bytesize)
      copy.kill
    end
    assert_equal("the pipe is full", guarded { out.read(16) })
    assert_next_ones_are_clean
    start.write(".")
    assert_predicate(guarded { Process.wait2(child).last }, :success?)
  end

  def test_a_child_of_a_process_in_the_middle_of_all_calls_has_none_of_their_bytes
    %i[copy_stream tee_stream relay].each do |name|
      while_holding(name) do
        child = fork_child do
          assert_empty gems_pipes
          assert_next_ones_are_clean
        end
        assert_predicate(guarded { Process.wait2(child).last }, :success?)
      end
    end
  end

  def test_a_daemon_copies_through_clean_pipes
    out, into = pipe
    child = fork do
      fill_the_pool
      while_holding(:copy_stream) do
        Process.daemon(true, true)
        said = begin
          assert_next_ones_are_clean
          "clean"
        rescue Exception => e # rubocop:disable Lint/RescueException -- it is told, whatever it is
          e.full_message
        end
        into.write(said)
        exit!(0)
      end
    end
    into.close
    assert_equal("clean", guarded { out.read })
    guarded { Process.wait(child) }
  end

  # TLS: what is to be encrypted never goes around the encryption

  SECRET = ("the secret " * 1000).freeze

  def test_no_call_lets_plaintext_past_tls
    with_tls do |socket|
      [socket, SimpleDelegator.new(socket), DelegateClass(OpenSSL::SSL::SSLSocket).new(socket)].each do |tls|
        each_call(tls) { |call| assert_raises(TypeError) { guarded { call.call } } }
      end
    end
  end

  def test_no_call_lets_plaintext_past_an_object_whose_to_io_is_tls
    with_tls do |socket|
      wrapper = Struct.new(:to_io).new(socket)
      each_call(wrapper) { |call| assert_raises(TypeError) { guarded { call.call } } }
      assert_raises(TypeError) { guarded { IO::Splice.copy_stream(filled(SECRET), wrapper, 5) } }
      assert_raises(TypeError) { guarded { IO::Splice.copy_stream(wrapper, pipe.last, 5) } }
      assert_raises(TypeError) { guarded { IO::Splice.tee_stream(filled(SECRET), wrapper, pipe.last, len: 5) } }
    end
  end

  def test_copies_to_tls_are_encrypted
    with_tls do |socket, peer|
      Dir.mktmpdir do |dir|
        File.write("#{dir}/secret", SECRET)
        sources = [-> { "#{dir}/secret" }, -> { tempfile(SECRET) }, -> { filled(SECRET) }, -> { unix_filled(SECRET) },
                   -> { StringIO.new(SECRET) }]
        [socket, SimpleDelegator.new(socket)].product(sources).each do |tls, source|
          assert_equal(11, guarded { IO::Splice.copy_stream(source.call, tls, 11) })
          assert_equal("the secret ", guarded { peer.read(11) })
        end
        assert_equal 5, IO::Splice.tee_stream(filled(SECRET), socket, pipe.last, socket, len: 5)
        assert_equal(SECRET[0, 5] * 2, guarded { peer.read(10) })
      end
    end
  end

  def test_copies_from_tls_are_decrypted
    with_tls do |socket, peer|
      peer.write(SECRET)
      out, into = pipe
      assert_equal(11, guarded { IO::Splice.copy_stream(socket, into, 11) })
      assert_equal(11, guarded { IO::Splice.copy_stream(SimpleDelegator.new(socket), into, 11) })
      assert_equal(11, guarded { IO::Splice.tee_stream(socket, into, StringIO.new, len: 11) })
      assert_equal SECRET[0, 33], out.read(33)
    end
  end

  # An encryption of somebody's own, with a to_io that goes around it.
  class Shifted
    def initialize(io) = @io = io
    def to_io = @io
    def write(bytes) = @io.write(shift(bytes))
    def readpartial(size, buffer = +"") = buffer.replace(shift(@io.readpartial(size)))

    private

    def shift(bytes) = bytes.tr("a-zA-Z", "n-za-mN-ZA-M")
  end

  def test_copies_go_through_the_methods_of_whatever_has_some
    out, into = pipe
    assert_equal(11, guarded { IO::Splice.copy_stream(filled(SECRET), Shifted.new(into), 11) })
    assert_equal(11, guarded { IO::Splice.tee_stream(filled(SECRET), Shifted.new(into), StringIO.new, len: 11) })
    assert_equal "gur frperg " * 2, out.read(22)
    assert_equal(11, guarded { IO::Splice.copy_stream(Shifted.new(filled(SECRET)), into, 11) })
    assert_equal(11, guarded { IO::Splice.tee_stream(Shifted.new(filled(SECRET)), into, StringIO.new, len: 11) })
    assert_equal "gur frperg " * 2, out.read(22)
  end

  private

  # Pages are not to be changed.
  def change(data)
    case data
    when String then data.bytesize.times { |index| data.setbyte(index, 0) }
    when IO::Buffer then data.set_string("z" * data.size)
    end
  end

  def bytes_of(data)
    return data if data.is_a?(String)

    data.is_a?(IO::Buffer) ? data.get_string : data.to_s
  end

  # Ends of pipes and sockets with bytes in them.

  def filled(bytes)
    r, w = pipe
    w.write_nonblock(bytes)
    r
  end

  def unix_filled(bytes = FOREIGN)
    here, there = unix_pair
    there.write(bytes)
    here.define_singleton_method(:peer) { there }
    here
  end

  # Descriptors

  def descriptors = self.class.descriptors

  def link(number)
    File.readlink("/proc/self/fd/#{number}")
  rescue Errno::ENOENT
    nil
  end

  # Nil for one that is closed by now.
  def close_on_exec?(number)
    File.read("/proc/self/fdinfo/#{number}")[/^flags:\s*(\d+)/, 1].to_i(8).anybits?(0o2000000)
  rescue Errno::ENOENT
    nil
  end

  # Those that are not the test's own.
  def gems_descriptors
    descriptors - RUBYS - @to_close.filter_map { |io| io.fileno unless io.closed? }
  end

  # Those of them that are pipes with something in them.
  def gems_pipes
    gems_descriptors.select { |number| link(number)&.start_with?("pipe:") && filled?(number) }
  end

  def filled?(number)
    out, into = IO.pipe
    IO.trytee(number, into, 1) == 1
  rescue Errno::EBADF # its write end
    false
  ensure
    [out, into].compact.each(&:close)
  end

  # A call in a thread that waits with bytes which it could not deliver.
  def stuck(call, target, source, *rest)
    fill(target)
    copy = thread { call.call(source, target, *rest) }
    guarded { Thread.pass until copy.stop? && !readable?(source) }
    copy
  end

  # Yields while a call waits like that, with the bytes in a pipe of the gem's.
  def while_holding(name)
    reader, target = unix_pair
    source, feed = unix_pair
    silent, silence = pipe
    feed.write(FOREIGN)
    call = CALLS.fetch(name.to_s.delete_suffix("_in_a_fiber").to_sym)
    call = in_a_fiber(call) if name.end_with?("_in_a_fiber")
    copy = stuck(call, target, source, silent, pipe.last)
    guarded { copy.join(0) while gems_pipes.empty? } # they may be on their way from one to the next
    yield
  ensure
    # A fiber that nobody resumes any more would not let go of anything.
    [feed, silence].each(&:close)
    guarded { reader.read_nonblock(65_536, exception: false) && Thread.pass while copy.alive? }
  end

  def in_a_fiber(call)
    lambda do |*ends|
      Fiber.set_scheduler(SelectScheduler.new)
      Fiber.schedule { call.call(*ends) }
    end
  end

  # Through all of the gem's idle pipes, and new ones.
  def assert_next_ones_are_clean
    ends = Array.new(6) { unix_pair + unix_pair }
    copies = ends.map { |_, source, target,| thread { IO::Splice.copy_stream(source, target, 5) } }
    ends.each { |feed,| feed.write("clean") }
    copies.each { |copy| assert_equal(5, guarded { copy.value }) }
    ends.each do |_, _, target, reader|
      target.close
      assert_equal("clean", guarded { reader.read })
    end
    assert_clean_tee
  ensure
    ends&.flatten&.each { |io| io.close unless io.closed? }
  end

  def assert_clean_tee
    source, feed = UNIXSocket.pair
    outputs = Array.new(3) { IO.pipe }
    feed.write("clean")
    feed.close
    guarded { IO::Splice.tee_stream(source, *outputs.map(&:last)) }
    outputs.each do |reader, writer|
      writer.close
      assert_equal "clean", reader.read
    end
  ensure
    [source, feed, *outputs].flatten.compact.each { |io| io.close unless io.closed? }
  end

  # Every call that uses descriptors only, with this at each of its ends.
  def each_call(tls)
    r, w = pipe
    w.write("the secret")
    into = pipe.last
    socket = unix_pair.first
    yield -> { IO.splice(r, nil, tls, nil, 5) }
    yield -> { IO.splice(tls, nil, into, nil, 5) }
    yield -> { IO.trysplice(r, nil, tls, nil, 5) }
    yield -> { IO.trysplice(tls, nil, into, nil, 5) }
    yield -> { IO.tee(r, tls, 5) }
    yield -> { IO.trytee(tls, into, 5) }
    yield -> { IO.vmsplice(tls, "the secret") }
    yield -> { IO::Splice.full(r, tls, 5) }
    yield -> { IO::Splice.full(tls, into, 5) }
    yield -> { IO::Splice.partial(r, tls, 5) }
    yield -> { IO::Splice.partial(tls, into, 5) }
    unless tls.instance_of?(OpenSSL::SSL::SSLSocket) # which a relay encrypts
      yield -> { IO::Splice.relay(tls, socket) }
      yield -> { IO::Splice.relay(socket, [r, tls]) }
      yield -> { IO::Splice.relay([tls, into], socket) }
    end
    assert_equal "the secret", r.readpartial(100)
  end

  # Yields both ends of a TLS connection through a wire that is listened in on.
  def with_tls
    near, wire_near = unix_pair
    wire_far, far = unix_pair
    heard = +""
    wires = [[wire_near, wire_far], [wire_far, wire_near]].map { |from, to| thread { pass_on(from, to, heard) } }
    yield(*tls_pair([near, far]))
    refute_empty heard
    refute_includes heard, "secret"
  ensure
    [near, far].each { |socket| socket&.close }
    wires&.each { |wire| guarded { wire.join } }
  end

  def pass_on(from, to, heard)
    loop { to.write(from.readpartial(65_536).tap { |bytes| heard << bytes }) }
  rescue EOFError, SystemCallError
    to.close_write
  rescue IOError
    nil
  end
end
