use std::os::fd::BorrowedFd;

use rustix::event::PollFlags;
use rustix::fs::{FileType, tell};
use rustix::io::{ioctl_fionread, pread};
use rustix::net::{RecvFlags, recv};

use crate::descriptor::Descriptor;
use crate::ready::events;

/// Whether a socket with a stream has ended, and nothing is left in it.
///
/// What FIONREAD tells is not enough: at an urgent byte it is 0.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/recv.2.html
pub(crate) fn socket_has_ended(socket: BorrowedFd<'_>) -> bool {
    matches!(recv(socket, &mut [0; 1][..], RecvFlags::PEEK | RecvFlags::DONTWAIT), Ok((_, 0)))
}

/// Whether a pipe has ended, and nothing is left in it, or a file is read to its end; `at` is where, if that is not where the
/// file stands.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/pipe.7.html
pub(crate) fn has_ended(input: BorrowedFd<'_>, at: Option<u64>) -> bool {
    let is_empty = || ioctl_fionread(input) == Ok(0);
    let Ok(descriptor) = Descriptor::inspect(input) else { return false };
    if descriptor.is_pipe() {
        // When the last writer is gone nothing comes any more.
        let is_left = || events(input, PollFlags::IN).is_ok_and(|events| events.contains(PollFlags::HUP));
        return is_empty() && is_left() && is_empty();
    }
    if descriptor.kind() != FileType::RegularFile && !descriptor.is_memory() {
        return false;
    }
    let at = at.map_or_else(|| tell(input), Ok);
    at.and_then(|at| pread(input, &mut [0; 1][..], at)) == Ok(0)
}
