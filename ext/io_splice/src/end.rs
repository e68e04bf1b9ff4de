use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_splice_core::{Errno, Side, Step};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::ReprValue;
use magnus::{Error, Ruby, TryConvert, Value};
use rb_sys::{VALUE, rb_io_t};

use crate::{error, gvl, number};

/// Which way the bytes go at an end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

impl Direction {
    /// The direction of the end at this side of a copy.
    pub fn of(side: Side) -> Self {
        match side {
            Side::Input => Self::In,
            Side::Output => Self::Out,
        }
    }
}

#[derive(PartialEq, Eq)]
enum Settled {
    Clear,
    /// Bytes that Ruby has read already stand before those that the kernel has.
    ReadAhead,
}

/// One end of a transfer: an IO or a number. It lives on the stack only, which is where the garbage
/// collector finds the IO.
#[derive(Clone, Copy)]
pub struct End {
    kind: Kind,
    direction: Direction,
}

#[derive(Clone, Copy)]
enum Kind {
    Io(VALUE),
    Number(RawFd),
}

impl End {
    /// Takes an Integer, an IO, or what `to_io` makes an IO of.
    pub fn new(ruby: &Ruby, value: Value, direction: Direction) -> Result<Self, Error> {
        let kind = if is_integer(value) {
            Kind::Number(number::descriptor(ruby, value)?)
        } else if is_io(value) {
            Kind::Io(value.as_raw())
        } else {
            Kind::Io(to_io(ruby, value)?)
        };
        Ok(Self { kind, direction })
    }

    /// Whether it takes Ruby code (`to_io`) to make an end of that.
    pub fn takes_ruby_code(value: Value) -> bool {
        !is_integer(value) && !is_io(value)
    }

    pub fn direction(self) -> Direction {
        self.direction
    }

    /// Whether there is still something in Ruby's read buffer.
    pub fn has_read_ahead(self) -> bool {
        // SAFETY: `open_file` gives a valid pointer, and the GVL is held.
        self.open_file().is_some_and(|file| unsafe { rb_sys::rb_io_read_pending(file) != 0 })
    }

    /// Takes out of Ruby's read buffer what was read ahead, at most `len` bytes. What is there comes also with
    /// an error, so that it is not lost.
    pub fn take_read_ahead(self, ruby: &Ruby, len: u64) -> (Vec<u8>, Result<(), Error>) {
        let mut taken = Vec::new();
        let Kind::Io(io) = self.kind else { return (taken, Ok(())) };
        // SAFETY: `io` is an IO.
        let io = unsafe { Value::from_raw(io) };
        let mut result = Ok(());
        while (taken.len() as u64) < len && result.is_ok() {
            if !self.has_read_ahead() {
                break;
            }
            let most = (len - taken.len() as u64).min(64 << 10);
            if taken.try_reserve(most as usize).is_err() {
                result = Err(error::no_memory(ruby, Errno::NOMEM));
                break;
            }
            // While bytes are there, readpartial gives those and asks nobody for more. An interrupt may come
            // when it has taken them already: then they are in the string.
            let string = ruby.str_buf_new(0);
            result = io.funcall::<_, _, Value>("readpartial", (most, string)).map(drop);
            // SAFETY: the string is ours, and copied before Ruby runs again.
            taken.extend_from_slice(unsafe { string.as_slice() });
        }
        (taken, result)
    }

