use std::os::fd::BorrowedFd;

use io_splice_core::{
    Attempt, Call, Errno, Flags, Readiness, Side, SpliceEnds, Step, ready, refusal, splice_now,
};
use magnus::{Error, IntoValue, Ruby, Value};

use crate::end::{End, descriptors, keep_alive};
use crate::wait::Waiter;
use crate::without_gvl::attempt_without_gvl;
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

fn splice_in(manner: Manner, ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    let (transfer, [mut off_in, mut off_out]) = splice_of(manner, ruby, args)?;
    let kernel = transfer.flags.kernel;
    transfer.run(ruby, |[fd_in, fd_out], len, with_gvl| {
        let ends = match SpliceEnds::inspect(fd_in, fd_out) {
            Ok(ends) if with_gvl && !ends.never_block() => return None,
            Ok(ends) => ends,
            Err(errno) => return Some(Err(errno)),
        };
        Some(splice_now(&ends, fd_in, off_in.as_mut(), fd_out, off_out.as_mut(), len, kernel))
    })
}

fn splice_of(manner: Manner, ruby: &Ruby, args: &[Value]) -> Result<(Transfer, [Option<u64>; 2]), Error> {
    error::check_arity(ruby, args.len(), 5..=6)?;
    let off_in = number::offset(ruby, "off_in", args[1])?;
    let off_out = number::offset(ruby, "off_out", args[3])?;
    let transfer = Transfer {
        call: Call::Splice,
        input: End::new(ruby, args[0], Side::Input)?,
        output: End::new(ruby, args[2], Side::Output)?,
        len: number::length(ruby, "length", args[4])?,
        flags: number::flags(ruby, Call::Splice.name(), args.get(5).copied())?,
        manner,
    };
    Ok((transfer, [off_in, off_out]))
}

fn tee_in(manner: Manner, ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 3..=4)?;
    let transfer = Transfer {
        call: Call::Tee,
        input: End::new(ruby, args[0], Side::Input)?,
        output: End::new(ruby, args[1], Side::Output)?,
        len: number::length(ruby, "length", args[2])?,
        flags: number::flags(ruby, Call::Tee.name(), args.get(3).copied())?,
        manner,
    };
    let kernel = transfer.flags.kernel;
    transfer.run(ruby, |[fd_in, fd_out], len, _| Some(io_splice_core::tee(fd_in, fd_out, len, kernel)))
}

/// A call with its arguments understood.
struct Transfer {
    call: Call,
    input: End,
    output: End,
    len: usize,
    flags: Flags,
    manner: Manner,
}

/// An attempt, and what it takes system calls to know after it.
struct Outcome {
    attempt: Attempt,
    /// The ends that are ready, where it is to be waited for the others.
    ready: Option<Readiness>,
    /// The reason that an errno hides.
    why: Option<&'static str>,
}

impl Transfer {
    /// Makes attempts until one of them, or with `WAITALL` all of them together, moved enough. `attempt` is asked with the GVL,
    /// for `None` where it may have to wait, and without.
    fn run(
        &self,
        ruby: &Ruby,
        attempt: impl FnMut([BorrowedFd<'_>; 2], usize, bool) -> Option<Attempt>,
    ) -> Result<Value, Error> {
        let mut moved = 0;
        let result = self.run_on(ruby, attempt, &mut moved);
        keep_alive(&self.input);
        keep_alive(&self.output);
        result.map_err(|error| error::partial_write(ruby, error, moved))
    }

    fn run_on(
        &self,
        ruby: &Ruby,
        mut attempt: impl FnMut([BorrowedFd<'_>; 2], usize, bool) -> Option<Attempt>,
        moved: &mut usize,
    ) -> Result<Value, Error> {
        let mut waiter = Waiter::default();
        while *moved < self.len {
            let ends = descriptors(ruby, self.call.name(), &self.input, &self.output, !self.waits())?;
            let Some((fd_in, fd_out)) = ends else {
                if *moved > 0 {
                    break;
                }
                return self.would_block(ruby);
            };
            let len = self.len - *moved;
            let (outcome, interrupted) =
                self.attempt([fd_in, fd_out], |fds, with_gvl| attempt(fds, len, with_gvl));
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
                    if !self.flags.waitall {
                        break;
                    }
                    waiter.moved();
                    gvl::check_interrupts()?;
                }
                Ok(Step::Ended) if *moved > 0 => break,
                Ok(Step::Ended) => return self.ended(ruby),
                Ok(Step::WouldBlock) if !self.waits() && *moved > 0 => break,
                Ok(Step::WouldBlock) if !self.waits() => return self.would_block(ruby),
                Ok(Step::WouldBlock) => {
                    waiter.wait(ruby, self.call.name(), ready, self.input, self.output)?;
                }
                Err(Errno::INTR) => gvl::check_interrupts()?,
                Err(errno) => return Err(error::transfer(errno, self.call.name(), why, *moved)),
            }
        }
        Ok(moved.into_value_with(ruby))
    }

    /// Makes one attempt. Another thread could wait for the GVL as long as the kernel waits: for the disk, or for somebody
    /// who holds the lock of a pipe. Alone, it is only let go of where signals are to end that.
    fn attempt(
        &self,
        fds: [BorrowedFd<'_>; 2],
        mut attempt: impl FnMut([BorrowedFd<'_>; 2], bool) -> Option<Attempt>,
    ) -> (Option<Outcome>, Result<(), Error>) {
        let outcome = |attempt, [fd_in, fd_out]: [BorrowedFd<'_>; 2]| {
            let (mut ready_ends, mut why) = (None, None);
            match attempt {
                Ok(Step::WouldBlock) if self.waits() => ready_ends = ready(fd_in, fd_out).ok(),
                Err(errno) if errno != Errno::INTR => why = refusal(self.call, Some(fd_in), fd_out, errno),
                _ => {}
            }
            Outcome { attempt, ready: ready_ends, why }
        };
        if gvl::alone() {
            if let Some(attempt) = attempt(fds, true) {
                return (Some(outcome(attempt, fds)), Ok(()));
            }
        }
        let mut found = None;
        let interrupted = attempt_without_gvl(self.call.name(), &[self.input, self.output], &mut |fds| {
            let fds = [fds[0], fds[1]];
            found = attempt(fds, false).map(|attempt| outcome(attempt, fds));
        });
        (found, interrupted)
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

    fn would_block(&self, ruby: &Ruby) -> Result<Value, Error> {
        match self.manner {
            Manner::Raise => Err(error::errno(Errno::AGAIN, self.call.name(), None)),
            Manner::Try => Ok(ruby.get_inner(&EAGAIN).into_value_with(ruby)),
        }
    }
}
