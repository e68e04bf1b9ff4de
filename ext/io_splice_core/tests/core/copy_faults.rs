//! A copy whose kernel answers short, not now, not this way or not at all, at any step.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Seek;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use crate::support::*;
use io_splice_core::copy::{CopyStream, Hints, Kernel, Pause, Side, Timeouts, Waited};
use io_splice_core::{PIPE_BUF, PooledPipe, Readiness};
use proptest::prelude::*;
use rustix::io::{Errno, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    File,
    Pipe,
    Socket,
    BlockingPipe,
    BlockingSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    File,
    AppendFile,
    /// The file that is the input, opened again.
    SameFile,
    Pipe,
    Socket,
    BlockingPipe,
    BlockingSocket,
}

const FROM: [From; 5] = [From::File, From::Pipe, From::Socket, From::BlockingPipe, From::BlockingSocket];
const TO: [To; 7] =
    [To::File, To::AppendFile, To::SameFile, To::Pipe, To::Socket, To::BlockingPipe, To::BlockingSocket];

impl From {
    fn pipe(self) -> bool {
        matches!(self, Self::Pipe | Self::BlockingPipe)
    }

    fn wary(self) -> bool {
        matches!(self, Self::BlockingPipe | Self::BlockingSocket)
    }
}

impl To {
    fn pipe(self) -> bool {
        matches!(self, Self::Pipe | Self::BlockingPipe)
    }

    fn file(self) -> bool {
        matches!(self, Self::File | Self::AppendFile | Self::SameFile)
    }

    fn wary(self) -> bool {
        matches!(self, Self::BlockingPipe | Self::BlockingSocket)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    CopyFileRange,
    Sendfile,
    Splice,
    Read,
    Write,
}

/// What the kernel says to a call that moves bytes.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Full,
    Short(usize),
    NotNow(Side),
    /// `EAGAIN`, and yet both ends are ready.
    InVain,
    Fails(Errno),
}

/// What it says to poll(2).
#[derive(Clone, Copy, Debug)]
enum Look {
    AsItIs,
    NotReady(Side),
    Fails(Errno),
}

/// How a wait ends.
#[derive(Clone, Copy, Debug)]
enum Wait {
    Ready,
    /// For nothing: the end is no more ready than before.
    Spurious,
    Interrupted,
    TimedOut,
    Elsewhere,
}

/// What says that this way is closed, but not that every way is.
const REFUSALS: [Errno; 6] =
    [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::XDEV, Errno::BADF, Errno::OPNOTSUPP];
const FATAL: [Errno; 6] =
    [Errno::NOSPC, Errno::PIPE, Errno::IO, Errno::CONNRESET, Errno::NOMEM, Errno::MFILE];

#[derive(Clone, Debug)]
struct Case {
    from: From,
    to: To,
    /// How much there is, with what somebody has read ahead.
    size: usize,
    ahead: usize,
    len: Option<usize>,
    offset: Option<usize>,
    /// The size that a file copied onto itself has at first.
    limit: Option<usize>,
    /// A file as those in /proc, which only read(2) finds not to be empty.
    looks_empty: bool,
    report: bool,
    never_block: bool,
    answers: Vec<Answer>,
    looks: Vec<Look>,
    waits: Vec<Wait>,
    interrupts: Vec<bool>,
    /// Give up when it pauses for this time.
    abandon: Option<usize>,
    /// Go on after a wait that was too long.
    patient: bool,
    input_gone: bool,
    output_gone: bool,
}

impl Case {
    fn new(from: From, to: To, size: usize) -> Self {
        Self {
            from,
            to,
            size,
            ahead: 0,
            len: None,
            offset: None,
            limit: (to == To::SameFile).then_some(size / 2),
            looks_empty: false,
            report: false,
            never_block: false,
            answers: Vec::new(),
            looks: Vec::new(),
            waits: Vec::new(),
            interrupts: Vec::new(),
            abandon: None,
            patient: false,
            input_gone: false,
            output_gone: false,
        }
    }

    fn possible(&self) -> bool {
        self.from == From::File || self.to != To::SameFile
    }

    fn start(&self) -> usize {
        self.offset.unwrap_or(0)
    }

    /// How much must not be exceeded.
    fn wanted(&self) -> usize {
        let limit = self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.start()));
        self.len.unwrap_or(usize::MAX).min(limit)
    }

    /// How much must arrive.
    fn expected(&self) -> usize {
        self.wanted().min(self.size.saturating_sub(self.start()))
    }

    /// More calls than this are a loop without end. The smallest portion is `PIPE_BUF`.
    fn most_calls(&self) -> usize {
        let scripts = self.answers.len() + self.looks.len() + self.waits.len() + self.interrupts.len();
        20 + 5 * scripts + 5 * self.size.div_ceil(PIPE_BUF)
    }
}

