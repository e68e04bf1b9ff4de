# frozen_string_literal: true

require "json"
require "minitest"

# Tells test/side_by_side.rb, and not the terminal, what test begins and how it has ended.
class Told < Minitest::AbstractReporter
  def initialize(path)
    super()
    @path = path
    @process = Process.pid
  end

  def prerecord(group, name) = tell(begin: "#{group.name}##{name}")

  def record(result)
    said = result.to_s.dup.force_encoding("UTF-8").scrub unless result.passed?
    tell(name: "#{result.class_name}##{result.name}", code: result.result_code, seconds: result.time,
         assertions: result.assertions, said:)
  end

  def report = tell(end: true)

  private

  # Keeps no descriptor, since tests count them. A child that has not ended as it should is not heard.
  def tell(what)
    File.write(@path, "#{JSON.generate(what)}\n", mode: "a") if @process == Process.pid
  end
end

module Minitest
  extensions << "told"
  def self.plugin_told_init(_) = reporter.reporters.replace([Told.new(ENV.fetch("TOLD"))])
end

# A test that hangs is asked where it stands.
trap(:PWR) { Thread.list.each { |thread| warn thread.inspect, *thread.backtrace.to_a.map { |line| "    #{line}" } } }
