use std::cell::Cell;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, fstat, major};
use rustix::io::{Errno, Result};
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_linger, socket_type};

use super::event_loop::EventLoop;
use super::lingering::Lingering;
use super::pool::{Pool, Pools};
use super::{Ended, Job, Outcome, Work};
use crate::copy::{
    CopyStream, Direction, Host, Pause, Relay, RelayPause, Side, TeeStream, TeeStreamPause, Waited,
};
use crate::memory::zeroed;
use crate::private_fd::PrivateFd;
use crate::ready::{Awaited, wait_until_any_ready};
use crate::refusal::{Call, refusal};
use crate::tls;

/// How long a transfer runs before others have their turn.
const TURN: Duration = Duration::from_millis(1);
/// The same where only others of the same disk wait.
const DISK_TURN: Duration = Duration::from_millis(10);

/// More memory than a transfer takes, so that its want is noticed in time.
const RESERVE: usize = 16 << 10;

/// What others may know of a transfer while it is anywhere.
#[derive(Debug)]
pub(super) struct Progress {
    pub event_loop: Arc<EventLoop>,
    pub token: u64,
    bytes: [AtomicU64; 2],
    /// When bytes have moved last, on the clock of the event loop.
    moved_at: AtomicU64,
    /// How long after that it is idle, if ever.
    idle_after: Option<NonZeroU64>,
    /// Where the event loop keeps it.
    pub key: AtomicU64,
    /// Its turn is to end.
    pub is_cancelled: AtomicBool,
    /// It was reported as ended although a thread still has it.
    pub is_abandoned: AtomicBool,
}

impl Progress {
    pub fn bytes(&self) -> [u64; 2] {
        [self.bytes[0].load(Relaxed), self.bytes[1].load(Relaxed)]
    }

    /// Something has moved now, or need not.
    pub fn touch(&self) {
        self.moved_at.store(self.event_loop.clock(Instant::now()), Relaxed);
    }

    /// When it is idle, if nothing moves until then.
    pub fn idle_at(&self) -> Option<Instant> {
        let idle_at = self.moved_at.load(Relaxed).checked_add(self.idle_after?.get())?;
        Some(self.event_loop.instant(idle_at))
    }

    fn set(&self, bytes: [u64; 2]) {
        let more = bytes[0] + bytes[1] - self.bytes().iter().sum::<u64>();
        if more > 0 {
            self.bytes[0].store(bytes[0], Relaxed);
            self.bytes[1].store(bytes[1], Relaxed);
            self.event_loop.count(more);
            self.touch();
        }
    }
}

/// One bit for each side.
pub(super) type Sides = u8;
pub(super) const INPUT: Sides = 1;
pub(super) const OUTPUT: Sides = 2;
/// It is known to epoll(7), for whatever side.
pub(super) const REGISTERED: Sides = 4;
/// Its edges cannot be trusted, so each wait asks anew.
pub(super) const ASK_ANEW: Sides = 8;

fn bit(side: Side) -> Sides {
    match side {
        Side::Input => INPUT,
        Side::Output => OUTPUT,
    }
}

/// An end of a transfer, and what epoll(7) is asked about it and has told.
#[derive(Debug)]
pub(super) struct End {
    /// None when it has been closed to tell its reader of the end.
    fd: Option<PrivateFd>,
    /// What the transfer waits for.
    pub awaited: Cell<Sides>,
    /// What has been told since it was asked for the last time.
    pub ready: Cell<Sides>,
    /// What it is watched for, and how.
    pub watched: Cell<Sides>,
    /// epoll(7) is not to be asked: a file system in user space would be asked in turn, and that may be stuck.
    pub is_file: bool,
}

impl End {
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(PrivateFd::as_fd)
    }

    /// Whether close(2) may wait: for a peer, as long as `SO_LINGER` says and whatever the mode; for a terminal or a disk.
    fn may_block_at_close(&self) -> bool {
        let Some(fd) = &self.fd else { return false };
        match socket_linger(fd) {
            Ok(linger) => linger.is_some_and(|linger| !linger.is_zero()),
            Err(_) => kind(fd).is_ok_and(|kind| !matches!(kind, Kind::Stream | Kind::Plain)),
        }
    }
}

