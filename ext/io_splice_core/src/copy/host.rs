use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::route::Silence;
use crate::ready::{Awaited, Side, Waited};

/// What a copy needs of whoever runs it.
pub trait Host {
    /// Waits until one of the ends is ready, at most for `timeout`, and marks those that are. Without an end it sleeps.
    ///
    /// A host that waits elsewhere returns [`Waited::Yield`]; the copy then returns to it, and is run again when the
    /// wait is over. Of several ends the next call is to mark those that are ready; a single one is taken for ready.
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited;

    /// Whether an interrupt is pending.
    fn interrupted(&mut self) -> bool;
}

/// How long an input and an output may take to become ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    /// `None` is for ever.
    pub input: Option<Duration>,
    /// `None` is for ever.
    pub output: Option<Duration>,
}

/// How long to rest when nothing has moved for the n-th time in a row although poll(2) reports that it could.
///
/// The first time may be chance: something has become ready just now, or somebody else was quicker.
pub fn back_off(stalls: u32) -> Option<Duration> {
    (stalls > 1).then(|| Duration::from_millis(u64::from(stalls.min(20))))
}

/// What a pump waits for, since when, and how often in vain.
#[derive(Debug, Default)]
pub(crate) struct Wait {
    /// Few have any, and there may be thousands of waits.
    timeouts: Option<Box<Timeouts>>,
    /// The side that has to become ready.
    side: Option<Side>,
    /// Since when nothing moves, and for want of which side.
    since: Option<(Side, Instant)>,
    stalls: u32,
    rest_until: Option<Instant>,
    /// Whether it rests because of its rate.
    throttled: bool,
    /// After this the pump is to look at its input again, ready or not.
    silence: Option<Silence>,
}

impl Wait {
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        let none = timeouts.input.or(timeouts.output).is_none();
        self.timeouts = (!none).then(|| Box::new(timeouts));
    }

    /// As a plan knows it of its input.
    pub fn set_silence(&mut self, silence: Option<Silence>) {
        self.silence = silence;
    }

    /// Bytes have moved.
    pub fn progress(&mut self) {
        (self.since, self.stalls) = (None, 0);
    }

    /// This side has to become ready.
    pub fn blocked(&mut self, side: Side) {
        self.side = Some(side);
        if self.since.is_none_or(|(before, _)| before != side) {
            self.since = Some((side, Instant::now()));
        }
    }

    /// This side is ready, and yet nothing moves.
    pub fn stalled(&mut self, side: Side) {
        self.blocked(side);
        self.stalls = self.stalls.saturating_add(1);
        self.rest_until = back_off(self.stalls).map(|rest| Instant::now() + rest);
    }

    /// More may be taken from then on.
    pub fn throttled(&mut self, until: Instant) {
        (self.side, self.since) = (Some(Side::Input), None);
        (self.rest_until, self.throttled) = (Some(until), true);
    }

    /// Whether it is its rate that is waited for.
    pub fn is_throttled(&self) -> bool {
        self.throttled
    }

    /// The side that is waited for; `None` if the pump can go on.
    pub fn side(&self) -> Option<Side> {
        self.side
    }

    /// Nothing is waited for any more.
    pub fn end(&mut self) {
        (self.side, self.rest_until, self.throttled) = (None, None, false);
    }

    /// The side for which the wait has taken longer than it may.
    pub fn overdue(&self, now: Instant) -> Option<Side> {
        self.deadline().filter(|at| *at <= now).and(self.side)
    }

    /// When the pump is to go on, ready or not.
    fn resume_at(&self) -> Option<Instant> {
        self.rest_until.or_else(|| {
            let (_, since) = self.since.filter(|(side, _)| *side == Side::Input)?;
            since.checked_add(self.silence?.duration())
        })
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = match self.side? {
            Side::Input => self.timeouts.as_ref()?.input,
            Side::Output => self.timeouts.as_ref()?.output,
        };
        self.since?.1.checked_add(timeout?)
    }
}

/// Waits from `now` on until one of the pumps can go on, each given with its two ends. [`Waited::TimedOut`] after `until`, or when
/// one of them is overdue.
pub(crate) fn wait<'wait, 'fd>(
    host: &mut impl Host,
    pumps: impl IntoIterator<Item = (&'wait mut Wait, [BorrowedFd<'fd>; 2])>,
    now: Instant,
    until: Option<Instant>,
) -> Waited {
    let mut until = until;
    let mut ends = Vec::with_capacity(2);
    let mut waits = Vec::with_capacity(2);
    for (wait, [input, output]) in pumps {
        let Some(side) = wait.side else { continue };
        until = [until, wait.deadline(), wait.resume_at()].into_iter().flatten().min();
        if wait.rest_until.is_none() {
            let fd = if side == Side::Input { input } else { output };
            ends.push(Awaited { side, fd, ready: false });
        }
        waits.push(wait);
    }
    let waited = host.wait(&mut ends, until.map(|at| at.saturating_duration_since(now)));
    match (waited, &mut *ends) {
        (Waited::Yield, [end]) => end.ready = true,
        (Waited::Interrupted, _) => return waited,
        _ => {}
    }
    let mut ends = ends.into_iter();
    for wait in waits {
        let ready = wait.rest_until.is_none() && ends.next().is_some_and(|end| end.ready);
        if ready || wait.resume_at().is_some_and(|at| at <= Instant::now()) {
            wait.end();
        }
    }
    waited
}
