use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::fs::{FileType, tell};
use rustix::io::{Errno, Result, ioctl_fionread, pread};
use rustix::net::{RecvFlags, recv};

use crate::descriptor::Descriptor;
use crate::ready::events;

/// Whether a socket with a stream has ended, and nothing is left in it. An error of the connection is told once only, so it
/// is the answer.
///
/// What FIONREAD tells is not enough: at an urgent byte it is 0.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/recv.2.html
pub(crate) fn socket_has_ended(socket: BorrowedFd<'_>) -> Result<bool> {
    match recv(socket, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN) => Ok(false),
        peeked => peeked.map(|(_, bytes)| bytes == 0),
    }
}

/// Whether a pipe has ended, and nothing is left in it, or a file is read to its end; `at` is where, if that is not where the
/// file stands.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/pipe.7.html
pub(crate) fn has_ended(input: BorrowedFd<'_>, at: Option<u64>) -> Result<bool> {
    let descriptor = Descriptor::inspect(input)?;
    if descriptor.is_pipe() {
        // When the last writer is gone nothing comes any more.
        let is_empty = || ioctl_fionread(input).map(|bytes| bytes == 0);
        return Ok(is_empty()? && events(input, PollFlags::IN)?.contains(PollFlags::HUP) && is_empty()?);
    }
    if descriptor.kind() != FileType::RegularFile && !descriptor.is_memory() {
        return Ok(false);
    }
    let at = at.map_or_else(|| tell(input), Ok)?;
    pread(input, &mut [0; 1][..], at).map(|bytes| bytes == 0)
}