/// What an end is, as far as it matters for waiting.
enum Kind {
    /// A pipe or a socket with a stream: after `EAGAIN` an edge comes for sure.
    Stream,
    /// What does not block, and of whose edges nothing is known.
    Plain,
    /// A terminal.
    Terminal,
    /// A file of this device.
    File(u64),
    /// Another device, with this number, which may let a call wait.
    Device(u64),
}

fn kind(fd: impl AsFd) -> Result<Kind> {
    /// See devices.txt of the kernel's documentation: null, zero, full, random.
    const MEM_MAJOR: u32 = 1;
    let stat = fstat(&fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo => Kind::Stream,
        FileType::Socket if socket_type(&fd) == Ok(SocketType::STREAM) => Kind::Stream,
        FileType::RegularFile | FileType::Directory => Kind::File(stat.st_dev),
        FileType::BlockDevice => Kind::File(stat.st_rdev),
        FileType::CharacterDevice if rustix::termios::isatty(&fd) => Kind::Terminal,
        FileType::CharacterDevice if major(stat.st_rdev) != MEM_MAJOR => Kind::Device(stat.st_rdev),
        _ => Kind::Plain,
    })
}

/// How a turn has ended.
pub(super) enum Pace {
    /// It waits for its ends that are `awaited`, or for the time.
    Waits,
    /// It could go on.
    Again,
    /// It has ended, and why, if that is known.
    Over(Outcome, Option<&'static str>),
}

/// A job that was taken over.
#[derive(Debug)]
pub(super) struct Transfer {
    work: Work,
    pub ends: Box<[End]>,
    pub progress: Arc<Progress>,
    /// Where it runs, if it may block.
    pub pool: Option<Arc<Pool>>,
    rate: Option<NonZeroU64>,
    keep: bool,
    /// When it is to run, ready or not.
    pub resume_at: Option<Instant>,
    /// Whether it waits for a single end, which then is taken for ready.
    waits_for_one: bool,
    /// Whether it has a place in a queue.
    pub is_queued: bool,
}

impl Transfer {
    pub fn new(
        job: Job,
        token: u64,
        event_loop: Arc<EventLoop>,
        pools: &Pools,
    ) -> std::result::Result<Box<Self>, (Box<Job>, Errno)> {
        let (pool, kinds) = match prepare(&job, pools) {
            Ok(prepared) => prepared,
            Err(errno) => return Err((Box::new(job), errno)),
        };
        let is_away = pool.is_some();
        let Job { mut work, ends, idle_timeout, rate, keep } = job;
        work.prepare(rate, pool.as_ref());
        let progress = Progress {
            token,
            bytes: [const { AtomicU64::new(0) }; 2],
            moved_at: AtomicU64::new(0),
            idle_after: idle_timeout.and_then(nanos),
            key: AtomicU64::new(u64::MAX),
            is_cancelled: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            event_loop,
        };
        progress.touch();
        let end = |(fd, kind)| End {
            fd: Some(fd),
            is_file: matches!(kind, Kind::File(_)),
            awaited: Cell::new(0),
            ready: Cell::new(0),
            // While a thread of the pool has it, edges are lost.
            watched: Cell::new(if is_away || !matches!(kind, Kind::Stream) { ASK_ANEW } else { 0 }),
        };
        Ok(Box::new(Self {
            work,
            ends: ends.into_iter().zip(kinds).map(end).collect(),
            progress: Arc::new(progress),
            pool,
            rate,
            keep,
            resume_at: None,
            waits_for_one: false,
            is_queued: false,
        }))
    }

    /// What was taken over.
    pub fn into_job(self) -> Job {
        let ends = Vec::from(self.ends).into_iter().filter_map(|end| end.fd).collect();
        let idle_timeout = self.progress.idle_after.map(|nanos| Duration::from_nanos(nanos.get()));
        Job { work: self.work, ends, idle_timeout, rate: self.rate, keep: self.keep }
    }

    /// Runs it for a while. It waits for nobody but a disk.
    pub fn turn(&mut self) -> Pace {
        self.resume_at = None;
        if std::mem::take(&mut self.waits_for_one) {
            // It does not ask.
            self.ends.iter().for_each(|end| end.ready.set(end.ready.get() & !end.awaited.get()));
        }
        let pace = catch_unwind(AssertUnwindSafe(|| self.run()));
        self.progress.set(self.work.bytes());
        pace.unwrap_or(Pace::Over(Outcome::Panicked, None))
    }

