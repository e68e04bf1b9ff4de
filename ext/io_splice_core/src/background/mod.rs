//! Transfers in the background: any number of them on each of a few threads.
//!
//! A transfer is a [`CopyStream`], a [`Relay`] or a [`TeeStream`] that owns its ends. A thread runs it for a short turn,
//! until it has to wait, and waits for all of its transfers together, with epoll(7). Four rules keep them from holding up
//! each other.
//!
//! - A turn is bounded by time. Transfers that have become ready go before those that could continue.
//! - The cost of an event does not depend on the number of transfers: an end is registered once, edge-triggered, if its
//!   edges can be trusted, and a timer that fires too early is set again.
//! - Calls that may block, for a disk or a connection that lingers, run in a [`pool`] of threads for each device.
//! - A transfer that waits with nothing in flight holds neither pipe nor memory.
//!
//! Nothing here outlives fork(2): all descriptors are [`PrivateFd`]s, and a child has neither threads nor locks.

mod event_loop;
mod lingering;
mod pool;
mod thread;
mod transfer;

use std::num::NonZeroU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, Result, read, write};

use crate::copy::{CopyStream, Pause, Relay, RelayPause, TeeStream, TeeStreamPause};
use crate::private_fd::{PrivateFd, generation};
use event_loop::{EventLoop, Message};
use pool::Pools;
use transfer::{Progress, Transfer};

/// What is to be done, with everything that belongs to it.
#[derive(Debug)]
pub struct Job {
    /// The machine, with the bytes that were read ahead of its inputs, and with the timeouts of its ends.
    pub work: Work,
    /// Of a [`CopyStream`] the input and the output. Of a [`Relay`] both sockets; or four: input and output of the one side,
    /// input and output of the other. Of a [`TeeStream`] the input and all outputs. Each is a descriptor by itself.
    pub ends: Vec<PrivateFd>,
    /// How long no byte may reach any output. What waits because of its rate is not idle.
    pub idle_timeout: Option<Duration>,
    /// How many bytes a second at most, in each direction.
    pub rate: Option<NonZeroU64>,
    /// Whether somebody will use the same open files afterwards: then what cannot be delivered goes back.
    pub keep: bool,
}

/// What moves the bytes.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the largest is that of which there are thousands")]
pub enum Work {
    /// From one end to another.
    CopyStream(CopyStream),
    /// Between two sides.
    Relay(Relay),
    /// From one end to several. All of them have descriptors.
    TeeStream(TeeStream),
}

/// How a transfer has ended. What a machine says is never what it could go on after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All is copied.
    Done,
    /// All that there was is copied, and it was less than was asked for.
    Short,
    /// Somebody has cancelled it, or the engine was stopped.
    Cancelled,
    /// No byte has reached an output for too long.
    Idle,
    /// What has ended a copy: a failure or a timeout.
    CopyStream(Pause),
    /// What has ended a relay.
    Relay(RelayPause),
    /// What has ended a tee_stream.
    TeeStream(TeeStreamPause),
    /// It could not be waited for the ends.
    Failed(Errno),
    /// All is copied, and close(2) of a file says that not all of it is written.
    NotClosed(Errno),
    /// There is a bug in this crate.
    Panicked,
}

/// A transfer that has ended. Its descriptors are closed, but for those of TCP connections whose peers have not got everything
/// yet: each is closed when that has come about, or does not go on.
#[derive(Debug)]
pub struct Ended {
    /// As it was given to [`Engine::submit`].
    pub token: u64,
    /// How it has ended.
    pub outcome: Outcome,
    /// The reason behind an `EINVAL` of a copy, if it is known.
    pub why: Option<&'static str>,
    /// How many bytes have reached the output: of a copy, of a relay in each direction, of a tee_stream each of its outputs.
    pub delivered: Vec<u64>,
    /// With [`Job::keep`] what has left an input that has no position and could not be delivered, of a relay in each
    /// direction: it is to be read again first.
    pub unread: [Vec<u8>; 2],
    /// A thread is still in the kernel with it, for a disk. Its descriptors are closed when that returns, and nothing has gone
    /// back. Of a tee_stream only the largest count is known.
    pub stuck: bool,
}