    /// Puts bytes back in front of those that this input has still to give, for Ruby to read; a number has
    /// no place for them.
    pub fn put_back(self, bytes: Vec<u8>) {
        let Some(file) = self.open_file() else { return };
        // SAFETY: `open_file` gives a valid pointer, and the GVL is held.
        let (fd, buffer) = unsafe { ((*file).fd, &mut (*file).rbuf) };
        // What is closed has lost its buffer, and its capacity does not say so.
        if fd < 0 {
            return;
        }
        let (before, after) = (bytes.len(), buffer.len as usize);
        let mut room = buffer.ptr;
        let all = before + after;
        if room.is_null() || all > buffer.capa as usize {
            // Ruby's `ungetbyte` refuses what is larger than the buffer that is there. That one is not freed,
            // because another thread may be reading into it without the GVL.
            let allocated = protect(|| {
                // SAFETY: for want of memory it raises. Ruby frees it with the IO.
                room = unsafe { rb_sys::ruby_xmalloc(all as _) }.cast();
                rb_sys::Qnil as VALUE
            });
            if allocated.is_err() {
                if after == 0 {
                    // The bytes are in memory already: of malloc, as all of Rust's is here, and as Ruby frees it.
                    (buffer.ptr, buffer.off) = (bytes.leak().as_mut_ptr().cast(), 0);
                    (buffer.len, buffer.capa) = (before as i32, before as i32);
                }
                return;
            }
            buffer.capa = all as i32;
        }
        // SAFETY: the old buffer holds so many bytes from `off` on, and the room, which may be the same, is enough for all.
        unsafe {
            if after > 0 {
                std::ptr::copy(buffer.ptr.add(buffer.off as usize), room.add(before), after);
            }
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), room, before);
        }
        (buffer.ptr, buffer.off, buffer.len) = (room, 0, all as i32);
    }

    /// The IO, or for a number a new IO that leaves the descriptor alone: something to wait with.
    pub fn io(self, ruby: &Ruby) -> Result<VALUE, Error> {
        match self.kind {
            Kind::Io(io) => Ok(match self.direction {
                Direction::In => io,
                // SAFETY: `io` is an IO; for one that is not initialized it raises.
                Direction::Out => protect(|| unsafe { rb_sys::rb_io_get_write_io(io) })?,
            }),
            Kind::Number(number) => {
                let io: Value =
                    ruby.class_io().funcall("for_fd", (number, magnus::kwargs!("autoclose" => false)))?;
                Ok(io.as_raw())
            }
        }
    }

    /// Whether Ruby takes it for a file, which may be a FIFO or a device all the same.
    pub fn is_file(self, ruby: &Ruby) -> bool {
        let Kind::Io(io) = self.kind else { return false };
        // SAFETY: `io` is an IO.
        unsafe { Value::from_raw(io) }.is_kind_of(ruby.class_file())
    }

    /// Whether there is a buffer that bytes could be put back into.
    pub fn takes_back(self) -> bool {
        matches!(self.kind, Kind::Io(_))
    }

    /// What Ruby keeps of the IO that is really used: for an output that may be the write end that
    /// `IO.popen` ties to an IO. `None` for a number and for an IO that is not initialized.
    pub fn open_file(self) -> Option<*mut rb_io_t> {
        let Kind::Io(io) = self.kind else { return None };
        // SAFETY: `io` is an IO; one that is not initialized has a null pointer. What is tied to an IO is an initialized IO.
        unsafe {
            let own = fptr(io);
            if own.is_null() {
                return None;
            }
            let tied = (*own).tied_io_for_writing;
            Some(if self.direction == Direction::Out && is_set(tied) { fptr(tied) } else { own })
        }
    }

    /// This input, if what goes back into it may go back by moving its position: before what Ruby has read ahead it
    /// has to be put into the buffer.
    pub fn to_seek_back(self) -> Option<Self> {
        (!self.has_read_ahead()).then_some(self)
    }

    /// The descriptor, if the end is open.
    pub fn descriptor_if_open<'call>(self) -> Option<BorrowedFd<'call>> {
        let number = match self.kind {
            Kind::Number(number) => number,
            // SAFETY: `open_file` gives a valid pointer, and the GVL is held.
            Kind::Io(_) => unsafe { (*self.open_file()?).fd },
        };
        // SAFETY: a number that is not -1; as in `borrow`.
        (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
    }

    /// `IO#timeout`, if it has one.
    pub fn timeout(self) -> Result<Option<Duration>, Error> {
        let Kind::Io(io) = self.kind else { return Ok(None) };
        let seconds: Option<f64> = TryConvert::try_convert(timeout_of(io)?)?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    }

    /// The descriptor's number, when nothing has to be done or complained about first. That is nearly
    /// always, and looking is much cheaper than being ready for an exception.
    ///
    /// What an input has still to write (a request, before the answer is read) is no reason for a call
    /// that must not wait to wait.
    fn number_if_clear(self, nonblock: bool) -> Option<RawFd> {
        if let Kind::Number(number) = self.kind {
            return Some(number);
        }
        let file = self.open_file()?;
        // SAFETY: `open_file` gives a valid pointer, and the GVL is held. In Ruby 4 the mode has the type of an enum that
        // has no names for most of its values, so it is read as the number that it is.
        let (fd, mode, tied, to_write, to_read) = unsafe {
            let mode = (&raw const (*file).mode).cast::<u32>().read();
            let to_read = (*file).rbuf.len != 0 || (*file).cbuf.len != 0;
            ((*file).fd, mode, is_set((*file).tied_io_for_writing), (*file).wbuf.len != 0, to_read)
        };
        let clear = match self.direction {
            Direction::In => mode & rb_sys::FMODE_READABLE != 0 && (nonblock || !to_write && !tied),
            Direction::Out => mode & rb_sys::FMODE_WRITABLE != 0 && !to_write,
        };
        (clear && !to_read && fd >= 0).then_some(fd)
    }

    /// Whether Ruby holds bytes for this output that are not written yet.
    pub fn has_unwritten(self) -> bool {
        // SAFETY: `open_file` gives a valid pointer, and the GVL is held.
        self.open_file().is_some_and(|file| unsafe { (*file).wbuf.len > 0 })
    }

    /// Writes out of Ruby's write buffer what can be written at once. Ruby's own flush would wait.
    fn write_out_now(self, call: &str) -> Result<(), Error> {
        let Some(file) = self.open_file() else { return Ok(()) };
        // SAFETY: `open_file` gives a valid pointer, and the GVL is held; what is tied to an IO is an
        // initialized IO.
        let tied = unsafe { is_set((*file).tied_io_for_writing).then(|| fptr((*file).tied_io_for_writing)) };
        for file in [Some(file), tied].into_iter().flatten() {
            // SAFETY: as above, and nothing else looks at this buffer until the borrow ends.
            let (fd, buffer, lock) = unsafe { ((*file).fd, &mut (*file).wbuf, (*file).write_lock) };
            // SAFETY: a write lock is a Mutex. Who holds it is writing this buffer out just now.
            let busy = is_set(lock) && unsafe { rb_sys::rb_mutex_locked_p(lock) } != rb_sys::Qfalse as VALUE;
            while fd >= 0 && buffer.len > 0 && !busy {
                // SAFETY: the buffer holds `len` bytes from `off` on, and the GVL is held.
                let bytes = unsafe {
                    std::slice::from_raw_parts(
                        buffer.ptr.add(buffer.off as usize).cast::<u8>(),
                        buffer.len as usize,
                    )
                };
                match io_splice_core::write_now(borrow(call, fd)?, bytes) {
                    Ok(Step::Moved(written)) => {
                        buffer.off += written as i32;
                        buffer.len -= written as i32;
                    }
                    Ok(_) => break,
                    Err(errno) => return Err(error::errno(errno, call, None)),
                }
            }
        }
        Ok(())
    }

    /// Prepares the end for bytes that go around Ruby's buffers: checks that it is open for its
    /// direction, writes out what Ruby has still to write, and tells of bytes read ahead.
    ///
    /// # Safety
    ///
    /// It may raise, so it must be called under `protect`.
    unsafe fn settle(self) -> Settled {
        let Kind::Io(io) = self.kind else { return Settled::Clear };
        // SAFETY: `io` is an IO, and its `fptr` is valid for as long; each of these checks itself
        // that it is initialized and open.
        unsafe {
            match self.direction {
                Direction::In => {
                    let fptr = fptr(io);
                    rb_sys::rb_io_check_byte_readable(fptr);
                    if rb_sys::rb_io_read_pending(fptr) != 0 {
                        return Settled::ReadAhead;
                    }
                }
                Direction::Out => {
                    let io = rb_sys::rb_io_get_write_io(io);
                    rb_sys::rb_io_check_writable(fptr(io));
                    rb_sys::rb_io_flush(io);
                }
            }
        }
        Settled::Clear
    }

    /// The descriptor's number.
    ///
    /// # Safety
    ///
    /// It raises when the IO is closed, so it must be called under `protect`.
    unsafe fn number(self) -> RawFd {
        match self.kind {
            // SAFETY: as in `settle`.
            Kind::Io(io) => unsafe {
                rb_sys::rb_io_descriptor(match self.direction {
                    Direction::In => io,
                    Direction::Out => rb_sys::rb_io_get_write_io(io),
                })
            },
            Kind::Number(number) => number,
        }
    }
}

