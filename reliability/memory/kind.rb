# frozen_string_literal: true

require "io/splice"
require_relative "../support/ends"

# What is called, and what it is called with.
module Memory
  BOUND = 1 << 20
  NULL = File.open(File::NULL, "w")
  DATA = ("0123456789abcdef" * 640).freeze # more than two pages
  Interrupted = Class.new(StandardError)

  # What is called, and how often: `share` of all calls. `objects`: how many a call may make. `bound`: how much the
  # memory may differ. `settle`: how
  # many seconds until what has ended is gone.
  Kind = Struct.new(:name, :share, :objects, :bound, :in_a_fiber, :settle, :prepare, keyword_init: true)
  KINDS = [] # rubocop:disable Style/MutableConstant -- it is filled by the files beside this one

  module_function

  def kind(name, share: 1, objects: nil, bound: BOUND, in_a_fiber: false, settle: 0, &prepare)
    KINDS << Kind.new(name:, share:, objects:, bound:, in_a_fiber:, settle:, prepare:)
  end

  def file = Ends.file(DATA)

  def filled_pipe(bytes = "x")
    IO.pipe.tap { |_, w| w << bytes }
  end

  def full_pipe
    IO.pipe.tap { |_, w| nil while w.write_nonblock(DATA, exception: false) != :wait_writable }
  end

  # A call that must fail with this error.
  def raising(error)
    lambda do
      yield
      abort "no #{error}"
    rescue error
      nil
    end
  end

  # A call that waits in a thread of its own, until the second block ends the wait.
  def interrupting(work, interrupt = :kill.to_proc)
    thread = Thread.new(&work)
    Thread.pass until thread.stop?
    interrupt.call(thread)
    thread.join
  rescue Interrupted, IOError
    nil
  end
end