/// All that a copy can touch.
struct World {
    case: Case,
    input: RawFd,
    output: RawFd,
    /// Where the output stands, if it is a file.
    written_to: usize,
    /// Where the input stands.
    position: usize,
    /// How much has left the input.
    taken: usize,
    arrived: Vec<u8>,
    answers: VecDeque<Answer>,
    looks: VecDeque<Look>,
    waits: VecDeque<Wait>,
    interrupts: VecDeque<bool>,
    blocked: Sides,
    /// Found ready since the last call.
    asked: Sides,
    own_pipes: Vec<(RawFd, RawFd)>,
    refused: Vec<Call>,
    in_vain: u32,
    rests: u32,
    /// How the copy must come back now.
    must: Option<Pause>,
    giving_up: bool,
    calls: usize,
}

#[derive(Default)]
struct Sides {
    input: bool,
    output: bool,
}

impl Sides {
    fn of(&mut self, side: Side) -> &mut bool {
        match side {
            Side::Input => &mut self.input,
            Side::Output => &mut self.output,
        }
    }
}

impl World {
    fn new(case: &Case, input: RawFd, output: RawFd) -> Self {
        Self {
            case: case.clone(),
            input,
            output,
            position: case.ahead,
            written_to: 0,
            taken: case.ahead,
            arrived: Vec::new(),
            answers: case.answers.clone().into(),
            looks: case.looks.clone().into(),
            waits: case.waits.clone().into(),
            interrupts: case.interrupts.clone().into(),
            blocked: Sides::default(),
            asked: Sides::default(),
            own_pipes: Vec::new(),
            refused: Vec::new(),
            in_vain: 0,
            rests: 0,
            must: None,
            giving_up: false,
            calls: 0,
        }
    }

    fn count_call(&mut self) {
        self.calls += 1;
        assert!(self.calls < self.case.most_calls(), "it spins");
        assert!(self.giving_up || self.must.is_none(), "it goes on where it must say {:?}", self.must);
    }

    /// What the kernel says to a call that concerns these ends: how much it moves at most.
    fn answer(&mut self, call: Call, sides: &[Side]) -> Result<usize> {
        self.count_call();
        assert!(!self.refused.contains(&call), "{call:?} was refused before");
        let asked = std::mem::take(&mut self.asked);
        for side in sides {
            let (wary, asked) = match side {
                Side::Input => (self.case.from.wary(), asked.input),
                Side::Output => (self.case.to.wary(), asked.output),
            };
            assert!(asked || !wary, "{side:?} may block and was not asked");
        }
        if sides.iter().any(|&side| *self.blocked.of(side)) {
            return Err(Errno::AGAIN);
        }
        let answer = self.answers.pop_front().unwrap_or(Answer::Full);
        if sides == [Side::Output] && asked.output && matches!(answer, Answer::InVain | Answer::NotNow(_)) {
            self.in_vain += 1;
        }
        match answer {
            Answer::Full => Ok(usize::MAX),
            Answer::Short(bytes) => Ok(bytes),
            // A pipe of one's own that holds something can be read, though a signal may come first.
            Answer::Fails(Errno::INTR) if sides.is_empty() => Err(Errno::INTR),
            _ if sides.is_empty() => Ok(usize::MAX),
            Answer::InVain if sides.len() == 2 => {
                self.in_vain += 1;
                Err(Errno::AGAIN)
            }
            Answer::InVain => {
                *self.blocked.of(sides[0]) = true;
                Err(Errno::AGAIN)
            }
            Answer::NotNow(side) => {
                let side = if sides.contains(&side) { side } else { sides[0] };
                *self.blocked.of(side) = true;
                Err(Errno::AGAIN)
            }
            Answer::Fails(errno) => {
                // Between two pipes it means that they are one, and then no other way is better.
                let same_pipe = errno == Errno::INVAL && self.case.from.pipe() && self.case.to.pipe();
                let has_others = !matches!(call, Call::Read | Call::Write);
                let by_cifs = errno == Errno::IO && call == Call::CopyFileRange;
                // A pipe is never full in that sense, so it is a hole of the input that finds no memory.
                let to_file = sides.len() == 2 && self.case.to == To::File;
                let in_hole = errno == Errno::NOSPC && sides.contains(&Side::Input) && !to_file;
                if (REFUSALS.contains(&errno) || by_cifs || in_hole) && has_others && !same_pipe {
                    self.refused.push(call);
                } else {
                    self.fail(errno);
                }
                Err(errno)
            }
        }
    }

    fn fail(&mut self, errno: Errno) {
        self.must = Some(if errno == Errno::INTR { Pause::Interrupted } else { Pause::Failed(errno) });
    }

