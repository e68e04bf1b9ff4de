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

  fault "foreign-bytes", "the pipe of a copy that failed is kept for the next one, with bytes in it",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "    fn drop(&mut self) {\n        self.rest();\n",
        replacement: <<-RUST,
    fn drop(&mut self) {
        self.rest();
        if let Held::Pipe(pipe, _) = std::mem::replace(&mut self.held, Held::Nothing) {
            pipe.give_back();
        }
        RUST
        check: "cargo test -p io_splice_core --test copy_pool"

  fault "left-behind", "a pipe is taken to be empty while a few bytes are in it",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "if let Held::Pipe(_, 0) = self.held {",
        replacement: "if matches!(self.held, Held::Pipe(_, bytes) if bytes < 100) {",
        check: "ruby -Ilib reliability/soak.rb 20 --seed 1"

  fault "leaked-pipe", "the pipe of an interrupted copy is not closed",
        file: "ext/io_splice_core/src/copy/mod.rs",
        text: "(held, failed) {\n            self.idle = Some(pipe);",
        replacement: "(held, failed) {\n            std::mem::forget(pipe);",
        check: "ruby -Ilib reliability/memory.rb 20000 --only killed"
end
