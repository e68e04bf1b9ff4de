//! `IO::Buffer` from outside: what its memory is, and how it is given away.
//!
//! # References
//!  - [IO::Buffer](https://docs.ruby-lang.org/en/master/IO/Buffer.html)

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use io_splice_core::{PageSlice, Pages};
use magnus::rb_sys::{AsRawValue, protect};
use magnus::{Error, Ruby, Value};
use rb_sys::{Qnil, VALUE, size_t};

use crate::error;

/// Whether it is an `IO::Buffer`.
pub fn is_buffer(value: Value) -> bool {
    // SAFETY: the class is there from Ruby's start, and this only looks at the object's.
    unsafe { rb_sys::rb_obj_is_kind_of(value.as_raw(), rb_sys::rb_cIOBuffer) == rb_sys::Qtrue as VALUE }
}

/// Checks that the buffer has memory: one that has none (any more) is an `IO::Buffer::AllocationError`, a slice of what is
/// no longer there an `IO::Buffer::InvalidatedError`.
pub fn check(buffer: Value) -> Result<(), Error> {
    // SAFETY: they are not looked at.
    unsafe { bytes(buffer) }.map(drop)
}

/// The bytes of the buffer, after [`check`].
///
/// # Safety
///
/// They must not be used any more when Ruby code has run, or another thread: the buffer may be changed or freed then.
pub unsafe fn bytes<'buffer>(buffer: Value) -> Result<&'buffer [u8], Error> {
    let (mut start, mut len) = (std::ptr::null(), 0);
    protect(|| {
        // SAFETY: it raises what it has against the buffer.
        unsafe { rb_sys::rb_io_buffer_get_bytes_for_reading(buffer.as_raw(), &mut start, &mut len) };
        Qnil as VALUE
    })?;
    if start.is_null() {
        // Ruby 3.1 says so itself, later ones say that it is empty.
        return Err(error::null_buffer(&Ruby::get_with(buffer)));
    }
    // SAFETY: Ruby has just said that this is the buffer's memory; the caller does not use it for longer.
    Ok(unsafe { std::slice::from_raw_parts(start.cast(), len as usize) })
}

// enum rb_io_buffer_flags; the last two are newer than Ruby 3.1.
const EXTERNAL: c_int = 1;
const INTERNAL: c_int = 2;
const MAPPED: c_int = 4;
const SHARED: c_int = 8;
const LOCKED: c_int = 32;
const PRIVATE: c_int = 64;
const READONLY: c_int = 128;
const FILE: c_int = 256;

/// A buffer on its way to be given away. It is locked until it is, so nobody frees or resizes it. Who
/// drops a gift must have called [`Gift::restore`] or [`Gift::gone`].
pub struct Gift {
    start: *mut u8,
    len: usize,
    pages: Option<Pages>,
}

impl Gift {
    /// Locks the buffer, if it owns pages that can be given away.
    pub fn new(ruby: &Ruby, call: &str, buffer: Value) -> Result<Self, Error> {
        check(buffer)?;
        let (mut start, mut len) = (null_mut(), 0);
        // SAFETY: it has just been seen that this is a valid buffer.
        let flags = unsafe { rb_io_buffer_get_bytes(buffer.as_raw(), &mut start, &mut len) };
        let kinds = [
            (LOCKED, "locked, or given twice"),
            (READONLY, "read-only"),
            (SHARED, "shared"),
            (FILE, "mapped from a file"),
            (EXTERNAL, "external: its memory belongs to something else"),
            (INTERNAL, "internal: its memory is not pages of its own"),
            (PRIVATE, "a private mapping, of a file perhaps"),
        ];
        let kind = kinds.iter().find(|(flag, _)| flags & flag != 0).map(|(_, kind)| *kind);
        match kind.or((flags & MAPPED == 0).then_some("a slice of another one")) {
            Some(kind) => {
                Err(error::argument(ruby, format!("{call}: cannot give away a buffer that is {kind}")))
            }
            None => {
                // SAFETY: it raises what it has against the buffer.
                protect(|| unsafe { rb_sys::rb_io_buffer_lock(buffer.as_raw()) })?;
                Ok(Self { start: start.cast(), len: len as usize, pages: None })
            }
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes behind the first `skip`, in pages that nobody else can reach. The buffer's own memory holds zeros from
    /// now on: other threads may write to a slice of it while a call waits.
    pub fn pages(&mut self, skip: usize) -> io_splice_core::Result<PageSlice<'_>> {
        let pages = match &mut self.pages {
            Some(pages) => pages,
            // SAFETY: the memory of a buffer that is mapped and nothing else is such a mapping, and only Ruby
            // looks at it.
            none => none.insert(unsafe { Pages::take(self.start, self.len)? }),
        };
        Ok(pages.slice(skip..self.len))
    }

    /// All of it is in the pipe: the buffer becomes empty, as after `free`.
    pub fn gone(&mut self, buffer: Value) -> Result<(), Error> {
        self.pages = None;
        // SAFETY: it is a buffer that was locked here.
        protect(|| unsafe {
            rb_sys::rb_io_buffer_unlock(buffer.as_raw());
            rb_sys::rb_io_buffer_free(buffer.as_raw())
        })
        .map(drop)
    }

    /// Not all of it is in the pipe: the buffer gets its bytes again. Those that are in the pipe are on other
    /// pages.
    pub fn restore(&mut self, buffer: Value) {
        if let Some(pages) = self.pages.take() {
            // SAFETY: the buffer is locked, so its memory is still there, and nothing else is.
            unsafe { self.start.copy_from_nonoverlapping(pages.as_bytes().as_ptr(), self.len) };
        }
        // SAFETY: it is a buffer that was locked here; this does not raise.
        unsafe { rb_sys::rb_io_buffer_try_unlock(buffer.as_raw()) };
    }
}

unsafe extern "C" {
    // In rb-sys the result is a Rust enum, in which the flags of a buffer are no valid value.
    fn rb_io_buffer_get_bytes(buffer: VALUE, base: *mut *mut c_void, size: *mut size_t) -> c_int;
}