    /// What a call finds at the input, before `arrive` or `take` says what became of it.
    fn find(&self, offset: Option<&u64>, len: usize, most: usize) -> &'static [u8] {
        assert!(len > 0, "0 would read as the end of the input");
        assert!(offset.is_some() || self.case.offset.is_none(), "an offset all the way");
        let from = offset.map_or(self.position, |&offset| offset as usize);
        let so_far = from - self.case.start();
        assert_eq!(so_far, self.arrived.len(), "bytes are taken while others are held");
        assert!(len <= self.case.wanted() - so_far, "more is asked for than is wanted");
        assert!(len <= 1 << 20 || !self.case.report, "too much at once for somebody who wants to be told");
        let size = self.case.size.max(from);
        &pattern(size.min(from + len.min(most)))[from..]
    }

    fn take(&mut self, offset: Option<&mut u64>, bytes: usize) {
        match offset {
            Some(offset) => *offset += bytes as u64,
            None => self.position += bytes,
        }
        self.taken += bytes;
        if bytes > 0 {
            self.in_vain = 0;
        }
    }

    /// Bytes reach the output, at an offset, or where it stands.
    fn arrive(&mut self, bytes: &[u8], offset: Option<&mut u64>) {
        match offset {
            Some(offset) => {
                assert_eq!(*offset as usize, self.arrived.len(), "bytes are written to where they belong");
                *offset += bytes.len() as u64;
            }
            None => {
                assert_eq!(self.written_to, self.arrived.len(), "bytes are written to where they belong");
                self.written_to += bytes.len();
            }
        }
        self.arrived.extend_from_slice(bytes);
        self.in_vain = 0;
    }

    fn check_portion(&self, len: usize) {
        let may_block = !self.case.never_block && !self.giving_up;
        assert!(may_block || !self.case.to.wary() || len <= PIPE_BUF, "{len} bytes might block");
    }

    fn move_straight(
        &mut self,
        call: Call,
        offset: Option<&mut u64>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        let shared = self.case.from == From::File && self.case.to != To::SameFile;
        assert!(offset.is_some() || !shared, "the position of the input is left to the kernel");
        let shared = matches!(self.case.to, To::File);
        assert_eq!(off_out.is_some(), shared, "the position of the output");
        let most = self.answer(call, &[Side::Input, Side::Output])?;
        self.check_portion(len);
        let found = self.find(offset.as_deref(), len, most);
        if self.case.looks_empty && call != Call::Splice {
            return Ok(0);
        }
        self.arrive(found, off_out);
        self.take(offset, found.len());
        Ok(found.len())
    }

    /// Where a file stands.
    fn position_of(&mut self, fd: BorrowedFd<'_>) -> Option<&mut usize> {
        if self.is_input(fd) && self.case.from == From::File {
            return Some(&mut self.position);
        }
        (self.is_output(fd) && self.case.to == To::File).then_some(&mut self.written_to)
    }

    /// For how long, and how often, is what there is to see of a stall.
    fn rest(&mut self, timeout: Option<Duration>) -> Waited {
        self.count_call();
        let timeout = timeout.expect("it rests for ever");
        self.rests += 1;
        std::thread::sleep(timeout);
        Waited::TimedOut
    }

    fn wait(&mut self, side: Side, fd: BorrowedFd<'_>) -> Waited {
        assert!(if side == Side::Input { self.is_input(fd) } else { self.is_output(fd) });
        // After a stall it asks poll(2) once.
        assert!(*self.blocked.of(side) || self.in_vain > 0, "{side:?} is ready and is waited for");
        let (waited, must) = match self.waits.pop_front().unwrap_or(Wait::Ready) {
            Wait::Ready => {
                *self.blocked.of(side) = false;
                (Waited::Ready, None)
            }
            Wait::Spurious => (Waited::Ready, None),
            Wait::Interrupted => (Waited::Interrupted, Some(Pause::Interrupted)),
            Wait::TimedOut => (Waited::TimedOut, Some(Pause::TimedOut(side))),
            Wait::Elsewhere => (Waited::Yield, Some(Pause::Wait)),
        };
        self.must = must;
        waited
    }

    fn interrupted(&mut self) -> bool {
        let interrupted = self.interrupts.pop_front().unwrap_or(false);
        if interrupted {
            self.must = Some(Pause::Interrupted);
        }
        interrupted
    }

    fn is_input(&self, fd: BorrowedFd<'_>) -> bool {
        fd.as_raw_fd() == self.input
    }

    fn is_output(&self, fd: BorrowedFd<'_>) -> bool {
        fd.as_raw_fd() == self.output
    }

    fn is_own_reader(&self, fd: BorrowedFd<'_>) -> bool {
        self.own_pipes.iter().any(|pipe| pipe.0 == fd.as_raw_fd())
    }

    fn is_own_writer(&self, fd: BorrowedFd<'_>) -> bool {
        self.own_pipes.iter().any(|pipe| pipe.1 == fd.as_raw_fd())
    }
}

