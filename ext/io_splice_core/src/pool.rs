use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::private_fd::PrivateFd;

/// How far a pipe grows: the most that an unprivileged user gets by default. Capacity is speed.
const MAX_CAPACITY: usize = 1 << 20;

/// The smallest capacity worth using. A user who has used up their share (`pipe-user-pages-soft`) gets two pages.
const MIN_CAPACITY: usize = 64 << 10;

/// What may be held by what does not move: by an idle pipe, and in flight while an output waits.
pub(crate) const MODEST: usize = 256 << 10;

/// How many idle pipes are kept. Empty, they hold no memory, but they count against the share of the user, whose other
/// processes need theirs.
const MAX_IDLE: usize = 4;

/// Empty pipes for the next copies.
///
/// The lock is only ever tried: after a fork(2) while another thread held it, it stays locked in the
/// child, where then nothing is kept.
static IDLE: Mutex<Vec<PooledPipe>> = Mutex::new(Vec::new());

/// A pipe that only one copy knows: non-blocking, close-on-exec. It is as large as any other, and grows while it is
/// filled again and again.
///
/// It is empty when it is taken. Whoever gives it back vouches that it is empty again; otherwise it is
/// dropped, and closed.
#[derive(Debug)]
pub struct PooledPipe {
    reader: PrivateFd,
    writer: PrivateFd,
    capacity: u32,
    /// How often in a row it was filled.
    filled: u32,
}

impl PooledPipe {
    /// Takes an idle pipe or makes one. `ENOBUFS` when there is only a small one to be had.
    ///
    /// # References
    ///  - [Linux]
    ///
    /// [Linux]: https://man7.org/linux/man-pages/man7/pipe.7.html
    pub fn take() -> rustix::io::Result<Self> {
        while let Some(pipe) = IDLE.try_lock().ok().and_then(|mut idle| idle.pop()) {
            if pipe.is_of_this_process() {
                return Ok(pipe);
            }
        }
        let (reader, writer) = PrivateFd::make(|| {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            Ok((PrivateFd::new(reader), PrivateFd::new(writer)))
        })?;
        let capacity = fcntl_getpipe_size(&writer)?;
        if capacity < MIN_CAPACITY {
            return Err(Errno::NOBUFS);
        }
        Ok(Self { reader, writer, capacity: capacity as u32, filled: 0 })
    }

    /// Keeps an empty pipe for the next copy.
    pub fn return_to_pool(mut self) {
        if !self.is_of_this_process() {
            return;
        }
        self.filled = 0;
        let Ok(mut idle) = IDLE.try_lock() else { return };
        if idle.len() == MAX_IDLE {
            return;
        }
        // One may stay large, for copies that follow one another: it is taken first. To grow costs as much as a copy.
        if idle.last().is_some_and(|pipe| pipe.capacity() > MODEST) && self.capacity() > MODEST {
            self.resize(MODEST);
        }
        let place = if self.capacity() > MODEST { idle.len() } else { 0 };
        idle.insert(place, self);
    }

    /// Whether it is open, and not the copy that a forked child has closed.
    pub fn is_of_this_process(&self) -> bool {
        self.reader.is_of_this_process()
    }

    /// The end to take bytes out of.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The end to put bytes into.
    pub fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Its capacity in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Takes note that so many bytes were put into it while it was empty. One that is filled again and again grows.
    pub(crate) fn filled(&mut self, bytes: usize) {
        // Each segment from a network takes a page, and fills a third of it.
        let full = bytes >= self.capacity() / 4;
        self.filled = if full { self.filled.saturating_add(1) } else { 0 };
        // A refusal is not asked for again at every turn.
        if self.filled > 1 && self.filled.is_power_of_two() && self.capacity() < MAX_CAPACITY {
            self.grow(self.capacity() * 4);
        }
    }

    /// Grows to this capacity if the system grants it. `EPERM`: the user has many pipes already.
    pub(crate) fn grow(&mut self, capacity: usize) {
        if self.capacity() < capacity.min(MAX_CAPACITY) {
            self.resize(capacity.min(MAX_CAPACITY));
        }
    }

    /// Whether it has grown, and was filled when it was used last.
    pub(crate) fn is_busy(&self) -> bool {
        self.capacity() > MIN_CAPACITY && self.filled > 0
    }

    fn resize(&mut self, capacity: usize) {
        if let Ok(capacity) = fcntl_setpipe_size(&self.writer, capacity) {
            self.capacity = capacity as u32;
            self.filled = self.filled.min(1);
        }
    }
}
