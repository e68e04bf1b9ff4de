use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::{Among, Copy, Hub, Kernel, Linux, Pause, Side, Waited};
use crate::Awaited;

/// Which way bytes go in a relay: its first or its second direction.
pub type Direction = usize;

/// How many portions of 1 MiB make a turn. When each is followed by one in the other direction, the CPU time for both
/// is a quarter more.
const TURN: usize = 16;

/// Input and output of each direction; none of one that is over.
pub type Ends<'fd> = [Option<(BorrowedFd<'fd>, BorrowedFd<'fd>)>; 2];

/// How long an input and an output may take to become ready.
pub type Timeouts = (Option<Duration>, Option<Duration>);

/// Why [`Relay::run`] came back. All but `Done` and `Failed` go on with the next `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayPause {
    /// Both directions have ended, and the outputs know.
    Done,
    /// The input of this direction has ended, its output has everything, and is no socket that could be told so.
    /// To be told in another way, and then to be confirmed with [`Relay::passed_on`].
    Ended(Direction),
    /// Some end has to become ready first.
    Wait,
    /// All are said to be ready and yet nothing moves, for the n-th time.
    InVain(u32),
    /// An interrupt has to be looked after.
    Interrupted,
    /// No byte went in either direction for too long.
    Idle,
    /// This end of a direction was not ready in time.
    TimedOut(Direction, Side),
    /// The kernel says no to this direction. The other one has delivered what had arrived by then.
    Failed(Direction, Errno),
}

/// Copies in both directions at once, in one loop, until both have ended.
///
/// A direction whose input has ended tells its output so, and the other one goes on. While a direction
/// waits with nothing in its hands it has no pipe.
///
/// It owns no end; they are given to each [`run`](Relay::run).
#[derive(Debug)]
pub struct Relay<K: Kernel = Linux> {
    ways: [Way<K>; 2],
    idle_timeout: Option<Duration>,
    /// When a byte went last.
    last: Instant,
    moved: u64,
}

#[derive(Debug)]
struct Way<K: Kernel> {
    copy: Copy<K>,
    timeouts: Timeouts,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Moving,
    Waiting(Side, Instant),
    Ended,
    PassedOn,
    Failed(Errno),
}

impl Default for Relay {
    /// A relay of nothing.
    fn default() -> Self {
        Self::new(Default::default(), None)
    }
}

impl<K: Kernel> Relay<K> {
    /// A relay of two copies to the end of their inputs, each with the time that its input and its output may take
    /// to become ready.
    pub fn new(copies: [(Copy<K>, Timeouts); 2], idle_timeout: Option<Duration>) -> Self {
        let ways = copies.map(|(mut copy, timeouts)| {
            // Neither is at it for longer than a turn, nor keeps the other one from its own.
            copy.report();
            copy.never_block();
            Way { copy, timeouts, state: State::Moving }
        });
        Self { ways, idle_timeout, last: Instant::now(), moved: 0 }
    }

    /// How many bytes have reached their output, in each direction.
    pub fn delivered(&self) -> [u64; 2] {
        [self.ways[0].copy.delivered(), self.ways[1].copy.delivered()]
    }

    /// The copy in one direction.
    pub fn copy(&mut self, direction: Direction) -> &mut Copy<K> {
        &mut self.ways[direction].copy
    }

    /// Whether this direction has ended, and its output knows.
    pub fn is_over(&self, direction: Direction) -> bool {
        self.ways[direction].state == State::PassedOn
    }

    /// The output of this direction knows of its end.
    pub fn passed_on(&mut self, direction: Direction) {
        self.ways[direction].state = State::PassedOn;
    }

    /// Copies until both directions have ended or something stands in the way.
    pub fn run(&mut self, ends: Ends<'_>, hub: &mut impl Hub) -> RelayPause {
        loop {
            for (direction, ends) in ends.into_iter().enumerate() {
                let pause = ends.and_then(|(input, output)| self.turn(direction, input, output, hub));
                if let Some(pause) = pause {
                    return pause;
                }
            }
            if let Some(pause) = self.failed() {
                return pause;
            }
            if self.ways.iter().all(|way| way.state == State::PassedOn) {
                return RelayPause::Done;
            }
            if self.ways.iter().any(|way| way.state == State::Moving) {
                continue;
            }
            match self.wait(ends, hub) {
                Waited::Ready => {}
                Waited::Interrupted => return RelayPause::Interrupted,
                Waited::Elsewhere => return RelayPause::Wait,
                Waited::TimedOut => {
                    if let Some(pause) = self.overdue() {
                        return pause;
                    }
                }
            }
        }
    }

