use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl};

use crate::descriptor::Descriptor;

/// What an attempt on a descriptor may block for, `SPLICE_F_NONBLOCK` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayBlock {
    /// A pipe, or a socket or terminal in non-blocking mode.
    Never,
    /// The peer: a socket or terminal in blocking mode. [`Nonblocking`] rules it out.
    Peer,
    /// The disk, for as long as it takes; never a peer.
    Disk,
    /// A driver that may or may not know of non-blocking mode.
    Unknown,
}

/// What an attempt on `fd` may block for.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETFL.2const.html
pub fn may_block(fd: BorrowedFd<'_>) -> rustix::io::Result<MayBlock> {
    Ok(may_block_of(fd, &Descriptor::inspect(fd)?))
}

/// As [`may_block()`], for both ends of a splice. When the input is not a pipe, the output is one, or the call is
/// refused at once; so then the output need not be looked at.
pub fn both_may_block(fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> rustix::io::Result<[MayBlock; 2]> {
    let input = Descriptor::inspect(fd_in)?;
    let output = if input.is_pipe() { may_block(fd_out)? } else { MayBlock::Never };
    Ok([may_block_of(fd_in, &input), output])
}

/// As [`may_block()`], for a descriptor that has just been looked at.
pub(crate) fn may_block_of(fd: BorrowedFd<'_>, descriptor: &Descriptor) -> MayBlock {
    let if_blocking = |end| if descriptor.is_nonblocking() { MayBlock::Never } else { end };
    match descriptor.kind() {
        FileType::Fifo => MayBlock::Never,
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice => MayBlock::Disk,
        FileType::Socket => if_blocking(MayBlock::Peer),
        FileType::CharacterDevice if rustix::termios::isatty(fd) => if_blocking(MayBlock::Peer),
        _ => MayBlock::Unknown,
    }
}

/// Keeps a descriptor that is in blocking mode in non-blocking mode, until it is dropped.
///
/// The mode belongs to the open file, which other processes may share (an inherited stdin), so
/// it is changed for the one system call that needs it and no longer. What it was when this began is not
/// put back but blocking mode, since it may have been another process that had changed it just then.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETFL.2const.html
pub struct Nonblocking<'fd> {
    fd: BorrowedFd<'fd>,
    blocking: OFlags,
}

impl<'fd> Nonblocking<'fd> {
    /// Puts `fd` into non-blocking mode.
    pub fn new(fd: BorrowedFd<'fd>) -> rustix::io::Result<Self> {
        let blocking = fcntl_getfl(fd)? - OFlags::NONBLOCK;
        fcntl_setfl(fd, blocking | OFlags::NONBLOCK)?;
        Ok(Self { fd, blocking })
    }
}

impl Drop for Nonblocking<'_> {
    fn drop(&mut self) {
        // It fails only for a descriptor that is not open, and this one is borrowed.
        let _ = fcntl_setfl(self.fd, self.blocking);
    }
}