/// The descriptors of both ends, for use before the GVL is given up or Ruby code runs: after that they
/// may be closed, and their numbers may belong to other files.
///
/// An IO must be open for its direction. Its write buffer is written out; bytes in its read buffer are an
/// `IOError`, because those behind them would overtake them. `None` when writing the buffer out would
/// wait, and the call is one that must not.
pub fn descriptors<'call>(
    ruby: &Ruby,
    call: &str,
    input: End,
    output: End,
    nonblock: bool,
) -> Result<Option<(BorrowedFd<'call>, BorrowedFd<'call>)>, Error> {
    if nonblock {
        input.write_out_now(call)?;
        output.write_out_now(call)?;
        if output.has_unwritten() {
            return Ok(None);
        }
    }
    if let (Some(input), Some(output)) = (input.number_if_clear(nonblock), output.number_if_clear(nonblock)) {
        return Ok(Some((borrow(call, input)?, borrow(call, output)?)));
    }
    match settle(call, input, output)? {
        (Settled::Clear, fds) => Ok(Some(fds)),
        (Settled::ReadAhead, _) => Err(error::io(
            ruby,
            format!("{call} for buffered IO: Ruby has read bytes ahead, which must be taken out first"),
        )),
    }
}

/// As [`descriptors`], for a call that looks after what Ruby has read ahead itself.
pub fn descriptors_for_copy<'call>(
    call: &str,
    input: End,
    output: End,
) -> Result<(BorrowedFd<'call>, BorrowedFd<'call>), Error> {
    if let (Some(input), Some(output)) = (input.number_if_clear(false), output.number_if_clear(false)) {
        return Ok((borrow(call, input)?, borrow(call, output)?));
    }
    settle(call, input, output).map(|(_, fds)| fds)
}

