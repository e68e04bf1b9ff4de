//! What the tests of copying share.

#![allow(dead_code, reason = "no test uses all of it")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use io_splice_core::copy::{Copy, Host, Kernel, Pause, Side, Waited};
use io_splice_core::{OwnPipe, wait_until_ready};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

/// Generous, since machines are shared.
const GUARD: Duration = Duration::from_secs(60);

/// Bytes that tell where they stood, so that a lost, repeated or misplaced one shows.
pub fn pattern() -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..4_u64 << 20).map(|at| ((at ^ at >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
    });
    &PATTERN
}

/// That the bytes are the same; without printing a megabyte if they are not.
#[track_caller]
pub fn assert_same(got: &[u8], expected: &[u8], what: &str) {
    if got == expected {
        return;
    }
    let differs = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((got.len(), differs), (expected.len(), None), "{what}: (length, first difference)");
}

/// A file that is gone with the test.
pub struct TempFile(PathBuf);

impl TempFile {
    pub fn new(content: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("io_splice-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    pub fn reader(&self) -> File {
        File::open(&self.0).unwrap()
    }

    pub fn writer(&self) -> File {
        OpenOptions::new().write(true).open(&self.0).unwrap()
    }

    pub fn appender(&self) -> File {
        OpenOptions::new().append(true).open(&self.0).unwrap()
    }

    pub fn content(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A pipe as Ruby makes it.
pub fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap()
}

/// Two sockets as Ruby makes them.
pub fn unix_pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

pub fn make_blocking(fd: impl AsFd) {
    let mode = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, mode - OFlags::NONBLOCK).unwrap();
}

pub fn make_nonblocking(fd: impl AsFd) {
    let mode = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, mode | OFlags::NONBLOCK).unwrap();
}

/// Waits with poll(2), and fails instead of hanging.
pub struct Patient(Instant);

impl Patient {
    pub fn new() -> Self {
        Self(Instant::now() + GUARD)
    }

    fn guard(&self) {
        assert!(Instant::now() < self.0, "still running after {GUARD:?}");
    }
}

impl Host for Patient {
    fn wait(&mut self, side: Side, fd: BorrowedFd<'_>) -> Waited {
        self.guard();
        wait_until_ready(side, fd, Some(GUARD))
    }

    fn interrupted(&mut self) -> bool {
        self.guard();
        false
    }
}

/// Comes back instead of waiting.
pub struct Impatient;

impl Host for Impatient {
    fn wait(&mut self, _side: Side, _fd: BorrowedFd<'_>) -> Waited {
        Waited::Elsewhere
    }

    fn interrupted(&mut self) -> bool {
        false
    }
}

/// Runs a copy until it is done or has failed.
pub fn finish<K: Kernel>(copy: &mut Copy<K>, input: impl AsFd, output: impl AsFd) -> Pause {
    let mut host = Patient::new();
    loop {
        match copy.run(input.as_fd(), output.as_fd(), &mut host) {
            end @ (Pause::Done | Pause::Failed(_) | Pause::TimedOut(_)) => return end,
            Pause::InVain(_) => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// That the pipe the next copy would get has nothing in it.
#[track_caller]
pub fn assert_next_pipe_is_empty() {
    let pipe = OwnPipe::take().unwrap();
    assert_eq!(rustix::io::ioctl_fionread(pipe.reader()), Ok(0), "a pipe with bytes in it");
    pipe.give_back();
}
