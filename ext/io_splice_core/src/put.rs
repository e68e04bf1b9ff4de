use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, writev};
use rustix::pipe::SpliceFlags;

use crate::pages::Pages;
use crate::{Attempt, Hold, Nonblocking, Step, hold, pipe_size, ready};

/// Linux takes no more pieces in one call (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Puts a snapshot of memory into a pipe, as far as it can be done at once: what the reader gets is
/// what the pieces hold now, whatever becomes of them afterwards.
///
/// Only a copy can promise that, so `write` does it where the pipe is in non-blocking mode. In
/// blocking mode `write` would wait, and `vmsplice` of pages of our own does not.
/// The pieces must not all be empty. `EBADF` for what is no pipe, or not its write end.
///
/// # References
///  - [writev]
///  - [vmsplice]
///
/// [writev]: https://man7.org/linux/man-pages/man2/writev.2.html
/// [vmsplice]: https://man7.org/linux/man-pages/man2/vmsplice.2.html
pub fn put(pipe: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> Attempt {
    let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or_default();
    let pieces = &pieces[first..pieces.len().min(first + IOV_MAX)];
    debug_assert!(!pieces[0].is_empty());
    let capacity = pipe_size(pipe)?;
    let mode = fcntl_getfl(pipe)?;
    // For vmsplice the read end of a pipe would mean: take bytes out, into this memory.
    if mode & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(Errno::BADF);
    }
    let put = if mode.contains(OFlags::NONBLOCK) {
        writev(pipe, pieces)
    } else {
        let pages = Pages::snapshot(pieces, capacity)?;
        // SAFETY: this is a pipe's write end, so the memory is only read; nobody writes to the pages
        // any more, and they are unmapped, not reused, when `pages` is dropped.
        unsafe { rustix::pipe::vmsplice(pipe, &[pages.as_io_slice()], SpliceFlags::NONBLOCK) }
    };
    match put {
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) => Err(errno),
    }
}

/// `write(fd, bytes)`—Writes what can be written at once, whatever the mode of the descriptor. Only a
/// disk may take its time.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/write.2.html
pub fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Attempt {
    let hold = hold(fd)?;
    if matches!(hold, Hold::Peer | Hold::Driver) && !ready(fd, fd)?.output {
        return Ok(Step::WouldBlock);
    }
    if pipe_size(fd).is_ok() {
        return put(fd, &[IoSlice::new(bytes)]);
    }
    let _mode = (hold == Hold::Peer).then(|| Nonblocking::new(fd)).transpose()?;
    match rustix::io::write(fd, bytes) {
        Ok(written) => Ok(Step::Moved(written)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) => Err(errno),
    }
}
