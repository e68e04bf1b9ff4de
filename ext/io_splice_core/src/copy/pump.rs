use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::io::{Errno, Result};

use super::in_flight::{InFlight, Write};
use super::{Kernel, Linux, Plan, Route};
use crate::PIPE_BUF;
use crate::pool::MODEST;
use crate::ready::Side;

/// Bounds one call, so that an interrupt is noticed soon: the kernel does not return early from a copy from file to
/// file.
const MAX_CHUNK: usize = 64 << 20;

/// What one read takes; the first ones less, until one has filled its buffer.
const READ_SIZE: usize = 256 << 10;
const FIRST_READ_SIZE: usize = 16 << 10;

/// How one step of a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Bytes have moved, from the input or to the output, or another route is taken.
    Progress,
    /// All was copied, or the input has ended; nothing is in flight.
    Done,
    /// This side has to become ready first.
    Blocked(Side),
    /// poll(2) reports that this side is ready, and yet nothing moves.
    Stalled(Side),
    /// A signal came before anything moved.
    Interrupted,
    /// The kernel refuses.
    Failed(Errno),
}

/// What moves bytes from one input to one output, a step at a time. It never waits.
///
/// It owns no end; they are given to each [`advance`](Pump::advance).
#[derive(Debug)]
pub struct Pump<K: Kernel = Linux> {
    kernel: K,
    plan: Plan,
    offset: Option<u64>,
    /// How many bytes are still to be taken from the input; `None`: all that come.
    remaining: Option<u64>,
    /// How many were taken from the input, not counting read-ahead.
    taken: u64,
    delivered: u64,
    pub(super) in_flight: InFlight,
    read_size: usize,
    max_per_call: usize,
    may_block: bool,
    /// The side for which the last step was blocked.
    blocked: Option<Side>,
    /// Why bytes were lost that were to be read out of the pipe: for the next step to tell.
    lost: Option<Errno>,
}

impl<K: Kernel> Pump<K> {
    /// A pump for `len` bytes, or for all up to the end of the input; from `offset`, or from where the input stands.
    pub(super) fn new(kernel: K, plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        Self {
            kernel,
            plan,
            offset,
            remaining: len,
            taken: 0,
            delivered: 0,
            in_flight: InFlight::default(),
            read_size: FIRST_READ_SIZE,
            max_per_call: MAX_CHUNK,
            may_block: true,
            blocked: None,
            lost: None,
        }
    }

    /// Asks that the kernel never wait for a peer, not even on a descriptor in blocking mode.
    pub(super) fn never_block(&mut self) {
        self.may_block = false;
    }

    /// Bounds what one call may move.
    pub(super) fn set_max_per_call(&mut self, bytes: usize) {
        self.max_per_call = bytes;
    }

    /// Bytes that were read ahead of the input: they go first, and count.
    pub(super) fn prepend(&mut self, bytes: Vec<u8>) {
        self.remaining = self.remaining.map(|remaining| remaining - bytes.len() as u64);
        self.in_flight.prepend(bytes);
    }

    /// How many bytes the output has taken.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// What is in flight, read into memory.
    pub(super) fn bytes(&mut self) -> Result<&[u8]> {
        self.in_flight.bytes(&mut self.kernel)
    }

    /// Makes sure that there is an idle pipe, and returns its capacity; `None` if there is none to be had.
    pub(super) fn ensure_pipe(&mut self) -> Option<usize> {
        self.in_flight.ensure_pipe(&mut self.kernel)
    }

    /// Duplicates all that is in flight into the idle pipe of another pump; `false` if that does not work.
    pub(super) fn tee_to(&mut self, other: &mut Self) -> bool {
        self.in_flight.tee_to(&mut self.kernel, &mut other.in_flight)
    }

    /// Copies all that is in flight into the memory of another pump.
    pub(super) fn copy_to(&mut self, other: &mut Self) -> Result<()> {
        self.in_flight.copy_to(&mut self.kernel, &mut other.in_flight)
    }

    /// Before a wait: when there is to be another one, to release the pipe.
    pub(super) fn before_wait(&mut self, now: Instant) -> Option<Instant> {
        self.in_flight.before_wait(&mut self.kernel, now).unwrap_or_else(|errno| {
            self.lost = Some(errno);
            None
        })
    }

