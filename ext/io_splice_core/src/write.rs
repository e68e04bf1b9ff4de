use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, write};
use rustix::net::{SendFlags, send};

use crate::attempt::{Attempt, Step, attempt};
use crate::blocking::{MayBlock, may_block_of};
use crate::descriptor::Descriptor;
use crate::ready::ready;
use crate::terminal::Terminal;
use crate::vmsplice::write_snapshot;

/// `write(fd, bytes)`—Writes what can be written at once, whatever the mode of the descriptor, which stays as it is. Only
/// a disk may take its time, and a driver that says that it is ready and is not.
///
/// # References
///  - [write]
///  - [send]
///
/// [write]: https://man7.org/linux/man-pages/man2/write.2.html
/// [send]: https://man7.org/linux/man-pages/man2/send.2.html
pub fn write_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Attempt {
    match send(fd, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        Err(Errno::NOTSOCK) => {}
        sent => return attempt(sent),
    }
    let descriptor = Descriptor::inspect(fd)?;
    if descriptor.is_pipe() {
        return write_snapshot(fd, &[IoSlice::new(bytes)]);
    }
    match may_block_of(fd, &descriptor) {
        MayBlock::Peer | MayBlock::Unknown if !ready(fd, fd)?.output => Ok(Step::WouldBlock),
        MayBlock::Peer => Terminal::for_output(fd).write(bytes),
        _ => attempt(write(fd, bytes)),
    }
}
