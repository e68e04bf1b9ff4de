use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use crate::private_fd::PrivateFd;

/// The requested capacity: the most that an unprivileged user gets by default. Capacity is speed.
const CAPACITY: usize = 1 << 20;

/// The smallest capacity worth using. A user who has used up their share (`pipe-user-pages-soft`) gets two pages.
const MIN_CAPACITY: usize = 64 << 10;

/// How many idle pipes are kept. Empty, they hold no memory, but they count against the user's share.
const MAX_IDLE: usize = 4;

/// Empty pipes for the next copies.
///
/// The lock is only ever tried: after a fork(2) while another thread held it, it stays locked in the
/// child, where then nothing is kept.
static IDLE: Mutex<Vec<PooledPipe>> = Mutex::new(Vec::new());

/// A pipe that only one copy knows: non-blocking, close-on-exec, as large as the system grants.
///
/// It is empty when it is taken. Whoever gives it back vouches that it is empty again; otherwise it is
/// dropped, and closed.
#[derive(Debug)]
pub struct PooledPipe {
    reader: PrivateFd,
    writer: PrivateFd,
    capacity: usize,
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
        // EPERM: the user has many pipes already. Then a smaller one has to do.
        let capacity = [CAPACITY, CAPACITY / 4]
            .into_iter()
            .find_map(|size| fcntl_setpipe_size(&writer, size).ok())
            .map_or_else(|| fcntl_getpipe_size(&writer), Ok)?;
        if capacity < MIN_CAPACITY {
            return Err(Errno::NOBUFS);
        }
        Ok(Self { reader, writer, capacity })
    }

    /// Keeps an empty pipe for the next copy.
    pub fn return_to_pool(self) {
        if !self.is_of_this_process() {
            return;
        }
        if let Ok(mut idle) = IDLE.try_lock() {
            if idle.len() < MAX_IDLE {
                idle.push(self);
            }
        }
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
        self.capacity
    }
}
