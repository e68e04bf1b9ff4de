use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::pipe::SpliceFlags;

use crate::attempt::{Attempt, MAX_RW_COUNT, Step};

/// `splice(fd_in, off_in, fd_out, off_out, len, flags)`—Moves bytes between a pipe and something
/// else, or between two pipes, as far as it can be done at once.
///
/// An offset that is given is moved on by what was transferred; the file's own position then stays.
/// `len` must not be 0. It is clamped to what Linux takes in one call.
///
/// `SPLICE_F_NONBLOCK` is always set. That rules out waiting on a pipe; see [`crate::may_block()`] for
/// what it does not rule out.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/splice.2.html
pub fn splice(
    fd_in: BorrowedFd<'_>,
    off_in: Option<&mut u64>,
    fd_out: BorrowedFd<'_>,
    off_out: Option<&mut u64>,
    len: usize,
    flags: SpliceFlags,
) -> Attempt {
    debug_assert_ne!(len, 0, "0 would read as the end of the input");
    let flags = flags | SpliceFlags::NONBLOCK;
    match rustix::pipe::splice(fd_in, off_in, fd_out, off_out, len.min(MAX_RW_COUNT), flags) {
        Ok(0) => Ok(Step::Ended),
        Ok(moved) => Ok(Step::Moved(moved)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) => Err(errno),
    }
}
