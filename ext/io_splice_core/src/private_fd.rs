#![expect(unsafe_code, reason = "descriptors by number, and pthread_atfork(3)")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use rustix::io::{Errno, fcntl_dupfd_cloexec, try_close};

/// The numbers of all descriptors that the gem has for itself, so that a forked child can close its copies: a bit for
/// each number. Each block is as large as all before it, is made when it is needed first, and stays.
static KNOWN: [OnceLock<Box<[AtomicU64]>>; 22] = [const { OnceLock::new() }; 22];
/// How many numbers the first block has.
const FIRST_BLOCK: usize = 1024;
/// How many a word has.
const BITS: usize = u64::BITS as usize;

/// How often this process, or the one that it was forked from, is a forked child.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A close-on-exec descriptor that no Ruby object knows, and that does not outlive fork(2).
#[derive(Debug)]
pub struct PrivateFd {
    number: RawFd,
    /// That of the process, and `LENT` if it is somebody else's, who closes it.
    generation: u32,
}

const LENT: u32 = 1 << 31;

impl PrivateFd {
    /// Takes over a descriptor that is close-on-exec already.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        let number = fd.into_raw_fd();
        let (word, bit) = place(number);
        word.fetch_or(bit, Relaxed);
        Self { number, generation: generation() }
    }

    /// `fcntl(fd, F_DUPFD_CLOEXEC, 0)`—One for the same open file.
    ///
    /// # References
    ///  - [Linux]
    ///
    /// [Linux]: https://man7.org/linux/man-pages/man2/F_DUPFD.2const.html
    pub fn duplicate(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::make(|| fcntl_dupfd_cloexec(fd, 0).map(Self::new))
    }

    /// Uses a descriptor that stays its owner's, also in a forked child. When a duplicate of a file is closed, the process
    /// loses its locks of that file (`F_SETLK` of fcntl(2)), so what has such locks is lent.
    ///
    /// # Safety
    ///
    /// It must stay open as long as this lives.
    ///
    /// # References
    ///  - [Linux]
    ///
    /// [Linux]: https://man7.org/linux/man-pages/man2/F_SETLK.2const.html
    pub unsafe fn lend(fd: BorrowedFd<'_>) -> Self {
        Self { number: fd.as_raw_fd(), generation: generation() | LENT }
    }

    /// Makes one by a call that does not block, so that no child is forked before it is known.
    pub(crate) fn make<T>(make: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        let _no_fork = NoFork::begin();
        make()
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
        self.generation & !LENT == generation()
    }

    /// Closes it as `drop` does, and returns what close(2) says: a file system that writes later may have no room only now.
    pub fn close(mut self) -> rustix::io::Result<()> {
        let closed = self.end();
        std::mem::forget(self);
        // It is closed all the same.
        if closed == Err(Errno::INTR) { Ok(()) } else { closed }
    }

    fn end(&mut self) -> rustix::io::Result<()> {
        if self.generation & LENT != 0 || !self.is_of_this_process() {
            return Ok(());
        }
        let _no_fork = NoFork::begin();
        // First forgotten, then closed: no number may be known that somebody else gets.
        let (word, bit) = place(self.number);
        word.fetch_and(!bit, Relaxed);
        close(self.number)
    }
}

impl Drop for PrivateFd {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// While there is one, fork(2) waits: in between a descriptor is open and not known, or the other way round.
struct NoFork;

/// How many there are.
static NO_FORKS: AtomicU32 = AtomicU32::new(0);
/// How many threads are in fork(2).
static FORKS: AtomicU32 = AtomicU32::new(0);

impl NoFork {
    fn begin() -> Self {
        loop {
            NO_FORKS.fetch_add(1, SeqCst);
            if FORKS.load(SeqCst) == 0 {
                return Self;
            }
            NO_FORKS.fetch_sub(1, SeqCst);
            yield_now();
        }
    }
}

impl Drop for NoFork {
    fn drop(&mut self) {
        NO_FORKS.fetch_sub(1, SeqCst);
    }
}

/// Before fork(2). A close(2) can wait for a disk: that is not waited for, and a child may keep its copy then.
extern "C" fn before_fork() {
    FORKS.fetch_add(1, SeqCst);
    let begin = Instant::now();
    while NO_FORKS.load(SeqCst) > 0 && begin.elapsed() < Duration::from_millis(100) {
        yield_now();
    }
}

extern "C" fn after_fork_in_parent() {
    FORKS.fetch_sub(1, SeqCst);
}

/// Closes what the parent had for itself when it forked this child. The other threads of the parent do not exist here,
/// and what lies in its pipes belongs to it.
///
/// It is async-signal-safe, as it must be in the child of a process with threads.
#[doc(hidden)]
pub extern "C" fn close_after_fork() {
    FORKS.store(0, SeqCst);
    NO_FORKS.store(0, SeqCst);
    GENERATION.fetch_add(1, Relaxed);
    for (index, block) in KNOWN.iter().enumerate() {
        let words = block.get().into_iter().flatten();
        for (word, first) in words.zip((first_of_block(index)..).step_by(BITS)) {
            let mut bits = word.swap(0, Relaxed);
            while bits != 0 {
                let _ = close((first + bits.trailing_zeros() as usize) as RawFd);
                bits &= bits - 1;
            }
        }
    }
}

/// From now on a forked child keeps none of the gem's descriptors, whoever forks it: fork(2), and with it daemon(3), runs
/// handlers. vfork(2) and posix_spawn(3) do not, but exec at once, and all of them are close-on-exec. To be called once.
///
/// # References
///  - [POSIX]
///
/// [POSIX]: https://man7.org/linux/man-pages/man3/pthread_atfork.3.html
pub fn register_fork_handlers() -> rustix::io::Result<()> {
    // SAFETY: they take nothing, return nothing and do not unwind, and Ruby does not unload an extension.
    match unsafe { pthread_atfork(before_fork, after_fork_in_parent, close_after_fork) } {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

unsafe extern "C" {
    fn pthread_atfork(prepare: extern "C" fn(), parent: extern "C" fn(), child: extern "C" fn()) -> i32;
}

pub(crate) fn generation() -> u32 {
    GENERATION.load(Relaxed)
}

/// The word with the bit of this number, and the bit.
fn place(number: RawFd) -> (&'static AtomicU64, u64) {
    let number = number as usize;
    let index = (number / FIRST_BLOCK).checked_ilog2().map_or(0, |log| log as usize + 1);
    let numbers = first_of_block(index)..first_of_block(index + 1);
    let bit = number - numbers.start;
    let block = KNOWN[index].get_or_init(|| numbers.step_by(BITS).map(|_| AtomicU64::new(0)).collect());
    (&block[bit / BITS], 1 << (bit % BITS))
}

/// The first number of a block.
fn first_of_block(index: usize) -> usize {
    if index == 0 { 0 } else { FIRST_BLOCK << (index - 1) }
}

fn close(number: RawFd) -> rustix::io::Result<()> {
    // SAFETY: `PrivateFd::new` owned the number and made it known; the caller has just taken it out of there, so it is
    // closed once.
    unsafe { try_close(number) }
}