    /// Lets one direction go on, if it can.
    fn turn(
        &mut self,
        direction: Direction,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        hub: &mut impl Hub,
    ) -> Option<RelayPause> {
        let way = &mut self.ways[direction];
        if way.state == State::Moving {
            let mut portions = (0..TURN).map(|_| way.copy.run(input, output, &mut Among(hub)));
            match portions.find(|pause| *pause != Pause::Progress).unwrap_or(Pause::Progress) {
                Pause::Progress => {}
                Pause::Wait(side) => way.state = State::Waiting(side, Instant::now()),
                Pause::Done => way.state = State::Ended,
                Pause::Failed(errno) => self.fail(direction, errno),
                Pause::InVain(times) => return Some(RelayPause::InVain(times)),
                Pause::Interrupted | Pause::TimedOut(_) => return Some(RelayPause::Interrupted),
            }
        }
        let way = &mut self.ways[direction];
        if way.state == State::Ended {
            way.copy.rest();
            match shutdown(output, Shutdown::Write) {
                // Whoever is gone need not be told.
                Ok(()) | Err(Errno::NOTCONN) => way.state = State::PassedOn,
                Err(Errno::NOTSOCK) => return Some(RelayPause::Ended(direction)),
                Err(errno) => self.fail(direction, errno),
            }
        }
        None
    }

    /// One direction has failed. The other one looks once more whether something has arrived.
    fn fail(&mut self, direction: Direction, errno: Errno) {
        self.ways[direction].state = State::Failed(errno);
        let other = &mut self.ways[1 - direction].state;
        if let State::Waiting(Side::Input, _) = other {
            *other = State::Moving;
        }
    }

    /// When one direction has failed, the other one first delivers what has arrived, and then that is said.
    fn failed(&mut self) -> Option<RelayPause> {
        let failed = |way: &Way<K>| matches!(way.state, State::Failed(_));
        let direction = self.ways.iter().position(failed)?;
        let State::Failed(errno) = self.ways[direction].state else { return None };
        match self.ways[1 - direction].state {
            State::Moving | State::Waiting(Side::Output, _) => None,
            State::Waiting(Side::Input, _) | State::Ended | State::PassedOn | State::Failed(_) => {
                Some(RelayPause::Failed(direction, errno))
            }
        }
    }

    fn wait(&mut self, ends: Ends<'_>, hub: &mut impl Hub) -> Waited {
        let now = Instant::now();
        // What was taken and what was delivered.
        let moved = self.ways.iter().map(|way| 2 * way.copy.delivered() + way.copy.held() as u64).sum();
        if moved != self.moved {
            (self.moved, self.last) = (moved, now);
        }
        let mut awaited = Vec::with_capacity(2);
        for (way, ends) in self.ways.iter_mut().zip(ends) {
            way.copy.rest();
            if let (State::Waiting(side, _), Some((input, output))) = (way.state, ends) {
                let fd = if side == Side::Input { input } else { output };
                awaited.push(Awaited { side, fd, ready: false });
            }
        }
        let waited = hub.wait(&mut awaited, self.deadline().map(|at| at.saturating_duration_since(now)));
        if waited == Waited::Ready {
            let waiting = self.ways.iter_mut().filter(|way| matches!(way.state, State::Waiting(..)));
            for (way, _) in waiting.zip(awaited).filter(|(_, end)| end.ready) {
                way.state = State::Moving;
            }
        }
        waited
    }

    /// When the first of the timeouts is over.
    fn deadline(&self) -> Option<Instant> {
        let idle = self.idle_timeout.and_then(|timeout| self.last.checked_add(timeout));
        self.ways.iter().filter_map(Way::deadline).map(|(at, _)| at).chain(idle).min()
    }

    /// Which of the timeouts it was.
    fn overdue(&self) -> Option<RelayPause> {
        let now = Instant::now();
        let mut ways = self.ways.iter().enumerate();
        let way = ways.find_map(|(direction, way)| {
            let (_, side) = way.deadline().filter(|(at, _)| *at <= now)?;
            Some(RelayPause::TimedOut(direction, side))
        });
        way.or_else(|| {
            let idle = self.idle_timeout.and_then(|timeout| self.last.checked_add(timeout))?;
            (idle <= now).then_some(RelayPause::Idle)
        })
    }
}

impl<K: Kernel> Way<K> {
    fn deadline(&self) -> Option<(Instant, Side)> {
        let State::Waiting(side, since) = self.state else { return None };
        let timeout = match side {
            Side::Input => self.timeouts.0,
            Side::Output => self.timeouts.1,
        };
        Some((since.checked_add(timeout?)?, side))
    }
}
