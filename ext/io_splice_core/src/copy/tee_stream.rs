use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, Result};

use super::host::{Wait, wait};
use super::report::Report;
use super::{Advance, Hints, Host, Kernel, Linux, Plan, Pump, Route, Timeouts, Waited};

/// What outputs without a descriptor are handed at once: larger strings are slower, since each is new memory.
const HAND_OVER_SIZE: usize = 64 << 10;

/// Why [`TeeStream::run`] returned. Unless it is `Done` or a failure, call `run` again to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeStreamPause {
    /// All was copied, or the input has ended.
    Done,
    /// A portion has reached every output, or a tenth of a second is over in which bytes have reached one.
    Progress,
    /// This output has to be handed its bytes: see [`TeeStream::bytes_for`].
    HandOver(usize),
    /// The host is to wait for what it was asked for.
    Wait,
    /// An interrupt is pending.
    Interrupted,
    /// The input or an output was not ready in time.
    TimedOut(Option<usize>),
    /// The kernel refuses to take from the input.
    InputFailed(Errno),
    /// The kernel refused to bring bytes to this output. The others have the same bytes, all that left the input.
    OutputFailed(usize, Option<Errno>),
}

/// Copies from one input to several outputs, each of which gets every byte.
///
/// It goes by portions. What is taken from the input is duplicated for each output, without being copied, and the
/// next portion is taken when all of them have theirs. So the slowest sets the pace, and when one fails the others
/// can still catch up on each other.
///
/// It owns no end; they are given to each [`run`](TeeStream::run).
#[derive(Debug)]
pub struct TeeStream<K: Kernel = Linux> {
    /// It only takes bytes.
    source: Pump<K>,
    source_wait: Wait,
    targets: Vec<Target<K>>,
    failed: Option<(usize, Option<Errno>)>,
    /// `None` if nobody asked.
    report: Option<Report>,
}

#[derive(Debug)]
struct Target<K: Kernel> {
    /// Never reads; it only writes what the source hands it.
    pump: Pump<K>,
    wait: Wait,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Some of its portion is still in flight.
    Serving,
    /// It has its portion.
    Served,
    Failed,
}

impl Default for TeeStream {
    /// A copy of nothing to nowhere.
    fn default() -> Self {
        Self::with_kernel(Linux, Plan::UNKNOWN, Vec::new(), Some(0))
    }
}

impl TeeStream {
    /// A copy of `len` bytes, or to the end of the input. An output may be none: then it is handed its bytes.
    pub fn new(
        input: Option<BorrowedFd<'_>>,
        outputs: &[Option<BorrowedFd<'_>>],
        len: Option<u64>,
        hints: Hints,
    ) -> Result<Self> {
        let plan = input.map_or(Ok(Plan::UNKNOWN), |input| Plan::for_outputs(input, outputs, hints))?;
        let target = |output: &Option<BorrowedFd<'_>>| {
            let plan = output.map_or(Ok(Plan::UNKNOWN), |output| Plan::for_output(output, Hints::default()));
            Ok((Linux, plan?))
        };
        Ok(Self::with_kernel(Linux, plan, outputs.iter().map(target).collect::<Result<_>>()?, len))
    }
}

impl<K: Kernel> TeeStream<K> {
    fn with_kernel(kernel: K, plan: Plan, targets: Vec<(K, Plan)>, len: Option<u64>) -> Self {
        let target = |(kernel, plan)| {
            let mut pump = Pump::new(kernel, plan, Some(0), None);
            pump.never_block();
            Target { pump, wait: Wait::default(), state: State::Served }
        };
        let mut source_wait = Wait::default();
        source_wait.set_silence(plan.silence);
        Self {
            source: Pump::new(kernel, plan, len, None),
            source_wait,
            targets: targets.into_iter().map(target).collect(),
            failed: None,
            report: None,
        }
    }

