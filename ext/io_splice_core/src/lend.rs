use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::io::fcntl_dupfd_cloexec;

/// The numbers of all lent descriptors, so that a forked child can close its copies of them.
static LENT: [AtomicI32; 64] = [const { AtomicI32::new(NONE) }; 64];
const NONE: RawFd = -1;

/// A second descriptor of somebody's open file, for a call during which the first may be closed.
///
/// While a call runs without the GVL another thread can close a descriptor and open another
/// file under its number: a call that has not reached the kernel by then would go to the wrong file.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_DUPFD.2const.html
pub struct Lent(BorrowedFd<'static>);

impl Lent {
    /// Makes a second, close-on-exec descriptor of the open file behind `fd`.
    pub fn new(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let number = fcntl_dupfd_cloexec(fd, 0)?.into_raw_fd();
        // When 64 others are lent at this moment this one is just not known to a forked child.
        LENT.iter().find(|place| exchange(place, NONE, number));
        // SAFETY: the descriptor was made above, and is closed by `drop` alone.
        Ok(Self(unsafe { BorrowedFd::borrow_raw(number) }))
    }
}

impl AsFd for Lent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let number = self.0.as_raw_fd();
        // First forgotten, then closed: a number must not stand there that somebody else may get.
        LENT.iter().find(|place| exchange(place, number, NONE));
        close(number);
    }
}

/// For a child after fork(2): closes what other threads of the parent had lent at that moment. Those
/// threads do not exist in the child, so nobody else would.
pub fn close_lent() {
    for place in &LENT {
        let number = place.swap(NONE, Ordering::Relaxed);
        if number != NONE {
            close(number);
        }
    }
}

fn exchange(place: &AtomicI32, from: RawFd, to: RawFd) -> bool {
    place.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn close(number: RawFd) {
    // SAFETY: the number came from `Lent::new`, which gave its ownership to the table or to a `Lent`;
    // both callers have just taken it out of there, so it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}
