use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::{Among, Copy, Held, Hub, Kernel, Linux, Pause, Plan, Route, Side, Step, Waited};
use crate::memory::copied;
use crate::{Awaited, OwnPipe};

/// What outputs without a descriptor are handed at once: larger strings are slower, since each is new memory.
const PORTION: usize = 64 << 10;

/// Why [`FanOut::run`] came back. All but `Done` and `Failed` go on with the next `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOutPause {
    /// All was copied, or the input has ended.
    Done,
    /// A portion has reached every output.
    Progress,
    /// This output has to be handed its bytes: see [`FanOut::bytes_for`].
    HandOver(usize),
    /// Some end has to become ready first.
    Wait,
    /// All are said to be ready and yet nothing moves, for the n-th time.
    InVain(u32),
    /// An interrupt has to be looked after.
    Interrupted,
    /// The input or an output was not ready in time.
    TimedOut(Option<usize>),
    /// The kernel says no to the input.
    InputFailed(Errno),
    /// The kernel said no to this output. The others have the same bytes, all that left the input.
    OutputFailed(usize, Option<Errno>),
}

/// Copies from one input to several outputs, each of which gets every byte.
///
/// It goes by portions. What is taken from the input is duplicated for each output, without being copied, and the
/// next portion is taken when all of them have theirs. So the slowest sets the pace, and when one fails the others
/// can still catch up on each other.
///
/// It owns no end; they are given to each [`run`](FanOut::run).
#[derive(Debug)]
pub struct FanOut<K: Kernel = Linux> {
    source: Copy<K>,
    targets: Vec<Target<K>>,
    failed: Option<(usize, Option<Errno>)>,
    /// How long the input may take to become ready, and since when it is waited for.
    timeout: Option<Duration>,
    since: Option<Instant>,
    /// What somebody who wants to know has been told.
    told: Option<u64>,
}

#[derive(Debug)]
struct Target<K: Kernel> {
    /// It takes nothing, but is given what it is to deliver.
    copy: Copy<K>,
    timeout: Option<Duration>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Moving,
    Waiting(Instant),
    /// It has its portion.
    Served,
    Failed,
}

impl Default for FanOut {
    /// A copy of nothing to nowhere.
    fn default() -> Self {
        Self {
            source: Copy::default(),
            targets: Vec::new(),
            failed: None,
            timeout: None,
            since: None,
            told: None,
        }
    }
}

impl FanOut {
    /// A copy of `len` bytes, or to the end of the input. An output may be none: then it is handed its bytes.
    pub fn new(
        input: Option<BorrowedFd<'_>>,
        outputs: &[Option<BorrowedFd<'_>>],
        len: Option<u64>,
    ) -> rustix::io::Result<Self> {
        let plan = input.map_or(Ok(Plan::NOWHERE), |input| Plan::to_several(input, outputs))?;
        let target = |output: &Option<BorrowedFd<'_>>| {
            let plan = output.map_or(Ok(Plan::NOWHERE), Plan::to)?;
            let mut copy = Copy::with_kernel(Linux, plan, Some(0), None);
            copy.never_block();
            Ok(Target { copy, timeout: None, state: State::Served })
        };
        Ok(Self {
            source: Copy::with_kernel(Linux, plan, len, None),
            targets: outputs.iter().map(target).collect::<rustix::io::Result<_>>()?,
            ..Self::default()
        })
    }
}

impl<K: Kernel> FanOut<K> {
    /// Bytes that somebody has read ahead: they go first, and count.
    pub fn put_first(&mut self, bytes: Vec<u8>) {
        self.source.put_first(bytes);
    }

    /// Asks to be told after each portion how far the copy is.
    pub fn report(&mut self) {
        self.told = Some(0);
    }

    /// How long the input and each of the outputs may take to become ready.
    pub fn set_timeouts(
        &mut self,
        input: Option<Duration>,
        outputs: impl IntoIterator<Item = Option<Duration>>,
    ) {
        self.timeout = input;
        for (target, timeout) in self.targets.iter_mut().zip(outputs) {
            target.timeout = timeout;
        }
    }

    /// How many bytes each output has taken.
    pub fn delivered(&self) -> impl Iterator<Item = u64> {
        self.targets.iter().map(|target| target.copy.delivered())
    }

    /// How many bytes the output has taken that has taken most.
    pub fn copied(&self) -> u64 {
        self.delivered().max().unwrap_or_default()
    }

