use std::cell::Cell;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::{Errno, Result};

use super::Kernel;
use super::position::write_reserved;
use crate::PIPE_BUF;
use crate::memory::{copied, zeroed};
use crate::pool::PooledPipe;

/// How long a pipe that nothing is put into is held: its capacity counts against the user's share, and each byte in it can
/// hold pages.
const HOLD: Duration = Duration::from_secs(1);

/// Bytes that have left the input and not reached the output: in a pipe of the gem's own, or in memory.
///
/// Invariant: only one of them has bytes in it, and a pipe with bytes is never reused before they are out. One that may
/// hold something unknown is dropped, and closed. Each has a place of its own, so that thousands of copies that wait need
/// none.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    pipe: Option<Box<Pipe>>,
    buffer: Option<Box<Buffer>>,
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
struct Pipe {
    pipe: PooledPipe,
    bytes: usize,
    /// When the first wait began since something was put in.
    held_since: Option<Instant>,
}

/// Memory, and the part of it that is in flight. When that is empty, the memory is for the next read.
#[derive(Debug)]
struct Buffer {
    memory: Vec<u8>,
    part: Range<usize>,
}

impl Pipe {
    fn hold(&mut self, bytes: usize) {
        (self.bytes, self.held_since) = (bytes, None);
    }
}

impl Buffer {
    fn new(memory: Vec<u8>, part: Range<usize>) -> Box<Self> {
        Box::new(Self { memory, part })
    }

    /// Memory of at least so many bytes, with whatever is in it.
    fn scratch(len: usize) -> Result<Box<Self>> {
        let small = len <= SMALL;
        if let Some(spare) = small.then(|| SPARE.try_with(Cell::take).ok().flatten()).flatten() {
            return Ok(spare);
        }
        let memory = zeroed(if small { SMALL } else { len })?;
        Ok(Self::new(memory, 0..0))
    }

    fn release(self: Box<Self>) {
        if self.memory.len() == SMALL {
            // At the end of a thread there is no place for it.
            let _ = SPARE.try_with(|spare| spare.set(Some(self)));
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.part.clone()]
    }
}

/// What a copy first reads into.
pub(super) const SMALL: usize = 16 << 10;

thread_local! {
    /// Such memory, which the last copy of this thread has released. Zeroing it takes longer than many a call that reads into
    /// it (0.3 of 5 us for a copy of 100 bytes).
    static SPARE: Cell<Option<Box<Buffer>>> = const { Cell::new(None) };
}

/// How an output is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// By write(2), which may block where the output does.
    MayBlock,
    /// Without blocking, where the kernel knows how.
    Now,
    /// To a regular file, whose position others may use.
    File,
}

impl Write {
    /// Writes bytes that are in memory.
    pub fn call(self, kernel: &mut impl Kernel, output: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::MayBlock | Self::File => kernel.write(output, bytes),
            Self::Now => kernel.write_now(output, bytes),
        }
    }
}

impl InFlight {
    /// How many bytes are in flight.
    pub fn len(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.bytes)
            + self.buffer.as_ref().map_or(0, |buffer| buffer.part.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pipe, if the bytes are in it.
    fn full_pipe(&self) -> Option<&Pipe> {
        self.pipe.as_deref().filter(|pipe| pipe.bytes > 0)
    }

    /// Puts bytes in flight that were read from the input before. Nothing else is.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.is_empty());
        let all = 0..bytes.len();
        self.buffer = Some(Buffer::new(bytes, all));
    }

    /// Makes sure that there is a pipe, and returns its capacity; `None` if there is none to be had. Nothing is in flight.
    pub fn ensure_pipe(&mut self, kernel: &mut impl Kernel) -> Option<usize> {
        self.ensured_pipe(kernel).map(|pipe| pipe.pipe.capacity())
    }

    fn ensured_pipe(&mut self, kernel: &mut impl Kernel) -> Option<&mut Pipe> {
        if self.pipe.is_none() {
            let pipe = kernel.pipe().ok()?;
            self.pipe = Some(Box::new(Pipe { pipe, bytes: 0, held_since: None }));
        }
        self.pipe.as_deref_mut()
    }

