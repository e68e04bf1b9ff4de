#![expect(unsafe_code, reason = "vmsplice is unsafe")]

use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result, read};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};

use crate::descriptor::Descriptor;
use crate::ready::ready;

/// `read(fd, buffer)`—Reads what can be read at once from a socket or a pipe, whatever the mode of the descriptor, which
/// stays as it is. From anything else it is read(2).
///
/// # References
///  - [read]
///  - [recv]
///
/// [read]: https://man7.org/linux/man-pages/man2/read.2.html
/// [recv]: https://man7.org/linux/man-pages/man2/recv.2.html
pub(crate) fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    match recv(fd, &mut *buffer, RecvFlags::DONTWAIT) {
        Err(Errno::NOTSOCK) if Descriptor::inspect(fd)?.is_pipe() => read_pipe_now(fd, buffer),
        Err(Errno::NOTSOCK) => read(fd, buffer),
        received => received.map(|(bytes, _)| bytes),
    }
}

/// The same from a pipe.
///
/// # References
///  - [vmsplice]
///
/// [vmsplice]: https://man7.org/linux/man-pages/man2/vmsplice.2.html
pub(crate) fn read_pipe_now(pipe: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
    let mode = fcntl_getfl(pipe)?;
    if mode.contains(OFlags::NONBLOCK) || mode & OFlags::ACCMODE != OFlags::RDONLY {
        return read(pipe, buffer);
    }
    // read(2) would wait if somebody else has emptied the pipe just now; this has a flag, whatever the pipe is.
    let memory = [IoSliceRaw::from_slice_mut(buffer)];
    // SAFETY: this is a read end and nothing else, so the bytes are copied into the memory, which is borrowed for it alone.
    match unsafe { vmsplice(pipe, &memory, SpliceFlags::NONBLOCK) } {
        // The filter of a container: what poll(2) says is true unless somebody else reads just now.
        Err(Errno::PERM | Errno::NOSYS) if ready(pipe, pipe)?.input => read(pipe, buffer),
        Err(Errno::PERM | Errno::NOSYS) => Err(Errno::AGAIN),
        taken => taken,
    }
}