fn settle<'call>(
    call: &str,
    input: End,
    output: End,
) -> Result<(Settled, (BorrowedFd<'call>, BorrowedFd<'call>)), Error> {
    // Writing a buffer out may let other threads run, so what the numbers are comes last.
    write_out(call, input, output)?;
    let mut settled = Settled::Clear;
    let mut numbers = (-1, -1);
    protect(|| {
        // SAFETY: this is under `protect`.
        unsafe {
            output.settle();
            settled = input.settle();
            numbers = (input.number(), output.number());
        }
        rb_sys::Qnil as VALUE
    })?;
    Ok((settled, (borrow(call, numbers.0)?, borrow(call, numbers.1)?)))
}

/// Writes out what Ruby has still to write to the output. That may wait, and closing the input ends it too.
fn write_out(call: &str, input: End, output: End) -> Result<(), Error> {
    let Some(file) = input.open_file().filter(|file| Some(*file) != output.open_file()) else {
        return Ok(());
    };
    if !output.has_unwritten() || gvl::alone() || gvl::scheduled() {
        return Ok(());
    }
    gvl::while_using(file, number_of(call, input)?.as_raw_fd(), || {
        protect(|| {
            // SAFETY: this is under `protect`.
            unsafe { output.settle() };
            rb_sys::Qnil as VALUE
        })
        .map(drop)
    })
}

