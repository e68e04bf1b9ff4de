# frozen_string_literal: true

module Soak
  # Runs rounds, each in a child process, and one process that lives for all the time beside them.
  class Supervisor
    Child = Struct.new(:pid, :kind, :seed, :report, :stderr, :deadline, :buffer, keyword_init: true)

    def initialize(options)
      @options = options
      @random = Random.new(options[:seed])
      @tape = Tape.new
      @total = Statistics.new
      @children = []
      @rounds = 0
    end

    # Whether all went well.
    def run
      puts "seed #{@options[:seed]}, Ruby #{RUBY_VERSION}, #{@options[:seconds]} s"
      ENV["TMPDIR"] = @directory = Dir.mktmpdir("soak")
      use_slow_files if Soak.hostile?("fuse")
      supervise
      puts "#{@rounds} rounds, #{@total.line}", @total.full, @memory
      puts @failed ? "FAILED" : "no failure"
      !@failed
    ensure
      @children.dup.each { |child| kill(child) }
      @fuse&.unmount
      FileUtils.rm_rf(@directory)
    end

    private

    def supervise
      start = @line_at = Soak.now
      @end = start + @options[:seconds]
      begin_child("long", @options[:seconds]) if @options[:kinds].include?("long")
      until @failed || (Soak.now >= @end && @children.empty?)
        begin_round
        attend
        be_stuck if @fuse && @random.rand(3).zero?
        print_line(start)
      end
    end

    def use_slow_files
      return warn("no FUSE here: the files are ordinary ones") unless Fuse.possible?

      Ends.directory = File.join(@directory, "slow")
      Dir.mkdir(Ends.directory)
      @fuse = Fuse.new(Ends.directory, jitter: 0.003)
    end

    def be_stuck
      @fuse.stop
      sleep(@random.rand * 0.3)
    ensure
      @fuse.continue
    end

    def begin_round
      kinds = @options[:kinds] - ["long"]
      return if kinds.empty? || Soak.now >= @end || @children.any? { |child| child.kind != "long" }

      begin_child(kinds.sample(random: @random), [@options[:round], @end - Soak.now].min.clamp(0.5..))
      @rounds += 1
    end

    def begin_child(kind, seconds)
      seed = @options[:round_seed] || @random.rand(1 << 32)
      reader, writer = IO.pipe
      errors = Tempfile.create("soak")
      File.unlink(errors.path)
      pid = fork { round(kind, seed, seconds, writer, errors) }
      writer.close
      @children << Child.new(pid:, kind:, seed:, report: reader, stderr: errors, buffer: +"",
                             deadline: Soak.now + seconds + (3 * Soak.guard))
    end

    def round(kind, seed, seconds, writer, errors)
      $stderr.reopen(errors)
      $stderr.sync = writer.sync = true
      @children.each { |child| [child.report, child.stderr].each(&:close) }
      threads = kind == "long" ? 2 : @options[:threads]
      Round.new(kind:, seed:, seconds:, threads:, tape: @tape, report: writer,
                only: @options[:operation],
                except: @options[:except], compact: @options[:compact]).run
      exit!(0)
    rescue Exception => e # rubocop:disable Lint/RescueException -- whatever it is, it is told
      writer.puts(JSON.generate("failure" => e.full_message(highlight: false)))
    ensure
      exit!(1)
    end

    def attend
      ready, = IO.select(@children.map(&:report), nil, nil, 1)
      (ready || []).each { |report| read(@children.find { |child| child.report == report }) }
      @children.select { |child| Soak.now > child.deadline }.each { |child| hangs(child) }
    end

    def read(child)
      child.buffer << child.report.readpartial(65_536)
      while (line = child.buffer.slice!(/\A.*\n/))
        take(child, JSON.parse(line))
      end
    rescue EOFError
      ended(child)
    end

    def take(child, said)
      @total.add(said["statistics"]) if said["statistics"]
      @memory = said["memory"] if said["memory"]
      failed(child, said["failure"]) if said["failure"]
    end

    def ended(child)
      status = Process.wait2(child.pid).last
      forget(child)
      failed(child, "it ended with #{status}") unless status.success?
    end

    def errors_of(child)
      child.stderr.rewind
      child.stderr.read(20_000)
    end

    def hangs(child)
      failed(child, "it hangs\n#{Soak.where_threads_are(child.pid)}")
      Process.kill(:QUIT, child.pid)
      sleep 5
      kill(child)
      puts errors_of(child)
    end

    def kill(child)
      Process.kill(:KILL, child.pid)
      Process.wait(child.pid)
      forget(child)
    end

    def forget(child)
      child.report.close
      @children.delete(child)
    end

    def failed(child, text)
      @failed = true
      puts "FAILURE in round #{child.kind}:#{child.seed}: #{text}"
      puts "It wrote: #{errors_of(child)}" if child.stderr.size.positive?
      again = "ruby -Ilib #{$PROGRAM_NAME} 60 --threads #{@options[:threads]}"
      again << " --hostile #{@options[:hostile].join(",")}" if @options[:hostile].any?
      puts "Repeat it: #{again} --round #{child.kind}:#{child.seed}"
      name = text[/\A\w+:\d+/]
      puts "Or only that operation: #{again} --operation #{name} --kind #{child.kind}" if name
      $stdout.flush
    end

    def print_line(start)
      return if Soak.now - @line_at < 10

      @line_at = Soak.now
      puts "#{(Soak.now - start).to_i} s: #{@rounds} rounds, #{@total.line}"
      $stdout.flush
    end
  end
end
