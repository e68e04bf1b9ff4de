//! Copying from one descriptor to another, in the fastest way that the two allow.
//!
//! A copy has a list of [`Route`]s, the best first. When the kernel refuses one, the copy goes on by the next
//! from exactly where it stands. That works because there is one place where bytes can be that have left
//! the input and not reached the output: [`Held`]. Three rules keep them from being lost, repeated or mixed up.
//!
//! - Nothing is taken from the input while anything is held.
//! - Bytes count as delivered when the output has taken them, and never before.
//! - A route changes only while nothing is held, or by reading what a pipe holds into memory.
//!
//! The copy never waits by itself, and does not know who does: it asks its [`Host`].

mod fan_out;
mod kernel;
mod relay;
mod route;

use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;

pub use fan_out::{FanOut, FanOutPause};
pub use kernel::{Kernel, Linux};
pub use relay::{Direction, Ends, Relay, RelayPause, Timeouts};
pub use route::{Known, Plan, Route};

use crate::memory::zeroed;
use crate::pool::OwnPipe;
pub use crate::ready::{Side, Waited};
use crate::{Awaited, PIPE_BUF};

/// How much one call may move, so that an interrupt is noticed soon: the kernel does not look up while it
/// copies from file to file.
const CHUNK: usize = 64 << 20;

/// What one read takes; the first ones less, until one has filled its buffer.
const BUFFER: usize = 256 << 10;
const SMALL_BUFFER: usize = 16 << 10;

/// How much is moved before the caller is told.
const REPORT: u64 = 1 << 20;

/// Who runs a copy.
pub trait Host {
    /// Waits until one end is ready.
    fn wait(&mut self, side: Side, fd: BorrowedFd<'_>) -> Waited;

    /// Whether somebody wants something of this thread.
    fn interrupted(&mut self) -> bool;
}

/// Who runs several copies at once.
pub trait Hub {
    /// Waits until one of the ends is ready, at most for so long, and marks those that are.
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited;

    /// Whether somebody wants something of this thread.
    fn interrupted(&mut self) -> bool;
}

/// Why [`Copy::run`] came back. All but `Done` and `Failed` go on with the next `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// All was copied, or the input has ended.
    Done,
    /// So much was copied that somebody may want to know.
    Progress,
    /// This end has to become ready first.
    Wait(Side),
    /// Both are said to be ready and yet nothing moves, for the n-th time.
    InVain(u32),
    /// An interrupt has to be looked after.
    Interrupted,
    /// This end was not ready in time.
    TimedOut(Side),
    /// The kernel says no.
    Failed(Errno),
}

/// Bytes that have left the input and not reached the output.
#[derive(Debug)]
enum Held {
    Nothing,
    Pipe(OwnPipe, usize),
    Memory(Vec<u8>, Range<usize>),
}

/// How a step ended.
enum Step {
    Moved,
    Ended,
    Refused,
    WouldBlock(Side),
    InVain,
}

type Attempt = rustix::io::Result<Step>;

/// A copy on its way. It owns no end; they are given to each [`run`](Copy::run).
#[derive(Debug)]
pub struct Copy<K: Kernel = Linux> {
    kernel: K,
    plan: Plan,
    offset: Option<u64>,
    left: Option<u64>,
    /// What has left the input, without what was read ahead.
    taken: u64,
    delivered: u64,
    reported: Option<u64>,
    held: Held,
    /// A pipe of our own with nothing in it.
    idle: Option<OwnPipe>,
    buffer: usize,
    /// How much one call may move.
    most: usize,
    in_vain: u32,
    may_block: bool,
}

impl Default for Copy {
    /// A copy of nothing.
    fn default() -> Self {
        Self::new(Plan::NOWHERE, Some(0), None)
    }
}

impl Copy {
    /// A copy of `len` bytes, or to the end of the input; from `offset`, or from where the input stands.
    pub fn new(plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        Self::with_kernel(Linux, plan, len, offset)
    }
}

impl<K: Kernel> Copy<K> {
    /// As [`Copy::new`], with a kernel of one's own.
    pub fn with_kernel(kernel: K, plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        Self {
            kernel,
            plan,
            offset,
            left: len,
            taken: 0,
            delivered: 0,
            reported: None,
            held: Held::Nothing,
            idle: None,
            buffer: SMALL_BUFFER,
            most: CHUNK,
            in_vain: 0,
            may_block: true,
        }
    }

    /// Asks that the kernel never be left to wait for a peer, not even on a descriptor in blocking mode.
    pub fn never_block(&mut self) {
        self.may_block = false;
    }

