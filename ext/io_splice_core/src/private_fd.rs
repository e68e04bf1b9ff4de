#![expect(unsafe_code, reason = "descriptors by number")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// The numbers of all descriptors that the gem has for itself, so that a forked child can close its copies.
/// A place holds one of them, or nothing.
static KNOWN: [AtomicI32; 256] = [const { AtomicI32::new(NOTHING) }; 256];
const NOTHING: RawFd = -1;

/// How often this process, or the one that it was forked from, has called [`close_after_fork`].
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A close-on-exec descriptor that no Ruby object knows, and that does not outlive fork(2).
#[derive(Debug)]
pub struct PrivateFd {
    number: RawFd,
    generation: u32,
}

impl PrivateFd {
    /// Takes over a descriptor that is close-on-exec already.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let number = fd.into_raw_fd();
        // When the table is full, a forked child just does not know of this one.
        places(number).find(|place| exchange(place, NOTHING, number));
        Self { number, generation: generation() }
    }
}

impl AsFd for PrivateFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is ours and open until `drop`. In a forked child it is closed before,
        // but there nobody is left who would use it: see `is_of_this_process`.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }
}

impl PrivateFd {
    /// Whether it is still open, and not the copy that a forked child has closed.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            return;
        }
        // First forgotten, then closed: no number may stand there that somebody else gets.
        places(self.number).find(|place| exchange(place, self.number, NOTHING));
        close(self.number);
    }
}

/// For a child after fork(2): closes what the parent had for itself at that moment. Its other threads do
/// not exist here, and what lies in its pipes belongs to it.
pub fn close_after_fork() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    for place in &KNOWN {
        let number = place.swap(NOTHING, Ordering::Relaxed);
        if number != NOTHING {
            close(number);
        }
    }
}

pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// All places, beginning where this number is looked for first.
fn places(number: RawFd) -> impl Iterator<Item = &'static AtomicI32> {
    let (before, from) = KNOWN.split_at(number as usize % KNOWN.len());
    from.iter().chain(before)
}

fn exchange(place: &AtomicI32, from: RawFd, to: RawFd) -> bool {
    place.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

fn close(number: RawFd) {
    // SAFETY: `PrivateFd::new` owned the number and gave it to the table or the `PrivateFd`; the
    // caller has just taken it out of there, so it is closed once.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
}
