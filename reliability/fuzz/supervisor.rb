# frozen_string_literal: true

require "tmpdir"
require_relative "generator"
require_relative "worker"

module Fuzz
  # Has batches of cases run in child processes, and collects what is wrong.
  class Supervisor
    GUARD = 20 # seconds in which a case must come to its end
    BATCH = 400

    attr_reader :kinds, :failures, :count

    def initialize(seed)
      # An interrupt while Ruby loads an encoding is a crash of Ruby 3.1.
      Arguments::ENCODINGS.each { |name| "x".dup.force_encoding(name).valid_encoding? }
      "x".encode("UTF-16LE").encode("UTF-8")
      @seed = seed
      @count = 0
      @kinds = Hash.new { |hash, key| hash[key] = 0 }
      @failures = {}
    end

    # To be called with each case and the kind of what came of it.
    def on_case(&block) = @on_case = block

    # Runs batches made up from the seed until the time is up.
    def fuzz(seconds, seeds)
      finish = Time.now + seconds
      (0..).each do |batch|
        break if Time.now >= finish

        run(made_up(batch, seeds))
      end
    end

    def made_up(batch, seeds)
      generator = Generator.new(Random.new((@seed * 1_000_003) + batch), seeds, core_ext: batch % 4 == 3)
      Array.new(BATCH) { generator.make_case }
    end

    # Runs these, in their order; what comes after a crash is run by another process.
    def run(cases)
      cases.chunk_while { |one, other| one.option("core_ext") == other.option("core_ext") }.each do |chunk|
        chunk.each_slice(BATCH) do |rest|
          rest = rest.drop(batch(rest)) until rest.empty?
        end
      end
    end

    private

    # @return [Integer] how many cases are behind it
    def batch(cases)
      Dir.mktmpdir("fuzz") do |directory|
        told = told_in(directory)
        status = watch(start(cases, directory, told), told[:now])
        told_of = take_results(cases, told[:results])
        status&.success? && told_of == cases.size ? cases.size : failed(cases, status, told)
      ensure
        told&.each_value(&:close)
      end
    end

    # The files through which a worker tells.
    def told_in(directory)
      { now: "w+b", stderr: "a+b", results: "a+b" }.to_h do |name, mode|
        [name, File.open(File.join(directory, name.to_s), mode).tap { |file| file.sync = true }]
      end
    end

    def start(cases, directory, told)
      fork do
        require "io/splice/core_ext" if cases.first.option("core_ext")
        Dir.mkdir(File.join(directory, "files"))
        Worker.new(File.join(directory, "files"), told).run(cases)
        exit!(0)
      rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, it must be told
        told[:stderr].write("#{e.full_message(highlight: false)}\n")
        exit!(2)
      end
    end

    # @return [Process::Status, nil] nil when it did not come to its end
    def watch(pid, progress)
      waiter = Process.detach(pid)
      last = nil
      until waiter.join(GUARD)
        return if content(progress) == last

        last = content(progress)
      end
      waiter.value
    ensure
      Process.kill(:KILL, pid) if waiter.alive?
      waiter.join
    end

    # @return [Integer] how many there are
    def take_results(cases, results)
      content(results).each_line.count do |line|
        index, kind, complaints = JSON.parse(line)
        @count += 1
        @kinds[[cases[index].name, *kind]] += 1
        @on_case&.call(cases[index], kind)
        complaints.each { |complaint| fail_with(complaint, cases, index) }
      end
    end

    def content(file) = file.size.zero? ? "" : file.pread(file.size, 0).scrub

    def failed(cases, status, told)
      index = content(told[:now]).to_i
      # Ruby's own loses interrupts that come while it uses an object.
      return index + 1 if status.nil? && cases[index].name == "IO.copy_stream"

      fail_with(status ? "#{status}: #{content(told[:stderr])[0, 3000]}" : "it hangs", cases, index)
      index + 1
    end

    def fail_with(complaint, cases, index)
      signature = [cases[index].name, complaint.gsub(/\d+/, "0")[0, 60]]
      list = (@failures[signature] ||= [])
      list << cases[index].to_s
      return if list.size > 3

      puts "#{complaint}\n  #{cases[index]}\n  seed #{@seed}, #{keep(cases, index)}"
    end

    # The case, and those that the same process had run before, of which it may be a late consequence.
    def keep(cases, index)
      directory = File.expand_path("../../tmp/fuzz", __dir__)
      FileUtils.mkdir_p(directory)
      file = File.join(directory, "#{@seed}-#{@count}-#{@failures.size}.txt")
      File.write(file, "#{cases.take(index + 1).join("\n")}\n")
      "repeat with: --case #{file}"
    end
  end
end
