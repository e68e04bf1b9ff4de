use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::io::{Errno, Result};

use super::in_flight::{InFlight, SMALL, Write};
use super::position::{Position, write_reserved};
use super::rate::Rate;
use super::route::{ControlRecords, Extent, MESSAGE};
use super::{Kernel, Linux, Plan, Route};
use crate::PIPE_BUF;
use crate::pool::MODEST;
use crate::ready::Side;
use crate::tls::{self, Record};

/// Bounds one call, so that an interrupt is noticed soon: the kernel does not return early from a copy from file to
/// file.
const MAX_CHUNK: usize = 64 << 20;

/// What one read takes; the first ones less, until one has filled its buffer.
const READ_SIZE: usize = 256 << 10;

/// What is small for a copy of which it is not known how much there is.
const BEGINNING: u64 = 64 << 10;

/// How much is read at once into memory of a caller's: half a pipe, so that who writes to that works meanwhile.
const PORTION: u64 = 32 << 10;

/// Longer messages are not read into memory of a caller's.
const MESSAGE_MAX: usize = 64 << 10;

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
    /// More may be taken from the input then, and not before.
    Throttled(Instant),
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
    /// Where the input is read.
    position: Position,
    /// How many bytes are still to be taken from the input; `None`: all that come.
    remaining: Option<u64>,
    /// How many were taken from the input, not counting read-ahead.
    taken: u64,
    delivered: u64,
    pub(super) in_flight: InFlight,
    read_size: u32,
    max_per_call: u32,
    /// Bounds what is taken from the input.
    rate: Option<Box<Rate>>,
    /// Bounds one write(2).
    max_write: u32,
    may_block: bool,
    /// The side for which the last step was blocked, and since when.
    blocked: Option<(Side, Instant)>,
    /// Why bytes were lost that were to be read out of the pipe: for the next step to tell.
    lost: Option<Errno>,
    /// Whether there are bytes read ahead of the input that are still to be prepended.
    more_ahead: bool,
    /// Whether small pieces are to be expected, of which each that is spliced to a pipe takes a slot: until a read fills its
    /// buffer, after a small piece, and from a socket at first, which may hold many. By a provisional plan: whether all that
    /// has come may have been small.
    merging: bool,
}

impl<K: Kernel> Pump<K> {
    /// A pump for `len` bytes, or for all up to the end of the input; from `offset`, or from where the input stands.
    pub(super) fn new(kernel: K, plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        Self {
            kernel,
            plan,
            position: offset.map_or(Position::Kernel, Position::Given),
            remaining: len,
            taken: 0,
            delivered: 0,
            in_flight: InFlight::default(),
            // One more byte than a file has shows its end.
            read_size: match plan.extent {
                Extent::Size(size) => size.saturating_add(1).clamp(PIPE_BUF as u64, SMALL as u64) as u32,
                Extent::Limit(_) | Extent::Unknown => SMALL as u32,
            },
            max_per_call: MAX_CHUNK as u32,
            rate: None,
            max_write: max_write(&plan),
            may_block: true,
            more_ahead: false,
            merging: plan.merge && plan.socket_in || plan.is_provisional,
            blocked: None,
            lost: None,
        }
    }

    /// Asks that the kernel never wait for a peer, not even on a descriptor in blocking mode.
    pub(super) fn never_block(&mut self) {
        self.may_block = false;
        // From a TCP socket splice(2) waits then, when somebody else takes what poll(2) has told of.
        if self.plan.socket_in && self.plan.poll_first_in {
            self.plan.routes = &[Route::ReadWrite];
        }
    }

    /// Bounds what one call may move.
    pub(super) fn set_max_per_call(&mut self, bytes: usize) {
        self.max_per_call = bytes as u32;
    }

    /// Bounds how many bytes are taken in a second.
    pub(super) fn set_rate(&mut self, per_second: u64) {
        let mut rate = Box::new(Rate::new(per_second));
        // What was prepended is passed on at once, and is made up for.
        rate.take(self.in_flight.len() as u64);
        self.rate = Some(rate);
    }