/// The kernel's stand-in. Its inputs and outputs are made up; only the copy's own pipes are what they are,
/// so that a byte left behind in one of them stays there for the next copy to find.
struct Model(Rc<RefCell<World>>);

impl Kernel for Model {
    fn splice(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        assert_ne!(world.case.to, To::AppendFile);
        if world.is_own_reader(fd_in) {
            assert!(world.is_output(fd_out) && off_in.is_none());
            assert_eq!(off_out.is_some(), world.case.to == To::File, "the position of the output");
            let most = world.answer(Call::Splice, &[Side::Output])?;
            world.check_portion(len);
            let mut bytes = vec![0; len.min(most)];
            let read = rustix::io::read(fd_in, &mut bytes).expect("there is something in the pipe");
            world.arrive(&bytes[..read], off_out);
            return Ok(read);
        }
        assert!(world.is_input(fd_in));
        let may_wait = world.case.from == From::BlockingSocket && world.case.never_block;
        assert!(!may_wait, "somebody else may take what there is, and then this waits");
        if world.is_own_writer(fd_out) {
            let most = world.answer(Call::Splice, &[Side::Input])?;
            let found = world.find(off_in.as_deref(), len, most);
            let written = if found.is_empty() { 0 } else { rustix::io::write(fd_out, found).unwrap() };
            world.take(off_in, written);
            return Ok(written);
        }
        assert!(world.is_output(fd_out) && (world.case.from.pipe() || world.case.to.pipe()));
        world.move_straight(Call::Splice, off_in, off_out, len)
    }

    fn tee(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>, _: usize) -> rustix::io::Result<usize> {
        unreachable!("a copy to one output duplicates nothing")
    }

    fn sendfile(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        len: usize,
    ) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        assert!(world.is_input(fd_in) && world.is_output(fd_out));
        assert!(world.case.from == From::File && world.case.to != To::AppendFile);
        world.move_straight(Call::Sendfile, off_in, None, len)
    }

    fn copy_file_range(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        assert!(world.is_input(fd_in) && world.is_output(fd_out));
        assert!(world.case.from == From::File && world.case.to.file() && world.case.to != To::AppendFile);
        world.move_straight(Call::CopyFileRange, off_in, off_out, len)
    }

    fn read(&mut self, fd: BorrowedFd<'_>, offset: Option<&mut u64>, buffer: &mut [u8]) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        if world.is_own_reader(fd) {
            assert!(offset.is_none());
            let most = world.answer(Call::Read, &[])?.min(buffer.len());
            world.in_vain = 0;
            return rustix::io::read(fd, &mut buffer[..most]);
        }
        assert!(world.is_input(fd));
        let most = world.answer(Call::Read, &[Side::Input])?;
        let found = world.find(offset.as_deref(), buffer.len(), most);
        buffer[..found.len()].copy_from_slice(found);
        world.take(offset, found.len());
        Ok(found.len())
    }

    fn read_now(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
        // It never waits for a socket.
        if self.0.borrow().case.from == From::BlockingSocket {
            self.0.borrow_mut().asked.input = true;
        }
        self.read(fd, None, buffer)
    }

    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        assert!(world.is_output(fd) && !bytes.is_empty());
        let most = world.answer(Call::Write, &[Side::Output])?;
        world.check_portion(bytes.len());
        let bytes = &bytes[..bytes.len().min(most)];
        world.arrive(bytes, None);
        Ok(bytes.len())
    }

    fn ready(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Readiness> {
        let world = &mut *self.0.borrow_mut();
        world.count_call();
        let (input, output) = (world.is_input(input), world.is_output(output));
        match world.looks.pop_front().unwrap_or(Look::AsItIs) {
            Look::NotReady(Side::Input) if input => world.blocked.input = true,
            Look::NotReady(Side::Output) if output => world.blocked.output = true,
            Look::Fails(errno) => {
                world.fail(errno);
                return Err(errno);
            }
            _ => {}
        }
        let ready = Readiness {
            input: input && !world.blocked.input,
            output: output && !world.blocked.output,
            only_error: [false; 2],
        };
        world.asked.input |= ready.input;
        world.asked.output |= ready.output;
        Ok(ready)
    }

    fn pipe(&mut self) -> Result<PooledPipe> {
        let world = &mut *self.0.borrow_mut();
        world.count_call();
        if let Some(Answer::Fails(errno)) = world.answers.pop_front() {
            world.refused.push(Call::Splice);
            return Err(errno);
        }
        let pipe = PooledPipe::take()?;
        world.own_pipes.push((pipe.reader().as_raw_fd(), pipe.writer().as_raw_fd()));
        Ok(pipe)
    }

    fn reserve(&mut self, fd: BorrowedFd<'_>, len: u64) -> Result<u64> {
        let world = &mut *self.0.borrow_mut();
        // What is to be given back after an error is looked at first.
        if len > 0 {
            world.count_call();
        }
        let position = world.position_of(fd).expect("only a file has a position");
        *position += len as usize;
        Ok(*position as u64 - len)
    }

    fn seek_back(&mut self, fd: BorrowedFd<'_>, by: u64) -> Result<u64> {
        let world = &mut *self.0.borrow_mut();
        let position = world.position_of(fd).ok_or(Errno::SPIPE)?;
        *position -= by as usize;
        Ok(*position as u64)
    }

    fn available(&mut self, pipe: BorrowedFd<'_>) -> Result<usize> {
        let world = &mut *self.0.borrow_mut();
        world.count_call();
        assert!(world.is_input(pipe) && world.case.from.pipe());
        Ok(if world.blocked.input { 0 } else { world.case.size - world.position })
    }

    fn message_size(&mut self, _: BorrowedFd<'_>) -> Result<usize> {
        unreachable!("no end has messages")
    }

    fn is_same_pipe(&mut self, _: BorrowedFd<'_>, _: BorrowedFd<'_>) -> bool {
        self.0.borrow().case.from.pipe() && self.0.borrow().case.to.pipe()
    }
}