    /// Copies until it is done or something stands in the way. Without an input there is only what was put first.
    pub fn run(
        &mut self,
        input: Option<BorrowedFd<'_>>,
        outputs: &[Option<BorrowedFd<'_>>],
        hub: &mut impl Hub,
    ) -> FanOutPause {
        // A forked child has other pipes, or none.
        if self.source.lost_its_pipe() || self.targets.iter().any(|target| target.copy.lost_its_pipe()) {
            return FanOutPause::InputFailed(Errno::BADF);
        }
        loop {
            if let Some(pause) = self.serve(outputs, hub) {
                return pause;
            }
            let mut waiting = self.waiting(outputs);
            let mut deadline = self.targets.iter().filter_map(Target::deadline).min();
            if waiting.is_empty() {
                // All have the same bytes.
                if let Some(pause) = self.pause_between_portions(hub) {
                    return pause;
                }
                let (step, input) = match input {
                    Some(input) => (self.take(input), input),
                    None if self.source.held() > 0 => match self.distribute() {
                        Ok(()) => continue,
                        Err(errno) => return FanOutPause::InputFailed(errno),
                    },
                    None => return FanOutPause::Done,
                };
                match step {
                    Ok(Step::Moved | Step::Refused) => {
                        self.since = None;
                        continue;
                    }
                    Ok(Step::Ended) => return FanOutPause::Done,
                    Ok(Step::InVain) => return FanOutPause::InVain(1),
                    Ok(Step::WouldBlock(side)) => waiting.push(Awaited { side, fd: input, ready: false }),
                    Err(Errno::INTR) => return FanOutPause::Interrupted,
                    Err(errno) => return FanOutPause::InputFailed(errno),
                }
                let since = *self.since.get_or_insert_with(Instant::now);
                deadline = self.timeout.and_then(|timeout| since.checked_add(timeout));
            }
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match hub.wait(&mut waiting, timeout) {
                Waited::Ready => {}
                Waited::Interrupted => return FanOutPause::Interrupted,
                Waited::TimedOut => {
                    let overdue =
                        |target: &Target<K>| target.deadline().is_some_and(|at| Some(at) == deadline);
                    return FanOutPause::TimedOut(self.targets.iter().position(overdue));
                }
                Waited::Elsewhere => return FanOutPause::Wait,
            }
            let targets = self.targets.iter_mut().filter(|target| target.is_waiting());
            for (target, _) in targets.zip(waiting).filter(|(_, end)| end.ready) {
                target.state = State::Moving;
            }
        }
    }

    fn pause_between_portions(&mut self, hub: &mut impl Hub) -> Option<FanOutPause> {
        if let Some((output, errno)) = self.failed {
            return Some(FanOutPause::OutputFailed(output, errno));
        }
        let copied = self.copied();
        if self.told.is_some_and(|told| told < copied) {
            self.told = Some(copied);
            return Some(FanOutPause::Progress);
        }
        hub.interrupted().then_some(FanOutPause::Interrupted)
    }

    /// Lets every output go on that can.
    fn serve(&mut self, outputs: &[Option<BorrowedFd<'_>>], hub: &mut impl Hub) -> Option<FanOutPause> {
        for (index, output) in outputs.iter().enumerate() {
            let target = &mut self.targets[index];
            if target.state != State::Moving {
                continue;
            }
            let Some(output) = *output else { return Some(FanOutPause::HandOver(index)) };
            // It has nothing to take, so for the input anything will do.
            match target.copy.run(output, output, &mut Among(hub)) {
                Pause::Done | Pause::Progress => target.state = State::Served,
                Pause::Wait(_) => target.state = State::Waiting(Instant::now()),
                Pause::Failed(errno) => self.fail(index, Some(errno)),
                Pause::InVain(times) => return Some(FanOutPause::InVain(times)),
                Pause::Interrupted | Pause::TimedOut(_) => return Some(FanOutPause::Interrupted),
            }
        }
        None
    }

    fn waiting<'fd>(&self, outputs: &[Option<BorrowedFd<'fd>>]) -> Vec<Awaited<'fd>> {
        let targets = self.targets.iter().zip(outputs).filter(|(target, _)| target.is_waiting());
        targets
            .filter_map(|(_, output)| Some(Awaited { side: Side::Output, fd: (*output)?, ready: false }))
            .collect()
    }

    /// This output takes no more. The others go on until they have the same bytes.
    pub fn fail(&mut self, output: usize, errno: Option<Errno>) {
        self.targets[output].state = State::Failed;
        self.failed.get_or_insert((output, errno));
    }

    /// The bytes that an output without a descriptor is to be handed.
    pub fn bytes_for(&mut self, output: usize) -> rustix::io::Result<&[u8]> {
        self.targets[output].copy.bytes()
    }

    /// An output without a descriptor has taken so many of its bytes.
    pub fn handed_over(&mut self, output: usize, bytes: usize) {
        let target = &mut self.targets[output];
        target.copy.was_delivered(bytes);
        if target.copy.held() == 0 {
            target.state = State::Served;
        }
    }

    /// Gives up, for want of an end or for another reason. Every output gets what it takes at once of what others
    /// have; what none of them has goes back: by moving the position of an input that has one, else it
    /// is returned.
    pub fn give_up(&mut self, input: Option<BorrowedFd<'_>>, outputs: &[Option<BorrowedFd<'_>>]) -> Vec<u8> {
        for (target, output) in self.targets.iter_mut().zip(outputs) {
            if let (Some(output), true) = (*output, target.state != State::Failed) {
                target.copy.deliver_now(output);
            }
        }
        if self.source.held() > 0 {
            return self.source.give_up(input, None);
        }
        let furthest = self.targets.iter_mut().max_by_key(|target| target.copy.delivered());
        furthest.map_or(Vec::new(), |target| target.copy.give_up(input, None))
    }

    /// Takes the next portion and gives each output its own.
    fn take(&mut self, input: BorrowedFd<'_>) -> super::Attempt {
        if self.source.held() == 0 {
            self.source.most = self.room();
            match self.source.step(input, input)? {
                Step::Moved => {}
                Step::Refused => {
                    self.source.plan.routes = &self.source.plan.routes[1..];
                    return Ok(Step::Refused);
                }
                step => return Ok(step),
            }
        }
        self.distribute()?;
        Ok(Step::Moved)
    }

    /// Sees to it that there is a pipe for every output, if there are so many, and tells what goes into the smallest. That
    /// of the last one is the one that is filled. Without pipes it is its memory.
    fn room(&mut self) -> usize {
        let Some((last, others)) = self.targets.split_last_mut() else { return 0 };
        if self.source.plan.routes == [Route::ReadWrite] {
            // The memory of the last portion does for the next one.
            if matches!(self.source.held, Held::Nothing) && last.copy.held() == 0 {
                std::mem::swap(&mut self.source.held, &mut last.copy.held);
            }
            return PORTION;
        }
        let kernel = &mut self.source.kernel;
        let filled = &mut self.source.idle;
        *filled = filled.take().or_else(|| last.copy.idle.take()).or_else(|| kernel.pipe().ok());
        for target in others.iter_mut().filter(|target| target.copy.idle.is_none()) {
            target.copy.idle = kernel.pipe().ok();
        }
        let pipes = others.iter().filter_map(|target| target.copy.idle.as_ref()).chain(filled.as_ref());
        pipes.map(OwnPipe::capacity).min().unwrap_or(usize::MAX)
    }

    /// Gives every output its own of what the source holds, or none of them.
    fn distribute(&mut self) -> rustix::io::Result<()> {
        if let Err(errno) = self.duplicate() {
            // Then nobody gets any of it.
            self.targets.iter_mut().for_each(|target| target.copy.held = Held::Nothing);
            return Err(errno);
        }
        if let Some(last) = self.targets.last_mut() {
            last.copy.held = std::mem::replace(&mut self.source.held, Held::Nothing);
        }
        self.targets.iter_mut().for_each(|target| target.state = State::Moving);
        Ok(())
    }

    /// Duplicates what the source holds for all but the last output. Whom that does not work for (there is no pipe, or
    /// it has too few slots for many small pieces) gets a copy in memory.
    fn duplicate(&mut self) -> rustix::io::Result<()> {
        let Some((_, others)) = self.targets.split_last_mut() else { return Ok(()) };
        if let Held::Pipe(pipe, bytes) = &self.source.held {
            for target in &mut *others {
                let Some(own) = target.copy.idle.take() else { continue };
                // A pipe with a part of it is of no use, and is closed.
                if self.source.kernel.tee(pipe.reader(), own.writer(), *bytes) == Ok(*bytes) {
                    target.copy.held = Held::Pipe(own, *bytes);
                }
            }
        }
        if others.iter().any(|target| target.copy.held() == 0) {
            self.source.take_into_memory()?;
        }
        if let Held::Memory(buffer, bytes) = &self.source.held {
            for target in others.iter_mut().filter(|target| target.copy.held() == 0) {
                target.copy.held = Held::Memory(copied(&buffer[bytes.clone()])?, 0..bytes.len());
            }
        }
        Ok(())
    }
}

impl<K: Kernel> Target<K> {
    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    fn deadline(&self) -> Option<Instant> {
        let State::Waiting(since) = self.state else { return None };
        since.checked_add(self.timeout?)
    }
}
