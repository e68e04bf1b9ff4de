# frozen_string_literal: true

require_relative "fault"

# The texts are short, so that they live long.
module Planted
  FAULTS = [] # rubocop:disable Style/MutableConstant -- it is filled below
  COPY = "ext/io_splice_core/src/copy"

  module_function

  def fault(name, breaks, **rest) = FAULTS << Fault.new(name:, breaks:, **rest)

  # Checks: some tests of the core, those that need a process each, and some of a Ruby test file.
  def core(tests) = "cargo test -p io_splice_core --test core #{tests}"
  def process(tests) = "cargo test -p io_splice_core --test process #{tests}"
  def ruby(file, tests) = "ruby -Ilib -Itest test/#{file}_test.rb -n /#{tests}/"

  # The pump

  fault "counted-early", "bytes in flight count as delivered",
        file: "#{COPY}/pump.rs",
        text: "fn delivered(&self) -> u64 {\n        self.delivered",
        replacement: "fn delivered(&self) -> u64 {\n        self.delivered + self.in_flight.len() as u64",
        check: core("copy_faults::given_up_anywhere")

  fault "taken-in-flight", "the next bytes are taken while some are in flight",
        file: "#{COPY}/pump.rs",
        text: "if !self.in_flight.is_empty() {",
        replacement: "if self.in_flight.len() > 100 {",
        check: core("copy_faults::any_answer")

  fault "offset-twice", "an offset moves by twice as much as was read",
        file: "#{COPY}/kernel.rs",
        text: "*offset += read as u64;",
        replacement: "*offset += 2 * read as u64;",
        check: core("by_reading::")

  fault "wrong-remaining", "a byte less than was asked for is taken",
        file: "#{COPY}/pump.rs",
        text: "remaining - bytes as u64",
        replacement: "remaining.saturating_sub(bytes as u64 + 1)",
        check: core("copy_faults::len_says")

  fault "route-in-flight", "another route is taken, and what was in flight is forgotten",
        file: "#{COPY}/pump.rs",
        text: "refused(errno) => {\n                self.in_flight.take_into_memory(&mut self.kernel)?;",
        replacement: "refused(errno) => {\n                self.in_flight.discard();",
        check: core("copy_faults::every_way_is_refused")

  fault "signal-fails", "a signal is taken for an error",
        file: "#{COPY}/pump.rs",
        text: "Err(Errno::INTR) => Advance::Interrupted,",
        replacement: "Err(Errno::INTR) => Advance::Failed(Errno::INTR),",
        check: core("copy_faults::any_answer")

  fault "empty-ends", "an input that has nothing yet is taken for one that has ended",
        file: "#{COPY}/pump.rs",
        text: "Err(Errno::AGAIN) => Ok(Advance::Blocked(Side::Input)),",
        replacement: "Err(Errno::AGAIN) => Ok(Advance::Done),",
        check: core("copy_faults::any_answer")

  fault "foreign-bytes", "the pipe of an aborted copy is kept for the next one, with bytes in it",
        file: "#{COPY}/pump.rs",
        text: "self.in_flight.discard();",
        replacement: "self.in_flight.remove(rest as usize);",
        check: core("abort::a_pipe_with_bytes")

  fault "sought-too-little", "an aborted copy leaves the input a byte too far",
        file: "#{COPY}/kernel.rs",
        text: "Current(-by)",
        replacement: "Current(1 - by)",
        check: core("abort::a_pipe_with_bytes")

  # What is in flight

  fault "lost-byte", "after a short write the next byte is passed over",
        file: "#{COPY}/in_flight.rs",
        text: "buffer.part.start += bytes,",
        replacement: "buffer.part.start += bytes + usize::from(bytes < buffer.part.len()),",
        check: core("copy_faults::any_answer")

  fault "left-behind", "what was offered counts as taken, and the pipe as empty",
        file: "#{COPY}/in_flight.rs",
        text: "self.remove(drained);",
        replacement: "self.remove(len.min(self.len()).max(drained));",
        check: "ruby -Ilib reliability/soak.rb 20 --seed 1"

  fault "hole", "what a signal has cut short stays a hole, though others have moved on",
        file: "#{COPY}/position.rs",
        text: "if given_back || ",
        replacement: "if given_back || offset > start || ",
        check: core("shared_output::")

  fault "blind-back", "a position goes back, though others have moved on",
        file: "#{COPY}/position.rs",
        text: "if kernel.reserve(fd, 0)? != end {",
        replacement: "if kernel.reserve(fd, 0)? == 0 {",
        check: core("shared_output::")

  fault "short-tee", "an output to which tee gave a part is taken to have all",
        file: "#{COPY}/in_flight.rs",
        text: " == Ok(*bytes);",
        replacement: ".is_ok();",
        check: process("short_tee::")

  fault "rest-dropped", "of what a pipe holds only a page is read into memory",
        file: "#{COPY}/in_flight.rs",
        text: "zeroed(*bytes)?",
        replacement: "zeroed((*bytes).min(4096))?",
        check: core("copy_faults::given_up_anywhere")

  fault "given-twice", "what was delivered already is given back, too",
        file: "#{COPY}/in_flight.rs",
        text: "memory.drain(..part.start);",
        replacement: "",
        check: core("abort::of_bytes_in_memory")

  # Waiting

  fault "no-rest", "what stalls never rests",
        file: "#{COPY}/host.rs",
        text: "(stalls > 1).then(",
        replacement: "(stalls > 1_000_000).then(",
        check: core("copy_faults::ends_that_claim")

  fault "no-timeout", "no wait takes too long",
        file: "#{COPY}/host.rs",
        text: "filter(|at| *at <= now).and(self.side)",
        replacement: "filter(|at| *at < now && false).and(self.side)",
        check: core("copy_faults::a_stall_is_under")

  fault "stalls-forgotten", "what is blocked begins to count its stalls anew",
        file: "#{COPY}/host.rs",
        text: "self.side = Some(side);",
        replacement: "(self.side, self.stalls) = (Some(side), 0);",
        check: core("copy_faults::ends_that_claim")

  # The relay

  fault "early-end", "the end is passed on before the last byte",
        file: "#{COPY}/relay.rs",
        text: "if way.state == State::Ended && way.wait.side().is_none() {",
        replacement: "if way.state == State::Ended || way.wait.side() == Some(Side::Output) {",
        check: core("relay::the_end_is_passed_on_only")

  fault "idle-clock", "a byte does not begin the idle time anew",
        file: "#{COPY}/relay.rs",
        text: "self.moved = true;",
        replacement: "",
        check: core("relay::a_byte_in_one_direction")

  fault "starved", "one direction never gives the other its turn",
        file: "#{COPY}/relay.rs",
        text: "way.pump.delivered() - start < TURN",
        replacement: "way.pump.delivered() >= start",
        check: core("relay::a_direction_that_never")

  fault "kept-pipe", "a relay that waits keeps its pipes",
        file: "#{COPY}/relay.rs",
        text: "for way in &mut self.ways {",
        replacement: "for way in self.ways.iter_mut().skip(2) {",
        check: ruby("relay_many", "idle_relays_have_no_pipes")

  # The tee_stream

  fault "stopped-early", "an output that fails keeps the others from catching up",
        file: "#{COPY}/tee_stream.rs",
        text: "target.state != State::Serving);",
        replacement: "target.state != State::Serving) || self.failed.is_some();",
        check: core("tee_stream::a_slow_one_catches_up")

  fault "ahead-lost", "what was read ahead of a tee_stream is lost",
        file: "#{COPY}/tee_stream.rs",
        text: "self.source.prepend(bytes);",
        replacement: "drop(bytes);",
        check: core("tee_stream::what_was_read_ahead")

  # The routes

  fault "follows-itself", "a file that is copied to its own end is copied for ever",
        file: "#{COPY}/pump.rs",
        text: "limit - self.taken",
        replacement: "limit.max(self.taken + 1)",
        check: core("copy_faults::a_file_copied_onto_itself")

  # Descriptors

  fault "left-open", "a descriptor of the gem's own is not closed",
        file: "ext/io_splice_core/src/private_fd.rs",
        text: "close(self.number)",
        replacement: "Ok(())",
        check: process("private_fd::it_is_closed_on_drop")

  fault "child-keeps", "a forked child keeps the descriptors of the gem",
        file: "ext/io_splice_core/src/private_fd.rs",
        text: "unsafe { try_close(number) }",
        replacement: "if generation() == 0 { unsafe { try_close(number) } } else { Ok(()) }",
        check: process("private_fd::close_after_fork")

  fault "child-shares", "a forked child takes an idle pipe of its parent's",
        file: "ext/io_splice_core/src/pool.rs",
        text: "if pipe.is_of_this_process() {",
        replacement: "if pipe.capacity() > 0 {",
        check: process("idle_pipe::")

  fault "hoard", "one pipe too many is kept",
        file: "ext/io_splice_core/src/pool.rs",
        text: "idle.len() == MAX_IDLE",
        replacement: "idle.len() == MAX_IDLE + 1",
        check: process("pool::at_most")

  fault "taken-for-a-file", "what Ruby takes for a file is not asked whether it is one",
        file: "ext/io_splice_core/src/blocking.rs",
        text: "likely == Likely::File && has_position(fd)",
        replacement: "likely == Likely::File",
        check: core("blocking::it_is_no_matter")

  fault "half-asked", "of an input nothing is asked when the output was asked first",
        file: "ext/io_splice_core/src/blocking.rs",
        text: "if output.is_pipe { Some(inspect_input()?) } else { None }",
        replacement: "None",
        check: core("blocking::it_is_no_matter")

  # Ruby

  fault "deaf", "a copy that was stopped for an interrupt does not look for it",
        file: "ext/io_splice/src/gvl.rs",
        text: "rb_sys::rb_thread_check_ints();",
        replacement: "",
        check: ruby("interrupts", "held_off_until_the_thread_blocks")

  fault "overtaken", "what Ruby has read ahead is not taken",
        file: "ext/io_splice/src/copy.rs",
        text: "copy.prepend(bytes);",
        replacement: "drop(bytes);",
        check: ruby("copy_stream", "a_file_read_ahead")

  fault "uncounted", "an error does not say how much was written",
        file: "ext/io_splice/src/error.rs",
        text: 'mark(ruby, error, Some(&PARTIAL_WRITE), "@bytes_written", moved)',
        replacement: "error",
        check: ruby("partial_write", "the_rest_can_be_put_in_later")

  fault "not-kept", "a string that changes while vmsplice waits is not kept as it was",
        file: "ext/io_splice/src/payload.rs",
        text: "if self.is_snapshot {",
        replacement: "if self.is_snapshot || self.written == 0 {",
        check: ruby("vmsplice_memory", "strings_that_are_.*_while_the_call_waits")

  fault "parked-lost", "what a fiber leaves to the garbage collector is dropped at once",
        file: "ext/io_splice/src/park.rs",
        text: "*place() = Some(Box::new(std::mem::take(work)));",
        replacement: "drop(std::mem::take(work));",
        check: ruby("copy_interrupts", "other_fibers_run")

  fault "never-parked", "an abandoned fiber keeps the descriptors of its copy",
        file: "ext/io_splice/src/park.rs",
        text: "let mut parked = None;",
        replacement: "if std::process::id() > 0 { return run() }\n    let mut parked = None;",
        check: ruby("scheduler", "abandoned")

  # The background

  fault "not-given-back", "what a cancelled transfer could not deliver does not go back",
        file: "ext/io_splice_core/src/background/transfer.rs",
        text: ".filter(|_| self.keep)",
        replacement: ".filter(|_| !self.keep)",
        check: ruby("background", "what_was_not_delivered")

  fault "never-over", "after a drain the descriptors of the background stay open",
        file: "ext/io_splice_core/src/background/mod.rs",
        text: "if reports.running == 0 {",
        replacement: "if reports.running == usize::MAX {",
        check: ruby("background", "no_descriptor_and_no_thread")

  fault "locks-lost", "a file that is lent loses its locks",
        file: "ext/io_splice/src/background.rs",
        text: "let lent = self.keep",
        replacement: "let lent = !self.keep",
        check: ruby("background", "keeps_its_locks")

  fault "unwatched", "an end that epoll refuses to watch is waited for",
        file: "ext/io_splice_core/src/background/event_loop.rs",
        text: "return self.end(slot, Outcome::Failed(errno));",
        replacement: "let _ = errno;",
        check: "ruby -Ilib reliability/inject.rb --background 'copy_stream of a socket' --only epoll_ctl"

  fault "dropped", "what a cancelled transfer gives back is dropped",
        file: "lib/io/splice/background/transfer.rb",
        text: "Copying.put_back(input, bytes) unless bytes.empty?",
        replacement: "[input, bytes]",
        check: "ruby -Ilib reliability/soak.rb 20 --seed 1"

  fault "close-unheard", "what close(2) says of a file that was written is ignored",
        file: "lib/io/splice/copying.rb",
        text: "file.finish",
        replacement: "file.close",
        check: ruby("fuse", "only_at_the_close")

  # The attacks themselves

  fault "leaked-pipe", "an interrupted copy leaves a pipe open",
        file: "#{COPY}/in_flight.rs",
        text: "let Buffer { mut memory, part } = *buffer;",
        replacement: "let Buffer { mut memory, part } = *buffer;\n        std::mem::forget(self.pipe.take());",
        check: "ruby -Ilib reliability/memory.rb 20000 --only middle"

  fault "wrong-error", "a call says another error than the kernel",
        file: "ext/io_splice/src/error.rs",
        text: "rb_syserr_new(errno.raw_os_error(),",
        replacement: "rb_syserr_new(errno.raw_os_error().max(32),",
        check: "ruby -Ilib reliability/inject.rb --case 'copy_stream file to pipe' --only splice"
end
