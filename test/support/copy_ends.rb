# frozen_string_literal: true

require "fcntl"

# What the tests of copying share: ends of each kind, threads at the far ends, and the gem's pipes made before
# the fixture counts descriptors.
module CopyEnds
  def setup
    fill_the_pool
    @threads = []
    super
  end

  def teardown
    super
  ensure
    @threads.each { |thread| join_left_over(thread) }
  end

  private

  # The gem keeps a few idle pipes for the next copies. With all of them there, none comes later.
  def fill_the_pool
    pairs = Array.new(8) { UNIXSocket.pair + UNIXSocket.pair }
    copies = pairs.map do |_, source, target, _|
      until_asleep(Thread.new { IO::Splice.copy_stream(source, target) })
    end
    pairs.each { |peer,| peer.close }
    copies.each(&:join)
    pairs.flatten.each(&:close)
  end

  # The fixture has closed what the thread worked with.
  def join_left_over(thread)
    join_stopped(thread)
  rescue SystemCallError
    nil
  end

  def pair(kind)
    case kind
    when :pipe then pipe.each(&:binmode)
    when :tcp then tcp_pair
    when :unix then unix_pair
    end
  end

  # As pair, and in blocking mode if the kind says so.
  def ends(kind)
    return pair(kind) unless kind.start_with?("blocking_")

    blocking(pair(kind.to_s.delete_prefix("blocking_").to_sym))
  end

  # What is to be copied: a file of it, or what a thread writes it to.
  def source(kind, bytes)
    kind == :file ? tempfile(bytes) : fed(*ends(kind), bytes)
  end

  # The reader, when a thread writes the bytes and the end.
  def fed(reader, writer, bytes)
    @writer = writer
    in_a_thread do
      write_all(writer, bytes)
    ensure
      SpliceTest::CLOSING.synchronize { writer.close }
    end
    reader
  end

  def write_all(io, bytes)
    io.write(bytes)
  rescue Errno::EPIPE, Errno::ECONNRESET
    nil
  end

  # A target, and what says what has arrived there.
  def target(kind)
    %i[file append].include?(kind) ? file_target(kind) : stream_target(*ends(kind))
  end

  def file_target(kind)
    file = tempfile
    file.fcntl(Fcntl::F_SETFL, File::APPEND) if kind == :append
    [file, -> { content(file) }]
  end

  def stream_target(far, near)
    arrived = in_a_thread { drain(far) }
    collect = lambda do
      near.close
      thread_value(arrived).tap { far.close }
    end
    [near, collect]
  end

  # A terminal says EIO when the other side has gone.
  def drain(io)
    bytes = +"".b
    loop { bytes << io.readpartial(65_536) }
  rescue EOFError, Errno::EIO
    bytes
  end

  def copy_stream(...)
    guarded { IO::Splice.copy_stream(...) }
  end
end
