#![expect(unsafe_code, reason = "vmsplice is unsafe")]

use std::os::fd::BorrowedFd;

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, Result, read};
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};

use crate::attempt::{Attempt, Step, attempt};
use crate::descriptor::Descriptor;
use crate::ready::ready;

/// `read(fd, buffer)`—Reads what can be read at once, whatever the mode of the descriptor, which stays as it is. Only a disk
/// may take its time, and a driver that says that it is ready and is not.
///
/// # References
///  - [read]
///  - [poll]
///
/// [read]: https://man7.org/linux/man-pages/man2/read.2.html
/// [poll]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn read_now(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Attempt {
    if !ready(fd, fd)?.input {
        return Ok(Step::WouldBlock);
    }
    Ok(match attempt(read_when_ready(fd, buffer))? {
        Step::Moved(0) => Step::Ended,
        step => step,
    })
}

/// `read(fd, buffer)`—Reads what can be read at once from a socket or a pipe, whatever the mode of the descriptor, which
/// stays as it is. From anything else it is read(2), so poll(2) has been asked.
///
/// # References
///  - [read]
///  - [recv]
///
/// [read]: https://man7.org/linux/man-pages/man2/read.2.html
/// [recv]: https://man7.org/linux/man-pages/man2/recv.2.html
pub(crate) fn read_when_ready(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
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
