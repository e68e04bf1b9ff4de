use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use super::host::{Wait, wait};
use super::{Advance, Host, Kernel, Linux, PORTION, Plan, Pump, Side, Timeouts, Waited};
use crate::tls::send_close_notify;

/// One of the two directions of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From its first side to its second.
    AToB,
    /// From its second side to its first.
    BToA,
}

impl Direction {
    /// Both, in the order in which everything stands that is there for each.
    pub const BOTH: [Self; 2] = [Self::AToB, Self::BToA];

    fn opposite(self) -> Self {
        match self {
            Self::AToB => Self::BToA,
            Self::BToA => Self::AToB,
        }
    }
}

/// How much one direction may move before the other has its turn. When each portion of 1 MiB is followed by one in the
/// other direction, the CPU time for both is a quarter more.
const TURN: u64 = 16 * PORTION;

/// Input and output of each direction; none of one that is over.
pub type Ends<'fd> = [Option<[BorrowedFd<'fd>; 2]>; 2];

/// Why [`Relay::run`] returned. Unless it is `Done` or a failure, call `run` again to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayPause {
    /// Both directions have ended, and each output has been shut down.
    Done,
    /// The input of this direction has ended, its output has everything and is not a socket that could be shut down.
    /// To be told of the end in another way, and then to be confirmed with [`Relay::passed_on`].
    Ended(Direction),
    /// All that was prepended in this direction is delivered, and there is more of it.
    ReadAhead(Direction),
    /// The host is to wait for what it was asked for.
    Wait,
    /// An interrupt is pending.
    Interrupted,
    /// No byte went in either direction for too long.
    Idle,
    /// This end of a direction was not ready in time.
    TimedOut(Direction, Side),
    /// The kernel refuses in this direction. The other one has delivered what had arrived by then.
    Failed(Direction, Errno),
}

/// Copies in both directions at once, in one loop, until both have ended.
///
/// When the input of a direction has ended, its output is shut down for writing, and the other direction goes on. A
/// direction that waits with nothing in flight has no pipe, or soon none.
///
/// It owns no end; they are given to each [`run`](Relay::run).
#[derive(Debug)]
pub struct Relay<K: Kernel = Linux> {
    ways: [OneWay<K>; 2],
    /// Which has its turn next.
    next: Direction,
    idle_timeout: Option<Duration>,
    /// When it was last seen that bytes had moved.
    last_moved: Instant,
    /// Whether bytes have moved since.
    moved: bool,
    /// Whether an empty pipe goes back at each wait.
    shares_pipes: bool,
}

#[derive(Debug)]
struct OneWay<K: Kernel> {
    pump: Pump<K>,
    wait: Wait,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Open,
    /// The input has ended, and everything is delivered; the output is to be told.
    Ended,
    /// The output knows of the end.
    PassedOn,
    Failed(Errno),
}

impl Default for Relay {
    /// A relay of nothing.
    fn default() -> Self {
        Self::new([Plan::UNKNOWN; 2], Default::default(), None)
    }
}

impl Relay {
    /// A relay with a plan and timeouts for each direction.
    pub fn new(plans: [Plan; 2], timeouts: [Timeouts; 2], idle_timeout: Option<Duration>) -> Self {
        Self::with_kernel([Linux; 2], plans, timeouts, idle_timeout)
    }
}

impl<K: Kernel> Relay<K> {
    /// As [`Relay::new`], with kernels of one's own.
    #[doc(hidden)]
    pub fn with_kernel(
        kernels: [K; 2],
        plans: [Plan; 2],
        timeouts: [Timeouts; 2],
        idle_timeout: Option<Duration>,
    ) -> Self {
        let [a, b] = kernels;
        let way = |kernel, plan, timeouts| {
            let mut pump = Pump::new(kernel, plan, None, None);
            // Bounds each turn, so that neither direction starves the other.
            pump.set_max_per_call(PORTION as usize);
            pump.never_block();
            let mut wait = Wait::default();
            wait.set_timeouts(timeouts);
            wait.set_silence(plan.silence);
            OneWay { pump, wait, state: State::Open }
        };
        let ways = [way(a, plans[0], timeouts[0]), way(b, plans[1], timeouts[1])];
        Self {
            ways,
            next: Direction::AToB,
            idle_timeout,
            last_moved: Instant::now(),
            moved: false,
            shares_pipes: false,
        }
    }

    /// Releases pipes and memory that nothing is in at each wait, even in full use: for one that runs in turns with others
    /// on the same thread, which go on with the same few pipes.
    pub fn share_pipes(&mut self) {
        self.shares_pipes = true;
    }