    /// Bytes that somebody has read ahead: they go first, and count.
    pub fn put_first(&mut self, bytes: Vec<u8>) {
        let all = 0..bytes.len();
        self.left = self.left.map(|left| left - bytes.len() as u64);
        self.held = Held::Memory(bytes, all);
    }

    /// Asks to be told now and then how far the copy is.
    pub fn report(&mut self) {
        self.reported = Some(0);
    }

    /// Keeps neither a pipe nor memory in which nothing is.
    fn rest(&mut self) {
        if let Some(pipe) = self.idle.take() {
            pipe.give_back();
        }
        if self.held() == 0 {
            self.held = Held::Nothing;
        }
    }

    /// What is held.
    fn bytes(&mut self) -> rustix::io::Result<&[u8]> {
        self.take_into_memory()?;
        Ok(match &self.held {
            Held::Memory(buffer, bytes) => &buffer[bytes.clone()],
            _ => &[],
        })
    }

    /// So much of what is held has reached the output.
    fn was_delivered(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
        self.let_go(bytes);
    }

    /// How many bytes the output has taken.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many bytes have left the input and not reached the output.
    pub fn held(&self) -> usize {
        match &self.held {
            Held::Nothing => 0,
            Held::Pipe(_, bytes) => *bytes,
            Held::Memory(_, bytes) => bytes.len(),
        }
    }

    /// The kernel's stand-in, for a test to look at.
    pub fn kernel(&self) -> &K {
        &self.kernel
    }

    /// Copies until it is done or something stands in the way.
    pub fn run(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>, host: &mut impl Host) -> Pause {
        if self.lost_its_pipe() {
            return Pause::Failed(Errno::BADF);
        }
        loop {
            match self.step(input, output) {
                Ok(Step::Moved) => {
                    self.in_vain = 0;
                    if self.report_is_due() {
                        return Pause::Progress;
                    }
                    if host.interrupted() {
                        return Pause::Interrupted;
                    }
                }
                Ok(Step::Ended) => return Pause::Done,
                // Reading and writing refuses nothing, so there is a next one.
                Ok(Step::Refused) => self.plan.routes = &self.plan.routes[1..],
                Ok(Step::WouldBlock(side)) => {
                    let fd = if side == Side::Input { input } else { output };
                    match host.wait(side, fd) {
                        Waited::Ready => {}
                        Waited::Interrupted => return Pause::Interrupted,
                        Waited::TimedOut => return Pause::TimedOut(side),
                        Waited::Elsewhere => return Pause::Wait(side),
                    }
                }
                Ok(Step::InVain) => {
                    self.in_vain += 1;
                    if self.in_vain > 1 {
                        return Pause::InVain(self.in_vain);
                    }
                }
                Err(Errno::INTR) => return Pause::Interrupted,
                Err(errno) => return Pause::Failed(errno),
            }
        }
    }

    /// Gives the copy up, for want of an end or for another reason. What is held is delivered as far as the
    /// output takes it at once; what it does not take goes back: by moving the position of an input that
    /// has one, else it is returned.
    pub fn give_up(&mut self, input: Option<BorrowedFd<'_>>, output: Option<BorrowedFd<'_>>) -> Vec<u8> {
        if self.lost_its_pipe() {
            return Vec::new();
        }
        if let Some(output) = output {
            self.deliver_now(output);
        }
        let held = self.held() as u64;
        // With an offset the input's position has never moved.
        let back = held == 0
            || self.offset.is_some()
            || input.is_some_and(|input| self.kernel.seek_back(input, held).is_ok());
        if !back {
            // What a broken page cannot give is lost; the rest is not.
            let _ = self.take_into_memory();
            if let Held::Memory(mut buffer, bytes) = std::mem::replace(&mut self.held, Held::Nothing) {
                buffer.truncate(bytes.end);
                buffer.drain(..bytes.start);
                return buffer;
            }
        }
        self.held = Held::Nothing;
        Vec::new()
    }

    /// Delivers as much of what is held as the output takes at once.
    fn deliver_now(&mut self, output: BorrowedFd<'_>) {
        self.never_block();
        // A signal would end a wait for a terminal, but here none is to come.
        while !self.plan.terminal_out && self.held() > 0 && matches!(self.deliver(output), Ok(Step::Moved)) {}
    }

