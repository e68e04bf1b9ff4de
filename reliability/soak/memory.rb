# frozen_string_literal: true

begin
  require "fiddle"
rescue LoadError
  nil
end

module Soak
  # The memory of this process: what is in use, and what is resident, in KiB.
  class Memory
    # What each may grow by. What is resident goes up and down by 30 MiB in a minute, while what is in use stays: the C
    # library and Ruby keep what they got back in pieces.
    USED = 4096
    RESIDENT = 65_536

    # What the C library knows of its memory, which may not be there.
    module Malloc
      class << self
        # The bytes that it has lent; nil if it does not say.
        def lent
          total = info[%r{.*</heap>(.*)}m, 1]
          size(total, 'system type="current"') + size(total, 'total type="mmap".*?') -
            size(total, 'total type="fast".*?') - size(total, 'total type="rest".*?')
        rescue NameError, Fiddle::DLError
          nil
        end

        # Gives back to the kernel what is kept for later, as far as that goes.
        def trim
          call("malloc_trim", [Fiddle::TYPE_SIZE_T], 0)
        rescue NameError, Fiddle::DLError
          nil
        end

        private

        def size(text, element) = Integer(text[/<#{element} size="(\d+)"/, 1])

        def info
          Tempfile.create("malloc_info") do |file|
            pointer = Fiddle::TYPE_VOIDP
            stream = call("fopen", [pointer, pointer], file.path, "w", returns: pointer)
            call("malloc_info", [Fiddle::TYPE_INT, pointer], 0, stream)
            call("fclose", [pointer], stream)
            file.read
          end
        end

        def call(name, types, *arguments, returns: Fiddle::TYPE_INT)
          Fiddle::Function.new(Fiddle.dlopen(nil)[name], types, returns).call(*arguments)
        end
      end
    end

    def initialize
      @used = []
      @resident = []
    end

    def measure
      GC.start
      Malloc.trim
      lent = Malloc.lent
      @used << ((lent + objects) >> 10) if lent
      @resident << File.read("/proc/self/status")[/^RssAnon:\s+(\d+)/, 1].to_i
    end

    # Memory is lent and given back all the time, so what counts is the lowest that it comes down to.
    def check
      return "too few figures" if @resident.size < 9

      growth(@used, USED) if @used.any?
      growth(@resident, RESIDENT)
      [("in use #{ends(@used)}" if @used.any?), "resident #{ends(@resident)}"].compact.join(", ")
    end

    private

    # The bytes of the slots of objects, of which the smallest have 40.
    def objects = GC.stat(:heap_live_slots) * 40

    def growth(figures, most)
      warm, last = ends(figures)
      raise Wrong, "memory grows, in KiB: #{figures}" if last - warm > most
    end

    # The lowest after warming up, and at the end.
    def ends(figures)
      figures.drop(figures.size / 3).each_slice((figures.size / 3.0).ceil).map(&:min)
    end
  end
end