/// A transfer under way, or one that was.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Progress>);

impl Handle {
    /// How many bytes have reached the output so far; of a relay, in each direction; of a tee_stream, the output that has most.
    pub fn bytes(&self) -> [u64; 2] {
        self.0.bytes()
    }

    /// Ends it soon, as [`Outcome::Cancelled`], unless it has ended.
    pub fn cancel(&self) {
        if self.0.event_loop.is_of_this_process() {
            let _ = self.0.event_loop.send(Message::Cancel(self.0.clone()));
        }
    }
}

/// Numbers since an engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transfers that were taken over and have not ended.
    pub under_way: u64,
    /// Transfers that were taken over.
    pub begun: u64,
    /// Those that have ended as [`Outcome::Done`].
    pub done: u64,
    /// Those that were cancelled.
    pub cancelled: u64,
    /// Those that have ended in any other way.
    pub failed: u64,
    /// Bytes that have reached an output.
    pub bytes: u64,
}

/// Runs transfers, on threads of its own.
#[derive(Debug)]
pub struct Engine(Arc<Center>);

impl Engine {
    /// One with so many threads that wait; those for disks come and go. `EMFILE` and `EAGAIN` when there is no descriptor or no
    /// thread to be had.
    ///
    /// # References
    ///  - [epoll]
    ///
    /// [epoll]: https://man7.org/linux/man-pages/man7/epoll.7.html
    pub fn new(threads: usize) -> Result<Self> {
        let loops = (0..threads.max(1)).map(|_| EventLoop::new()).collect::<Result<Vec<_>>>()?;
        let (loops, descriptors): (Vec<_>, Vec<_>) = loops.into_iter().unzip();
        let reports =
            Reports { ended: Vec::new(), signal: Some(Arc::new(new_eventfd()?)), running: loops.len() };
        let center = Center {
            loops,
            reports: Mutex::new(reports),
            generation: generation(),
            counts: Counts::default(),
            pools: Pools::default(),
            closed: AtomicBool::new(false),
        };
        let engine = Self(Arc::new(center));
        for (event_loop, descriptors) in engine.0.loops.iter().zip(descriptors) {
            event_loop::start(event_loop, descriptors, &engine.0)?;
        }
        Ok(engine)
    }

    /// Takes a transfer over. After an error nothing is taken over: `EBADF` for an end that is none and in a forked child,
    /// `EINVAL` for too few or too many ends, `ENOMEM`, `EAGAIN` when there is no thread for a disk, `ESHUTDOWN` after
    /// [`drain`](Engine::drain) and [`stop`](Engine::stop).
    pub fn submit(&self, job: Job, token: u64) -> std::result::Result<Handle, (Box<Job>, Errno)> {
        if !self.is_of_this_process() {
            return Err((Box::new(job), Errno::BADF));
        }
        if self.0.closed.load(SeqCst) {
            return Err((Box::new(job), Errno::SHUTDOWN));
        }
        let Some(event_loop) = self.0.loops.iter().min_by_key(|event_loop| event_loop.load()) else {
            return Err((Box::new(job), Errno::INVAL));
        };
        let transfer = Transfer::new(job, token, event_loop.clone(), &self.0.pools)?;
        let handle = Handle(transfer.progress.clone());
        self.0.counts.begun.fetch_add(1, Relaxed);
        match event_loop.send(Message::Begin(transfer)) {
            Ok(()) => Ok(handle),
            Err(message) => {
                self.0.counts.begun.fetch_sub(1, Relaxed);
                match message {
                    Message::Begin(transfer) => Err((Box::new(transfer.into_job()), Errno::SHUTDOWN)),
                    // It is the very message that was sent.
                    _ => unreachable!(),
                }
            }
        }
    }

    /// A descriptor that is readable when something has ended that was not yet taken, and when all threads have ended.
    /// `None`: they have, and all was taken; or they are another process's.
    pub fn ended(&self) -> Option<Arc<PrivateFd>> {
        if self.is_of_this_process() { locked(&self.0.reports).signal.clone() } else { None }
    }