    fn step(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Attempt {
        if self.held() > 0 {
            return self.deliver(output);
        }
        let room = match self.left_to_take() {
            0 => return Ok(Step::Ended),
            left => left,
        };
        if self.plan.wary_in && !self.kernel.ready(input, input)?.input {
            return Ok(Step::WouldBlock(Side::Input));
        }
        let route = self.plan.routes[0];
        let step = match route {
            Route::CopyFileRange | Route::Sendfile | Route::Splice | Route::BetweenPipes => {
                self.move_on(route, input, output, room)
            }
            Route::Through => self.fill_pipe(input, room),
            Route::ReadWrite => self.fill_memory(input, room),
        };
        match step {
            Err(errno) if route.refused(errno) => Ok(Step::Refused),
            step => step,
        }
    }

    /// Moves bytes from end to end in one call.
    fn move_on(
        &mut self,
        route: Route,
        input: BorrowedFd<'_>,
        output: BorrowedFd<'_>,
        room: usize,
    ) -> Attempt {
        if self.plan.wary_out && !self.kernel.ready(output, output)?.output {
            return Ok(Step::WouldBlock(Side::Output));
        }
        let portion = self.portion(room);
        let offset = self.offset.as_mut();
        let moved = match route {
            Route::CopyFileRange => self.kernel.copy_file_range(input, offset, output, room),
            Route::Sendfile => self.kernel.sendfile(input, offset, output, portion),
            _ => self.kernel.splice(input, offset, output, portion),
        };
        match moved {
            // Files in /proc say 0 here, and have something to read.
            Ok(0) if self.taken == 0 && matches!(route, Route::CopyFileRange | Route::Sendfile) => {
                Ok(Step::Refused)
            }
            Ok(0) => Ok(Step::Ended),
            Ok(bytes) => {
                self.took(bytes);
                self.delivered += bytes as u64;
                Ok(Step::Moved)
            }
            Err(Errno::AGAIN) => self.who_would_block(input, output),
            Err(errno) => Err(errno),
        }
    }

    /// Nobody says which end it was that `EAGAIN` spoke of.
    fn who_would_block(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Attempt {
        let ready = self.kernel.ready(input, output)?;
        Ok(match (ready.input, ready.output) {
            (false, _) => Step::WouldBlock(Side::Input),
            (_, false) => Step::WouldBlock(Side::Output),
            _ => Step::InVain,
        })
    }

    /// Takes bytes into a pipe of our own. Nothing is held.
    fn fill_pipe(&mut self, input: BorrowedFd<'_>, room: usize) -> Attempt {
        let pipe = match self.idle.take().map_or_else(|| self.kernel.pipe(), Ok) {
            Ok(pipe) => pipe,
            // No descriptor or no memory for a pipe is no reason not to copy.
            Err(_) => return Ok(Step::Refused),
        };
        // The pipe is empty, so it is the input that would block.
        match self.kernel.splice(input, self.offset.as_mut(), pipe.writer(), room.min(pipe.capacity())) {
            Ok(0) => {
                self.idle = Some(pipe);
                Ok(Step::Ended)
            }
            Ok(bytes) => {
                self.took(bytes);
                self.held = Held::Pipe(pipe, bytes);
                Ok(Step::Moved)
            }
            Err(errno) => {
                self.idle = Some(pipe);
                would_block(Side::Input, errno)
            }
        }
    }

    /// Takes bytes into memory. Nothing is held.
    fn fill_memory(&mut self, input: BorrowedFd<'_>, room: usize) -> Attempt {
        let room = room.min(self.buffer);
        let mut buffer = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Memory(buffer, _) if buffer.len() >= room => buffer,
            // With less of it the copy is only slower.
            _ => zeroed(room).or_else(|_| zeroed(room.min(PIPE_BUF)))?,
        };
        let room = room.min(buffer.len());
        let read = self.kernel.read(input, self.offset.as_mut(), &mut buffer[..room]);
        self.buffer = if read == Ok(self.buffer) { BUFFER } else { self.buffer };
        self.held = Held::Memory(buffer, 0..read.unwrap_or(0));
        match read {
            Ok(0) => Ok(Step::Ended),
            Ok(bytes) => {
                self.took(bytes);
                Ok(Step::Moved)
            }
            Err(errno) => would_block(Side::Input, errno),
        }
    }

    /// Passes on what is held.
    fn deliver(&mut self, output: BorrowedFd<'_>) -> Attempt {
        if self.plan.wary_out && !self.kernel.ready(output, output)?.output {
            return Ok(Step::WouldBlock(Side::Output));
        }
        let delivered = match &self.held {
            Held::Nothing => return Ok(Step::Moved),
            Held::Pipe(pipe, bytes) => self.kernel.splice(pipe.reader(), None, output, self.portion(*bytes)),
            Held::Memory(buffer, bytes) => {
                let portion = bytes.start..bytes.start + self.portion(bytes.len());
                if self.may_wait() {
                    self.kernel.write_now(output, &buffer[portion])
                } else {
                    self.kernel.write(output, &buffer[portion])
                }
            }
        };
        match delivered {
            Ok(0) => Ok(Step::InVain),
            Ok(bytes) => {
                self.was_delivered(bytes);
                Ok(Step::Moved)
            }
            Err(errno) if matches!(self.held, Held::Pipe(..)) && Route::Through.refused(errno) => {
                self.take_into_memory()?;
                // What cannot be spliced to now cannot be spliced to later.
                self.plan.routes = &[Route::ReadWrite];
                Ok(Step::Moved)
            }
            // It has just said that it is ready: a terminal may have room for one byte and be given a newline.
            Err(Errno::AGAIN) if self.plan.wary_out => Ok(Step::InVain),
            Err(errno) => would_block(Side::Output, errno),
        }
    }

    fn let_go(&mut self, bytes: usize) {
        match &mut self.held {
            Held::Nothing => {}
            Held::Memory(_, held) => held.start += bytes,
            Held::Pipe(_, held) => *held -= bytes,
        }
        if let Held::Pipe(_, 0) = self.held {
            if let Held::Pipe(pipe, _) = std::mem::replace(&mut self.held, Held::Nothing) {
                self.idle = Some(pipe);
            }
        }
    }

    /// Reads what our own pipe holds.
    fn take_into_memory(&mut self) -> rustix::io::Result<()> {
        let Held::Pipe(pipe, bytes) = &self.held else { return Ok(()) };
        let mut buffer = zeroed(*bytes)?;
        let mut filled = 0;
        let mut failed = Ok(());
        while filled < buffer.len() && failed.is_ok() {
            match self.kernel.read(pipe.reader(), None, &mut buffer[filled..]) {
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(errno) => failed = Err(errno),
            }
        }
        buffer.truncate(filled);
        let held = std::mem::replace(&mut self.held, Held::Memory(buffer, 0..filled));
        if let (Held::Pipe(pipe, _), Ok(())) = (held, failed) {
            self.idle = Some(pipe);
        }
        failed
    }

    /// How much of that the output is given in one call. An output in blocking mode that is ready
    /// takes so much without waiting, and for more it might wait.
    fn portion(&self, bytes: usize) -> usize {
        if self.may_wait() { bytes.min(PIPE_BUF) } else { bytes }
    }

    /// Whether the output may wait where that is not wanted.
    fn may_wait(&self) -> bool {
        self.plan.wary_out && !self.may_block
    }

    /// How much one call may take now.
    fn left_to_take(&self) -> usize {
        let limit = self.plan.limit.map_or(u64::MAX, |limit| limit - self.taken);
        let left = self.left.unwrap_or(u64::MAX).min(limit).min(self.most as u64) as usize;
        if self.reported.is_some() { left.min(REPORT as usize) } else { left }
    }

    fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.left = self.left.map(|left| left - bytes as u64);
    }