    fn run(&mut self) -> Pace {
        let turn = if self.pool.is_some() { DISK_TURN } else { TURN };
        let mut host = Turn {
            ends: &self.ends,
            over_at: Instant::now() + turn,
            is_cancelled: &self.progress.is_cancelled,
            resume_at: &mut self.resume_at,
            waits_for_one: &mut self.waits_for_one,
        };
        let passed_on = match &mut self.work {
            Work::CopyStream(copy) => return run_copy(copy, &mut host),
            Work::TeeStream(tee) => return run_tee_stream(tee, &mut host),
            Work::Relay(relay) => match run_relay(relay, &mut host) {
                Ok(pace) => return pace,
                Err(direction) => {
                    relay.passed_on(direction);
                    direction
                }
            },
        };
        self.tell_of_the_end(passed_on);
        Pace::Again
    }

    /// The output of this direction is not a socket. Who reads from a pipe learns of the end when it is closed.
    fn tell_of_the_end(&mut self, direction: Direction) {
        let output = relay_ends(self.ends.len())[direction as usize][1];
        let is_pipe = self.ends[output].fd().is_some_and(|fd| {
            fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
        });
        // One that is both ends of a side cannot be closed for one.
        if is_pipe && self.ends.len() == 4 {
            drop(self.take(output));
        }
    }

    fn close(&mut self, end: usize) -> Result<()> {
        match self.take(end).map(PrivateFd::close) {
            Some(Err(errno)) if self.ends[end].is_file => Err(errno),
            _ => Ok(()),
        }
    }

    fn take(&mut self, end: usize) -> Option<PrivateFd> {
        let end = &mut self.ends[end];
        if let (Some(fd), true) = (&end.fd, end.watched.get() & REGISTERED != 0) {
            // Else epoll would know it as long as the file is open somewhere.
            self.progress.event_loop.forget(fd.as_fd());
        }
        end.fd.take()
    }

    /// Whether to end it may block.
    pub fn may_block_at_end(&self) -> bool {
        self.pool.is_some() || self.ends.iter().any(End::may_block_at_close)
    }

    /// Whether it waits because of its rate.
    pub fn is_throttled(&self) -> bool {
        match &self.work {
            Work::CopyStream(copy) => copy.is_throttled(),
            Work::Relay(relay) => relay.is_throttled(),
            Work::TeeStream(tee) => tee.is_throttled(),
        }
    }

    /// Ends it: what is held goes as far as it goes at once, the rest goes back, and everything is closed, but for the
    /// connections that are returned.
    pub fn end(mut self: Box<Self>, outcome: Outcome, why: Option<&'static str>) -> (Ended, Vec<Lingering>) {
        let mut unread = [Vec::new(), Vec::new()];
        // After a panic nobody knows what is held.
        let is_done = matches!(outcome, Outcome::Done | Outcome::Short);
        if !is_done && outcome != Outcome::Panicked {
            let aborted = catch_unwind(AssertUnwindSafe(|| self.abort()));
            unread = aborted.ok().filter(|_| self.keep).unwrap_or_default();
        }
        self.progress.set(self.work.bytes());
        let lingering = if is_done && !self.keep { self.linger() } else { Vec::new() };
        let closed = (0..self.ends.len()).map(|end| self.close(end)).fold(Ok(()), Result::and);
        let outcome = match closed {
            Err(errno) if is_done => Outcome::NotClosed(errno),
            _ => outcome,
        };
        let delivered = self.work.delivered();
        (Ended { token: self.progress.token, outcome, why, delivered, unread, stuck: false }, lingering)
    }

    /// Takes those of the outputs whose peers have not got everything and may still send. Those of a relay were shut down, but
    /// for those with TLS.
    fn linger(&mut self) -> Vec<Lingering> {
        let Work::Relay(relay) = &self.work else {
            // A file is closed by `end`, which looks at what close(2) says.
            let outputs: Vec<_> = (1..self.ends.len()).filter(|end| !self.ends[*end].is_file).collect();
            return outputs.into_iter().filter_map(|end| self.take(end)).filter_map(Lingering::new).collect();
        };
        let ends = relay_ends(self.ends.len());
        let with_tls = Direction::BOTH.into_iter().filter(|direction| relay.is_to_tls(*direction));
        let outputs: Vec<_> = with_tls.map(|direction| ends[direction as usize][1]).collect();
        outputs.into_iter().filter_map(|end| self.take(end)).filter_map(Lingering::of_notified).collect()
    }