    /// Takes what has ended since the last time.
    pub fn take_ended(&self) -> Vec<Ended> {
        if !self.is_of_this_process() {
            return Vec::new();
        }
        let mut reports = locked(&self.0.reports);
        if let Some(signal) = &reports.signal {
            let _ = read(signal, &mut [0; 8]);
        }
        if reports.running == 0 {
            reports.signal = None;
        }
        std::mem::take(&mut reports.ended)
    }

    /// Takes no more transfers. The threads end with the last of those that there are, when its peer has everything, and
    /// all descriptors of the engine are closed then. Returns at once.
    pub fn drain(&self) {
        if self.is_of_this_process() {
            self.0.closed.store(true, SeqCst);
            self.0.tell(|| Message::Drain);
        }
    }

    /// Ends all transfers, as [`Outcome::Cancelled`]; they are reported as ever. The threads end with them; one that is stuck
    /// with a disk, when that returns. Returns at once.
    pub fn stop(&self) {
        if self.is_of_this_process() {
            self.0.closed.store(true, SeqCst);
            self.0.tell(|| Message::Stop);
            self.0.pools.stop();
        }
    }

    /// Whether this is no forked child's copy: that has no threads, and its descriptors are closed.
    pub fn is_of_this_process(&self) -> bool {
        self.0.generation == generation()
    }

    /// Numbers since it was made.
    pub fn stats(&self) -> Stats {
        let counts = &self.0.counts;
        let [done, cancelled, failed] =
            [&counts.done, &counts.cancelled, &counts.failed].map(|count| count.load(Relaxed));
        let begun = counts.begun.load(Relaxed);
        let under_way = begun.saturating_sub(done + cancelled + failed);
        let bytes = self.0.loops.iter().map(|event_loop| event_loop.bytes()).sum();
        Stats { under_way, begun, done, cancelled, failed, bytes }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.is_of_this_process() {
            self.stop();
        } else {
            // Its memory may be half written, by a thread that is not there.
            std::mem::forget(self.0.clone());
        }
    }
}

/// What all threads of an engine share.
#[derive(Debug)]
struct Center {
    loops: Vec<Arc<EventLoop>>,
    reports: Mutex<Reports>,
    /// That of its process.
    generation: u32,
    counts: Counts,
    pools: Pools,
    /// It takes no more.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Reports {
    ended: Vec<Ended>,
    /// Readable when `ended` is not empty, and when nothing more will come.
    signal: Option<Arc<PrivateFd>>,
    /// How many event loops have not ended.
    running: usize,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    done: AtomicU64,
    cancelled: AtomicU64,
    failed: AtomicU64,
}

impl Center {
    fn report(&self, transfers: &mut Vec<Ended>) {
        if transfers.is_empty() {
            return;
        }
        for transfer in &*transfers {
            let count = match transfer.outcome {
                Outcome::Done => &self.counts.done,
                Outcome::Cancelled => &self.counts.cancelled,
                _ => &self.counts.failed,
            };
            count.fetch_add(1, Relaxed);
        }
        let mut reports = locked(&self.reports);
        let nobody_knows = reports.ended.is_empty();
        reports.ended.append(transfers);
        if let (Some(signal), true) = (&reports.signal, nobody_knows) {
            notify(signal);
        }
    }

    fn tell(&self, message: impl Fn() -> Message) {
        for event_loop in &self.loops {
            let _ = event_loop.send(message());
        }
    }

    /// An event loop has ended, and has reported everything.
    fn retire(&self) {
        let mut reports = locked(&self.reports);
        reports.running -= 1;
        if reports.running > 0 {
            return;
        }
        // Whoever waits is woken, and finds out.
        if let Some(signal) = &reports.signal {
            notify(signal);
        }
        if reports.ended.is_empty() {
            reports.signal = None;
        }
        drop(reports);
        self.pools.stop();
    }
}

/// A counter in a descriptor, to wake a thread.
fn new_eventfd() -> Result<PrivateFd> {
    PrivateFd::make(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(PrivateFd::new))
}

fn notify(eventfd: &PrivateFd) {
    // It fails when nobody has read it 2^64 times.
    let _ = write(eventfd, &1_u64.to_ne_bytes());
}

/// What a thread has locked that panicked is whole all the same: nothing is called that could panic meanwhile.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
