use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};

use super::Kernel;

/// Where a copy stands in its input.
///
/// splice(2), sendfile(2) and copy_file_range(2) without an offset read the position of an open file, work, and store
/// it, without the lock that read(2), write(2) and lseek(2) hold. Two copies of one open file, in threads or in processes,
/// would take the same bytes twice, or overwrite each other's. So the position is first moved over a region, which then
/// is this copy's own, and the calls work there with an offset.
#[derive(Debug)]
pub(crate) enum Position {
    /// The kernel moves it under its lock: by read(2), or there is none.
    Kernel,
    /// An offset that was given; the position of the file stays.
    Given(u64),
    /// What is left of a region that is reserved.
    Reserved(Range<u64>),
}

impl Position {
    /// The offset for the next call.
    pub fn offset(&mut self) -> Option<&mut u64> {
        match self {
            Self::Kernel => None,
            Self::Given(offset) => Some(offset),
            Self::Reserved(region) => Some(&mut region.start),
        }
    }

    /// Where the next call reads, if that is not where the file stands.
    pub fn at(&self) -> Option<u64> {
        match self {
            Self::Kernel => None,
            Self::Given(offset) => Some(*offset),
            Self::Reserved(region) => Some(region.start),
        }
    }

    /// Makes sure that a call can work with an offset, and returns how far it may go: to `size`, the end of the file, and
    /// to the end of the region, which at first is as long as `len`.
    pub fn reserve(
        &mut self,
        kernel: &mut impl Kernel,
        input: BorrowedFd<'_>,
        len: u64,
        size: u64,
    ) -> Result<u64> {
        let len = len.min(size);
        if matches!(self, Self::Kernel) && len > 0 {
            let start = kernel.reserve(input, len)?;
            let end = (start + len).min(size.max(start));
            let beyond = start + len - end;
            if beyond > 0 {
                kernel.seek_back(input, beyond)?;
            }
            *self = Self::Reserved(start..end);
        }
        Ok(match self {
            Self::Kernel => 0,
            Self::Given(offset) => size.saturating_sub(*offset),
            Self::Reserved(region) => region.end - region.start,
        })
    }

    /// Whether a region is reserved, and all of it taken.
    pub fn is_used_up(&self) -> bool {
        matches!(self, Self::Reserved(region) if region.is_empty())
    }

    /// How much of a region is reserved and not taken.
    pub fn reserved(&self) -> u64 {
        match self {
            Self::Kernel | Self::Given(_) => 0,
            Self::Reserved(region) => region.end - region.start,
        }
    }

    /// Moves the position of the file back to behind what was taken, and `in_flight` bytes before that.
    pub fn release(&mut self, kernel: &mut impl Kernel, input: BorrowedFd<'_>, in_flight: u64) -> Result<()> {
        match self {
            // It has never moved.
            Self::Given(_) => Ok(()),
            Self::Kernel if in_flight == 0 => Ok(()),
            Self::Kernel => kernel.seek_back(input, in_flight).map(drop),
            Self::Reserved(region) => {
                let end = region.end;
                let back = end - region.start + in_flight;
                *self = Self::Kernel;
                give_back(kernel, input, back, end).map(drop)
            }
        }
    }

    /// Moves the position of the file back to behind what was taken. A region stays if somebody else has moved on from there.
    pub fn try_release(&mut self, kernel: &mut impl Kernel, input: BorrowedFd<'_>) -> Result<()> {
        if let Self::Reserved(region) = self {
            if give_back(kernel, input, region.end - region.start, region.end)? {
                *self = Self::Kernel;
            }
        }
        Ok(())
    }
}

/// Writes `len` bytes to a regular file, in a region that is reserved for them, or fewer. `call` writes at most so many at
/// an offset.
///
/// It is called again when somebody has moved on from the end of the region and a signal has cut it short: what was missing
/// would stay a hole.
pub(crate) fn write_reserved<K: Kernel>(
    kernel: &mut K,
    output: BorrowedFd<'_>,
    len: usize,
    mut call: impl FnMut(&mut K, Option<&mut u64>, usize) -> Result<usize>,
) -> Result<usize> {
    let start = kernel.reserve(output, len as u64)?;
    let end = start + len as u64;
    let mut offset = start;
    loop {
        let rest = (end - offset) as usize;
        let written = call(kernel, Some(&mut offset), rest);
        let given_back = give_back(kernel, output, end - offset, end)?;
        if given_back || !matches!(written, Ok(1..) | Err(Errno::INTR)) {
            return if offset > start { Ok((offset - start) as usize) } else { written };
        }
    }
}

/// Moves a position back to before the last `len` bytes of a region that ends at `end`; `false` if somebody else has moved
/// on from there. Nobody can do both in one call, so the position is looked at first.
fn give_back(kernel: &mut impl Kernel, fd: BorrowedFd<'_>, len: u64, end: u64) -> Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    if kernel.reserve(fd, 0)? != end {
        return Ok(false);
    }
    let given_back = kernel.seek_back(fd, len)? == end - len;
    if !given_back {
        kernel.reserve(fd, len)?;
    }
    Ok(given_back)
}
