//! What the tests share.

mod background;
mod ends;
mod host;

use std::io::Write;
use std::panic::Location;
use std::sync::LazyLock;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use io_splice_core::{Attempt, PooledPipe, Step};
use rustix::pipe::SpliceFlags;

pub use background::*;
pub use ends::*;
pub use host::*;

/// What most calls are given.
pub const NO_FLAGS: SpliceFlags = SpliceFlags::empty();

/// What takes longer hangs. Generous, since machines are shared, and more so on one that says how slow it is
/// (bin/with-kernel).
pub static GUARD: LazyLock<Duration> = LazyLock::new(|| {
    let slowness = std::env::var("SLOWNESS").ok().and_then(|times| times.parse().ok());
    Duration::from_secs(60) * slowness.unwrap_or(1)
});

/// When somebody was told of the progress of a copy, the last time and the one before. A tenth of a second later it is told of
/// less than otherwise; on a busy machine that happens at any point. It is made before the copy is asked to report.
pub struct Told([Instant; 2]);

impl Default for Told {
    fn default() -> Self {
        Self([Instant::now(); 2])
    }
}

impl Told {
    /// Whether it may be the time because of which somebody is told now. The copy counts from a moment before the last time.
    pub fn is_late(&mut self) -> bool {
        let late = self.0[0].elapsed() >= Duration::from_millis(100);
        self.0 = [self.0[1], Instant::now()];
        late
    }
}

/// Runs what must not hang; if it does, the whole test binary ends.
#[track_caller]
pub fn guarded<T>(what_must_not_hang: impl FnOnce() -> T) -> T {
    let place = Location::caller();
    let (done, watched) = channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(*GUARD) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln!`, which the test harness would keep to itself.
            let _ = writeln!(std::io::stderr(), "{place}: this has been waiting for {:?}", *GUARD);
            std::process::abort();
        }
    });
    let result = what_must_not_hang();
    drop(done);
    result
}

/// So many bytes, up to 5 MiB. They tell where they stood, so that a lost, repeated or misplaced one shows; none is 0,
/// so that a gap shows too.
pub fn pattern(len: usize) -> &'static [u8] {
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let hashed = |at: u64| ((at ^ at >> 9).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        (0..5 << 20).map(|at| hashed(at).max(1)).collect()
    });
    &PATTERN[..len]
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

/// How many bytes an attempt has moved.
pub fn moved(attempt: Attempt) -> usize {
    match attempt {
        Ok(Step::Moved(bytes)) => bytes,
        other => panic!("nothing was moved: {other:?}"),
    }
}

/// That the pipe the next copy would get has nothing in it.
#[track_caller]
pub fn assert_next_pipe_is_empty() {
    let pipe = PooledPipe::take().unwrap();
    assert_eq!(rustix::io::ioctl_fionread(pipe.reader()), Ok(0), "a pipe with bytes in it");
    pipe.return_to_pool();
}
