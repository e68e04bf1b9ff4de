//! Transfers in the background, and waiting for their end.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::{GUARD, new_relay, new_tee_stream};
use io_splice_core::background::{Ended, Engine, Handle, Job, Outcome, Work};
use io_splice_core::copy::{CopyStream, Hints, Plan};
use io_splice_core::{PrivateFd, Side, Waited, wait_until_ready};

/// Takes a descriptor over for a transfer.
pub fn given(fd: impl Into<OwnedFd>) -> PrivateFd {
    lent(fd.into())
}

/// Another descriptor for a transfer; the caller keeps this one.
pub fn lent(fd: impl AsFd) -> PrivateFd {
    PrivateFd::duplicate(fd.as_fd()).unwrap()
}

/// A copy of everything there is.
pub fn copy_job(input: PrivateFd, output: PrivateFd) -> Job {
    part_job(input, output, None, None)
}

/// A copy of `len` bytes, or of all, from `offset`, or from where the input stands.
pub fn part_job(input: PrivateFd, output: PrivateFd, len: Option<u64>, offset: Option<u64>) -> Job {
    let plan = Plan::new(input.as_fd(), output.as_fd(), len, offset, Hints::default()).unwrap();
    job(Work::CopyStream(CopyStream::new(plan, len, offset)), vec![input, output])
}

/// A relay between two sockets.
pub fn relay_job(a: PrivateFd, b: PrivateFd) -> Job {
    let relay = new_relay([(a.as_fd(), b.as_fd()), (b.as_fd(), a.as_fd())], Default::default(), None);
    job(Work::Relay(relay), vec![a, b])
}

/// A relay between two pairs of an input and an output.
pub fn pairs_job(a: [PrivateFd; 2], b: [PrivateFd; 2]) -> Job {
    let relay =
        new_relay([(a[0].as_fd(), b[1].as_fd()), (b[0].as_fd(), a[1].as_fd())], Default::default(), None);
    job(Work::Relay(relay), a.into_iter().chain(b).collect())
}

/// A copy to several outputs.
pub fn tee_job(input: PrivateFd, outputs: Vec<PrivateFd>) -> Job {
    let fds: Vec<_> = outputs.iter().map(|output| Some(output.as_fd())).collect();
    let tee = new_tee_stream(&input, &fds, None);
    job(Work::TeeStream(tee), std::iter::once(input).chain(outputs).collect())
}

fn job(work: Work, ends: Vec<PrivateFd>) -> Job {
    Job { work, ends, idle_timeout: None, rate: None, keep: false }
}

/// Begins a transfer.
#[track_caller]
pub fn begin(engine: &Engine, job: Job, token: u64) -> Handle {
    engine.submit(job, token).map_err(|(_, errno)| errno).unwrap()
}

/// What has ended next.
#[track_caller]
pub fn ended(engine: &Engine) -> Ended {
    let mut all = all_ended(engine, 1);
    all.pop().unwrap()
}

/// So many that have ended, in the order of their tokens. There are no more.
#[track_caller]
pub fn all_ended(engine: &Engine, count: usize) -> Vec<Ended> {
    let mut all = Vec::new();
    while all.len() < count {
        assert_eq!(
            wait_until_ready(Side::Input, engine.ended().unwrap().as_fd(), Some(*GUARD)),
            Waited::Ready,
            "{all:?}"
        );
        all.extend(engine.take_ended());
    }
    assert_eq!(all.len(), count);
    all.sort_by_key(|ended| ended.token);
    all
}

/// That it has ended well, and how much it has delivered.
#[track_caller]
pub fn done(engine: &Engine) -> Vec<u64> {
    let ended = ended(engine);
    assert_eq!(ended.outcome, Outcome::Done);
    assert!(!ended.stuck && ended.unread.iter().all(Vec::is_empty));
    ended.delivered
}

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: impl Fn() -> bool) {
    let end = std::time::Instant::now() + *GUARD;
    while !what() {
        assert!(std::time::Instant::now() < end, "not so after {:?}", *GUARD);
        std::thread::sleep(Duration::from_millis(2));
    }
}