/// Two ends of these kinds. Nothing is read from or written to them.
struct Ends {
    input: OwnedFd,
    output: OwnedFd,
    _others: Vec<OwnedFd>,
}

impl Ends {
    fn new(case: &Case) -> Self {
        let file = TempFile::new(b"");
        let mut others = Vec::new();
        let (input, other) = match case.from {
            From::File => {
                let mut input = file.reader();
                file.writer().set_len(case.limit.unwrap_or(case.size) as u64).unwrap();
                input.seek(std::io::SeekFrom::Start(case.ahead as u64)).unwrap();
                (input.into(), None)
            }
            From::Pipe | From::BlockingPipe => {
                let Pipe { reader, writer } = pipe_in(Blocking::No);
                (reader.into(), Some(writer.into()))
            }
            From::Socket | From::BlockingSocket => {
                let (one, other) = unix_pair_in(Blocking::No);
                (one, Some(other))
            }
        };
        others.extend(other);
        let (output, other) = match case.to {
            To::File => (TempFile::new(b"").writer().into(), None),
            To::AppendFile => (TempFile::new(b"").appender().into(), None),
            To::SameFile => (file.writer().into(), None),
            To::Pipe | To::BlockingPipe => {
                let Pipe { reader, writer } = pipe_in(Blocking::No);
                (writer.into(), Some(reader.into()))
            }
            To::Socket | To::BlockingSocket => {
                let (one, other) = unix_pair_in(Blocking::No);
                (one, Some(other))
            }
        };
        others.extend(other);
        if case.from.wary() {
            set_mode(&input, Blocking::Yes);
        }
        if case.to.wary() {
            set_mode(&output, Blocking::Yes);
        }
        Self { input, output, _others: others }
    }
}

struct Outcome {
    end: Pause,
    delivered: usize,
    rests: u32,
}

/// Runs a copy to its end, whichever that is, and accounts for every byte at every pause.
fn check(case: &Case) -> Outcome {
    check_knowing(case, Hints { can_unread: true, ..Hints::default() });
    check_knowing(case, Hints::default())
}

fn check_knowing(case: &Case, known: Hints) -> Outcome {
    let ends = Ends::new(case);
    let (input, output) = (ends.input.as_fd(), ends.output.as_fd());
    let world = Rc::new(RefCell::new(World::new(case, input.as_raw_fd(), output.as_raw_fd())));
    let offset = case.offset.map(|offset| offset as u64);
    let len = case.len.map(|len| len as u64);
    let told = Told::default();
    let mut copy = copy_by(Model(Rc::clone(&world)), input, output, len, offset, known);
    if case.report {
        copy.report();
    }
    if case.never_block {
        copy.never_block();
    }
    if case.offset.is_none() {
        copy.prepend(pattern(case.ahead).to_vec());
    }
    let end = run(case, &mut copy, &ends, &world, told);
    let delivered = copy.delivered() as usize;
    let (taken, rests) = (world.borrow().taken, world.borrow().rests);

    world.borrow_mut().giving_up = true;
    let (to_input, to_output) = ((!case.input_gone).then_some(input), (!case.output_gone).then_some(output));
    let returned = copy.abort(to_input, to_output);
    check_arrived(&copy, &world);
    let (after, end_of_all) = (copy.delivered() as usize, case.start() + copy.delivered() as usize);
    assert!(after == delivered || (after > delivered && !case.output_gone && end != Pause::Done));
    assert_eq!((copy.in_flight(), world.borrow().taken), (0, taken));
    let position = world.borrow().position;
    if case.offset.is_some() {
        assert_eq!((position, returned.len()), (case.ahead, 0), "with an offset the input does not move");
    } else if case.from == From::File && !case.input_gone {
        if case.to == To::File {
            assert_eq!(world.borrow().written_to, after, "the output stands behind what has arrived");
        }
        assert_eq!((position, returned.len()), (end_of_all, 0), "the input stands behind what has arrived");
    } else {
        assert_same(&returned, &pattern(taken)[after..], "what was taken and has not arrived");
    }
    drop(copy);
    assert_next_pipe_is_empty();
    Outcome { end, delivered: after, rests }
}

