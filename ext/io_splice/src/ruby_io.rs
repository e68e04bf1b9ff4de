//! Ruby's structure of an IO (`rb_io_t`): descriptor, mode and buffers. All access to it is here.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_splice_core::{Attempt, Errno, Step, copied};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::ReprValue;
use magnus::{Error, Value};
use rb_sys::{VALUE, rb_io_t};

use crate::{error, gvl};

/// As large as Ruby makes a read buffer (`IO_RBUF_CAPA_MIN`).
const RBUF_CAPA_MIN: i32 = 8192;

/// What Ruby keeps of one IO that is initialized.
///
/// Whoever has one holds the GVL when it is used, and keeps the IO alive, as [`RubyIo::of`] demands: then the pointer is
/// valid, also after the IO was closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RubyIo(*mut rb_io_t);

impl RubyIo {
    /// That of an IO; `None` if it is not initialized.
    ///
    /// # Safety
    ///
    /// - `io` must be an IO.
    /// - It must stay alive as long as the result is used: on the stack, say.
    /// - The result must only be used by threads that hold the GVL.
    pub unsafe fn of(io: VALUE) -> Option<Self> {
        // SAFETY: an IO is an RFile.
        let file = unsafe { (*(io as *const rb_sys::RFile)).fptr };
        (!file.is_null()).then_some(Self(file))
    }

    /// That of the IO which writes, where two are tied to each other: a socket in Ruby's eyes, or both pipes of `IO.popen`.
    pub fn for_writing(self) -> Self {
        self.tied().unwrap_or(self)
    }

    fn tied(self) -> Option<Self> {
        // SAFETY: the pointer is valid. What is tied to an IO is an IO too, and lives as long.
        unsafe {
            let tied = (*self.0).tied_io_for_writing;
            if is_set(tied) { Self::of(tied) } else { None }
        }
    }

    /// For the functions of Ruby's that take it.
    pub fn as_ptr(self) -> *mut rb_io_t {
        self.0
    }

    /// The descriptor, or a negative number when the IO is closed.
    pub fn fd(self) -> RawFd {
        // SAFETY: the pointer is valid.
        unsafe { (*self.0).fd }
    }

    /// Whether there is something in the read buffer.
    pub fn has_read_ahead(self) -> bool {
        // SAFETY: the pointer is valid.
        unsafe { rb_sys::rb_io_read_pending(self.0) != 0 }
    }

    /// Whether there are bytes that are not written yet.
    pub fn has_unwritten(self) -> bool {
        // SAFETY: the pointer is valid.
        unsafe { (*self.0).wbuf.len > 0 }
    }

    /// The descriptor to read from, if nothing has to be done or raised first. What has still to be written (a request,
    /// before the answer is read) is no reason for a call that must not wait to wait.
    pub fn input_if_clean(self, nonblock: bool) -> Option<RawFd> {
        let written = nonblock || !self.has_unwritten() && self.tied().is_none();
        (self.is_open_for(rb_sys::FMODE_READABLE) && written && self.read_buffers_are_empty())
            .then(|| self.fd())
    }

    /// The descriptor to write to, if nothing has to be done or raised first.
    pub fn output_if_clean(self) -> Option<RawFd> {
        (self.is_open_for(rb_sys::FMODE_WRITABLE) && !self.has_unwritten() && self.read_buffers_are_empty())
            .then(|| self.fd())
    }

    fn is_open_for(self, mode: u32) -> bool {
        self.modes() & mode != 0 && self.fd() >= 0
    }

    /// Whether it goes both ways.
    pub fn is_duplex(self) -> bool {
        self.modes() & rb_sys::FMODE_DUPLEX != 0
    }

    fn modes(self) -> u32 {
        // SAFETY: the pointer is valid. In Ruby 4 the mode has the type of an enum that has no names for most of its
        // values, so it is read as the number that it is.
        unsafe { (&raw const (*self.0).mode).cast::<u32>().read() }
    }

    fn read_buffers_are_empty(self) -> bool {
        // SAFETY: the pointer is valid.
        unsafe { (*self.0).rbuf.len == 0 && (*self.0).cbuf.len == 0 }
    }

    /// Writes what can be written at once, of what Ruby has still to write. Its own flush would wait.
    #[inline(always)]
    pub fn write_out_now(self, call: &str) -> Result<(), Error> {
        let is_written = !self.has_unwritten() && !self.tied().is_some_and(Self::has_unwritten);
        if is_written { Ok(()) } else { self.write_buffers_now(call) }
    }

    fn write_buffers_now(self, call: &str) -> Result<(), Error> {
        for file in [Some(self), self.tied()].into_iter().flatten() {
            while file.fd() >= 0 && file.has_unwritten() {
                match file.write_buffer_now()? {
                    Ok(Step::Moved(_)) => {}
                    Ok(_) => break,
                    Err(errno) => return Err(error::errno(errno, call, None)),
                }
            }
        }
        Ok(())
    }