    /// Whether bytes are missing of those that were asked for.
    pub(super) fn is_short(&self) -> bool {
        self.remaining.is_some_and(|remaining| remaining > 0)
    }

    /// Bytes that were read ahead of the input: they go first, and count.
    pub(super) fn prepend(&mut self, bytes: Vec<u8>) {
        self.remaining = self.remaining.map(|remaining| remaining - bytes.len() as u64);
        self.in_flight.prepend(bytes);
    }

    /// Takes nothing from the input, and is done when nothing is in flight, as long as there is more to be prepended.
    pub(super) fn set_more_ahead(&mut self, more: bool) {
        self.more_ahead = more;
    }

    pub(super) fn is_more_ahead(&self) -> bool {
        self.more_ahead
    }

    /// How many bytes the output has taken.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many bytes were taken from the input, not counting read-ahead.
    pub(super) fn taken(&self) -> u64 {
        self.taken
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

    /// Whether bytes are in flight or reserved, so that an end before the copy is done has to be an [`abort`](Pump::abort).
    pub(super) fn needs_abort(&self) -> bool {
        !self.in_flight.is_empty() || self.position.reserved() > 0
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
        let step = match self.step(input, output) {
            // An output that takes nothing does not matter any more when there is nothing to come.
            Ok(Advance::Blocked(Side::Output)) => self
                .has_ended(input)
                .map(|ended| if ended { Advance::Done } else { Advance::Blocked(Side::Output) }),
            step => step,
        };
        self.end_step(step, input, output)
    }

    /// Takes up to `room` bytes from the input, and leaves them in flight. Nothing is in flight.
    pub(super) fn fill(&mut self, input: BorrowedFd<'_>, room: usize) -> Advance {
        let step = match self.throttled() {
            Some(until) => Ok(Advance::Throttled(until)),
            None => self.try_fill(input, room),
        };
        self.end_step(step, input, input)
    }

    /// How much memory the next [`read_into`](Pump::read_into) is worth.
    pub(super) fn portion_size(&self) -> usize {
        match self.plan.extent {
            // One more byte than a file has shows its end.
            Extent::Size(size) => {
                (size.saturating_sub(self.taken) + 1).clamp(PIPE_BUF as u64, PORTION) as usize
            }
            // A message is taken whole.
            _ if self.plan.messages_in => MESSAGE_MAX,
            Extent::Limit(_) | Extent::Unknown => PORTION as usize,
        }
    }

    /// Reads bytes of the input into memory of the caller's, who has them then. Nothing is in flight.
    pub(super) fn read_into(&mut self, input: BorrowedFd<'_>, buffer: &mut [u8]) -> Advance {
        let step = self.try_read_into(input, buffer);
        self.end_step(step, input, input)
    }

    /// Writes bytes of the caller's to the output, and moves the slice on over those that it has taken; `Done` when that is
    /// all. Nothing is in flight.
    pub(super) fn write_from(&mut self, output: BorrowedFd<'_>, bytes: &mut &[u8]) -> Advance {
        if bytes.is_empty() {
            return Advance::Done;
        }
        let before = self.delivered;
        let step = self
            .write(output, bytes.len(), |_, kernel, len, write| write.call(kernel, output, &bytes[..len]));
        *bytes = &bytes[(self.delivered - before) as usize..];
        self.end_step(step, output, output)
    }

    fn end_step(&mut self, step: Result<Advance>, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Advance {
        let step = match step {
            // Once more, right after it was reported as ready? poll(2) says whether somebody else was quicker.
            Ok(Advance::Blocked(side)) if self.was_blocked(side) => self
                .is_ready(side, input, output)
                .map(|ready| if ready { Advance::Stalled(side) } else { Advance::Blocked(side) }),
            step => step,
        };
        let step = match step {
            Ok(Advance::Stalled(Side::Input)) if self.in_flight.is_empty() => self.check_by_read(input),
            step => step,
        };
        let advance = match step {
            Ok(advance) => advance,
            Err(Errno::INTR) => Advance::Interrupted,
            Err(errno) => Advance::Failed(errno),
        };
        match advance {
            Advance::Blocked(Side::Input) if self.is_silent() => return Advance::Done,
            Advance::Blocked(side) if !self.was_blocked(side) => self.blocked = Some((side, Instant::now())),
            Advance::Progress => self.blocked = None,
            _ => {}
        }
        advance
    }

    fn was_blocked(&self, side: Side) -> bool {
        self.blocked.is_some_and(|(before, _)| before == side)
    }

    /// Whether a terminal that ends after a silence has been silent for so long.
    fn is_silent(&self) -> bool {
        let since = self.blocked.filter(|(side, _)| *side == Side::Input).map(|(_, since)| since.elapsed());
        self.plan.silence.is_some_and(|silence| since.unwrap_or_default() >= silence.duration())
    }

    /// Finds out by read(2) what is true, when splice(2) says that the input has ended or that nothing is there, and that
    /// need not be so: at an urgent byte it stops for good. What read(2) takes is in flight then.
    fn check_by_read(&mut self, input: BorrowedFd<'_>) -> Result<Advance> {
        if !self.plan.socket_in || self.plan.routes == [Route::ReadWrite] {
            return Ok(Advance::Stalled(Side::Input));
        }
        if self.plan.poll_first_in && !self.may_call(Side::Input, input, input)? {
            return Ok(Advance::Stalled(Side::Input));
        }
        match self.fill_buffer(input, self.next_len(usize::MAX))? {
            Advance::Blocked(side) => Ok(Advance::Stalled(side)),
            advance => Ok(advance),
        }
    }

    fn step(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Advance> {
        if let Some(errno) = self.lost.take() {
            return Err(errno);
        }
        if !self.in_flight.is_empty() {
            return self.deliver(output);
        }
        // A pipe without a reader is an error, also when nothing is left to be written to it.
        if self.plan.pipe_out && self.was_blocked(Side::Input) && self.has_ended(input)? {
            return Ok(Advance::Done);
        }
        if let Some(until) = self.throttled() {
            return Ok(Advance::Throttled(until));
        }
        if self.plan.is_provisional && !self.merging {
            self.plan = Plan::at_length(input, output)?;
            self.max_write = max_write(&self.plan);
        }
        match self.plan.routes[0] {
            Route::Splice | Route::PipeToPipe if self.merging => {
                self.try_fill_by(Route::ReadWrite, input, usize::MAX)
            }
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

    /// Whether nothing is in flight, and nothing comes any more.
    fn has_ended(&mut self, input: BorrowedFd<'_>) -> Result<bool> {
        if !self.in_flight.is_empty() || self.plan.messages_in || self.plan.tls_in.is_some() {
            return Ok(false);
        }
        let ended = self.kernel.has_ended(input, self.plan.socket_in, self.position.at())?;
        if ended {
            // A file may have become shorter than what was reserved of it.
            self.position.release(&mut self.kernel, input, 0)?;
        }
        Ok(ended)
    }

    /// How much may be taken at once: what the output takes at once, and a little more, which is held when it stops.
    fn room(&mut self, output: BorrowedFd<'_>) -> usize {
        let large = self.in_flight.idle_capacity() > MODEST && !self.plan.file_out;
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
        if self.position.is_used_up() {
            return self.read_on(input);
        }
        let poll_first = [(Side::Input, self.plan.poll_first_in), (Side::Output, self.plan.poll_first_out)];
        for (side, _) in poll_first.into_iter().filter(|(_, poll_first)| *poll_first) {
            if !self.may_call(side, input, output)? {
                return Ok(Advance::Blocked(side));
            }
        }
        let Some(len) = self.reserve(input, len)? else { return self.read_on(input) };
        let portion = self.portion(len);
        let route = self.plan.routes[0];
        let to_file = self.plan.file_out;
        let (kernel, mut offset) = (&mut self.kernel, self.position.offset());
        let moved = match route {
            Route::CopyFileRange if to_file => write_reserved(kernel, output, len, |kernel, off_out, len| {
                kernel.copy_file_range(input, offset.as_deref_mut(), output, off_out, len)
            }),
            Route::CopyFileRange => kernel.copy_file_range(input, offset, output, None, len),
            Route::Sendfile => kernel.sendfile(input, offset, output, portion),
            // How much a pipe has is asked for first, so that no more of the file is reserved.
            Route::Splice if to_file => match kernel.available(input)?.min(portion) {
                0 => return self.fill_buffer(input, len),
                len => write_reserved(kernel, output, len, |kernel, off_out, len| {
                    kernel.splice(input, offset.as_deref_mut(), output, off_out, len)
                }),
            },
            Route::Splice | Route::PipeToPipe => kernel.splice(input, offset, output, None, portion),
            Route::ViaPipe | Route::ReadWrite => return self.try_fill(input, len),
        };
        match moved {
            Ok(0) => self.end_of_input(input),
            Ok(bytes) => {
                self.record_taken(bytes);
                self.delivered += bytes as u64;
                self.merging = self.plan.merge && bytes < PIPE_BUF;
                Ok(Advance::Progress)
            }
            Err(Errno::AGAIN) => self.which_side_blocks(input, output),
            Err(Errno::PIPE) if self.plan.pipe_out && self.has_ended(input)? => Ok(Advance::Done),
            Err(Errno::MSGSIZE) => Ok(self.write_messages()),
            // Before Linux 6.5 a hole of a file on tmpfs takes memory when it is spliced. By read(2) it takes none.
            Err(Errno::NOSPC) if !self.plan.file_out => Ok(self.next_route()),
            // Between two pipes it may mean that they are one: a copy by any route would never end.
            Err(Errno::INVAL) if route == Route::PipeToPipe && self.kernel.is_same_pipe(input, output) => {
                Err(Errno::INVAL)
            }
            Err(errno) => self.refused(route, errno),
        }
    }

    /// Reserves what the next call takes from a file, and returns how much that may be: `None` at the end that the file
    /// claims to have.
    fn reserve(&mut self, input: BorrowedFd<'_>, len: usize) -> Result<Option<usize>> {
        let Extent::Size(size) = self.plan.extent else { return Ok(Some(len)) };
        let all = self.remaining.unwrap_or(u64::MAX).min(self.limit());
        let room = self.position.reserve(&mut self.kernel, input, all, size)?;
        let len = room.min(len as u64) as usize;
        Ok((len > 0).then_some(len))
    }

    /// A call has moved nothing.
    fn end_of_input(&mut self, input: BorrowedFd<'_>) -> Result<Advance> {
        let by_file = matches!(self.plan.routes[0], Route::CopyFileRange | Route::Sendfile);
        if matches!(self.plan.extent, Extent::Size(_)) || self.taken == 0 && by_file {
            return self.read_on(input);
        }
        if self.plan.socket_in { self.check_by_read(input) } else { Ok(Advance::Done) }
    }

    /// Goes on by read(2) and write(2), which find what there is behind the end that a file claims to have: it may have
    /// grown, and files in /proc and of FUSE claim 0.
    fn read_on(&mut self, input: BorrowedFd<'_>) -> Result<Advance> {
        self.position.release(&mut self.kernel, input, 0)?;
        if self.plan.to_size {
            return Ok(Advance::Done);
        }
        self.plan.routes = &[Route::ReadWrite];
        Ok(Advance::Progress)
    }

    /// `EAGAIN` does not say which end it was; poll(2) does.
    fn which_side_blocks(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Advance> {
        let ready = self.kernel.ready(input, output)?;
        Ok(match (ready.input, ready.output) {
            (false, _) => Advance::Blocked(Side::Input),
            (true, false) => Advance::Blocked(Side::Output),
            // Something may have come since; when it is the same once more, that is a stall.
            (true, true) if self.plan.socket_in => Advance::Blocked(Side::Input),
            (true, true) => Advance::Stalled(Side::Output),
        })
    }

    /// Whether a call on an end that may block may be made now. A socket of which poll(2) reports nothing but an error may
    /// have an error queue that nobody reads, and would block.
    fn may_call(&mut self, side: Side, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<bool> {
        let (fd, is_socket) = match side {
            Side::Input => (input, self.plan.socket_in),
            Side::Output => (output, self.plan.socket_out),
        };
        let ready = self.kernel.ready(fd, fd)?;
        let index = side as usize;
        Ok([ready.input, ready.output][index] && !(is_socket && ready.only_error[index]))
    }

    /// Whether the input may be read now. A socket need not be asked: [`Kernel::read_now`] never waits for it.
    fn may_read(&mut self, input: BorrowedFd<'_>) -> Result<bool> {
        Ok(!self.plan.poll_first_in || self.plan.socket_in || self.may_call(Side::Input, input, input)?)
    }

    fn is_ready(&mut self, side: Side, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<bool> {
        match side {
            Side::Input => self.kernel.ready(input, input).map(|ready| ready.input),
            Side::Output => self.kernel.ready(output, output).map(|ready| ready.output),
        }
    }

    fn try_read_into(&mut self, input: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Advance> {
        let len = self.next_len(buffer.len());
        if len == 0 {
            return Ok(Advance::Done);
        }
        if !self.may_read(input)? {
            return Ok(Advance::Blocked(Side::Input));
        }
        self.read_size = buffer.len() as u32;
        self.read(input, len, |_, len, read| read(&mut buffer[..len]))
    }

    fn try_fill(&mut self, input: BorrowedFd<'_>, room: usize) -> Result<Advance> {
        self.try_fill_by(self.plan.routes[0], input, room)
    }

    fn try_fill_by(&mut self, route: Route, input: BorrowedFd<'_>, room: usize) -> Result<Advance> {
        let len = match self.next_len(room) {
            0 => return Ok(Advance::Done),
            len => len,
        };
        if route == Route::ReadWrite {
            return match self.may_read(input)? {
                true => self.fill_buffer(input, len),
                false => Ok(Advance::Blocked(Side::Input)),
            };
        }
        if self.plan.poll_first_in && !self.may_call(Side::Input, input, input)? {
            return Ok(Advance::Blocked(Side::Input));
        }
        let Some(len) = self.reserve(input, len)? else { return self.read_on(input) };
        match self.in_flight.fill_pipe(&mut self.kernel, input, self.position.offset(), len) {
            // No descriptor or no memory for a pipe is no reason not to copy.
            None => Ok(self.next_route()),
            Some(Ok(0)) => self.end_of_input(input),
            Some(Ok(bytes)) => {
                self.record_taken(bytes);
                Ok(Advance::Progress)
            }
            // The pipe was empty, so it is the input that would block.
            Some(Err(Errno::AGAIN)) => Ok(Advance::Blocked(Side::Input)),
            // As above: a pipe is never full in that sense.
            Some(Err(Errno::NOSPC)) => Ok(self.next_route()),
            Some(Err(errno)) => self.refused(route, errno),
        }
    }

    /// Reads up to `len` bytes into memory. Nothing is in flight.
    fn fill_buffer(&mut self, input: BorrowedFd<'_>, len: usize) -> Result<Advance> {
        self.read(input, len, |in_flight, len, read| in_flight.fill_buffer(len, |buffer| read(buffer)))
    }

    /// Takes up to `len` bytes by read(2), for which `with_memory` has the memory.
    fn read(
        &mut self,
        input: BorrowedFd<'_>,
        len: usize,
        with_memory: impl FnOnce(
            &mut InFlight,
            usize,
            &mut dyn FnMut(&mut [u8]) -> Result<usize>,
        ) -> Result<usize>,
    ) -> Result<Advance> {
        let reserved = self.position.reserved();
        let len = match self.next_read(input, len) {
            Ok(len) if reserved > 0 => len.min(reserved as usize),
            Ok(len) => {
                self.position.release(&mut self.kernel, input, 0)?;
                len
            }
            Err(Errno::AGAIN) => return Ok(Advance::Blocked(Side::Input)),
            Err(errno) => return Err(errno),
        };
        let (kernel, mut offset) = (&mut self.kernel, self.position.offset());
        let poll_first = self.plan.poll_first_in;
        let read = with_memory(&mut self.in_flight, len, &mut |buffer| {
            if poll_first {
                kernel.read_now(input, buffer)
            } else {
                kernel.read(input, offset.as_deref_mut(), buffer)
            }
        });
        if read == Ok(self.read_size as usize) && !self.plan.is_provisional {
            self.read_size = READ_SIZE as u32;
        }
        match read {
            Ok(0) if reserved > 0 => self.read_on(input),
            Ok(0) if self.plan.tls_in.is_some_and(|records| records != ControlRecords::Left) => {
                Err(tls::TRUNCATED)
            }
            Ok(0) => Ok(Advance::Done),
            Ok(bytes) => {
                self.record_taken(bytes);
                let begins = self.plan.is_provisional && self.taken <= BEGINNING;
                self.merging &= begins || bytes < len;
                Ok(Advance::Progress)
            }
            Err(Errno::AGAIN) => Ok(Advance::Blocked(Side::Input)),
            Err(Errno::IO) => self.control_record(input),
            Err(errno) => Err(errno),
        }
    }

    /// The next record of TLS is not data, if the kernel decrypts.
    fn control_record(&mut self, input: BorrowedFd<'_>) -> Result<Advance> {
        let leave_close_notify = match self.plan.tls_in {
            None => return Err(Errno::IO),
            Some(ControlRecords::Left) => return Ok(Advance::Done),
            Some(ControlRecords::Taken) => false,
            Some(ControlRecords::TakenButTheLast) => true,
        };
        Ok(match self.kernel.take_control_record(input, leave_close_notify)? {
            Record::CloseNotify => Advance::Done,
            Record::Data | Record::Ticket => Advance::Progress,
        })
    }

    /// How much the next read(2) takes. A message that is longer than `len` is not taken: the rest of it would be lost.
    fn next_read(&mut self, input: BorrowedFd<'_>, len: usize) -> Result<usize> {
        if !self.plan.messages_in {
            return Ok(len.min(self.read_size as usize));
        }
        match self.kernel.message_size(input)? {
            size if size > len => Err(Errno::MSGSIZE),
            size => Ok(size.max(len.min(READ_SIZE))),
        }
    }

    /// Passes on what is in flight.
    fn deliver(&mut self, output: BorrowedFd<'_>) -> Result<Advance> {
        self.write(output, self.in_flight.len(), |in_flight, kernel, len, write| {
            in_flight.drain(kernel, output, len, write)
        })
    }

    /// Brings some of `len` bytes to the output; `drain` does it.
    fn write(
        &mut self,
        output: BorrowedFd<'_>,
        len: usize,
        drain: impl FnOnce(&mut InFlight, &mut K, usize, Write) -> Result<usize>,
    ) -> Result<Advance> {
        if self.plan.poll_first_out && !self.may_call(Side::Output, output, output)? {
            return Ok(Advance::Blocked(Side::Output));
        }
        let write = match self.may_wait() {
            _ if self.plan.file_out => Write::File,
            true => Write::Now,
            false => Write::MayBlock,
        };
        let portion = self.portion(len);
        match drain(&mut self.in_flight, &mut self.kernel, portion, write) {
            Ok(0) => Ok(Advance::Stalled(Side::Output)),
            Ok(bytes) => {
                self.delivered += bytes as u64;
                Ok(Advance::Progress)
            }
            // What cannot be spliced to now cannot be spliced to later.
            Err(errno) if self.in_flight.is_in_pipe() && Route::ViaPipe.refused(errno) => {
                self.in_flight.take_into_memory(&mut self.kernel)?;
                self.plan.routes = &[Route::ReadWrite];
                Ok(Advance::Progress)
            }
            // The output is a socket with messages, and this is too long for one.
            Err(Errno::MSGSIZE) if portion > MESSAGE && !self.plan.messages_in => {
                self.in_flight.take_into_memory(&mut self.kernel)?;
                Ok(self.write_messages())
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

    /// Goes on by write(2), in portions that are short enough for a message.
    fn write_messages(&mut self) -> Advance {
        self.max_write = MESSAGE as u32;
        self.plan.routes = &[Route::ReadWrite];
        Advance::Progress
    }

    /// Bytes that something other than [`advance`](Pump::advance) has brought to the output.
    pub(super) fn record_delivered(&mut self, bytes: usize) {
        self.delivered += bytes as u64;
        self.in_flight.remove(bytes);
    }

    fn record_taken(&mut self, bytes: usize) {
        if let Some(rate) = &mut self.rate {
            rate.take(bytes as u64);
        }
        self.taken += bytes as u64;
        self.remaining = self.remaining.map(|remaining| remaining - bytes as u64);
    }

    /// When more may be taken from the input, if that is not now.
    fn throttled(&mut self) -> Option<Instant> {
        let nothing_left = self.left() == 0;
        self.rate.as_mut().filter(|_| !nothing_left)?.refill(Instant::now()).err()
    }

    /// How much the next call may take from the input.
    fn next_len(&self, room: usize) -> usize {
        // A message is not cut.
        let rate = self.rate.as_ref().filter(|_| !self.plan.messages_in);
        let allowed = rate.map_or(u64::MAX, |rate| rate.allowed());
        room.min(self.left().min(allowed).min(self.max_per_call.into()) as usize)
    }

    /// How much is to be taken from the input.
    fn left(&self) -> u64 {
        if self.more_ahead { 0 } else { self.remaining.unwrap_or(u64::MAX).min(self.limit()) }
    }

    /// How much is left of a file that is copied onto itself.
    fn limit(&self) -> u64 {
        match self.plan.extent {
            Extent::Limit(limit) => limit - self.taken,
            Extent::Size(size) if self.plan.to_size => {
                size.saturating_sub(self.position.at().unwrap_or(self.taken))
            }
            Extent::Unknown | Extent::Size(_) => u64::MAX,
        }
    }

    /// How much to write at once. A ready output in blocking mode takes `PIPE_BUF` without blocking; more might block.
    fn portion(&self, len: usize) -> usize {
        if self.may_wait() { len.min(PIPE_BUF) } else { len.min(self.max_write as usize) }
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
        if self.seek_back(input, self.in_flight.len() as u64) {
            self.in_flight.discard();
            return Vec::new();
        }
        // What a broken page cannot give is lost; the rest is not.
        self.in_flight.take(&mut self.kernel)
    }

    /// Moves the position of the input back to before the last `bytes` that were taken; `false` if that does not work.
    pub(super) fn seek_back(&mut self, input: Option<BorrowedFd<'_>>, bytes: u64) -> bool {
        match input {
            Some(input) => self.position.release(&mut self.kernel, input, bytes).is_ok(),
            None => bytes == 0 || matches!(self.position, Position::Given(_)),
        }
    }

    /// Delivers as much of what is in flight as the output accepts at once.
    pub(super) fn deliver_now(&mut self, output: BorrowedFd<'_>) {
        self.write_now(|pump| !pump.in_flight.is_empty() && pump.deliver(output) == Ok(Advance::Progress));
    }

    /// Writes as much of bytes of the caller's as the output accepts at once.
    pub(super) fn write_from_now(&mut self, output: BorrowedFd<'_>, bytes: &mut &[u8]) {
        self.write_now(|pump| pump.write_from(output, bytes) == Advance::Progress);
    }

    fn write_now(&mut self, mut write: impl FnMut(&mut Self) -> bool) {
        self.never_block();
        // Not to a terminal in blocking mode: the write could hang, and no signal would end it here.
        while !self.plan.terminal_out && write(self) {}
    }
}

/// How much one write(2) takes at most.
fn max_write(plan: &Plan) -> u32 {
    if plan.messages_out { MESSAGE as u32 } else { u32::MAX }
}