fn run(
    case: &Case,
    copy: &mut CopyStream<Model>,
    ends: &Ends,
    world: &Rc<RefCell<World>>,
    mut told: Told,
) -> Pause {
    let mut reported = 0;
    let mut host = MadeUp::new(
        |ends, timeout| match ends {
            [end] => {
                let waited = world.borrow_mut().wait(end.side, end.fd);
                end.ready = waited == Waited::Ready;
                waited
            }
            _ => world.borrow_mut().rest(timeout),
        },
        || world.borrow_mut().interrupted(),
    );
    if case.waits.iter().any(|wait| matches!(wait, Wait::TimedOut)) {
        copy.set_timeouts(Timeouts { input: Some(Duration::ZERO), output: Some(Duration::ZERO) });
    }
    for pauses in 1.. {
        assert!(pauses < case.most_calls(), "it never ends");
        world.borrow_mut().must = None;
        let pause = run_copy(copy, &ends.input, &ends.output, &mut host);
        check_arrived(copy, world);
        let mut world = world.borrow_mut();
        assert_eq!(copy.in_flight(), world.taken - world.arrived.len(), "what is held");
        assert_eq!(pause, world.must.unwrap_or(pause));
        let abandon = case.abandon == Some(pauses);
        match pause {
            Pause::Done => {
                assert_eq!((copy.delivered() as usize, copy.in_flight()), (case.expected(), 0), "all of it");
                return pause;
            }
            Pause::Failed(_) => {
                assert!(world.must.is_some(), "{pause:?}, which nobody said");
                return pause;
            }
            _ if abandon => return pause,
            Pause::TimedOut(_) if !case.patient => return pause,
            Pause::Progress => {
                let news = copy.delivered() - reported;
                let late = told.is_late();
                assert!(case.report && (news >= 1 << 20 || late && news > 0), "told after {news} bytes");
                reported = copy.delivered();
            }
            Pause::Wait => world.blocked = Sides::default(),
            Pause::TimedOut(_) => copy.set_timeouts(Timeouts::default()),
            Pause::Interrupted => assert!(world.must.is_some(), "nobody interrupted it"),
        }
    }
    unreachable!()
}

/// What has arrived is the beginning of what was to be copied, and is what the copy counts.
fn check_arrived(copy: &CopyStream<Model>, world: &Rc<RefCell<World>>) {
    let world = world.borrow();
    assert_eq!(copy.delivered() as usize, world.arrived.len(), "what counts as delivered");
    let start = world.case.start();
    assert_same(&world.arrived, &pattern(start + world.arrived.len())[start..], "what has arrived");
}

fn all_pairs() -> impl Iterator<Item = (From, To)> {
    FROM.into_iter()
        .flat_map(|from| TO.map(|to| (from, to)))
        .filter(|&(from, to)| Case::new(from, to, 0).possible())
}

#[test]
fn a_kernel_in_a_good_mood_copies_everything() {
    for (from, to) in all_pairs() {
        for size in [0, 1, 2, 4095, 4097, 131_072, 131_073, 300_000, 1 << 20, (2 << 20) + 1] {
            let case = Case::new(from, to, size);
            let outcome = check(&case);
            assert_eq!((outcome.end, outcome.delivered), (Pause::Done, case.expected()), "{case:?}");
        }
    }
}

#[test]
fn len_says_how_much_and_0_is_nothing() {
    for (from, to) in all_pairs() {
        for len in [0, 1, 4096, 149_999, 150_000, 150_001, 400_000] {
            let case = Case { len: Some(len), ..Case::new(from, to, 300_000) };
            let outcome = check(&case);
            assert_eq!((outcome.end, outcome.delivered), (Pause::Done, case.expected()), "{case:?}");
        }
    }
}

