use std::io::IoSlice;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::pipe::IoSliceRaw;

/// Pages of memory of their own, mapped for one snapshot and unmapped when dropped.
///
/// Nothing tells when the reader of a pipe is done with the pages that `vmsplice` put into it. But
/// once they are unmapped nobody can write to them, and the pipe keeps them alive as they are.
///
/// # References
///  - [mmap]
///
/// [mmap]: https://man7.org/linux/man-pages/man2/mmap.2.html
pub(crate) struct Pages {
    start: *mut u8,
    len: usize,
}

impl Pages {
    /// Copies up to `room` bytes from the start of `pieces` into new pages.
    pub fn snapshot(pieces: &[IoSlice<'_>], room: usize) -> rustix::io::Result<Self> {
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(room);
        // SAFETY: a new anonymous mapping takes the place of nothing.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )?
        };
        let pages = Self { start: start.cast(), len };
        // SAFETY: the mapping is new, writable, zeroed, `len` bytes long, and only ours.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(pages.start, len) };
        for piece in pieces {
            let (to, after) = rest.split_at_mut(piece.len().min(rest.len()));
            to.copy_from_slice(&piece[..to.len()]);
            rest = after;
        }
        Ok(pages)
    }

    /// The bytes, in the form in which `vmsplice` takes them.
    pub fn as_io_slice(&self) -> IoSliceRaw<'_> {
        // SAFETY: the mapping is readable, `len` bytes long, and lives as long as `self`.
        IoSliceRaw::from_slice(unsafe { std::slice::from_raw_parts(self.start, self.len) })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: it is our own mapping, whole, and every reference into it borrowed `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