    fn report_is_due(&mut self) -> bool {
        let Some(reported) = &mut self.reported else { return false };
        let due = self.delivered - *reported >= REPORT;
        if due {
            *reported = self.delivered;
        }
        due
    }

    /// Whether this is a forked child's copy of a copy: its pipe was the parent's, and is closed.
    fn lost_its_pipe(&self) -> bool {
        let pipe = match &self.held {
            Held::Pipe(pipe, _) => Some(pipe),
            _ => self.idle.as_ref(),
        };
        pipe.is_some_and(|pipe| !pipe.is_of_this_process())
    }
}

impl<K: Kernel> Drop for Copy<K> {
    fn drop(&mut self) {
        self.rest();
    }
}

/// A copy among several: who runs them waits for all of them together.
struct Among<'hub, H>(&'hub mut H);

impl<H: Hub> Host for Among<'_, H> {
    fn wait(&mut self, _side: Side, _fd: BorrowedFd<'_>) -> Waited {
        Waited::Elsewhere
    }

    fn interrupted(&mut self) -> bool {
        self.0.interrupted()
    }
}

fn would_block(side: Side, errno: Errno) -> Attempt {
    match errno {
        Errno::AGAIN => Ok(Step::WouldBlock(side)),
        errno => Err(errno),
    }
}
