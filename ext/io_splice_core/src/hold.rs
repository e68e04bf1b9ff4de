use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat};

/// What could hold up an attempt on a descriptor, `SPLICE_F_NONBLOCK` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: a pipe, or a socket or terminal in non-blocking mode.
    Nothing,
    /// The peer: a socket or terminal in blocking mode. [`Nonblocking`] rules it out.
    Peer,
    /// The disk, for as long as it takes; never a peer.
    Disk,
    /// A driver that may or may not know of non-blocking mode.
    Driver,
}

/// Tells what could make an attempt on `fd` block.
///
/// It asks the kernel each time, because a number says nothing: the descriptor may have been closed
/// and reused since the last call. One `fcntl` is enough for all that Ruby 3 makes itself.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETFL.2const.html
pub fn hold(fd: BorrowedFd<'_>) -> rustix::io::Result<Hold> {
    let mode = fcntl_getfl(fd)?;
    let nonblocking = mode.contains(OFlags::NONBLOCK);
    // On 64 bits the kernel marks with O_LARGEFILE whatever came from open(2). What has no such mark
    // came from pipe(2), socket(2), accept(2) and the like, and has no disk behind it.
    if cfg!(target_pointer_width = "64") && nonblocking && !mode.contains(OFlags::LARGEFILE) {
        return Ok(Hold::Nothing);
    }
    Ok(match FileType::from_raw_mode(fstat(fd)?.st_mode) {
        FileType::Fifo => Hold::Nothing,
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice => Hold::Disk,
        FileType::Socket if nonblocking => Hold::Nothing,
        FileType::Socket => Hold::Peer,
        FileType::CharacterDevice if rustix::termios::isatty(fd) => {
            if nonblocking {
                Hold::Nothing
            } else {
                Hold::Peer
            }
        }
        _ => Hold::Driver,
    })
}

/// Keeps a descriptor in non-blocking mode, and puts it back into blocking mode when dropped.
///
/// The mode belongs to the open file, which other processes may share (an inherited stdin), so
/// it is changed for the one system call that needs it and no longer.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETFL.2const.html
pub struct Nonblocking<'fd> {
    fd: BorrowedFd<'fd>,
    before: OFlags,
}

impl<'fd> Nonblocking<'fd> {
    /// Puts `fd` into non-blocking mode.
    pub fn new(fd: BorrowedFd<'fd>) -> rustix::io::Result<Self> {
        let before = fcntl_getfl(fd)?;
        fcntl_setfl(fd, before | OFlags::NONBLOCK)?;
        Ok(Self { fd, before })
    }
}

impl Drop for Nonblocking<'_> {
    fn drop(&mut self) {
        // It fails only for a descriptor that is not open, and this one is borrowed.
        let _ = fcntl_setfl(self.fd, self.before);
    }
}
