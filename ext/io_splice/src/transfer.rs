use std::os::fd::BorrowedFd;

use io_splice_core::{
    Attempt, Call, Errno, Flags, Likely, Readiness, Reserved, Side, SpliceEnds, Step, ready, refusal,
    splice_now,
};
use magnus::{Error, IntoValue, Ruby, Value};

use crate::end::{End, descriptors, keep_alive};
use crate::wait::Waiter;
use crate::without_gvl::{attempt_without_gvl, cleanup_without_gvl};
use crate::{EAGAIN, error, gvl, number};

/// What a call says when it moved nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// `EOFError`, and waiting or `Errno::EAGAIN`.
    Raise,
    /// `nil` and `:EAGAIN`.
    Try,
}

/// `splice(io_in, off_in, io_out, off_out, len, flags = 0)`
pub fn splice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    splice_in(Manner::Raise, ruby, args)
}

/// `trysplice(io_in, off_in, io_out, off_out, len, flags = 0)`
pub fn trysplice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    splice_in(Manner::Try, ruby, args)
}

/// `tee(io_in, io_out, len, flags = 0)`
pub fn tee(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    tee_in(Manner::Raise, ruby, args)
}

/// `trytee(io_in, io_out, len, flags = 0)`
pub fn trytee(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    tee_in(Manner::Try, ruby, args)
}

/// `splice_reserved(io_in, off_in, io_out, off_out, len, flags = 0)`: as `splice`, and everybody's bytes are kept who uses the
/// position of the same file.
pub fn splice_reserved(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    splice_by(Manner::Raise, ruby, args, |[off_in, _], flags| {
        Moves::Reserved(Reserved::new(off_in, flags.waitall))
    })
}

fn splice_in(manner: Manner, ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    splice_by(manner, ruby, args, |[off_in, off_out], _| Moves::Splice { off_in, off_out })
}

// What each call goes through is inlined, here and below: a fifth of its instructions less, and an eighth of the time of
// a `trysplice` (bench/call.rb).
#[inline(always)]
fn splice_by(
    manner: Manner,
    ruby: &Ruby,
    args: &[Value],
    moves: impl FnOnce([Option<u64>; 2], Flags) -> Moves,
) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 5..=6)?;
    let offsets = [number::offset(ruby, "off_in", args[1])?, number::offset(ruby, "off_out", args[3])?];
    let (input, output) = (End::new(ruby, args[0], Side::Input)?, End::new(ruby, args[2], Side::Output)?);
    let len = number::length(ruby, "length", args[4])?;
    let flags = number::flags(ruby, Call::Splice.name(), args.get(5).copied())?;
    Transfer { moves: moves(offsets, flags), input, output, len, flags, manner }.run(ruby)
}

fn tee_in(manner: Manner, ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 3..=4)?;
    Transfer {
        moves: Moves::Tee,
        input: End::new(ruby, args[0], Side::Input)?,
        output: End::new(ruby, args[1], Side::Output)?,
        len: number::length(ruby, "length", args[2])?,
        flags: number::flags(ruby, Call::Tee.name(), args.get(3).copied())?,
        manner,
    }
    .run(ruby)
}

/// What moves the bytes, and where it stands.
enum Moves {
    Splice { off_in: Option<u64>, off_out: Option<u64> },
    Reserved(Reserved),
    Tee,
}

impl Moves {
    fn call(&self) -> Call {
        match self {
            Self::Splice { .. } | Self::Reserved(_) => Call::Splice,
            Self::Tee => Call::Tee,
        }
    }

