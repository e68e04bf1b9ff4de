# frozen_string_literal: true

require_relative "select_scheduler"

module SpliceTest
  # Runs the block, and the fibers that it schedules, to their end, and returns what it returns.
  def with_scheduler
    running = thread do
      scheduler = SelectScheduler.new
      Fiber.set_scheduler(scheduler)
      yield scheduler
    end
    thread_value(running)
  ensure
    running&.kill
  end
end