    pub(super) fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Makes one step, and does not wait.
    pub(super) fn advance(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Advance {
        let step = self.step(input, output);
        self.end_step(step, input, output)
    }

    /// Takes up to `room` bytes from the input, and leaves them in flight. Nothing is in flight.
    pub(super) fn fill(&mut self, input: BorrowedFd<'_>, room: usize) -> Advance {
        let step = self.try_fill(input, room);
        self.end_step(step, input, input)
    }

    fn end_step(&mut self, step: Result<Advance>, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Advance {
        let advance = match step {
            // Once more, right after it was reported as ready? poll(2) says whether somebody else was quicker.
            Ok(Advance::Blocked(side)) if self.blocked == Some(side) => self
                .is_ready(side, input, output)
                .map(|ready| if ready { Advance::Stalled(side) } else { Advance::Blocked(side) }),
            step => step,
        };
        let advance = match advance {
            Ok(advance) => advance,
            Err(Errno::INTR) => Advance::Interrupted,
            Err(errno) => Advance::Failed(errno),
        };
        match advance {
            Advance::Blocked(side) => self.blocked = Some(side),
            Advance::Progress => self.blocked = None,
            _ => {}
        }
        advance
    }

    fn step(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Advance> {
        if let Some(errno) = self.lost.take() {
            return Err(errno);
        }
        if !self.in_flight.is_empty() {
            return self.deliver(output);
        }
        match self.plan.routes[0] {
            Route::CopyFileRange | Route::Sendfile | Route::Splice | Route::PipeToPipe => {
                self.move_directly(input, output)
            }
            Route::ViaPipe => match self.room(output) {
                0 => Ok(Advance::Blocked(Side::Output)),
                room => self.try_fill(input, room),
            },
            Route::ReadWrite => self.try_fill(input, usize::MAX),
        }
    }

    /// How much may be taken at once: what the output takes at once, and a little more, which is held when it stops.
    fn room(&mut self, output: BorrowedFd<'_>) -> usize {
        let large = self.in_flight.idle_capacity() > MODEST;
        match large.then(|| self.kernel.room(output)).flatten() {
            None => usize::MAX,
            Some(0) => 0,
            Some(room) => room + MODEST,
        }
    }

    /// Moves bytes from end to end in one call.
    fn move_directly(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Advance> {
        let len = match self.next_len(usize::MAX) {
            0 => return Ok(Advance::Done),
            len => len,
        };
        let poll_first = [(Side::Input, self.plan.poll_first_in), (Side::Output, self.plan.poll_first_out)];
        for (side, _) in poll_first.into_iter().filter(|(_, poll_first)| *poll_first) {
            if !self.is_ready(side, input, output)? {
                return Ok(Advance::Blocked(side));
            }
        }
        let portion = self.portion(len);
        let route = self.plan.routes[0];
        let (kernel, offset) = (&mut self.kernel, self.offset.as_mut());
        let moved = match route {
            Route::CopyFileRange => kernel.copy_file_range(input, offset, output, len),
            Route::Sendfile => kernel.sendfile(input, offset, output, portion),
            Route::Splice | Route::PipeToPipe => kernel.splice(input, offset, output, portion),
            Route::ViaPipe | Route::ReadWrite => return self.try_fill(input, len),
        };
        match moved {
            // Files in /proc say 0 here, and have something to read.
            Ok(0) if self.taken == 0 && matches!(route, Route::CopyFileRange | Route::Sendfile) => {
                Ok(self.next_route())
            }
            Ok(0) => Ok(Advance::Done),
            Ok(bytes) => {
                self.record_taken(bytes);
                self.delivered += bytes as u64;
                Ok(Advance::Progress)
            }
            Err(Errno::AGAIN) => self.which_side_blocks(input, output),
            Err(errno) => self.refused(route, errno),
        }
    }

    /// `EAGAIN` does not say which end it was; poll(2) does.
    fn which_side_blocks(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Advance> {
        let ready = self.kernel.ready(input, output)?;
        Ok(match (ready.input, ready.output) {
            (false, _) => Advance::Blocked(Side::Input),
            (true, false) => Advance::Blocked(Side::Output),
            (true, true) => Advance::Stalled(Side::Input),
        })
    }

    fn is_ready(&mut self, side: Side, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<bool> {
        match side {
            Side::Input => self.kernel.ready(input, input).map(|ready| ready.input),
            Side::Output => self.kernel.ready(output, output).map(|ready| ready.output),
        }
    }

    fn try_fill(&mut self, input: BorrowedFd<'_>, room: usize) -> Result<Advance> {
        let len = match self.next_len(room) {
            0 => return Ok(Advance::Done),
            len => len,
        };
        if self.plan.poll_first_in && !self.is_ready(Side::Input, input, input)? {
            return Ok(Advance::Blocked(Side::Input));
        }
        let (route, offset) = (self.plan.routes[0], self.offset.as_mut());
        let taken = match route {
            Route::ReadWrite => {
                let len = len.min(self.read_size);
                let taken = self.in_flight.fill_buffer(&mut self.kernel, input, offset, len);
                self.read_size = if taken == Ok(self.read_size) { READ_SIZE } else { self.read_size };
                taken
            }
            Route::CopyFileRange | Route::Sendfile | Route::Splice | Route::PipeToPipe | Route::ViaPipe => {
                match self.in_flight.fill_pipe(&mut self.kernel, input, offset, len) {
                    Some(taken) => taken,
                    // No descriptor or no memory for a pipe is no reason not to copy.
                    None => return Ok(self.next_route()),
                }
            }
        };
        match taken {
            Ok(0) => Ok(Advance::Done),
            Ok(bytes) => {
                self.record_taken(bytes);
                Ok(Advance::Progress)
            }
            // The pipe was empty, so it is the input that would block.
            Err(Errno::AGAIN) => Ok(Advance::Blocked(Side::Input)),
            Err(errno) => self.refused(route, errno),
        }
    }

    /// Passes on what is in flight.
    fn deliver(&mut self, output: BorrowedFd<'_>) -> Result<Advance> {
        if self.plan.poll_first_out && !self.is_ready(Side::Output, output, output)? {
            return Ok(Advance::Blocked(Side::Output));
        }
        let write = if self.may_wait() { Write::Now } else { Write::MayBlock };
        let portion = self.portion(self.in_flight.len());
        match self.in_flight.drain(&mut self.kernel, output, portion, write) {
            Ok(0) => Ok(Advance::Stalled(Side::Output)),
            Ok(bytes) => {
                self.delivered += bytes as u64;
                Ok(Advance::Progress)
            }
            Err(errno) if self.in_flight.is_in_pipe() && Route::ViaPipe.refused(errno) => {
                self.in_flight.take_into_memory(&mut self.kernel)?;
                // What cannot be spliced to now cannot be spliced to later.
                self.plan.routes = &[Route::ReadWrite];
                Ok(Advance::Progress)
            }
            // It has just been reported as ready: a terminal may have room for one byte and be given a newline.
            Err(Errno::AGAIN) if self.plan.poll_first_out => Ok(Advance::Stalled(Side::Output)),
            Err(Errno::AGAIN) => Ok(Advance::Blocked(Side::Output)),
            Err(errno) => Err(errno),
        }
    }

    /// Falls back to the next route if this error closes this one.
    fn refused(&mut self, route: Route, errno: Errno) -> Result<Advance> {
        if route.refused(errno) { Ok(self.next_route()) } else { Err(errno) }
    }

    /// Reading and writing refuses nothing, so there is a next one.
    fn next_route(&mut self) -> Advance {
        self.plan.routes = &self.plan.routes[1..];
        Advance::Progress
    }

    /// Bytes that something other than [`advance`](Pump::advance) has brought to the output.
    pub(super) fn record_delivered(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
        self.in_flight.remove(bytes);
    }

    fn record_taken(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.remaining = self.remaining.map(|remaining| remaining - bytes as u64);
    }

    /// How much the next call may take from the input.
    fn next_len(&self, room: usize) -> usize {
        let limit = self.plan.limit.map_or(u64::MAX, |limit| limit - self.taken);
        let len = self.remaining.unwrap_or(u64::MAX).min(limit).min(self.max_per_call as u64);
        room.min(len as usize)
    }

    /// How much to write at once. A ready output in blocking mode takes `PIPE_BUF` without blocking; more might block.
    fn portion(&self, len: usize) -> usize {
        if self.may_wait() { len.min(PIPE_BUF) } else { len }
    }

    /// Whether the output may block where that is not wanted.
    fn may_wait(&self) -> bool {
        self.plan.poll_first_out && !self.may_block
    }

    /// Aborts. Delivers what the output accepts at once; the rest goes back: by moving the position of an input that has
    /// one, else it is returned.
    pub(super) fn abort(&mut self, input: Option<BorrowedFd<'_>>, output: Option<BorrowedFd<'_>>) -> Vec<u8> {
        if self.in_flight.lost_its_pipe() {
            return Vec::new();
        }
        if let Some(output) = output {
            self.deliver_now(output);
        }
        let rest = self.in_flight.len() as u64;
        // With an offset the input's position has never moved.
        let back = rest == 0
            || self.offset.is_some()
            || input.is_some_and(|input| self.kernel.seek_back(input, rest).is_ok());
        if back {
            self.in_flight.discard();
            return Vec::new();
        }
        // What a broken page cannot give is lost; the rest is not.
        self.in_flight.take(&mut self.kernel)
    }

    /// Delivers as much of what is in flight as the output accepts at once.
    pub(super) fn deliver_now(&mut self, output: BorrowedFd<'_>) {
        self.never_block();
        // Not to a terminal in blocking mode: the write could hang, and no signal would end it here.
        while !self.plan.terminal_out
            && !self.in_flight.is_empty()
            && self.deliver(output) == Ok(Advance::Progress)
        {}
    }
}