    /// Takes at most so many bytes a second in each direction, over any few seconds.
    pub fn set_rate(&mut self, per_second: u64) {
        self.ways.iter_mut().for_each(|way| way.pump.set_rate(per_second));
    }

    /// Whether a direction waits because of its rate, and for neither of its ends.
    pub fn is_throttled(&self) -> bool {
        self.ways.iter().any(|way| way.wait.is_throttled())
    }

    /// Bytes that were read ahead of the input of this direction: they go first, and count.
    pub fn prepend(&mut self, direction: Direction, bytes: Vec<u8>) {
        self.way(direction).pump.prepend(bytes);
    }

    /// Whether there is more to be prepended. Then nothing is taken from the input of this direction, and it pauses with
    /// `ReadAhead` when the output has what there is.
    pub fn set_more_ahead(&mut self, direction: Direction, more: bool) {
        self.way(direction).pump.set_more_ahead(more);
    }

    /// How many bytes have reached their output, in each direction.
    pub fn delivered(&self) -> [u64; 2] {
        [self.ways[0].pump.delivered(), self.ways[1].pump.delivered()]
    }

    /// Whether the kernel decrypts what comes from the input of this direction.
    pub fn is_from_tls(&self, direction: Direction) -> bool {
        self.ways[direction as usize].pump.plan().tls_in.is_some()
    }

    /// Whether the kernel encrypts what goes to the output of this direction.
    pub fn is_to_tls(&self, direction: Direction) -> bool {
        self.ways[direction as usize].pump.plan().tls_out
    }

    /// Whether this direction has ended, and its output knows.
    pub fn is_over(&self, direction: Direction) -> bool {
        self.ways[direction as usize].state == State::PassedOn
    }

    /// The output of this direction has been told of the end.
    pub fn passed_on(&mut self, direction: Direction) {
        self.way(direction).state = State::PassedOn;
    }

    /// Whether bytes of this direction are in flight.
    pub fn in_flight(&self, direction: Direction) -> usize {
        self.ways[direction as usize].pump.in_flight.len()
    }

    /// Whether an end before this direction is done has to be an [`abort`](Relay::abort).
    pub fn needs_abort(&self, direction: Direction) -> bool {
        self.ways[direction as usize].pump.needs_abort()
    }

    /// The kernel's stand-in in this direction, for a test to look at.
    #[doc(hidden)]
    pub fn kernel(&mut self, direction: Direction) -> &mut K {
        self.way(direction).pump.kernel()
    }

    /// Aborts one direction. Delivers what the output accepts at once; the rest goes back: by moving the position of an
    /// input that has one, else it is returned.
    pub fn abort(
        &mut self,
        direction: Direction,
        input: Option<BorrowedFd<'_>>,
        output: Option<BorrowedFd<'_>>,
    ) -> Vec<u8> {
        self.way(direction).pump.abort(input, output)
    }

    fn way(&mut self, direction: Direction) -> &mut OneWay<K> {
        &mut self.ways[direction as usize]
    }

