use std::os::fd::{AsFd, BorrowedFd};

use io_splice_core::{
    Attempt, Call, Errno, Flags, MayBlock, Nonblocking, PrivateFd, Side, Step, both_may_block, pipe_size,
    ready, refusal,
};
use magnus::{Error, IntoValue, Ruby, Value};

use crate::end::{End, descriptors, keep_alive};
use crate::wait::Waiter;
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
    let kernel = transfer.flags.kernel;
    let mut offsets = (off_in, off_out);
    transfer.run(ruby, |fd_in, fd_out, len| {
        let (off_in, off_out) = (&mut offsets.0, &mut offsets.1);
        attempt(fd_in, fd_out, |fd_in, fd_out| {
            io_splice_core::splice(fd_in, off_in.as_mut(), fd_out, off_out.as_mut(), len, kernel)
        })
    })
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
    transfer.run(ruby, |fd_in, fd_out, len| io_splice_core::tee(fd_in, fd_out, len, kernel))
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

impl Transfer {
    /// Makes attempts until one of them, or with `WAITALL` all of them together, moved enough.
    fn run(
        &self,
        ruby: &Ruby,
        attempt: impl FnMut(BorrowedFd<'_>, BorrowedFd<'_>, usize) -> Attempt,
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
        mut attempt: impl FnMut(BorrowedFd<'_>, BorrowedFd<'_>, usize) -> Attempt,
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
            match attempt(fd_in, fd_out, self.len - *moved) {
                Ok(Step::Moved(bytes)) => {
                    *moved += bytes;
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
                    waiter.wait(ruby, self.call.name(), self.input, self.output)?;
                }
                Err(Errno::INTR) => gvl::check_interrupts()?,
                Err(errno) => {
                    let why = refusal(self.call, Some(fd_in), fd_out, errno);
                    return Err(error::transfer(errno, self.call.name(), why, *moved));
                }
            }
        }
        Ok(moved.into_value_with(ruby))
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

/// Makes one attempt in the way that the two descriptors ask for. The GVL is kept where nothing can
/// hold the kernel up, as then giving it up would only cost time.
fn attempt(
    fd_in: BorrowedFd<'_>,
    fd_out: BorrowedFd<'_>,
    call: impl FnOnce(BorrowedFd<'_>, BorrowedFd<'_>) -> Attempt,
) -> Attempt {
    let may_block = both_may_block(fd_in, fd_out)?;
    if may_block == [MayBlock::Never; 2] {
        return call(fd_in, fd_out);
    }
    if may_block.iter().any(|end| matches!(end, MayBlock::Peer | MayBlock::Unknown))
        && !ready(fd_in, fd_out)?.both()
    {
        // What would be refused when it is ready is refused now.
        let refused = pipe_size(fd_in).is_err() && pipe_size(fd_out).is_err();
        return if refused { Err(Errno::INVAL) } else { Ok(Step::WouldBlock) };
    }
    if may_block.contains(&MayBlock::Peer) {
        // Still under the GVL: no other thread of ours meets the socket in the changed mode.
        let nonblocking = |fd, end| (end == MayBlock::Peer).then(|| Nonblocking::new(fd)).transpose();
        let _modes = (nonblocking(fd_in, may_block[0])?, nonblocking(fd_out, may_block[1])?);
        return call(fd_in, fd_out);
    }
    // A pending interrupt is what EINTR says, too.
    if gvl::alone() {
        return gvl::without(|| call(fd_in, fd_out)).unwrap_or(Err(Errno::INTR));
    }
    let (own_in, own_out) = (PrivateFd::duplicate(fd_in)?, PrivateFd::duplicate(fd_out)?);
    gvl::without(|| call(own_in.as_fd(), own_out.as_fd())).unwrap_or(Err(Errno::INTR))
}
