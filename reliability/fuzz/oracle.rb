# frozen_string_literal: true

module Fuzz
  # What may come of a call.
  module Oracle
    DOCUMENTED = [
      TypeError, ArgumentError, RangeError, IOError, SystemCallError, FrozenError, *(
        %i[AllocationError InvalidatedError LockedError AccessError MaskError].filter_map do |name|
          IO::Buffer.const_get(name) if IO::Buffer.const_defined?(name)
        end
      )
    ].freeze
    RUST = /panick|unwrap|\b(Some|None|Ok|Err)\b[({]|\bOs \{|\bErrno\(|RefCell|magnus|rb_sys::|\.rs\b/
    # The methods that say themselves what the kernel had against a call.
    SYSTEM_CALLS = /\A(Splice\.)?(try)?(splice|tee|vmsplice)\z|pipe_size/

    module_function

    # @return [Array<String>] what is wrong
    def complaints(kase, builder, outcome)
      wrong = of_time(kase, outcome)
      wrong << "what an object raised was swallowed" if swallowed?(kase, builder, outcome)
      wrong.concat(outcome.error ? of_error(kase, builder, outcome) : of_value(kase, outcome))
    end

    def of_time(kase, outcome)
      wrong = []
      wrong << "it had to be interrupted, though it must not wait" if kase.never_waits? && outcome.done
      wrong << "closing an end did not end it" if outcome.done == :raised && Runner.close_must_help?(kase)
      wrong << "an interrupt was lost" if lost?(outcome) && kase.name != "IO.copy_stream" # Ruby's own loses some
      wrong
    end

    def lost?(outcome) = outcome.done == :raised && !outcome.late && !(outcome.error in Overdue) && !outcome.thrown

    # Other errors than its own an object may also have raised for the gem to take notice of.
    def swallowed?(kase, builder, outcome)
      return false if outcome.thrown || (outcome.error in Overdue) || kase.name == "IO.copy_stream"

      outcome.error ? builder.thrown && builder.raised.empty? : builder.thrown || builder.raised.any?(Own)
    end

    # Whether an exception has come from outside.
    def interrupted?(outcome) = outcome.done || outcome.thrown == :killed || (outcome.error in Overdue)

    def of_error(kase, builder, outcome)
      error = outcome.error
      return [] if expected?(kase, builder, error)

      wrong = of_message(kase, error)
      wrong << "it raises what is not documented" unless documented?(kase, error)
      wrong.map { |complaint| "#{complaint}: #{error.class}: #{error.message.b.lines.first.inspect[0, 200]}" }
    end

    def expected?(kase, builder, error)
      (error in Overdue) || error.equal?(Actors::TWICE) || builder.raised.any? { |raised| raised.equal?(error) } ||
        ((error in SystemStackError) && kase.recursive?)
    end

    def documented?(kase, error)
      return true if (error in NoMethodError) && (kase.name == "IO.copy_stream" || kase.liars?) # as Ruby's own
      return true if error in OpenSSL::SSL::SSLError | Zlib::Error | EncodingError

      DOCUMENTED.any? { |documented| error in ^documented }
    end

    def of_message(kase, error)
      message = error.message.b
      wrong = []
      wrong << "an error has no message" if message.strip.empty?
      wrong << "a message is Rust's" if message.match?(RUST)
      wrong << "a message does not say what was wrong" if mute?(kase, error, message)
      wrong
    end

    def mute?(kase, error, message)
      return false unless (error in SystemCallError) && kase.name.match?(SYSTEM_CALLS)
      # Ruby writes its buffer out before, and has an error of its own for that.
      return false if (error in Errno::EPIPE) && kase.to_s.include?("unwritten")

      !message.include?(kase.name[/(splice|tee|pipe_size=?)\z/])
    end

    VALUES = {
      /Background/ => ->(value) { (value in IO::Splice::Transfer) && value.done? },
      /try/ => ->(value) { value.nil? || value == :EAGAIN || count?(value) },
      /\.partial/ => ->(value) { value.nil? || count?(value) },
      /splice\z|tee\z|copy_stream|full|tee_stream|pipe_size\z/ => ->(value) { count?(value) },
      /relay/ => ->(value) { (value in [Integer, Integer]) && value.all? { |bytes| count?(bytes) } },
      /Pages.(new|slice|dup|clone|freeze)/ => lambda do |value|
        (value in IO::Splice::Pages | false) && (!value || value.frozen?)
      end,
      /Pages#(to_s|inspect)/ => ->(value) { value in String },
      /Pages#(==|eql\?)/ => ->(value) { [true, false].include?(value) },
      /Pages#(bytesize|hash)/ => ->(value) { value in Integer },
      /Pages\.allocate/ => ->(_) { false },
      // => ->(_) { true },
    }.freeze

    def of_value(kase, outcome)
      return [] if outcome.thrown || kase.name == "IO.copy_stream" # Ruby's own adds up what it is told
      return [] if VALUES.find { |pattern, _| kase.name.match?(pattern) }.last.call(outcome.value)

      ["it returns #{outcome.value.inspect[0, 100]}"]
    end

    def count?(value) = (value in Integer) && value >= 0
  end
end