    /// Copies until both directions have ended or something stands in the way.
    pub fn run(&mut self, ends: Ends<'_>, host: &mut impl Host) -> RelayPause {
        for direction in Direction::BOTH {
            if self.way(direction).pump.in_flight.lost_its_pipe() {
                return RelayPause::Failed(direction, Errno::BADF);
            }
        }
        // One direction may go on for ever, and none would wait.
        if self.ways.iter().any(OneWay::can_advance) {
            self.look(ends, host);
        }
        loop {
            for _ in Direction::BOTH {
                let direction = self.next;
                // After an interrupt it is the other's turn: a host may interrupt each.
                self.next = direction.opposite();
                let ends = ends[direction as usize];
                if let Some(pause) = ends.and_then(|ends| self.turn(direction, ends, host)) {
                    return pause;
                }
            }
            if let Some(pause) = self.failed() {
                return pause;
            }
            if self.ways.iter().all(|way| way.state == State::PassedOn) {
                return RelayPause::Done;
            }
            if self.ways.iter().any(OneWay::can_advance) {
                continue;
            }
            match self.wait(ends, host) {
                Waited::Ready => {}
                Waited::Interrupted => return RelayPause::Interrupted,
                Waited::Yield => return RelayPause::Wait,
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
        [input, output]: [BorrowedFd<'_>; 2],
        host: &mut impl Host,
    ) -> Option<RelayPause> {
        let way = &mut self.ways[direction as usize];
        let start = way.pump.delivered();
        while way.can_advance() && way.pump.delivered() - start < TURN {
            match way.pump.advance(input, output) {
                Advance::Progress => {
                    self.moved = true;
                    way.wait.progress();
                    if host.interrupted() {
                        return Some(RelayPause::Interrupted);
                    }
                }
                Advance::Done if way.pump.is_more_ahead() => return Some(RelayPause::ReadAhead(direction)),
                Advance::Done => way.state = State::Ended,
                Advance::Blocked(side) => way.wait.blocked(side),
                Advance::Stalled(side) => way.wait.stalled(side),
                Advance::Throttled(until) => way.wait.throttled(until),
                Advance::Interrupted => return Some(RelayPause::Interrupted),
                Advance::Failed(errno) => {
                    self.fail(direction, errno);
                    return None;
                }
            }
        }
        if way.state == State::Ended && way.wait.side().is_none() {
            way.pump.in_flight.release_idle();
            // What is encrypted may still be on its way to the socket, and a shutdown would cut it off.
            let told = match way.pump.plan().tls_out {
                true => send_close_notify(output),
                false => shutdown(output, Shutdown::Write),
            };
            match told {
                Err(Errno::AGAIN) => way.wait.blocked(Side::Output),
                // A peer that is gone need not be told.
                Ok(()) | Err(Errno::NOTCONN | Errno::PIPE) => way.state = State::PassedOn,
                Err(Errno::NOTSOCK) => return Some(RelayPause::Ended(direction)),
                Err(errno) => self.fail(direction, errno),
            }
        }
        None
    }

    /// One direction has failed. The other one looks once more whether something has arrived.
    fn fail(&mut self, direction: Direction, errno: Errno) {
        self.way(direction).state = State::Failed(errno);
        let other = self.way(direction.opposite());
        if other.wait.side() == Some(Side::Input) {
            other.wait.end();
        }
    }

    /// When one direction has failed, the other one first delivers what has arrived, and then that is reported.
    fn failed(&self) -> Option<RelayPause> {
        Direction::BOTH.into_iter().find_map(|direction| {
            let State::Failed(errno) = self.ways[direction as usize].state else { return None };
            let other = &self.ways[direction.opposite() as usize];
            let goes_on = other.state == State::Open && other.wait.side() != Some(Side::Input);
            (!goes_on).then_some(RelayPause::Failed(direction, errno))
        })
    }

    fn wait(&mut self, ends: Ends<'_>, host: &mut impl Host) -> Waited {
        let now = Instant::now();
        if std::mem::take(&mut self.moved) {
            self.last_moved = now;
        }
        let mut until = self.idle_deadline();
        for way in &mut self.ways {
            if self.shares_pipes {
                way.pump.in_flight.release_idle();
            } else {
                way.pump.in_flight.release_unless_busy();
            }
            until = until.into_iter().chain(way.pump.before_wait(now)).min();
        }
        wait(host, self.waits(ends), now, until)
    }

    /// Looks which of the waits are over.
    fn look(&mut self, ends: Ends<'_>, host: &mut impl Host) {
        let now = Instant::now();
        if self.waits(ends).any(|(wait, _)| wait.side().is_some()) {
            wait(host, self.waits(ends), now, Some(now));
        }
    }

    fn waits<'relay, 'fd>(
        &'relay mut self,
        ends: Ends<'fd>,
    ) -> impl Iterator<Item = (&'relay mut Wait, [BorrowedFd<'fd>; 2])> {
        let open = self.ways.iter_mut().zip(ends).filter(|(way, _)| way.is_open());
        open.filter_map(|(way, ends)| Some((&mut way.wait, ends?)))
    }

    fn idle_deadline(&self) -> Option<Instant> {
        self.last_moved.checked_add(self.idle_timeout?)
    }

    /// Which of the timeouts it was.
    fn overdue(&self) -> Option<RelayPause> {
        let now = Instant::now();
        let overdue = Direction::BOTH.into_iter().find_map(|direction| {
            let side = self.ways[direction as usize].wait.overdue(now)?;
            Some(RelayPause::TimedOut(direction, side))
        });
        overdue.or_else(|| self.idle_deadline().filter(|at| *at <= now).map(|_| RelayPause::Idle))
    }
}

impl<K: Kernel> OneWay<K> {
    fn can_advance(&self) -> bool {
        self.state == State::Open && self.wait.side().is_none()
    }

    fn is_open(&self) -> bool {
        matches!(self.state, State::Open | State::Ended)
    }
}
