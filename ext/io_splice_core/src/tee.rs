use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::{Attempt, MAX_RW_COUNT, Step, ready};

/// `tee(fd_in, fd_out, len, flags)`—Duplicates what is in one pipe into another and consumes none
/// of it, as far as it can be done at once.
///
/// `len` must not be 0. Nothing here can block: what is no pipe is refused at once.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/tee.2.html
pub fn tee(fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>, len: usize, flags: SpliceFlags) -> Attempt {
    debug_assert_ne!(len, 0, "0 would read as the end of the input");
    let flags = flags | SpliceFlags::NONBLOCK;
    match rustix::pipe::tee(fd_in, fd_out, len.min(MAX_RW_COUNT), flags) {
        // The kernel looks at the two pipes one after the other and then at both. When somebody
        // filled the output or emptied the input in between, it answers 0 all the same.
        Ok(0) if !ended(fd_in)? => Ok(Step::WouldBlock),
        Ok(0) => Ok(Step::Ended),
        Ok(duplicated) => Ok(Step::Moved(duplicated)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) => Err(errno),
    }
}

/// Whether a pipe is empty and has no writers.
fn ended(pipe: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let events = ready::events(pipe, PollFlags::IN)?;
    Ok(events.contains(PollFlags::HUP) && !events.contains(PollFlags::IN))
}
