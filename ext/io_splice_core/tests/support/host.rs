//! Who runs copies, relays and tee_streams in the tests, and how they are begun and run.
//!
//! All that implements the traits of the core is here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use super::GUARD;
use io_splice_core::copy::{
    self, CopyStream, Hints, Host, Kernel, Linux, Pause, Plan, Relay, RelayPause, Side, TeeStream,
    TeeStreamPause, Waited,
};
use io_splice_core::{Awaited, wait_until_any_ready};

// Hosts

/// Waits with poll(2), and fails instead of hanging.
pub struct Patient(Instant);

impl Patient {
    /// Its patience ends after [`GUARD`].
    pub fn new() -> Self {
        Self(Instant::now() + *GUARD)
    }

    /// Waits for one of the ends, at most for so long.
    pub fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        self.guard();
        let waited = wait_until_any_ready(ends, Some(timeout.map_or(*GUARD, |timeout| timeout.min(*GUARD))));
        let in_time = timeout.is_some_and(|timeout| timeout < *GUARD);
        assert!(waited != Waited::TimedOut || in_time, "still waiting after {:?}", *GUARD);
        waited
    }

    fn guard(&self) {
        assert!(Instant::now() < self.0, "still running after {:?}", *GUARD);
    }
}

impl Host for Patient {
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        self.wait(ends, timeout)
    }

    fn interrupted(&mut self) -> bool {
        self.guard();
        false
    }
}

/// Comes back instead of waiting, and remembers what it was asked for.
#[derive(Default)]
pub struct Impatient {
    /// For which ends the last time.
    pub ends: Vec<(Side, RawFd)>,
    /// How long each time.
    pub timeouts: Vec<Option<Duration>>,
}

impl Host for Impatient {
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        self.ends = ends.iter().map(|end| (end.side, end.fd.as_raw_fd())).collect();
        self.timeouts.push(timeout);
        match wait_until_any_ready(ends, Some(Duration::ZERO)) {
            Waited::TimedOut if timeout != Some(Duration::ZERO) => Waited::Yield,
            waited => waited,
        }
    }

    fn interrupted(&mut self) -> bool {
        false
    }
}

/// Answers what a test makes up.
pub struct MadeUp<W, I> {
    wait: W,
    interrupted: I,
}

impl<W, I> MadeUp<W, I>
where
    W: FnMut(&mut [Awaited<'_>], Option<Duration>) -> Waited,
    I: FnMut() -> bool,
{
    /// `wait` is given the ends and how long to wait for one of them; a copy waits for one end, as long as it takes.
    pub fn new(wait: W, interrupted: I) -> Self {
        Self { wait, interrupted }
    }
}

impl<W, I> Host for MadeUp<W, I>
where
    W: FnMut(&mut [Awaited<'_>], Option<Duration>) -> Waited,
    I: FnMut() -> bool,
{
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        (self.wait)(ends, timeout)
    }

    fn interrupted(&mut self) -> bool {
        (self.interrupted)()
    }
}

// Copies

/// A copy of everything there is.
pub fn copy_all(input: impl AsFd, output: impl AsFd) -> CopyStream {
    new_copy(input, output, None, None)
}

/// A copy of `len` bytes, or of all, from `offset`, or from where the input stands.
pub fn new_copy(input: impl AsFd, output: impl AsFd, len: Option<u64>, offset: Option<u64>) -> CopyStream {
    copy_by(Linux, input, output, len, offset, Hints::default())
}

/// The same by that kernel, when this is known of the input.
pub fn copy_by<K: Kernel>(
    kernel: K,
    input: impl AsFd,
    output: impl AsFd,
    len: Option<u64>,
    offset: Option<u64>,
    hints: Hints,
) -> CopyStream<K> {
    let plan = Plan::new(input.as_fd(), output.as_fd(), len, offset, hints).unwrap();
    CopyStream::with_kernel(kernel, plan, len, offset)
}

/// A copy that is planned for everything there is, and then is to be of so many bytes.
pub fn copy_planned_for_all(input: impl AsFd, output: impl AsFd, len: u64) -> CopyStream {
    let plan = Plan::new(input.as_fd(), output.as_fd(), None, None, Hints::default()).unwrap();
    CopyStream::new(plan, Some(len), None)
}

/// Runs a copy once.
pub fn run_copy<K: Kernel>(
    copy: &mut CopyStream<K>,
    input: impl AsFd,
    output: impl AsFd,
    host: &mut impl Host,
) -> Pause {
    copy.run(input.as_fd(), output.as_fd(), host)
}

/// Runs a copy until it is done or has failed.
pub fn finish<K: Kernel>(copy: &mut CopyStream<K>, input: impl AsFd, output: impl AsFd) -> Pause {
    let mut host = Patient::new();
    loop {
        let pause = run_copy(copy, &input, &output, &mut host);
        if matches!(pause, Pause::Done | Pause::Failed(_) | Pause::TimedOut(_)) {
            return pause;
        }
    }
}

// Fan-outs

/// A tee_stream of `len` bytes, or of all.
pub fn new_tee_stream(input: impl AsFd, outputs: &[Option<BorrowedFd<'_>>], len: Option<u64>) -> TeeStream {
    TeeStream::new(Some(input.as_fd()), outputs, len, Hints::default()).unwrap()
}

/// Runs a tee_stream once.
pub fn run_tee_stream(
    copy: &mut TeeStream,
    input: impl AsFd,
    outputs: &[Option<BorrowedFd<'_>>],
    host: &mut impl Host,
) -> TeeStreamPause {
    copy.run(Some(input.as_fd()), outputs, host)
}

// Relays

/// A relay between the ends of each direction, which may take so long to become ready.
pub fn new_relay(
    ends: [(BorrowedFd<'_>, BorrowedFd<'_>); 2],
    timeouts: [copy::Timeouts; 2],
    idle_timeout: Option<Duration>,
) -> Relay {
    let plan = |(input, output)| Plan::new(input, output, None, None, Hints::default()).unwrap();
    Relay::new(ends.map(plan), timeouts, idle_timeout)
}

/// Runs a relay once.
pub fn run_relay(relay: &mut Relay, ends: copy::Ends<'_>, host: &mut impl Host) -> RelayPause {
    relay.run(ends, host)
}
