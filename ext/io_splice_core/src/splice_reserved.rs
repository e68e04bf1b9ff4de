use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::io::{Result, ioctl_fionread};
use rustix::pipe::SpliceFlags;

use crate::attempt::{Attempt, Step, attempt};
use crate::blocking::SpliceEnds;
use crate::copy::position::{Position, write_reserved};
use crate::copy::{Kernel, Linux};
use crate::ready::events;
use crate::splice_now::{room, splice_now};

/// Where several calls together stand in their input, of which others may use the position too.
#[derive(Debug)]
pub struct Reserved {
    position: Position,
    /// Whether all of the length is going to be moved, and not what can be moved in one go.
    all: bool,
}

impl Reserved {
    /// Nothing is reserved yet.
    pub fn new(offset: Option<u64>, all: bool) -> Self {
        Self { position: offset.map_or(Position::Kernel, Position::Given), all }
    }

    /// As [`splice_now()`]. Where a file has no offset, the region that is used is reserved first: the position of an open file
    /// is shared, and splice(2) moves it without its lock.
    pub fn splice(
        &mut self,
        ends: &SpliceEnds,
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        len: usize,
        flags: SpliceFlags,
    ) -> Attempt {
        if matches!(self.position, Position::Given(_)) {
            return splice_now(ends, fd_in, self.position.offset(), fd_out, None, len, flags);
        }
        // What is not a pipe is refused by the call itself.
        match (ends.file_in, room(fd_out)) {
            (Some(size), Ok(room)) => self.splice_file(ends, fd_in, fd_out, [len, room], size, flags),
            _ if ends.pipe_to_file => splice_to_file(fd_in, fd_out, len),
            _ => splice_now(ends, fd_in, None, fd_out, None, len, flags),
        }
    }

    fn splice_file(
        &mut self,
        ends: &SpliceEnds,
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        [len, room]: [usize; 2],
        size: u64,
        flags: SpliceFlags,
    ) -> Attempt {
        let wanted = if self.all { len } else { len.min(room) };
        match self.position.reserve(&mut Linux, fd_in, wanted as u64, size)? as usize {
            // Behind the end that the file claims to have.
            0 => {
                self.release(fd_in)?;
                splice_now(ends, fd_in, None, fd_out, None, len, flags)
            }
            reserved => {
                let len = len.min(reserved);
                let spliced = splice_now(ends, fd_in, self.position.offset(), fd_out, None, len, flags)?;
                match spliced {
                    Step::Ended => self.release(fd_in)?,
                    Step::Moved(_) if !self.all => self.position.try_release(&mut Linux, fd_in)?,
                    Step::Moved(_) | Step::WouldBlock => {}
                }
                Ok(spliced)
            }
        }
    }

    /// Whether something is reserved that has not been moved: the next call goes on there, or it has to be released.
    pub fn is_pending(&self) -> bool {
        self.position.reserved() > 0
    }

    /// Moves the position of the file back to behind what was moved, unless somebody else has moved on from there.
    pub fn release(&mut self, fd_in: BorrowedFd<'_>) -> Result<()> {
        self.position.release(&mut Linux, fd_in, 0)
    }
}

/// From a pipe, as much as is in it.
fn splice_to_file(pipe: BorrowedFd<'_>, file: BorrowedFd<'_>, len: usize) -> Attempt {
    let available = || ioctl_fionread(pipe).map(|bytes| len.min(bytes as usize));
    let len = match available()? {
        0 if !events(pipe, PollFlags::IN)?.contains(PollFlags::HUP) => return Ok(Step::WouldBlock),
        // Something may have come before the last writer went.
        0 => available()?,
        len => len,
    };
    if len == 0 {
        return Ok(Step::Ended);
    }
    attempt(write_reserved(&mut Linux, file, len, |kernel, offset, len| {
        kernel.splice(pipe, None, file, offset, len)
    }))
}
