#![expect(unsafe_code, reason = "memory of its own")]

use std::io::IoSlice;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::{Arc, Mutex};

use rustix::mm::{Advice, MapFlags, MremapFlags, ProtFlags, madvise, mmap_anonymous, mremap_fixed, munmap};
use rustix::param::page_size;
use rustix::pipe::IoSliceRaw;
use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};

/// Pages of memory of their own: filled once, never written again, and when dropped given back to the kernel, not
/// reused.
///
/// The kernel never says when a reader is done with spliced pages. So they are written once and unmapped, never reused; the
/// pipe, and any forked child, keeps them as they are.
///
/// # References
///  - [mmap]
///  - [madvise]
///
/// [mmap]: https://man7.org/linux/man-pages/man2/mmap.2.html
/// [madvise]: https://man7.org/linux/man-pages/man2/madvise.2.html
#[derive(Debug)]
pub struct Pages {
    mapping: Arc<Mapping>,
    start: *mut u8,
    len: usize,
}

// SAFETY: the memory belongs to nobody else and to no thread, and from the time that it is filled nobody
// writes to it.
unsafe impl Send for Pages {}
// SAFETY: nobody writes to the memory once it is filled, so any number of threads may read it.
unsafe impl Sync for Pages {}

impl Pages {
    /// Copies `bytes` into new pages. `ENOMEM` if there are none, or if the process has too many mappings
    /// (`/proc/sys/vm/max_map_count`).
    pub fn new(bytes: &[u8]) -> rustix::io::Result<Self> {
        Self::snapshot(&[IoSlice::new(bytes)], bytes.len())
    }

    /// Copies up to `room` bytes from the start of `pieces` into new pages.
    pub(crate) fn snapshot(pieces: &[IoSlice<'_>], room: usize) -> rustix::io::Result<Self> {
        let len = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(room);
        let pages = Self::blank(len)?;
        // SAFETY: the memory is writable, zeroed, `len` bytes long, and so far only ours.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(pages.start, len) };
        for piece in pieces {
            let (to, after) = rest.split_at_mut(piece.len().min(rest.len()));
            to.copy_from_slice(&piece[..to.len()]);
            rest = after;
        }
        Ok(pages)
    }

    /// Takes away the pages behind `len` bytes of memory, where new ones full of zeros appear. Where the
    /// kernel cannot do that (it is older than 5.7, the memory is more than one mapping), the bytes are copied
    /// and the memory stays as it is.
    ///
    /// # Safety
    ///
    /// The memory must be a whole private anonymous mapping, to which no reference exists.
    ///
    /// # References
    ///  - [mremap]
    ///
    /// [mremap]: https://man7.org/linux/man-pages/man2/mremap.2.html
    pub unsafe fn take(start: *mut u8, len: usize) -> rustix::io::Result<Self> {
        let place = Self::whole(Mapping::new(len)?, len);
        let flags = MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP;
        // SAFETY: the caller says that nobody looks at that memory; nothing is at the new place.
        match unsafe { mremap_fixed(start.cast(), len, len, flags, place.start.cast()) } {
            Ok(_) => Ok(place),
            // SAFETY: a mapping that could not be moved is where it was.
            Err(_) => Self::new(unsafe { std::slice::from_raw_parts(start, len) }),
        }
    }

    /// Pages that are still to be filled.
    fn blank(len: usize) -> rustix::io::Result<Self> {
        // Another thread has it, or had it when this process was forked.
        let Ok(mut arena) = ARENA.try_lock() else { return Ok(Self::whole(Mapping::new(len.max(1))?, len)) };
        if len > HUGE_PAGE / 2 {
            return Ok(Self::whole(Mapping::huge(len)?, len));
        }
        if arena.as_ref().is_none_or(|arena| arena.room() < len) {
            *arena = Some(Arena { mapping: Arc::new(Mapping::huge(HUGE_PAGE)?), used: 0 });
        }
        let Some(arena) = &mut *arena else { unreachable!("it has just been made") };
        Ok(arena.cut(len))
    }

    fn whole(mapping: Mapping, len: usize) -> Self {
        Self { start: mapping.start, mapping: Arc::new(mapping), len }
    }

    /// All of the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: the memory is readable, `len` bytes long, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// Some of the bytes, in the form in which [`vmsplice_pages`](crate::vmsplice_pages) takes them.
    pub fn slice(&self, range: Range<usize>) -> PageSlice<'_> {
        PageSlice(&self.as_bytes()[range])
    }

