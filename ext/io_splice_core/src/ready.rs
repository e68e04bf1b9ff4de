use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::copy::{Side, Waited};

/// Which ends would let a transfer go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The input has bytes, has ended or is broken.
    pub input: bool,
    /// The output takes bytes or is broken.
    pub output: bool,
}

impl Readiness {
    /// Whether neither end is a reason to wait.
    pub fn both(self) -> bool {
        self.input && self.output
    }
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// `poll(fds, 0)`—Looks which of two ends are ready, without waiting.
///
/// After `EAGAIN` nobody says which end it was. A descriptor that is not open is `EBADF`.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn ready(input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> rustix::io::Result<Readiness> {
    let mut fds =
        [PollFd::from_borrowed_fd(input, PollFlags::IN), PollFd::from_borrowed_fd(output, PollFlags::OUT)];
    poll(&mut fds, Some(&NOW))?;
    let [input, output] = fds.map(|fd| fd.revents());
    if (input | output).contains(PollFlags::NVAL) {
        return Err(Errno::BADF);
    }
    // POLLHUP and POLLERR come unasked, and both mean that the next call will not wait.
    Ok(Readiness { input: !input.is_empty(), output: !output.is_empty() })
}

/// What poll(2) says of one descriptor now.
pub(crate) fn events(fd: BorrowedFd<'_>, events: PollFlags) -> rustix::io::Result<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    poll(&mut fds, Some(&NOW))?;
    Ok(fds[0].revents())
}

/// `poll(fd, timeout)`—Waits until one end of a copy is ready, at most for so long. It is what a
/// [`Host`](crate::copy::Host) can wait with.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn wait_until_ready(side: Side, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Waited {
    let events = match side {
        Side::Input => PollFlags::IN,
        Side::Output => PollFlags::OUT,
    };
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    // A timeout that is too long to say is none.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) => Waited::TimedOut,
        Err(Errno::INTR) => Waited::Interrupted,
        // Whatever is wrong with the descriptor, the next call will say.
        Ok(_) | Err(_) => Waited::Ready,
    }
}