    fn abort(&mut self) -> [Vec<u8>; 2] {
        let fd = |end: usize| self.ends[end].fd();
        match &mut self.work {
            Work::CopyStream(copy) if copy.needs_abort() => [copy.abort(fd(0), fd(1)), Vec::new()],
            Work::CopyStream(_) => Default::default(),
            Work::Relay(relay) => {
                let ends = relay_ends(self.ends.len());
                Direction::BOTH.map(|direction| match ends[direction as usize] {
                    [input, output] if relay.needs_abort(direction) => {
                        relay.abort(direction, fd(input), fd(output))
                    }
                    _ => Vec::new(),
                })
            }
            Work::TeeStream(tee) => {
                let outputs: Vec<_> = (1..self.ends.len()).map(fd).collect();
                [tee.abort(fd(0), &outputs), Vec::new()]
            }
        }
    }
}

/// `None` is for ever: five centuries.
fn nanos(timeout: Duration) -> Option<NonZeroU64> {
    NonZeroU64::new(u64::try_from(timeout.as_nanos()).ok()?.max(1))
}

/// Looks at the ends of a job, and where it is to run.
fn prepare(job: &Job, pools: &Pools) -> Result<(Option<Arc<Pool>>, Vec<Kind>)> {
    let fits = match job.work {
        Work::CopyStream(_) => job.ends.len() == 2,
        Work::Relay(_) => matches!(job.ends.len(), 2 | 4),
        Work::TeeStream(_) => (2..=usize::from(u16::MAX)).contains(&job.ends.len()),
    };
    if !fits {
        return Err(Errno::INVAL);
    }
    drop(zeroed(RESERVE)?);
    let kinds = job.ends.iter().map(kind).collect::<Result<Vec<_>>>()?;
    let mut devices: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::File(device) | Kind::Device(device) => Some(*device),
            Kind::Stream | Kind::Plain | Kind::Terminal => None,
        })
        .collect();
    devices.sort_unstable();
    devices.dedup();
    let pool = (!devices.is_empty()).then(|| pools.of(devices));
    if let Some(pool) = &pool {
        pool.ensure_thread()?;
    }
    Ok((pool, kinds))
}

/// Which ends of a relay are input and output of each direction.
fn relay_ends(count: usize) -> [[usize; 2]; 2] {
    if count == 2 { [[0, 1], [1, 0]] } else { [[0, 3], [2, 1]] }
}

impl Work {
    fn prepare(&mut self, rate: Option<NonZeroU64>, pool: Option<&Arc<Pool>>) {
        match self {
            Self::CopyStream(copy) => {
                copy.never_block();
                if pool.is_none() {
                    // Bounds each call.
                    copy.report();
                }
                rate.into_iter().for_each(|rate| copy.set_rate(rate.get()));
            }
            // It never blocks anyway, and its calls are bounded.
            Self::Relay(relay) => {
                relay.share_pipes();
                rate.into_iter().for_each(|rate| relay.set_rate(rate.get()));
            }
            Self::TeeStream(tee) => {
                tee.never_block();
                rate.into_iter().for_each(|rate| tee.set_rate(rate.get()));
            }
        }
    }

    fn bytes(&self) -> [u64; 2] {
        match self {
            Self::CopyStream(copy) => [copy.delivered(), 0],
            Self::Relay(relay) => relay.delivered(),
            Self::TeeStream(tee) => [tee.copied(), 0],
        }
    }

    fn delivered(&self) -> Vec<u64> {
        match self {
            Self::CopyStream(copy) => vec![copy.delivered()],
            Self::Relay(relay) => relay.delivered().to_vec(),
            Self::TeeStream(tee) => tee.delivered().collect(),
        }
    }
}

fn done(is_short: bool) -> Outcome {
    if is_short { Outcome::Short } else { Outcome::Done }
}

