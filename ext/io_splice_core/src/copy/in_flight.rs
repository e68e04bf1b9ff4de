use std::mem;
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
/// Invariant: an idle pipe is empty, and a pipe with bytes in it is never reused before they are out. One that may
/// hold something unknown is dropped, and closed.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    place: Place,
    idle: Option<PooledPipe>,
    /// When the first wait began since something was put into the pipe.
    held_since: Option<Instant>,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Empty,
    /// A pipe with so many bytes in it; never 0.
    Pipe(PooledPipe, usize),
    /// Memory, and the part of it that is in flight. When that is empty, the memory is for the next read.
    Buffer(Vec<u8>, Range<usize>),
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
        match &self.place {
            Place::Empty => 0,
            Place::Pipe(_, bytes) => *bytes,
            Place::Buffer(_, bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes in flight that were read from the input before. Nothing else is.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        debug_assert!(self.is_empty());
        let all = 0..bytes.len();
        self.place = Place::Buffer(bytes, all);
    }

    /// Makes sure that there is an idle pipe, and returns its capacity; `None` if there is none to be had.
    pub fn ensure_pipe(&mut self, kernel: &mut impl Kernel) -> Option<usize> {
        if self.idle.is_none() {
            self.idle = kernel.pipe().ok();
        }
        self.idle.as_ref().map(PooledPipe::capacity)
    }

    /// The capacity of the idle pipe; 0 if there is none.
    pub fn idle_capacity(&self) -> usize {
        self.idle.as_ref().map_or(0, PooledPipe::capacity)
    }

    /// Whether there is a pipe or memory for the next bytes.
    pub fn has_storage(&self) -> bool {
        self.idle.is_some() || !matches!(self.place, Place::Empty)
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
        self.ensure_pipe(kernel)?;
        let mut pipe = self.idle.take()?;
        let spliced = kernel.splice(input, offset, pipe.writer(), None, len.min(pipe.capacity()));
        match spliced {
            Ok(bytes) if bytes > 0 => {
                pipe.filled(bytes);
                self.hold(pipe, bytes);
            }
            _ => self.idle = Some(pipe),
        }
        Some(spliced)
    }

    fn hold(&mut self, pipe: PooledPipe, bytes: usize) {
        self.place = Place::Pipe(pipe, bytes);
        self.held_since = None;
    }

    /// Before a wait: when there is to be another one, to release the pipe. What is in it by then is read into memory.
    pub fn before_wait(&mut self, kernel: &mut impl Kernel, now: Instant) -> Result<Option<Instant>> {
        if self.idle.is_none() && !self.is_in_pipe() {
            return Ok(None);
        }
        let release_at = *self.held_since.get_or_insert(now) + HOLD;
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
        if !self.idle.as_ref().is_some_and(PooledPipe::is_busy) {
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
        let mut buffer = match mem::take(&mut self.place) {
            Place::Buffer(buffer, _) if buffer.len() >= len => buffer,
            // With less memory the copy is only slower.
            _ => zeroed(len).or_else(|_| zeroed(len.min(PIPE_BUF)))?,
        };
        let len = len.min(buffer.len());
        let read = read(&mut buffer[..len]);
        self.place = Place::Buffer(buffer, 0..read.unwrap_or(0));
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
        let drained = match &self.place {
            Place::Empty => 0,
            Place::Pipe(pipe, bytes) if write == Write::File => {
                write_reserved(kernel, output, len.min(*bytes), |kernel, offset, len| {
                    kernel.splice(pipe.reader(), None, output, offset, len)
                })?
            }
            Place::Pipe(pipe, bytes) => kernel.splice(pipe.reader(), None, output, None, len.min(*bytes))?,
            Place::Buffer(buffer, bytes) => {
                let bytes = &buffer[bytes.start..bytes.end.min(bytes.start + len)];
                write.call(kernel, output, bytes)?
            }
        };
        self.remove(drained);
        Ok(drained)
    }

    /// Removes bytes that the output has taken.
    pub fn remove(&mut self, bytes: usize) {
        match &mut self.place {
            Place::Empty => {}
            Place::Buffer(_, in_flight) => in_flight.start += bytes,
            Place::Pipe(_, in_flight) => *in_flight -= bytes,
        }
        if let Place::Pipe(_, 0) = self.place {
            if let Place::Pipe(pipe, _) = mem::take(&mut self.place) {
                self.idle = Some(pipe);
            }
        }
    }

    /// Whether the bytes are in a pipe.
    pub fn is_in_pipe(&self) -> bool {
        matches!(self.place, Place::Pipe(..))
    }

    /// Reads the bytes out of the pipe. After an error those that could be read are still in flight; a page of a file
    /// that cannot be read is lost with what is behind it.
    pub fn take_into_memory(&mut self, kernel: &mut impl Kernel) -> Result<()> {
        let Place::Pipe(pipe, bytes) = &self.place else { return Ok(()) };
        let mut buffer = zeroed(*bytes)?;
        let mut filled = 0;
        let mut failed = Ok(());
        while filled < buffer.len() && failed.is_ok() {
            match kernel.read(pipe.reader(), None, &mut buffer[filled..]) {
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(errno) => failed = Err(errno),
            }
        }
        buffer.truncate(filled);
        let place = mem::replace(&mut self.place, Place::Buffer(buffer, 0..filled));
        if let (Place::Pipe(pipe, _), Ok(())) = (place, failed) {
            self.idle = Some(pipe);
        }
        failed
    }

    /// The bytes themselves, read into memory.
    pub fn bytes(&mut self, kernel: &mut impl Kernel) -> Result<&[u8]> {
        self.take_into_memory(kernel)?;
        Ok(match &self.place {
            Place::Buffer(buffer, bytes) => &buffer[bytes.clone()],
            Place::Empty | Place::Pipe(..) => &[],
        })
    }

    /// Takes out all that is in flight, as far as it can be read.
    pub fn take(&mut self, kernel: &mut impl Kernel) -> Vec<u8> {
        let _ = self.take_into_memory(kernel);
        match mem::take(&mut self.place) {
            Place::Buffer(mut buffer, bytes) => {
                buffer.truncate(bytes.end);
                buffer.drain(..bytes.start);
                buffer
            }
            Place::Empty | Place::Pipe(..) => Vec::new(),
        }
    }

    /// Forgets what is in flight. A pipe that holds some of it is closed.
    pub fn discard(&mut self) {
        self.place = Place::Empty;
    }

    /// Duplicates all of it into the idle pipe of another one, which holds nothing. `false` if that does not work: it has
    /// no pipe, or one with too few slots for many small pieces.
    pub fn tee_to(&self, kernel: &mut impl Kernel, other: &mut Self) -> bool {
        debug_assert!(other.is_empty());
        let Place::Pipe(pipe, bytes) = &self.place else { return false };
        // A pipe that has got a part of them is of no use, and is closed.
        let Some(mut own) = other.idle.take() else { return false };
        own.grow(pipe.capacity());
        let whole = kernel.tee(pipe.reader(), own.writer(), *bytes) == Ok(*bytes);
        if whole {
            other.hold(own, *bytes);
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
        if let Some(pipe) = self.idle.take() {
            pipe.return_to_pool();
        }
        if self.is_empty() {
            self.place = Place::Empty;
        }
    }

    /// Whether this is a forked child's copy: its pipe was the parent's, and is closed.
    pub fn lost_its_pipe(&self) -> bool {
        let pipe = match &self.place {
            Place::Pipe(pipe, _) => Some(pipe),
            Place::Empty | Place::Buffer(..) => self.idle.as_ref(),
        };
        pipe.is_some_and(|pipe| !pipe.is_of_this_process())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.release_idle();
    }
}
