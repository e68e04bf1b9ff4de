#![expect(unsafe_code, reason = "descriptors by number")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

use crate::PrivateFd;
use crate::ready::{Awaited, Side};

/// Several ends in one descriptor, which is readable when one of them is ready: for callers that can wait on one
/// descriptor only.
///
/// # References
///  - [epoll]
///
/// [epoll]: https://man7.org/linux/man-pages/man7/epoll.7.html
#[derive(Debug)]
pub struct EpollSet {
    epoll: PrivateFd,
    watched: Vec<RawFd>,
}

impl EpollSet {
    /// One that watches nothing yet.
    pub fn new() -> rustix::io::Result<Self> {
        let epoll = PrivateFd::make(|| epoll::create(CreateFlags::CLOEXEC).map(PrivateFd::new))?;
        Ok(Self { epoll, watched: Vec::new() })
    }

    /// Watches these ends and no others.
    pub fn set(&mut self, ends: &[Awaited<'_>]) -> rustix::io::Result<()> {
        let mut wanted: Vec<(BorrowedFd<'_>, EventFlags)> = Vec::with_capacity(ends.len());
        for end in ends {
            let flags = if end.side == Side::Input { EventFlags::IN } else { EventFlags::OUT };
            match wanted.iter_mut().find(|(fd, _)| fd.as_raw_fd() == end.fd.as_raw_fd()) {
                Some((_, all)) => *all |= flags,
                None => wanted.push((end.fd, flags)),
            }
        }
        for fd in self.watched.drain(..) {
            if !wanted.iter().any(|(other, _)| other.as_raw_fd() == fd) {
                // SAFETY: the kernel looks whether it is open; what is closed is not watched any more.
                let _ = epoll::delete(&self.epoll, unsafe { BorrowedFd::borrow_raw(fd) });
            }
        }
        for (fd, flags) in wanted {
            // A number may belong to another file than before, of which epoll does not know.
            match epoll::modify(&self.epoll, fd, EventData::new_u64(0), flags) {
                Err(Errno::NOENT) => epoll::add(&self.epoll, fd, EventData::new_u64(0), flags)?,
                result => result?,
            }
            self.watched.push(fd.as_raw_fd());
        }
        Ok(())
    }
}

impl AsFd for EpollSet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