    /// Beside other threads it is done without the GVL, since somebody else may hold the lock of a pipe, and under the lock
    /// that Ruby's own flush takes; when another thread has that, it would block.
    fn write_buffer_now(self) -> Result<Attempt, Error> {
        // SAFETY: the descriptor is not negative; when it is closed meanwhile, `without_while_using` ends the write first.
        let fd = unsafe { BorrowedFd::borrow_raw(self.fd()) };
        // SAFETY: the pointer is valid; the buffer holds `len` bytes from `off` on, and nothing else looks at it until they are
        // copied or written.
        let bytes = unsafe {
            let buffer = &(*self.0).wbuf;
            std::slice::from_raw_parts(buffer.ptr.add(buffer.off as usize).cast::<u8>(), buffer.len as usize)
        };
        if gvl::alone() {
            let written = io_splice_core::write_now(fd, bytes);
            self.drop_written(written);
            return Ok(written);
        }
        // SAFETY: the pointer is valid. Where there is a buffer, there is its lock.
        let lock = unsafe { (*self.0).write_lock };
        // SAFETY: a write lock is a Mutex.
        if !is_set(lock) || unsafe { rb_sys::rb_mutex_trylock(lock) } == rb_sys::Qfalse as VALUE {
            return Ok(Ok(Step::WouldBlock));
        }
        let mut written = Ok(Step::WouldBlock);
        let interrupted = match copied(bytes) {
            Ok(bytes) => gvl::without_while_using(self.0, fd.as_raw_fd(), || {
                written = io_splice_core::write_now(fd, &bytes);
            }),
            Err(errno) => {
                written = Err(errno);
                Ok(())
            }
        };
        self.drop_written(written);
        let unlocked = protect(|| {
            // SAFETY: this thread has locked it.
            unsafe { rb_sys::rb_mutex_unlock(lock) }
        });
        interrupted.and(unlocked)?;
        Ok(written)
    }

    /// Takes out of the write buffer what is written.
    fn drop_written(self, written: Attempt) {
        let Ok(Step::Moved(bytes)) = written else { return };
        // SAFETY: the pointer is valid, and nothing else looks at this buffer until the borrow ends.
        let buffer = unsafe { &mut (*self.0).wbuf };
        // A close may have emptied it.
        let bytes = (bytes as i32).min(buffer.len);
        buffer.off += bytes;
        buffer.len -= bytes;
    }

    /// Takes up to `len` bytes out of the read buffer. No method of the IO is called, since it may be one of a subclass.
    pub fn take_read_ahead(self, len: usize) -> Result<Vec<u8>, Errno> {
        // SAFETY: the pointer is valid, and nothing else looks at this buffer until the borrow ends.
        let buffer = unsafe { &mut (*self.0).rbuf };
        let len = len.min(buffer.len as usize);
        if len == 0 {
            return Ok(Vec::new());
        }
        // SAFETY: the buffer holds `buffer.len` bytes from `off` on.
        let bytes = copied(unsafe {
            std::slice::from_raw_parts(buffer.ptr.add(buffer.off as usize).cast::<u8>(), len)
        })?;
        // There are no more than an i32 can count.
        buffer.off += len as i32;
        buffer.len -= len as i32;
        Ok(bytes)
    }

    /// Puts bytes back in front of those that this IO has still to give.
    ///
    /// They are lost if the IO is closed, and if the two are 2 GiB together, or more than there is memory for: those that
    /// were taken out of this buffer fit into it again, unless somebody has put others in there meanwhile. A thread that
    /// waits in a read of the same IO puts what it gets into the place of all, as it does to what `ungetbyte` puts back.
    pub fn unread(self, bytes: Vec<u8>) {
        // What is closed has lost its buffer, and its capacity does not say so.
        if self.fd() < 0 {
            return;
        }
        // SAFETY: the pointer is valid, and nothing else looks at this buffer until the borrow ends.
        let buffer = unsafe { &mut (*self.0).rbuf };
        let Ok(all) = i32::try_from(bytes.len() + buffer.len as usize) else { return };
        let (before, after) = (all - buffer.len, buffer.len);
        let mut room = buffer.ptr;
        if room.is_null() || all > buffer.capa {
            // Ruby keeps its buffer for good, so it must not be a small one.
            let capacity = all.max(RBUF_CAPA_MIN);
            // Ruby's `ungetbyte` refuses what is larger than the buffer that is there. That one is not freed,
            // because another thread may be reading into it without the GVL.
            let allocated = protect(|| {
                // SAFETY: for want of memory it raises. Ruby frees it with the IO.
                room = unsafe { rb_sys::ruby_xmalloc(capacity as _) }.cast();
                rb_sys::Qnil as VALUE
            });
            if allocated.is_err() {
                if after == 0 {
                    // They are in memory already: of malloc, as all of Rust's is here, and as Ruby frees it unless it was
                    // built to count every byte (CALC_EXACT_MALLOC_SIZE). Without memory for a second copy they would be
                    // lost.
                    (buffer.ptr, buffer.off) = (bytes.leak().as_mut_ptr().cast(), 0);
                    (buffer.len, buffer.capa) = (before, before);
                }
                return;
            }
            buffer.capa = capacity;
        }
        // As Ruby's own `ungetbyte`: what is there moves only if there is no room before it.
        let start =
            if after == 0 || room != buffer.ptr || buffer.off < before { 0 } else { buffer.off - before };
        // SAFETY: the old buffer holds `after` bytes from `off` on, and the room, which may be the same, is enough for all.
        unsafe {
            if after > 0 {
                let from = buffer.ptr.add(buffer.off as usize);
                std::ptr::copy(from, room.add((start + before) as usize), after as usize);
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), room.add(start as usize), before as usize);
        }
        (buffer.ptr, buffer.off, buffer.len) = (room, start, all);
    }
}