#[test]
fn from_an_offset_and_from_beyond_the_end() {
    for to in TO {
        for offset in [0, 1, 100_000, 149_999, 299_999, 300_000, 300_001] {
            for len in [None, Some(0), Some(10), Some(250_000)] {
                let case = Case { offset: Some(offset), len, ..Case::new(From::File, to, 300_000) };
                let outcome = check(&case);
                assert_eq!((outcome.end, outcome.delivered), (Pause::Done, case.expected()), "{case:?}");
            }
        }
    }
}

#[test]
fn what_was_read_ahead_goes_first_and_counts() {
    for (from, to) in all_pairs().filter(|pair| pair.1 != To::SameFile) {
        for (ahead, len) in [(1, None), (8192, None), (8192, Some(8192)), (8192, Some(8193)), (300_000, None)]
        {
            let case = Case { ahead, len, ..Case::new(from, to, 300_000) };
            let outcome = check(&case);
            assert_eq!((outcome.end, outcome.delivered), (Pause::Done, case.expected()), "{case:?}");
        }
    }
}

#[test]
fn a_file_that_looks_empty_is_read_all_the_same() {
    for to in TO {
        let case = Case { looks_empty: true, ..Case::new(From::File, to, 300_000) };
        check(&case);
    }
}

#[test]
fn a_file_that_looks_empty_has_more_than_what_was_read_ahead() {
    for to in TO.into_iter().filter(|&to| to != To::SameFile) {
        let case = Case { looks_empty: true, ahead: 8192, ..Case::new(From::File, to, 300_000) };
        check(&case);
    }
}

#[test]
fn a_file_copied_onto_itself_counts_what_was_read_ahead() {
    let case = Case { ahead: 8192, ..Case::new(From::File, To::SameFile, 300_000) };
    check(&case);
}

#[test]
fn a_file_copied_onto_itself_may_be_read_ahead_to_its_end() {
    let case = Case { ahead: 100, limit: Some(100), ..Case::new(From::File, To::SameFile, 300_000) };
    check(&case);
}

/// Whatever is said, and whenever, in a copy of many short pieces.
#[test]
fn any_answer_at_any_step_is_survived() {
    let errors = REFUSALS.into_iter().chain(FATAL).chain([Errno::INTR]).map(Answer::Fails);
    let sides = [Answer::NotNow(Side::Input), Answer::NotNow(Side::Output), Answer::InVain];
    let said: Vec<_> = errors.chain(sides).chain([Answer::Short(1)]).collect();
    for (from, to) in all_pairs() {
        for answer in &said {
            for step in 0..10 {
                let mut answers = vec![Answer::Short(20_000); step];
                answers.push(*answer);
                check(&Case { answers, ..Case::new(from, to, 150_000) });
            }
        }
    }
}

/// As above, and it is given up at the first pause, with or without the ends.
#[test]
fn given_up_anywhere_the_input_stands_behind_what_has_arrived() {
    for (from, to) in all_pairs() {
        for step in 0..10 {
            for gone in 0..4 {
                for answer in [Answer::Fails(Errno::INTR), Answer::NotNow(Side::Output)] {
                    let mut answers = vec![Answer::Short(20_000); step];
                    answers.push(answer);
                    check(&Case {
                        answers,
                        waits: vec![Wait::TimedOut],
                        abandon: Some(1),
                        input_gone: gone & 1 != 0,
                        output_gone: gone & 2 != 0,
                        ..Case::new(from, to, 150_000)
                    });
                }
            }
        }
    }
}

#[test]
fn a_fatal_error_is_told_and_nothing_after_it_arrives() {
    for (from, to) in all_pairs() {
        let mut answers = vec![Answer::Short(20_000); 4];
        answers.extend([Answer::Fails(Errno::NOSPC); 3]);
        let case = Case { answers, ..Case::new(from, to, 300_000) };
        let outcome = check(&case);
        assert_eq!(outcome.end, Pause::Failed(Errno::NOSPC), "{case:?}");
        assert!(outcome.delivered <= 80_000);
    }
}

/// In one copy every way but the last is refused, each after some bytes.
#[test]
fn every_way_is_refused_in_turn_until_only_reading_and_writing_is_left() {
    for (from, to) in all_pairs() {
        for refusal in REFUSALS {
            for pieces in 0..6 {
                let mut answers = Vec::new();
                for _ in 0..2 {
                    answers.extend(vec![Answer::Short(20_000); pieces]);
                    answers.push(Answer::Fails(refusal));
                    answers.extend([Answer::Short(1), Answer::Fails(Errno::INTR)]);
                }
                check(&Case { answers, ..Case::new(from, to, 300_000) });
            }
        }
    }
}