    /// The memory that these pages take, in bytes.
    pub fn size(&self) -> usize {
        self.len.next_multiple_of(page_size())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // The last one unmaps the whole.
        if Arc::strong_count(&self.mapping) > 1 && self.len > 0 {
            // SAFETY: these pages are nobody else's, and every reference into them borrowed `self`.
            let given_back = unsafe { madvise(self.start.cast(), self.size(), Advice::LinuxDontNeed) };
            debug_assert!(given_back.is_ok());
        }
    }
}

/// The kernel gives 2 MiB in one piece at a tenth of the price of 512 single pages.
const HUGE_PAGE: usize = 2 << 20;

/// Where pages are cut from that are small against a huge one. No part of it is used twice.
#[derive(Debug)]
struct Arena {
    mapping: Arc<Mapping>,
    used: usize,
}

static ARENA: Mutex<Option<Arena>> = Mutex::new(None);

impl Arena {
    fn room(&self) -> usize {
        self.mapping.len - self.used
    }

    fn cut(&mut self, len: usize) -> Pages {
        // SAFETY: there is room for so much, so it is within the mapping.
        let start = unsafe { self.mapping.start.add(self.used) };
        let pages = Pages { mapping: Arc::clone(&self.mapping), start, len };
        self.used += pages.size();
        pages
    }
}

/// Memory that is unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    start: *mut u8,
    len: usize,
}

// SAFETY: what it points to belongs to no thread.
unsafe impl Send for Mapping {}
// SAFETY: it does nothing to the memory before it is dropped, and nobody reaches the memory through a shared mapping but `Pages`.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(len: usize) -> rustix::io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new anonymous mapping takes the place of nothing.
        let start = unsafe { mmap_anonymous(null_mut(), len, access, MapFlags::PRIVATE)? };
        Ok(Self { start: start.cast(), len })
    }

    /// One of huge pages, as far as there are any. Not for two threads at once.
    ///
    /// # References
    ///  - [PR_SET_THP_DISABLE]
    ///
    /// [PR_SET_THP_DISABLE]: https://man7.org/linux/man-pages/man2/PR_SET_THP_DISABLE.2const.html
    fn huge(len: usize) -> rustix::io::Result<Self> {
        let mapping = Self::aligned(len)?;
        // SAFETY: it only says what pages would be welcome.
        let _ = unsafe { madvise(mapping.start.cast(), len, Advice::LinuxHugepage) };
        // Ruby switches huge pages off, so that less has to be copied when a forked process writes to its memory.
        // Nobody writes to this, so they are on for the moment in which it is touched for the first time.
        let off = transparent_huge_pages_are_disabled() == Ok(true);
        let on = off && disable_transparent_huge_pages(false).is_ok();
        for page in (0..len).step_by(HUGE_PAGE) {
            // SAFETY: it is within the mapping, which is writable and still only ours.
            unsafe { mapping.start.add(page).write_volatile(0) };
        }
        if on {
            let _ = disable_transparent_huge_pages(true);
        }
        Ok(mapping)
    }

    /// One that begins where a huge page can. Linux before 6.7 does not see to that by itself.
    fn aligned(len: usize) -> rustix::io::Result<Self> {
        let len = len.next_multiple_of(page_size());
        let all = ManuallyDrop::new(Self::new(len + HUGE_PAGE)?);
        let before = all.start.align_offset(HUGE_PAGE);
        let part = |from: usize, len| Self { start: all.start.wrapping_add(from), len };
        // What is dropped here is unmapped.
        let [_, middle, _] = [part(0, before), part(before, len), part(before + len, HUGE_PAGE - before)];
        Ok(middle)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: it is our own memory, and nobody is left who refers to it.
            let unmapped = unsafe { munmap(self.start.cast(), self.len) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// Bytes in [`Pages`].
#[derive(Clone, Copy, Debug)]
pub struct PageSlice<'pages>(&'pages [u8]);

impl<'pages> PageSlice<'pages> {
    /// How many bytes there are.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The bytes before `end`.
    pub(crate) fn until(self, end: usize) -> Self {
        Self(&self.0[..end])
    }

    pub(crate) fn as_io_slice(self) -> IoSliceRaw<'pages> {
        IoSliceRaw::from_slice(self.0)
    }
}