/// Checks an IO as Ruby's own `copy_stream` checks its source: that it is not frozen, and open for reading.
pub fn check_reader(io: Value) -> Result<(), Error> {
    // SAFETY: it is an IO, and alive on the stack of the caller; this is called with the GVL.
    let file = unsafe { RubyIo::of(io.as_raw()) };
    if !io.is_frozen() && file.is_some_and(|file| file.input_if_clean(false).is_some()) {
        return Ok(());
    }
    // SAFETY: it is an IO. For one that is not initialized, or frozen, these raise.
    protect(|| unsafe {
        let io = io.as_raw();
        rb_sys::rb_check_frozen(io);
        rb_sys::rb_io_check_byte_readable((*(io as *const rb_sys::RFile)).fptr);
        rb_sys::Qnil as VALUE
    })
    .map(drop)
}

/// Checks an IO as Ruby's own `copy_stream` checks its target, and makes it binary: of two that are tied to each other, the
/// one that writes.
pub fn prepare_writer(io: Value) -> Result<(), Error> {
    // SAFETY: the same. Of an IO that is not frozen and is open for writing nothing is raised.
    unsafe {
        let file = RubyIo::of(io.as_raw()).filter(|file| !io.is_frozen() && file.tied().is_none());
        if file.is_some_and(|file| file.output_if_clean().is_some()) {
            rb_sys::rb_io_ascii8bit_binmode(io.as_raw());
            return Ok(());
        }
    }
    // SAFETY: the same.
    protect(|| unsafe {
        let io = rb_sys::rb_io_get_write_io(io.as_raw());
        rb_sys::rb_check_frozen(io);
        rb_sys::rb_io_check_writable((*(io as *const rb_sys::RFile)).fptr);
        rb_sys::rb_io_ascii8bit_binmode(io)
    })
    .map(drop)
}

/// Whether it is an IO.
pub fn is_io(value: Value) -> bool {
    // SAFETY: it only looks at the value's type.
    unsafe { rb_sys::RB_TYPE_P(value.as_raw(), rb_sys::RUBY_T_FILE) }
}

/// `IO#timeout`: a number of seconds, or nil.
#[cfg(ruby_gte_3_2)]
pub fn timeout(io: VALUE) -> Result<Value, Error> {
    // SAFETY: it raises what it has against `io`.
    let timeout = protect(|| unsafe { rb_sys::rb_io_timeout(io) })?;
    // SAFETY: it is what Ruby has just returned.
    Ok(unsafe { Value::from_raw(timeout) })
}

/// Before Ruby 3.2 no IO has a timeout.
#[cfg(not(ruby_gte_3_2))]
pub fn timeout(_io: VALUE) -> Result<Value, Error> {
    // SAFETY: nil is a value.
    Ok(unsafe { Value::from_raw(rb_sys::Qnil as VALUE) })
}

/// Whether a field names an object: what is not set is 0 in some Rubies and nil in others.
fn is_set(field: VALUE) -> bool {
    field != 0 && field != rb_sys::Qnil as VALUE
}

/// Checks that an IO can be read from. Returns whether Ruby has read ahead.
///
/// # Safety
///
/// `io` must be an IO. It may raise, so it must be called under `protect`.
pub unsafe fn check_readable(io: VALUE) -> bool {
    // SAFETY: these check themselves that it is initialized and open.
    unsafe {
        let file = (*(io as *const rb_sys::RFile)).fptr;
        rb_sys::rb_io_check_byte_readable(file);
        rb_sys::rb_io_read_pending(file) != 0
    }
}

/// Checks that an IO can be written to, and writes out what Ruby has still to write.
///
/// # Safety
///
/// `io` must be an IO. It may raise, so it must be called under `protect`.
pub unsafe fn check_writable_and_flush(io: VALUE) {
    // SAFETY: these check themselves that it is initialized and open.
    unsafe {
        let io = rb_sys::rb_io_get_write_io(io);
        rb_sys::rb_io_check_writable((*(io as *const rb_sys::RFile)).fptr);
        rb_sys::rb_io_flush(io);
    }
}