#[test]
fn ends_that_claim_to_be_ready_do_not_make_it_spin() {
    for (from, to) in [(From::File, To::Socket), (From::Pipe, To::Socket), (From::Socket, To::Pipe)] {
        let case = Case { answers: vec![Answer::InVain; 10], ..Case::new(from, to, 30_000) };
        let outcome = check(&case);
        // A socket is asked once more, and then by read(2): each takes one of the answers.
        let stalls = if from == From::Socket { 4 } else { 10 };
        assert_eq!((outcome.end, outcome.rests), (Pause::Done, stalls - 1));
    }
}

#[test]
fn a_stall_is_under_the_timeouts() {
    let pairs = [
        (From::File, To::Socket, Side::Output),
        (From::Pipe, To::Socket, Side::Output),
        (From::Socket, To::Pipe, Side::Input),
    ];
    for (from, to, side) in pairs {
        let waits = vec![Wait::Ready, Wait::TimedOut];
        let case = Case { answers: vec![Answer::InVain; 5], waits, ..Case::new(from, to, 30_000) };
        assert_eq!(check(&case).end, Pause::TimedOut(side));
    }
}

/// Before Linux 6.5 a hole of a file on tmpfs finds no memory when it is spliced, and is read all the same.
#[test]
fn a_file_that_has_no_room_to_be_spliced_is_read() {
    for to in [To::Socket, To::Pipe] {
        let answers = vec![Answer::Short(20_000), Answer::Fails(Errno::NOSPC)];
        let case = Case { answers, ..Case::new(From::File, to, 300_000) };
        assert_eq!(check(&case).end, Pause::Done);
    }
}

#[test]
fn without_a_descriptor_for_a_pipe_it_is_copied_all_the_same() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        let answers = vec![Answer::Fails(errno)];
        let case = Case { answers, ..Case::new(From::Socket, To::Socket, 300_000) };
        assert_eq!(check(&case).end, Pause::Done);
    }
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Input), Just(Side::Output)]
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        12 => Just(Answer::Full),
        12 => (1..70_000_usize).prop_map(Answer::Short),
        6 => (1..4_usize).prop_map(Answer::Short),
        6 => side().prop_map(Answer::NotNow),
        2 => Just(Answer::InVain),
        3 => Just(Answer::Fails(Errno::INTR)),
        2 => proptest::sample::select(REFUSALS.to_vec()).prop_map(Answer::Fails),
        1 => proptest::sample::select(FATAL.to_vec()).prop_map(Answer::Fails),
    ]
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![
        20 => Just(Look::AsItIs),
        8 => side().prop_map(Look::NotReady),
        2 => Just(Look::Fails(Errno::INTR)),
        1 => Just(Look::Fails(Errno::NOMEM)),
    ]
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![
        Just(Wait::Ready),
        Just(Wait::Spurious),
        Just(Wait::Interrupted),
        Just(Wait::TimedOut),
        Just(Wait::Elsewhere),
    ]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0..10_000_usize, 4 => 0..400_000_usize, 1 => 0..(3_usize << 20)]
}

fn case() -> impl Strategy<Value = Case> {
    let ends = (proptest::sample::select(FROM.to_vec()), proptest::sample::select(TO.to_vec()));
    // What is read ahead, an offset and a limit are given as parts of the size.
    let parts = (size(), 0..=100_usize, 0..=110_usize, 0..=100_usize);
    let options = (proptest::option::of(size()), any::<[bool; 8]>(), proptest::option::of(1..6_usize));
    let scripts = (
        proptest::collection::vec(answer(), 0..40),
        proptest::collection::vec(look(), 0..30),
        proptest::collection::vec(wait(), 0..10),
        proptest::collection::vec(proptest::bool::weighted(0.1), 0..20),
    );
    (ends, parts, options, scripts)
        .prop_map(|((from, to), (size, ahead, offset, limit), (len, flags, abandon), scripts)| {
            let [with_ahead, with_offset, looks_empty, report, never_block, patient, lost, other] = flags;
            let offset = (with_offset && from == From::File).then_some(size * offset / 100);
            let looks_empty = looks_empty && from == From::File;
            let alone = offset.is_some() || looks_empty || to == To::SameFile;
            let ahead = if with_ahead && !alone { size * ahead / 100 } else { 0 };
            Case {
                ahead,
                len: len.map(|len| len.max(ahead)),
                offset,
                limit: (to == To::SameFile).then_some(size * limit / 100),
                looks_empty,
                report,
                never_block,
                answers: scripts.0,
                looks: scripts.1,
                waits: scripts.2,
                interrupts: scripts.3,
                abandon,
                patient,
                input_gone: lost && other,
                output_gone: lost && !other,
                ..Case::new(from, to, size)
            }
        })
        .prop_filter("only a file can be copied onto itself", Case::possible)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_is_lost_repeated_or_mixed_up(case in case()) {
        check(&case);
    }
}