    /// The capacity of a pipe that nothing is in; 0 if there is none.
    pub fn idle_capacity(&self) -> usize {
        self.pipe.as_ref().filter(|pipe| pipe.bytes == 0).map_or(0, |pipe| pipe.pipe.capacity())
    }

    /// Whether there is a pipe or memory for the next bytes.
    pub fn has_storage(&self) -> bool {
        self.pipe.is_some() || self.buffer.is_some()
    }

    /// Splices bytes from the input into a pipe. Nothing is in flight. `None` if there is no pipe to be had.
    pub fn fill_pipe(
        &mut self,
        kernel: &mut impl Kernel,
        input: BorrowedFd<'_>,
        offset: Option<&mut u64>,
        len: usize,
    ) -> Option<Result<usize>> {
        debug_assert!(self.is_empty());
        let pipe = self.ensured_pipe(kernel)?;
        let len = len.min(pipe.pipe.capacity());
        let spliced = kernel.splice(input, offset, pipe.pipe.writer(), None, len);
        if let Ok(bytes @ 1..) = spliced {
            pipe.pipe.filled(bytes);
            pipe.hold(bytes);
            self.release_buffer();
        }
        Some(spliced)
    }

    /// Before a wait: when there is to be another one, to release the pipe. What is in it by then is read into memory.
    pub fn before_wait(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<Option<Instant>> {
        let Some(pipe) = &mut self.pipe else { return Ok(None) };
        let release_at = *pipe.held_since.get_or_insert(now) + HOLD;
        if now < release_at {
            return Ok(Some(release_at));
        }
        match self.take_into_memory(kernel) {
            // There is no memory, and nothing is lost.
            Err(_) if self.is_in_pipe() => return Ok(None),
            result => result?,
        }
        self.release_idle();
        Ok(None)
    }

    /// Returns an idle pipe to the pool, unless it is in full use.
    pub fn release_unless_busy(&mut self) {
        if !self.pipe.as_ref().is_some_and(|pipe| pipe.pipe.is_busy()) {
            self.release_idle();
        }
    }

    /// Reads up to `len` bytes into memory. Nothing is in flight.
    pub fn fill_buffer(
        &mut self,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize>,
    ) -> Result<usize> {
        debug_assert!(self.is_empty());
        let mut buffer = match self.buffer.take() {
            Some(buffer) if buffer.memory.len() >= len => buffer,
            // With less memory the copy is only slower.
            _ => match Buffer::scratch(len) {
                Ok(buffer) => buffer,
                Err(_) => Buffer::new(zeroed(len.min(PIPE_BUF))?, 0..0),
            },
        };
        let len = len.min(buffer.memory.len());
        let read = read(&mut buffer.memory[..len]);
        buffer.part = 0..read.unwrap_or(0);
        self.buffer = Some(buffer);
        read
    }

    /// Passes on up to `len` bytes to the output, and returns how many it has taken.
    pub fn drain(
        &mut self,
        kernel: &mut impl Kernel,
        output: BorrowedFd<'_>,
        len: usize,
        write: Write,
    ) -> Result<usize> {
        let drained = if let Some(Pipe { pipe, bytes, .. }) = self.full_pipe() {
            let len = len.min(*bytes);
            match write {
                Write::File => write_reserved(kernel, output, len, |kernel, offset, len| {
                    kernel.splice(pipe.reader(), None, output, offset, len)
                })?,
                Write::MayBlock | Write::Now => kernel.splice(pipe.reader(), None, output, None, len)?,
            }
        } else if let Some(bytes) = self.buffer.as_ref().map(|buffer| buffer.bytes()) {
            write.call(kernel, output, &bytes[..bytes.len().min(len)])?
        } else {
            0
        };
        self.remove(drained);
        Ok(drained)
    }

    /// Removes bytes that the output has taken.
    pub fn remove(&mut self, bytes: usize) {
        match (&mut self.pipe, &mut self.buffer) {
            (Some(pipe), _) if pipe.bytes > 0 => pipe.bytes -= bytes,
            (_, Some(buffer)) => buffer.part.start += bytes,
            _ => {}
        }
    }

    /// Whether the bytes are in a pipe.
    pub fn is_in_pipe(&self) -> bool {
        self.full_pipe().is_some()
    }

    /// Reads the bytes out of the pipe. After an error those that could be read are still in flight; a page of a file
    /// that cannot be read is lost with what is behind it.
    pub fn take_into_memory(&mut self, kernel: &mut impl Kernel) -> Result<()> {
        let Some(Pipe { pipe, bytes, .. }) = self.full_pipe() else { return Ok(()) };
        let mut memory = zeroed(*bytes)?;
        let mut filled = 0;
        let mut failed = Ok(());
        while filled < memory.len() && failed.is_ok() {
            match kernel.read(pipe.reader(), None, &mut memory[filled..]) {
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(errno) => failed = Err(errno),
            }
        }
        memory.truncate(filled);
        self.buffer = Some(Buffer::new(memory, 0..filled));
        match &mut self.pipe {
            Some(pipe) if failed.is_ok() => pipe.bytes = 0,
            // What is left in it is lost.
            pipe => *pipe = None,
        }
        failed
    }

    /// The bytes themselves, read into memory.
    pub fn bytes(&mut self, kernel: &mut impl Kernel) -> Result<&[u8]> {
        self.take_into_memory(kernel)?;
        Ok(self.buffer.as_ref().map_or(&[], |buffer| buffer.bytes()))
    }

    /// Takes out all that is in flight, as far as it can be read.
    pub fn take(&mut self, kernel: &mut impl Kernel) -> Vec<u8> {
        if self.take_into_memory(kernel).is_err() {
            self.pipe = None;
        }
        let Some(buffer) = self.buffer.take() else { return Vec::new() };
        let Buffer { mut memory, part } = *buffer;
        memory.truncate(part.end);
        memory.drain(..part.start);
        memory
    }

    /// Forgets what is in flight. A pipe that holds some of it is closed.
    pub fn discard(&mut self) {
        self.pipe.take_if(|pipe| pipe.bytes > 0);
        self.buffer = None;
    }

    /// Duplicates all of it into the idle pipe of another one, which holds nothing. `false` if that does not work: it has
    /// no pipe, or one with too few slots for many small pieces.
    pub fn tee_to(&self, kernel: &mut impl Kernel, other: &mut Self) -> bool {
        debug_assert!(other.is_empty());
        let Some(Pipe { pipe, bytes, .. }) = self.full_pipe() else { return false };
        let Some(own) = &mut other.pipe else { return false };
        own.pipe.grow(pipe.capacity());
        let whole = kernel.tee(pipe.reader(), own.pipe.writer(), *bytes) == Ok(*bytes);
        if whole {
            own.hold(*bytes);
            other.release_buffer();
        } else {
            // It has got a part of them, and is of no use.
            other.pipe = None;
        }
        whole
    }

    /// Copies all of it into the memory of another one, which holds nothing.
    pub fn copy_to(&mut self, kernel: &mut impl Kernel, other: &mut Self) -> Result<()> {
        debug_assert!(other.is_empty());
        let bytes = copied(self.bytes(kernel)?)?;
        other.prepend(bytes);
        Ok(())
    }

    /// Returns the idle pipe to the pool, and frees memory that holds nothing.
    pub fn release_idle(&mut self) {
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.bytes == 0) {
            pipe.pipe.return_to_pool();
        }
        if self.buffer.as_ref().is_some_and(|buffer| buffer.part.is_empty()) {
            self.release_buffer();
        }
    }

    fn release_buffer(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            buffer.release();
        }
    }

    /// Whether this is a forked child's copy: its pipe was the parent's, and is closed.
    pub fn lost_its_pipe(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| !pipe.pipe.is_of_this_process())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release_idle();
    }
}
