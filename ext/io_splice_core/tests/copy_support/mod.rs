//! What the tests of copying share.

#![allow(dead_code, reason = "no test uses all of it")]

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use io_splice_core::copy::{Copy, Host, Kernel, Pause, Side, Waited};
use io_splice_core::{OwnPipe, wait_until_ready};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

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

/// Waits with poll(2), for as long as it takes.
pub struct Patient;

impl Host for Patient {
    fn wait(&mut self, side: Side, fd: BorrowedFd<'_>) -> Waited {
        wait_until_ready(side, fd, None)
    }

    fn interrupted(&mut self) -> bool {
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
    loop {
        match copy.run(input.as_fd(), output.as_fd(), &mut Patient) {
            end @ (Pause::Done | Pause::Failed(_)) => return end,
            Pause::InVain(_) => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// That the pipe the next copy would get has nothing in it.
#[track_caller]
pub fn assert_next_pipe_is_empty() {
    let pipe = OwnPipe::take().unwrap();
    assert_eq!(rustix::io::read(pipe.reader(), &mut [0; 16]), Err(Errno::AGAIN), "a pipe with bytes in it");
    pipe.give_back();
}