fn run_copy(copy: &mut CopyStream, host: &mut Turn<'_>) -> Pace {
    let ends = host.ends;
    let (Some(input), Some(output)) = (ends[0].fd(), ends[1].fd()) else { return Pace::Again };
    loop {
        match copy.run(input, output, host) {
            Pause::Done => return Pace::Over(done(copy.is_short()), None),
            Pause::Wait => {
                copy.release_unless_busy();
                return Pace::Waits;
            }
            Pause::Progress if !host.interrupted() => {}
            Pause::Progress | Pause::Interrupted => return Pace::Again,
            failed => {
                let why = match failed {
                    Pause::Failed(Errno::INVAL) => refusal(Call::Splice, Some(input), output, Errno::INVAL),
                    Pause::Failed(errno) if copy.is_from_tls() => tls::reason(errno),
                    _ => None,
                };
                return Pace::Over(Outcome::CopyStream(failed), why);
            }
        }
    }
}

/// The direction whose output is to be told of the end, if that is what it stands at.
fn run_relay(relay: &mut Relay, host: &mut Turn<'_>) -> std::result::Result<Pace, Direction> {
    let ends = host.ends;
    let fds = |[input, output]: [usize; 2]| Some([ends[input].fd()?, ends[output].fd()?]);
    match relay.run(relay_ends(ends.len()).map(fds), host) {
        RelayPause::Done => Ok(Pace::Over(Outcome::Done, None)),
        RelayPause::Ended(direction) => Err(direction),
        RelayPause::Wait => Ok(Pace::Waits),
        RelayPause::Interrupted => Ok(Pace::Again),
        failed => {
            let why = match failed {
                RelayPause::Failed(direction, errno) if relay.is_from_tls(direction) => tls::reason(errno),
                _ => None,
            };
            Ok(Pace::Over(Outcome::Relay(failed), why))
        }
    }
}

fn run_tee_stream(tee: &mut TeeStream, host: &mut Turn<'_>) -> Pace {
    let ends = host.ends;
    let outputs: Vec<_> = ends[1..].iter().map(End::fd).collect();
    match tee.run(ends[0].fd(), &outputs, host) {
        TeeStreamPause::Done => Pace::Over(done(tee.is_short()), None),
        TeeStreamPause::Wait => {
            tee.release_unless_busy();
            Pace::Waits
        }
        TeeStreamPause::Progress | TeeStreamPause::Interrupted => Pace::Again,
        failed => {
            let why = match failed {
                TeeStreamPause::InputFailed(errno) if tee.is_from_tls() => tls::reason(errno),
                _ => None,
            };
            Pace::Over(Outcome::TeeStream(failed), why)
        }
    }
}

/// The host of a transfer for one turn. It takes down what is waited for.
struct Turn<'turn> {
    ends: &'turn [End],
    over_at: Instant,
    is_cancelled: &'turn AtomicBool,
    resume_at: &'turn mut Option<Instant>,
    waits_for_one: &'turn mut bool,
}

impl Host for Turn<'_> {
    fn wait(&mut self, awaited: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        if timeout == Some(Duration::ZERO) {
            return wait_until_any_ready(awaited, timeout);
        }
        let mut any = false;
        for one in &mut *awaited {
            if let Some(end) = self.end(one.fd) {
                let ready = end.ready.get();
                one.ready = ready & bit(one.side) != 0;
                end.ready.set(ready & !bit(one.side));
                any |= one.ready;
            }
        }
        if any {
            return Waited::Ready;
        }
        self.ends.iter().for_each(|end| end.awaited.set(0));
        for one in &*awaited {
            if let Some(end) = self.end(one.fd) {
                end.awaited.set(end.awaited.get() | bit(one.side));
            }
        }
        *self.waits_for_one = awaited.len() == 1;
        *self.resume_at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Waited::Yield
    }

    /// At the end of the turn.
    fn interrupted(&mut self) -> bool {
        self.is_cancelled.load(Relaxed) || Instant::now() >= self.over_at
    }
}

impl Turn<'_> {
    fn end(&self, fd: BorrowedFd<'_>) -> Option<&End> {
        self.ends.iter().find(|end| end.fd().is_some_and(|own| own.as_raw_fd() == fd.as_raw_fd()))
    }
}