    /// Looks at what the ends are, as far as that matters.
    fn inspect(
        &self,
        [fd_in, fd_out]: [BorrowedFd<'_>; 2],
        likely: [Likely; 2],
    ) -> io_splice_core::Result<Option<SpliceEnds>> {
        match self {
            Self::Splice { .. } => SpliceEnds::inspect(fd_in, fd_out, likely).map(Some),
            Self::Reserved(_) => SpliceEnds::inspect_to_reserve(fd_in, fd_out, likely).map(Some),
            Self::Tee => Ok(None),
        }
    }

    /// Makes one attempt.
    fn attempt(
        &mut self,
        ends: Option<SpliceEnds>,
        [fd_in, fd_out]: [BorrowedFd<'_>; 2],
        len: usize,
        flags: Flags,
    ) -> Attempt {
        match (self, ends) {
            (Self::Splice { off_in, off_out }, Some(ends)) => {
                splice_now(&ends, fd_in, off_in.as_mut(), fd_out, off_out.as_mut(), len, flags.kernel)
            }
            (Self::Reserved(reserved), Some(ends)) => {
                reserved.splice(&ends, fd_in, fd_out, len, flags.kernel)
            }
            _ => io_splice_core::tee(fd_in, fd_out, len, flags.kernel),
        }
    }

    /// Whether a part of a file is reserved that has not been moved.
    fn is_pending(&self) -> bool {
        matches!(self, Self::Reserved(reserved) if reserved.is_pending())
    }

    /// After an error: what is reserved is others' again. Another interrupt is the error then.
    fn release(&mut self, input: End) -> Result<(), Error> {
        match self {
            Self::Reserved(reserved) if reserved.is_pending() => {
                cleanup_without_gvl(&[Some(input)], &mut |fds| {
                    // A file that is closed by now has no position.
                    let _ = fds[0].map(|fd_in| reserved.release(fd_in));
                })
            }
            _ => Ok(()),
        }
    }
}

/// A call with its arguments understood.
struct Transfer {
    moves: Moves,
    input: End,
    output: End,
    len: usize,
    flags: Flags,
    manner: Manner,
}

/// An attempt, and what it takes system calls to know after it.
struct Outcome {
    attempt: Attempt,
    /// The ends that are ready, where the others are to be waited for or named.
    ready: Option<Readiness>,
    /// The reason that an errno hides.
    why: Option<&'static str>,
}

impl Transfer {
    /// Makes attempts until one of them, or with `WAITALL` all of them together, moved enough.
    fn run(mut self, ruby: &Ruby) -> Result<Value, Error> {
        let mut moved = 0;
        let result = self.run_on(ruby, &mut moved);
        let result = self.moves.release(self.input).and(result);
        keep_alive(&self.input);
        keep_alive(&self.output);
        result.map_err(|error| error::partial_write(ruby, error, moved as u64))
    }

    fn run_on(&mut self, ruby: &Ruby, moved: &mut usize) -> Result<Value, Error> {
        let (input, output) = (self.input, self.output);
        let mut waiter = Waiter::default();
        while *moved < self.len {
            let ends = descriptors(ruby, self.moves.call().name(), &input, &output, !self.waits())?;
            let Some((fd_in, fd_out)) = ends else {
                if *moved > 0 {
                    break;
                }
                return self.would_block(ruby, Side::Output);
            };
            let (outcome, interrupted) = self.attempt(ruby, [fd_in, fd_out], self.len - *moved);
            let Some(Outcome { attempt, ready, why }) = outcome else {
                interrupted?;
                continue;
            };
            if let Ok(Step::Moved(bytes)) = attempt {
                *moved += bytes;
            }
            interrupted?;
            match attempt {
                Ok(Step::Moved(_)) => {
                    if !self.flags.waitall && !self.moves.is_pending() {
                        break;
                    }
                    waiter.moved();
                    gvl::check_interrupts()?;
                }
                Ok(Step::Ended) if *moved > 0 => break,
                Ok(Step::Ended) => return self.ended(ruby),
                Ok(Step::WouldBlock) if !self.waits() && *moved > 0 => break,
                Ok(Step::WouldBlock) if !self.waits() => {
                    let side =
                        if ready.is_some_and(|ready| ready.input) { Side::Output } else { Side::Input };
                    return self.would_block(ruby, side);
                }
                Ok(Step::WouldBlock) => {
                    waiter.wait(ruby, self.moves.call().name(), ready, input, output)?;
                }
                Err(Errno::INTR) => gvl::check_interrupts()?,
                Err(errno) => return Err(error::transfer(errno, self.moves.call().name(), why, *moved)),
            }
        }
        Ok(moved.into_value_with(ruby))
    }

    /// Makes one attempt. Another thread could wait for the GVL as long as the kernel waits: for the disk, or for somebody
    /// who holds the lock of a pipe. Alone, it is only let go of where signals are to end a wait for a peer.
    fn attempt(
        &mut self,
        ruby: &Ruby,
        fds: [BorrowedFd<'_>; 2],
        len: usize,
    ) -> (Option<Outcome>, Result<(), Error>) {
        let ends = [self.input, self.output];
        let likely = ends.map(|end| end.likely(ruby));
        if gvl::alone() {
            let looked = self.moves.inspect(fds, likely);
            if !matches!(looked, Ok(Some(ends)) if !ends.wait_for_no_peer()) {
                return (Some(self.attempt_now(looked, fds, len)), Ok(()));
            }
        }
        let mut found = None;
        let interrupted = attempt_without_gvl(self.moves.call().name(), &ends, &mut |fds| {
            let fds = [fds[0], fds[1]];
            found = Some(self.attempt_now(self.moves.inspect(fds, likely), fds, len));
        });
        (found, interrupted)
    }

    #[inline(always)]
    fn attempt_now(
        &mut self,
        ends: io_splice_core::Result<Option<SpliceEnds>>,
        fds: [BorrowedFd<'_>; 2],
        len: usize,
    ) -> Outcome {
        let attempt = ends.and_then(|ends| self.moves.attempt(ends, fds, len, self.flags));
        let (mut ready_ends, mut why) = (None, None);
        match attempt {
            Ok(Step::WouldBlock) if self.manner == Manner::Raise => ready_ends = ready(fds[0], fds[1]).ok(),
            Err(errno) if errno != Errno::INTR => {
                why = refusal(self.moves.call(), Some(fds[0]), fds[1], errno);
            }
            _ => {}
        }
        Outcome { attempt, ready: ready_ends, why }
    }

    fn waits(&self) -> bool {
        self.manner == Manner::Raise && !self.flags.nonblock
    }

    fn ended(&self, ruby: &Ruby) -> Result<Value, Error> {
        match self.manner {
            Manner::Raise => Err(error::end_of_file(ruby)),
            Manner::Try => Ok(().into_value_with(ruby)),
        }
    }

    fn would_block(&self, ruby: &Ruby, side: Side) -> Result<Value, Error> {
        match self.manner {
            Manner::Raise => Err(error::would_block(self.moves.call().name(), side)),
            Manner::Try => Ok(ruby.get_inner(&EAGAIN).into_value_with(ruby)),
        }
    }
}
