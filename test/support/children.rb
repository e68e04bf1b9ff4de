# frozen_string_literal: true

require "open3"
require "rbconfig"

module SpliceTest
  LIB = File.expand_path("../../lib", __dir__)

  # Held while a child is forked: to a child of a process in which a close has begun and not ended, the IO is closed and
  # its descriptor is open.
  CLOSING = Thread::Mutex.new

  # A process of the test's own, which succeeds if the block comes to its end.
  def fork_child
    fork do
      yield
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- it is told, whatever it is
      warn e.full_message
    ensure
      exit!(1)
    end
  end

  # Makes this child, if it is root's, the process of a user who has no other: what the kernel counts for each user, as
  # the memory of pipes, is then not shared with the tests that run beside this one.
  def become_a_user
    Process::UID.change_privilege(1_000_000 + Process.pid) if Process.euid.zero?
  rescue Errno::EINVAL # the user namespace does not have that many
    Process::UID.change_privilege(65_534)
  end

  # How a child has ended.
  def status_of(child)
    guarded { Process.wait2(child).last }
  rescue Timeout::Error
    Process.kill(:KILL, child)
    Process.wait2(child).last
  end

  # Runs in a child process, of which a failure or a skip is one here.
  def in_a_child
    said_in_a_child do
      yield
      nil
    end
  end

  # As that, and returns what the block returns.
  def said_in_a_child(&)
    report, into = IO.pipe(binmode: true)
    pid = CLOSING.synchronize { fork } || report_from_a_child(report, into, &)
    into.close
    said = guarded { report.read }
    status = guarded { Process.wait2(pid).last }
    pid = nil
    refute_empty said, "the child ended with #{status}"
    how, said = Marshal.load(said) # rubocop:disable Security/MarshalLoad -- it is the child's
    how == :said ? said : public_send(how, said)
  ensure
    report.close
    if pid
      Process.kill(:KILL, pid)
      Process.wait(pid)
    end
  end

  # What a Ruby of its own, with the gem loaded, writes to both outputs.
  def in_ruby(code, *options)
    out, status = guarded { Open3.capture2e(RbConfig.ruby, *options, "-I", LIB, "-rio/splice", "-e", code) }
    assert_predicate status, :success?, out
    out
  end

  private

  def report_from_a_child(report, into)
    report.close
    into.write(Marshal.dump([:said, yield]))
  rescue Minitest::Skip => e
    into.write(Marshal.dump([:skip, e.message]))
  rescue Exception => e # rubocop:disable Lint/RescueException -- it is told, whatever it is
    into.write(Marshal.dump([:flunk, e.full_message(highlight: false)]))
  ensure
    into.flush
    exit!(0)
  end
end