/// As [`descriptors`], for a call with nothing but an output.
pub fn descriptor<'call>(
    ruby: &Ruby,
    call: &str,
    output: End,
    nonblock: bool,
) -> Result<Option<BorrowedFd<'call>>, Error> {
    Ok(descriptors(ruby, call, output, output, nonblock)?.map(|(_, fd)| fd))
}

/// The descriptor of one end, if it is open.
pub fn number_of<'call>(call: &str, end: End) -> Result<BorrowedFd<'call>, Error> {
    let mut number = -1;
    protect(|| {
        // SAFETY: it runs under `protect`.
        number = unsafe { end.number() };
        rb_sys::Qnil as VALUE
    })?;
    borrow(call, number)
}

/// The descriptor of an IO, whatever it is open for.
pub fn descriptor_of_io<'call>(call: &str, io: Value) -> Result<BorrowedFd<'call>, Error> {
    number_of(call, End { kind: Kind::Io(io.as_raw()), direction: Direction::In })
}

fn borrow<'call>(call: &str, number: RawFd) -> Result<BorrowedFd<'call>, Error> {
    if number < 0 {
        return Err(error::errno(Errno::BADF, call, Some(&format!("{number} is no file descriptor"))));
    }
    // SAFETY: a number that is not -1. That it is open the kernel checks; for how long it stays open,
    // see `descriptors`.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

fn is_integer(value: Value) -> bool {
    magnus::value::Fixnum::from_value(value).is_some() || magnus::RBignum::from_value(value).is_some()
}

fn is_io(value: Value) -> bool {
    // SAFETY: it only looks at the value's type.
    unsafe { rb_sys::RB_TYPE_P(value.as_raw(), rb_sys::RUBY_T_FILE) }
}

/// Whether a field of an IO's state names an object: what is not set is 0 in some Rubies and nil in others.
fn is_set(field: VALUE) -> bool {
    field != 0 && field != rb_sys::Qnil as VALUE
}

/// `IO#timeout`: a number of seconds, or nil.
#[cfg(ruby_gte_3_2)]
pub fn timeout_of(io: VALUE) -> Result<Value, Error> {
    // SAFETY: it raises what it has against `io`.
    let timeout = protect(|| unsafe { rb_sys::rb_io_timeout(io) })?;
    // SAFETY: it is what Ruby has just returned.
    Ok(unsafe { Value::from_raw(timeout) })
}

/// Before Ruby 3.2 no IO has a timeout.
#[cfg(not(ruby_gte_3_2))]
pub fn timeout_of(_io: VALUE) -> Result<Value, Error> {
    // SAFETY: nil is a value.
    Ok(unsafe { Value::from_raw(rb_sys::Qnil as VALUE) })
}

/// # Safety
///
/// `io` must be an IO.
unsafe fn fptr(io: VALUE) -> *mut rb_io_t {
    // SAFETY: an IO is an RFile.
    unsafe { (*(io as *const rb_sys::RFile)).fptr }
}

fn to_io(ruby: &Ruby, value: Value) -> Result<VALUE, Error> {
    // What TLS encrypts, its `to_io` would let leave in the clear. Every such socket, also
    // behind a Delegator, knows its peer's certificate.
    if value.respond_to("peer_cert", false)? || value.respond_to("peercert", false)? {
        // SAFETY: the name is copied at once, while `value` is alive.
        let class = unsafe { value.classname() }.into_owned();
        return Err(error::wrong_type(
            ruby,
            format!("a {class} encrypts what goes through it: the kernel would move the bytes unencrypted"),
        ));
    }
    // SAFETY: it raises what it has against `value`; the name and the method end in NUL.
    protect(|| unsafe {
        rb_sys::rb_convert_type(value.as_raw(), rb_sys::RUBY_T_FILE as _, c"IO".as_ptr(), c"to_io".as_ptr())
    })
}

/// Keeps the conservative garbage collector from missing an IO that only an [`End`] still names.
pub fn keep_alive(end: &End) {
    std::hint::black_box(end);
}