    /// Bytes that were read ahead of the input: they go first, and count.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        self.source.prepend(bytes);
    }

    /// Whether there is more to be prepended. Then nothing is taken from the input, and it is `Done` when every output has
    /// what there is.
    pub fn set_more_ahead(&mut self, more: bool) {
        self.source.set_more_ahead(more);
    }

    /// Asks to be told after each portion how far the copy is, and ten times a second while a portion moves slowly.
    pub fn report(&mut self) {
        self.report = Some(Report::new());
    }

    /// Asks that the kernel never wait for a peer, not even on an input in blocking mode.
    pub fn never_block(&mut self) {
        self.source.never_block();
    }

    /// Takes at most so many bytes a second, over any few seconds.
    pub fn set_rate(&mut self, per_second: u64) {
        self.source.set_rate(per_second);
    }

    /// Whether it waits because of its rate, and for none of its ends.
    pub fn is_throttled(&self) -> bool {
        self.source_wait.is_throttled()
    }

    /// Releases pipes and memory that nothing is in, unless they are in full use: for one that waits beside many others.
    pub fn release_unless_busy(&mut self) {
        let targets = self.targets.iter_mut().map(|target| &mut target.pump);
        std::iter::once(&mut self.source)
            .chain(targets)
            .for_each(|pump| pump.in_flight.release_unless_busy());
    }

    /// Sets how long the input and each of the outputs may take to become ready.
    pub fn set_timeouts(
        &mut self,
        input: Option<Duration>,
        outputs: impl IntoIterator<Item = Option<Duration>>,
    ) {
        self.source_wait.set_timeouts(Timeouts { input, output: None });
        for (target, output) in self.targets.iter_mut().zip(outputs) {
            target.wait.set_timeouts(Timeouts { input: None, output });
        }
    }

    /// How many bytes each output has taken.
    pub fn delivered(&self) -> impl Iterator<Item = u64> {
        self.targets.iter().map(|target| target.pump.delivered())
    }

    /// How many bytes the output has taken that has taken most.
    pub fn copied(&self) -> u64 {
        self.delivered().max().unwrap_or_default()
    }

    /// How many bytes every output has taken.
    pub fn taken_by_all(&self) -> u64 {
        self.delivered().min().unwrap_or_default()
    }

    /// Whether the kernel decrypts what comes from the input.
    pub fn is_from_tls(&self) -> bool {
        self.source.plan().tls_in.is_some()
    }

    /// Whether bytes are missing of those that were asked for: when it is done, the input has ended too soon.
    pub fn is_short(&self) -> bool {
        self.source.is_short()
    }

    /// Copies until it is done or something stands in the way. Without an input there is only what was prepended.
    pub fn run(
        &mut self,
        input: Option<BorrowedFd<'_>>,
        outputs: &[Option<BorrowedFd<'_>>],
        host: &mut impl Host,
    ) -> TeeStreamPause {
        // A forked child has other pipes, or none.
        if self.pumps().any(|pump| pump.in_flight.lost_its_pipe()) {
            return TeeStreamPause::InputFailed(Errno::BADF);
        }
        loop {
            if let Some(pause) = self.serve(outputs, host) {
                return pause;
            }
            let served = self.targets.iter().all(|target| target.state != State::Serving);
            if served {
                if let Some(pause) = self.between_portions(host).or_else(|| self.next_portion(input)) {
                    return pause;
                }
            } else if self.report_is_due(u64::MAX) {
                return TeeStreamPause::Progress;
            }
            if self.can_advance(served) {
                continue;
            }
            match self.wait(input.filter(|_| served), outputs, host) {
                Waited::Ready => {}
                Waited::Interrupted => return TeeStreamPause::Interrupted,
                Waited::Yield => return TeeStreamPause::Wait,
                Waited::TimedOut => {
                    if let Some(pause) = self.overdue() {
                        return pause;
                    }
                }
            }
        }
    }

    fn pumps(&self) -> impl Iterator<Item = &Pump<K>> {
        std::iter::once(&self.source).chain(self.targets.iter().map(|target| &target.pump))
    }

    /// Lets every output go on that can.
    fn serve(&mut self, outputs: &[Option<BorrowedFd<'_>>], host: &mut impl Host) -> Option<TeeStreamPause> {
        for (index, output) in outputs.iter().enumerate() {
            while self.targets[index].can_advance() {
                let Some(output) = *output else { return Some(TeeStreamPause::HandOver(index)) };
                let target = &mut self.targets[index];
                // It takes nothing, so for the input anything will do.
                match target.pump.advance(output, output) {
                    Advance::Progress => {
                        target.wait.progress();
                        if host.interrupted() {
                            return Some(TeeStreamPause::Interrupted);
                        }
                    }
                    Advance::Done => target.state = State::Served,
                    Advance::Blocked(side) => target.wait.blocked(side),
                    Advance::Stalled(side) => target.wait.stalled(side),
                    Advance::Throttled(until) => target.wait.throttled(until),
                    Advance::Interrupted => return Some(TeeStreamPause::Interrupted),
                    Advance::Failed(errno) => self.fail(index, Some(errno)),
                }
            }
        }
        None
    }

    /// All outputs have the same bytes.
    fn between_portions(&mut self, host: &mut impl Host) -> Option<TeeStreamPause> {
        if let Some((output, errno)) = self.failed {
            return Some(TeeStreamPause::OutputFailed(output, errno));
        }
        if self.report_is_due(1) {
            return Some(TeeStreamPause::Progress);
        }
        host.interrupted().then_some(TeeStreamPause::Interrupted)
    }

    fn report_is_due(&mut self, portion: u64) -> bool {
        let taken = self.taken_by_all();
        self.report.as_mut().is_some_and(|report| report.is_due(taken, portion))
    }

    /// Takes the next portion, if there is one already, and gives each output its own.
    fn next_portion(&mut self, input: Option<BorrowedFd<'_>>) -> Option<TeeStreamPause> {
        if self.source.in_flight.is_empty() {
            let Some(input) = input else { return Some(TeeStreamPause::Done) };
            if self.source_wait.side().is_some() {
                return None;
            }
            let room = self.room();
            match self.source.fill(input, room) {
                Advance::Progress => self.source_wait.progress(),
                Advance::Done => return Some(TeeStreamPause::Done),
                Advance::Blocked(side) => self.source_wait.blocked(side),
                Advance::Stalled(side) => self.source_wait.stalled(side),
                Advance::Throttled(until) => self.source_wait.throttled(until),
                Advance::Interrupted => return Some(TeeStreamPause::Interrupted),
                Advance::Failed(errno) => return Some(TeeStreamPause::InputFailed(errno)),
            }
        }
        self.distribute().err().map(TeeStreamPause::InputFailed)
    }

    /// Whether anything can go on without a wait.
    fn can_advance(&self, served: bool) -> bool {
        if served { self.source_wait.side().is_none() } else { self.targets.iter().any(Target::can_advance) }
    }

    fn wait(
        &mut self,
        input: Option<BorrowedFd<'_>>,
        outputs: &[Option<BorrowedFd<'_>>],
        host: &mut impl Host,
    ) -> Waited {
        let now = Instant::now();
        let report_at = self.report.as_ref().and_then(|report| report.at(self.taken_by_all()));
        let pumps =
            std::iter::once(&mut self.source).chain(self.targets.iter_mut().map(|target| &mut target.pump));
        let until = pumps.filter_map(|pump| pump.before_wait(now)).chain(report_at).min();
        let source = input.map(|input| (&mut self.source_wait, [input; 2]));
        let serving =
            self.targets.iter_mut().zip(outputs).filter(|(target, _)| target.state == State::Serving);
        let targets = serving.filter_map(|(target, output)| Some((&mut target.wait, [(*output)?; 2])));
        wait(host, source.into_iter().chain(targets), now, until)
    }

    fn overdue(&self) -> Option<TeeStreamPause> {
        let now = Instant::now();
        let target = self.targets.iter().position(|target| target.wait.overdue(now).is_some());
        let overdue = target.is_some() || self.source_wait.overdue(now).is_some();
        overdue.then_some(TeeStreamPause::TimedOut(target))
    }

    /// This output takes no more. The others go on until they have the same bytes.
    pub fn fail(&mut self, output: usize, errno: Option<Errno>) {
        self.targets[output].state = State::Failed;
        self.failed.get_or_insert((output, errno));
    }

    /// The bytes that an output without a descriptor is to be handed.
    pub fn bytes_for(&mut self, output: usize) -> Result<&[u8]> {
        self.targets[output].pump.bytes()
    }

    /// An output without a descriptor has taken `bytes` of its bytes.
    pub fn handed_over(&mut self, output: usize, bytes: usize) {
        let target = &mut self.targets[output];
        target.pump.record_delivered(bytes);
        if target.pump.in_flight.is_empty() {
            target.state = State::Served;
        }
    }

    /// Aborts the copy. Every output gets what it accepts at once of what others have; what none of them has goes back:
    /// by moving the position of an input that has one, else it is returned.
    pub fn abort(&mut self, input: Option<BorrowedFd<'_>>, outputs: &[Option<BorrowedFd<'_>>]) -> Vec<u8> {
        for (target, output) in self.targets.iter_mut().zip(outputs) {
            if let (Some(output), true) = (*output, target.state != State::Failed) {
                target.pump.deliver_now(output);
            }
        }
        if self.source.in_flight.is_empty() {
            let furthest = self.targets.iter_mut().max_by_key(|target| target.pump.delivered());
            if let Some(furthest) = furthest {
                std::mem::swap(&mut self.source.in_flight, &mut furthest.pump.in_flight);
            }
        }
        self.source.abort(input, None)
    }

    /// How much fits into the pipe of every output, and gives each one while there are any. The source fills the pipe, or
    /// the memory, of the last output.
    fn room(&mut self) -> usize {
        let Some((last, others)) = self.targets.split_last_mut() else { return 0 };
        if !self.source.in_flight.has_storage() {
            std::mem::swap(&mut self.source.in_flight, &mut last.pump.in_flight);
        }
        if self.source.plan().routes == [Route::ReadWrite] {
            return HAND_OVER_SIZE;
        }
        let pumps = std::iter::once(&mut self.source).chain(others.iter_mut().map(|target| &mut target.pump));
        pumps.filter_map(Pump::ensure_pipe).min().unwrap_or(usize::MAX)
    }

    /// Gives every output its own of what the source has in flight, or none of them.
    fn distribute(&mut self) -> Result<()> {
        if self.source.in_flight.is_empty() {
            return Ok(());
        }
        if let Err(errno) = self.duplicate() {
            self.targets.iter_mut().for_each(|target| target.pump.in_flight.discard());
            return Err(errno);
        }
        if let Some(last) = self.targets.last_mut() {
            std::mem::swap(&mut self.source.in_flight, &mut last.pump.in_flight);
        }
        self.targets.iter_mut().for_each(|target| target.state = State::Serving);
        Ok(())
    }

    /// Duplicates what the source has in flight for all but the last output. One that cannot take a `tee` (no pipe, too
    /// few slots) gets a copy in memory.
    fn duplicate(&mut self) -> Result<()> {
        let Some((_, others)) = self.targets.split_last_mut() else { return Ok(()) };
        for target in &mut *others {
            self.source.tee_to(&mut target.pump);
        }
        for target in others.iter_mut().filter(|target| target.pump.in_flight.is_empty()) {
            self.source.copy_to(&mut target.pump)?;
        }
        Ok(())
    }
}

impl<K: Kernel> Target<K> {
    fn can_advance(&self) -> bool {
        self.state == State::Serving && self.wait.side().is_none()
    }
}
