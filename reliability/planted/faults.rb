# frozen_string_literal: true

require_relative "fault"

module Planted
  FAULTS = [] # rubocop:disable Style/MutableConstant -- it is filled below

  def self.fault(name, breaks, **rest) = FAULTS << Fault.new(name:, breaks:, **rest)

  fault "lost-byte", "after a short write the next byte is passed over",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "Held::Memory(_, held) => held.start += bytes,",
        replacement: "Held::Memory(_, held) => held.start += bytes + usize::from(bytes < held.len()),",
        check: "cargo test -p io_splice_core --test copy_faults"

  fault "foreign-bytes", "a pipe with bytes in it is kept for the next copy",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "        self.held = Held::Nothing;\n        Vec::new()\n",
        replacement: <<-RUST,
        if let Held::Pipe(pipe, _) = std::mem::replace(&mut self.held, Held::Nothing) {
            self.idle = Some(pipe);
        }
        Vec::new()
        RUST
        check: "ruby -Ilib reliability/soak.rb 20 --seed 1"

  fault "leaked-pipe", "the pipe of an interrupted copy is not closed",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "(held, failed) {\n            self.idle = Some(pipe);",
        replacement: "(held, failed) {\n            std::mem::forget(pipe);",
        check: "ruby -Ilib reliability/memory.rb 20000 --only killed"
end
