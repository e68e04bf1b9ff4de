use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

/// Which ends would let a transfer go on now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// The input has bytes, has ended or is broken.
    pub input: bool,
    /// The output takes bytes or is broken.
    pub output: bool,
    /// Whether an error is all that poll(2) reports of the input and of the output. Of a socket it may be an error queue
    /// that nobody reads; a call on it may wait then.
    pub only_error: [bool; 2],
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
    retry_on_intr(|| poll(&mut fds, Some(&NOW)))?;
    let [input, output] = fds.map(|fd| fd.revents());
    if (input | output).contains(PollFlags::NVAL) {
        return Err(Errno::BADF);
    }
    // POLLHUP and POLLERR come unasked, and both mean that the next call will not wait.
    let only_error = [input, output].map(|events| events == PollFlags::ERR);
    Ok(Readiness { input: !input.is_empty(), output: !output.is_empty(), only_error })
}

/// What poll(2) says of one descriptor now.
pub(crate) fn events(fd: BorrowedFd<'_>, events: PollFlags) -> rustix::io::Result<PollFlags> {
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    retry_on_intr(|| poll(&mut fds, Some(&NOW)))?;
    Ok(fds[0].revents())
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where the bytes come from.
    Input,
    /// Where they go.
    Output,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// An end may be ready.
    Ready,
    /// An interrupt is pending.
    Interrupted,
    /// No end was ready in time.
    TimedOut,
    /// The host waits elsewhere: return to it, and be run again.
    Yield,
}

/// An end that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub struct Awaited<'fd> {
    /// Whether it is to become readable or writable.
    pub side: Side,
    /// The end.
    pub fd: BorrowedFd<'fd>,
    /// Whether the wait has found it ready.
    pub ready: bool,
}

/// `poll(fds, timeout)`—Waits until one of the ends is ready, at most for so long. It is what a
/// [`Host`](crate::copy::Host) can wait with.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/poll.2.html
pub fn wait_until_any_ready(ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
    let events = |side| if side == Side::Input { PollFlags::IN } else { PollFlags::OUT };
    let mut fds: Vec<_> = ends.iter().map(|end| PollFd::from_borrowed_fd(end.fd, events(end.side))).collect();
    // A timeout too long to represent means no timeout.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) => return Waited::TimedOut,
        Err(Errno::INTR) => return Waited::Interrupted,
        Ok(_) => ends.iter_mut().zip(&fds).for_each(|(end, fd)| end.ready = !fd.revents().is_empty()),
        // Whatever is wrong, the next call will say.
        Err(_) => ends.iter_mut().for_each(|end| end.ready = true),
    }
    Waited::Ready
}

/// As [`wait_until_any_ready`], for one end.
pub fn wait_until_ready(side: Side, fd: BorrowedFd<'_>, timeout: Option<Duration>) -> Waited {
    wait_until_any_ready(&mut [Awaited { side, fd, ready: false }], timeout)
}
