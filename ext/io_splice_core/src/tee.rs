use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::attempt::{Attempt, MAX_RW_COUNT, Step};
use crate::ready;

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
    for _ in 0..TRIES {
        match rustix::pipe::tee(fd_in, fd_out, len.min(MAX_RW_COUNT), flags) {
            Ok(0) => {}
            Ok(duplicated) => return Ok(Step::Moved(duplicated)),
            Err(Errno::AGAIN) => return Ok(Step::WouldBlock),
            Err(errno) => return Err(errno),
        }
        // The kernel looks at the two pipes one after the other and then at both. When somebody filled
        // the output or emptied the input in between, it answers 0 as well.
        let events = ready::events(fd_in, PollFlags::IN)?;
        if events.contains(PollFlags::IN) {
            return Ok(Step::WouldBlock);
        }
        if events.contains(PollFlags::HUP) {
            return Ok(Step::Ended);
        }
        if is_anonymous(fd_in)? {
            return Ok(Step::WouldBlock);
        }
    }
    Ok(Step::Ended)
}

/// A FIFO that had no writer since it was opened says nothing to poll(2), just as an empty one that has
/// writers. But with writers the next try is `EAGAIN`, unless somebody interferes again in the same way.
const TRIES: u32 = 64;

/// Whether this came from pipe(2), so that it had a writer once.
fn is_anonymous(pipe: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    const PIPEFS_MAGIC: u64 = 0x5049_5045;
    Ok(fstatfs(pipe)?.f_type as u64 == PIPEFS_MAGIC)
}
