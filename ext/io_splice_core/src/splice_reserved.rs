use std::os::fd::BorrowedFd;

use rustix::fs::tell;
use rustix::io::{Result, ioctl_fionread};
use rustix::param::page_size;
use rustix::pipe::SpliceFlags;

use crate::attempt::{Attempt, Step, attempt};
use crate::blocking::SpliceEnds;
use crate::copy::position::{Position, write_reserved};
use crate::copy::{Kernel, Linux};
use crate::ready::ready;
use crate::splice_now::{room, splice_now};

/// Where the calls stand in their input that together move some bytes of an open file, of which others may use the position.
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

    /// As [`splice_now()`], and where a file has no offset the region that is used is reserved first: the positions of open
    /// files are shared with others, and splice(2) moves them without their lock.
    pub fn splice(
        &mut self,
        ends: &SpliceEnds,
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        len: usize,
        flags: SpliceFlags,
    ) -> Attempt {
        let given = matches!(self.position, Position::Given(_));
        // What is not a pipe is refused by the call itself.
        match (ends.file_in, room(fd_out)) {
            (Some(size), Ok(room)) if !given => {
                self.splice_file(ends, fd_in, fd_out, [len, room], size, flags)
            }
            _ if ends.file_out && !given => {
                if !ready(fd_in, fd_in)?.input {
                    return Ok(Step::WouldBlock);
                }
                match (ioctl_fionread(fd_in)? as usize).min(len) {
                    0 => Ok(Step::Ended),
                    len => attempt(write_reserved(&mut Linux, fd_out, len, |kernel, off_out| {
                        kernel.splice(fd_in, None, fd_out, off_out, len)
                    })),
                }
            }
            _ => splice_now(ends, fd_in, self.position.offset(), fd_out, None, len, flags),
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
        // Where a page of the file begins, a slot of the pipe does. What does not fit could not always be given back.
        let fits = match room / page_size() {
            0 | 1 => page_size() - tell(fd_in)? as usize % page_size(),
            slots => (slots - 1) * page_size(),
        };
        let wanted = if self.all { len } else { len.min(fits) };
        match self.position.reserve(&mut Linux, fd_in, wanted as u64, size)? as usize {
            // Behind the end that the file claims to have.
            0 => {
                self.release(fd_in)?;
                splice_now(ends, fd_in, None, fd_out, None, len, flags)
            }
            reserved => {
                let len = len.min(reserved);
                let spliced = splice_now(ends, fd_in, self.position.offset(), fd_out, None, len, flags)?;
                if spliced == Step::Ended || !self.all && spliced != Step::WouldBlock {
                    self.release(fd_in)?;
                }
                Ok(spliced)
            }
        }
    }

    /// Whether something is reserved that has not been moved, so that a call which ends by an error has to release it.
    pub fn is_pending(&self) -> bool {
        self.position.reserved() > 0
    }

    /// Moves the position of the file back to behind what was moved.
    pub fn release(&mut self, fd_in: BorrowedFd<'_>) -> Result<()> {
        self.position.release(&mut Linux, fd_in, 0)
    }
}
