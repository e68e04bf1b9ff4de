use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write, writev};
use rustix::pipe::PIPE_BUF;

use super::pages::{GIVE_MAX, vmsplice_pages};
use crate::attempt::attempt;
use crate::descriptor::Descriptor;
use crate::pages::Pages;
use crate::ready::ready;
use crate::{Attempt, IOV_MAX, Step, pipe_size};

/// Puts a snapshot of memory into a pipe, as far as it can be done at once: what the reader gets is
/// what the pieces hold now, whatever becomes of them afterwards.
///
/// Only a copy can promise that, and the kernel's own copy into the pipe is the quickest one: `write`,
/// in blocking mode with `RWF_NOWAIT`. Where there is no such thing (Linux before 6.4, and FIFOs) the pipe gets
/// pages of our own instead, and where that is denied as well a short `write` when poll(2) says that there is room.
/// The pieces must not all be empty. `EBADF` for what is no pipe, or not its write end.
///
/// # References
///  - [pwritev2]
///  - [vmsplice]
///
/// [pwritev2]: https://man7.org/linux/man-pages/man2/pwritev2.2.html
/// [vmsplice]: https://man7.org/linux/man-pages/man2/vmsplice.2.html
pub fn write_snapshot(pipe: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> Attempt {
    let first = pieces.iter().position(|piece| !piece.is_empty()).unwrap_or_default();
    let pieces = &pieces[first..pieces.len().min(first + IOV_MAX)];
    debug_assert!(!pieces[0].is_empty());
    let mode = fcntl_getfl(pipe)?;
    let nonblocking = mode.contains(OFlags::NONBLOCK);
    // The capacity is asked for under the pipe's lock, which its reader may be holding; but to ask for what else it
    // could be takes twice as long.
    let is_pipe = if nonblocking {
        Descriptor::inspect_with_mode(pipe, mode)?.is_pipe()
    } else {
        pipe_size(pipe).is_ok()
    };
    if !is_pipe {
        return Err(Errno::BADF);
    }
    let written = match pieces {
        _ if !nonblocking => pwritev2(pipe, pieces, u64::MAX, ReadWriteFlags::NOWAIT),
        // A list of one costs more than the one.
        [piece] => write(pipe, piece),
        _ => writev(pipe, pieces),
    };
    match written {
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) if has_no_nowait(errno) => {
            let pages = Pages::snapshot(pieces, pipe_size(pipe)?.min(GIVE_MAX))?;
            match vmsplice_pages(pipe, &[pages.slice(0..pages.as_bytes().len())]) {
                // The filter of a container: what poll(2) says is true unless somebody else writes just now.
                Err(Errno::PERM | Errno::NOSYS) if !ready(pipe, pipe)?.output => Ok(Step::WouldBlock),
                Err(Errno::PERM | Errno::NOSYS) => {
                    attempt(write(pipe, &pieces[0][..pieces[0].len().min(PIPE_BUF)]))
                }
                put => put,
            }
        }
        Err(errno) => Err(errno),
    }
}

/// Whether this says that there is no `RWF_NOWAIT` for a write: `EPERM` is the answer of a container's filter that does
/// not know pwritev2.
fn has_no_nowait(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM)
}
