use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_splice_core::{Errno, Likely, Side, kernel_tls};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::ReprValue;
use magnus::{Error, Module, RModule, Ruby, TryConvert, Value};
use rb_sys::VALUE;

use crate::opened::Opened;
use crate::reentry::once;
use crate::ruby_io::{self, RubyIo, is_io};
use crate::{error, gvl, number};

/// Ruby's read buffer can hold 2 GiB, which somebody may have put back. What is in flight is copied, with the GVL, and has
/// to fit into that buffer again beside what is still there.
const READ_AHEAD_PORTION: u64 = 1 << 20;

#[derive(PartialEq, Eq)]
enum Buffers {
    Clean,
    /// Bytes that Ruby has read already stand before those that the kernel has.
    ReadAhead,
}

/// One end of a transfer: an IO or a number. It lives on the stack only, which is where the garbage
/// collector finds the IO.
#[derive(Clone, Copy)]
pub struct End {
    kind: Kind,
    side: Side,
    /// It is a socket for which the kernel encrypts, and nothing may go to it, or come from it, if it does not.
    is_tls: bool,
}

#[derive(Clone, Copy)]
enum Kind {
    Io(VALUE),
    Number(RawFd),
    /// A file that the call itself has opened.
    Opened(RawFd),
}

impl End {
    /// Takes an Integer, an IO, a file that the copy has opened, or what `to_io` makes an IO of.
    #[inline(always)]
    pub fn new(ruby: &Ruby, value: Value, side: Side) -> Result<Self, Error> {
        match is_io(value) {
            true => Ok(Self { kind: Kind::Io(value.as_raw()), side, is_tls: false }),
            false => Self::of_no_io(ruby, value, side),
        }
    }

    fn of_no_io(ruby: &Ruby, value: Value, side: Side) -> Result<Self, Error> {
        let mut is_tls = false;
        let kind = if is_integer(value) {
            Kind::Number(number::descriptor(ruby, value)?)
        } else if let Some(opened) = Opened::from_value(ruby, value) {
            Kind::Opened(opened.fileno())
        } else if once(ruby, || encrypts(value))? {
            is_tls = true;
            Kind::Io(once(ruby, || tls_socket(ruby, value, side))?)
        } else {
            Kind::Io(once(ruby, || to_io(value))?)
        };
        Ok(Self { kind, side, is_tls })
    }

    /// Takes an IO, whatever it is open for.
    pub fn of_io(io: Value) -> Self {
        Self { kind: Kind::Io(io.as_raw()), side: Side::Input, is_tls: false }
    }

    /// Whether it takes Ruby code (`to_io`) to make an end of that.
    pub fn takes_ruby_code(value: Value) -> bool {
        !is_integer(value) && !is_io(value)
    }

    pub fn side(self) -> Side {
        self.side
    }

    /// Whether the kernel encrypts what goes through it.
    pub fn is_tls(self) -> bool {
        self.is_tls
    }

    /// Raises if its descriptor is not what it was when it was given.
    #[inline(always)]
    pub fn check_tls(&self, call: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
        if self.is_tls && !kernel_tls(fd)[self.side as usize] {
            let why = "the kernel does not encrypt for this socket any more: it was reopened";
            return Err(error::errno(Errno::BADF, call, Some(why)));
        }
        Ok(())
    }

    /// Whether there is still something in Ruby's read buffer.
    pub fn has_read_ahead(self) -> bool {
        self.ruby_io().is_some_and(RubyIo::has_read_ahead)
    }

    /// Takes out of Ruby's read buffer what was read ahead, at most `len` bytes and not too many at once: when those are
    /// delivered and [`has_read_ahead`](End::has_read_ahead), there are more.
    pub fn take_read_ahead(self, ruby: &Ruby, len: u64) -> Result<Vec<u8>, Error> {
        let most = len.min(READ_AHEAD_PORTION) as usize;
        let taken = self.ruby_io().map_or(Ok(Vec::new()), |io| io.take_read_ahead(most));
        taken.map_err(|errno| error::no_memory(ruby, errno))
    }

    /// Puts bytes back in front of those that this input has still to give, for Ruby to read; a number has
    /// no place for them.
    pub fn unread(self, bytes: Vec<u8>) {
        if let Some(io) = self.ruby_io() {
            io.unread(bytes);
        }
    }

    /// The IO, or for a number a new IO that leaves the descriptor alone: something to wait with.
    pub fn io(self, ruby: &Ruby) -> Result<VALUE, Error> {
        match self.kind {
            Kind::Io(io) => Ok(match self.side {
                Side::Input => io,
                // SAFETY: `io` is an IO; for one that is not initialized it raises.
                Side::Output => protect(|| unsafe { rb_sys::rb_io_get_write_io(io) })?,
            }),
            Kind::Number(number) | Kind::Opened(number) => {
                let io: Value =
                    ruby.class_io().funcall("for_fd", (number, magnus::kwargs!("autoclose" => false)))?;
                Ok(io.as_raw())
            }
        }
    }

    /// Whether it was opened at a path, as far as Ruby knows: it may be a FIFO or a device all the same.
    pub fn is_file(self, ruby: &Ruby) -> bool {
        let Kind::Io(io) = self.kind else { return self.is_opened() };
        // SAFETY: `io` is an IO.
        match unsafe { (*(io as *const rb_sys::RBasic)).klass } {
            class if class == ruby.class_io().as_raw() => false,
            class if class == ruby.class_file().as_raw() => true,
            // SAFETY: the same.
            _ => unsafe { Value::from_raw(io) }.is_kind_of(ruby.class_file()),
        }
    }

    /// What Ruby takes it for.
    pub fn likely(self, ruby: &Ruby) -> Likely {
        if self.is_file(ruby) {
            Likely::File
        } else if self.is_duplex() {
            Likely::Socket
        } else {
            Likely::Pipe
        }
    }

    /// Whether Ruby takes it for something that goes both ways: a socket, or what `IO.popen` makes.
    pub fn is_duplex(self) -> bool {
        self.ruby_io().is_some_and(RubyIo::is_duplex)
    }

    /// Whether it is an IO, which has a buffer that bytes can be put back into.
    pub fn is_io(self) -> bool {
        matches!(self.kind, Kind::Io(_))
    }

    /// Whether it is a file that the call itself has opened, and closes.
    pub fn is_opened(self) -> bool {
        matches!(self.kind, Kind::Opened(_))
    }

    /// What Ruby keeps of the IO that is really used: for an output that may be the write end that
    /// `IO.popen` ties to an IO. `None` for a number and for an IO that is not initialized.
    pub fn ruby_io(self) -> Option<RubyIo> {
        let Kind::Io(io) = self.kind else { return None };
        // SAFETY: it is an IO, which an end keeps alive on the stack; ends are used with the GVL only.
        let own = unsafe { RubyIo::of(io) }?;
        Some(if self.side == Side::Output { own.for_writing() } else { own })
    }

    /// This input, unless Ruby has read ahead: then returned bytes must go into the buffer, before those.
    pub fn to_seek_back(self) -> Option<Self> {
        (!self.has_read_ahead()).then_some(self)
    }

    /// The descriptor, if the end is open.
    pub fn descriptor_if_open(&self) -> Option<BorrowedFd<'_>> {
        let fd = match self.kind {
            Kind::Number(fd) | Kind::Opened(fd) => fd,
            Kind::Io(_) => self.ruby_io()?.fd(),
        };
        // SAFETY: a number that is not negative; as in `borrow`.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// `IO#timeout`, if it has one.
    pub fn timeout(self) -> Result<Option<Duration>, Error> {
        let Kind::Io(io) = self.kind else { return Ok(None) };
        let seconds: Option<f64> = TryConvert::try_convert(ruby_io::timeout(io)?)?;
        Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
    }

    /// The descriptor, when nothing has to be done or raised first. That is nearly
    /// always, and looking is much cheaper than being ready for an exception.
    #[inline(always)]
    fn fd_if_clean(self, nonblock: bool) -> Option<RawFd> {
        if let Kind::Number(fd) | Kind::Opened(fd) = self.kind {
            return Some(fd);
        }
        let io = self.ruby_io()?;
        match self.side {
            Side::Input => io.input_if_clean(nonblock),
            Side::Output => io.output_if_clean(),
        }
    }

    /// Whether Ruby holds bytes for this output that are not written yet.
    pub fn has_unwritten(self) -> bool {
        self.ruby_io().is_some_and(RubyIo::has_unwritten)
    }

    /// Prepares the end for bytes that go around Ruby's buffers: checks that it is open for its
    /// direction, writes out what Ruby has still to write, and tells of bytes read ahead.
    ///
    /// # Safety
    ///
    /// It may raise, so it must be called under `protect`.
    unsafe fn sync_buffers(self) -> Buffers {
        let Kind::Io(io) = self.kind else { return Buffers::Clean };
        let read_ahead = match self.side {
            // SAFETY: `io` is an IO, and the caller calls this under `protect`.
            Side::Input => unsafe { ruby_io::check_readable(io) },
            Side::Output => {
                // SAFETY: the same.
                unsafe { ruby_io::check_writable_and_flush(io) };
                false
            }
        };
        if read_ahead { Buffers::ReadAhead } else { Buffers::Clean }
    }

    /// The descriptor.
    ///
    /// # Safety
    ///
    /// It raises when the IO is closed, so it must be called under `protect`.
    unsafe fn fd(self) -> RawFd {
        match self.kind {
            // SAFETY: `io` is an IO, and each of these checks itself that it is initialized and open.
            Kind::Io(io) => unsafe {
                rb_sys::rb_io_descriptor(match self.side {
                    Side::Input => io,
                    Side::Output => rb_sys::rb_io_get_write_io(io),
                })
            },
            Kind::Number(fd) | Kind::Opened(fd) => fd,
        }
    }
}

/// The descriptors of both ends, for use before the GVL is given up or Ruby code runs: after that they
/// may be closed, and their numbers may belong to other files.
///
/// An IO must be open for its direction. Its write buffer is written out; bytes in its read buffer are an
/// `IOError`, because those behind them would overtake them. `None` when writing the buffer out would
/// wait, and the call is one that must not.
#[inline(always)]
pub fn descriptors<'end>(
    ruby: &Ruby,
    call: &str,
    input: &'end End,
    output: &'end End,
    nonblock: bool,
) -> Result<Option<(BorrowedFd<'end>, BorrowedFd<'end>)>, Error> {
    if nonblock {
        for io in [input.ruby_io(), output.ruby_io()].into_iter().flatten() {
            io.write_out_now(call)?;
        }
        if output.has_unwritten() {
            return Ok(None);
        }
    }
    if let (Some(fd_in), Some(fd_out)) = (input.fd_if_clean(nonblock), output.fd_if_clean(nonblock)) {
        return Ok(Some((borrow(call, input, fd_in)?, borrow(call, output, fd_out)?)));
    }
    match sync_buffers(call, input, output)? {
        (Buffers::Clean, fds) => Ok(Some(fds)),
        (Buffers::ReadAhead, _) => Err(error::io(
            ruby,
            format!("{call} for buffered IO: Ruby has read bytes ahead; read them first"),
        )),
    }
}

/// As [`descriptors`], for a call that looks after what Ruby has read ahead itself.
pub fn descriptors_for_copy<'end>(
    call: &str,
    input: &'end End,
    output: &'end End,
) -> Result<(BorrowedFd<'end>, BorrowedFd<'end>), Error> {
    if let (Some(fd_in), Some(fd_out)) = (input.fd_if_clean(false), output.fd_if_clean(false)) {
        return Ok((borrow(call, input, fd_in)?, borrow(call, output, fd_out)?));
    }
    sync_buffers(call, input, output).map(|(_, fds)| fds)
}

fn sync_buffers<'end>(
    call: &str,
    input: &'end End,
    output: &'end End,
) -> Result<(Buffers, (BorrowedFd<'end>, BorrowedFd<'end>)), Error> {
    // Writing a buffer out may let other threads run, so what the descriptors are comes last.
    write_out(call, input, output)?;
    let mut buffers = Buffers::Clean;
    let (mut fd_in, mut fd_out) = (-1, -1);
    protect(|| {
        // SAFETY: this is under `protect`.
        unsafe {
            output.sync_buffers();
            buffers = input.sync_buffers();
            (fd_in, fd_out) = (input.fd(), output.fd());
        }
        rb_sys::Qnil as VALUE
    })?;
    Ok((buffers, (borrow(call, input, fd_in)?, borrow(call, output, fd_out)?)))
}

/// Writes out what Ruby has still to write to the output. That may wait, and closing the input ends it too.
fn write_out(call: &str, input: &End, output: &End) -> Result<(), Error> {
    let Some(io) = input.ruby_io().filter(|io| Some(*io) != output.ruby_io()) else {
        return Ok(());
    };
    if !output.has_unwritten() || gvl::alone() || gvl::scheduled() {
        return Ok(());
    }
    gvl::while_using(io.as_ptr(), descriptor_of(call, input)?.as_raw_fd(), || {
        protect(|| {
            // SAFETY: this is under `protect`.
            unsafe { output.sync_buffers() };
            rb_sys::Qnil as VALUE
        })
        .map(drop)
    })
}

/// As [`descriptors`], for a call with nothing but an output.
pub fn descriptor<'end>(
    ruby: &Ruby,
    call: &str,
    output: &'end End,
    nonblock: bool,
) -> Result<Option<BorrowedFd<'end>>, Error> {
    Ok(descriptors(ruby, call, output, output, nonblock)?.map(|(_, fd)| fd))
}

/// The descriptor of one end, if it is open.
pub fn descriptor_of<'end>(call: &str, end: &'end End) -> Result<BorrowedFd<'end>, Error> {
    if let Some(fd) = end.descriptor_if_open() {
        end.check_tls(call, fd)?;
        return Ok(fd);
    }
    let mut fd = -1;
    protect(|| {
        // SAFETY: it runs under `protect`.
        fd = unsafe { end.fd() };
        rb_sys::Qnil as VALUE
    })?;
    borrow(call, end, fd)
}

#[inline(always)]
fn borrow<'end>(call: &str, end: &'end End, fd: RawFd) -> Result<BorrowedFd<'end>, Error> {
    if fd < 0 {
        return Err(error::errno(Errno::BADF, call, Some(&format!("{fd} is not a file descriptor"))));
    }
    // SAFETY: a number that is not negative, of an end that is borrowed as long. That it is open the kernel checks; for how
    // long it stays open, see `descriptors`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    end.check_tls(call, fd)?;
    Ok(fd)
}

fn is_integer(value: Value) -> bool {
    magnus::value::Fixnum::from_value(value).is_some() || magnus::RBignum::from_value(value).is_some()
}

/// Whether it is a TLS socket of any kind, the `to_io` of which would let bytes leave in the clear. Each of them, also behind
/// a Delegator, knows its peer's certificate.
fn encrypts(value: Value) -> Result<bool, Error> {
    Ok(value.respond_to("peer_cert", false)? || value.respond_to("peercert", false)?)
}

/// The socket below, if the kernel encrypts for it on this side, and nothing waits in the library.
fn tls_socket(ruby: &Ruby, value: Value, side: Side) -> Result<VALUE, Error> {
    let copying = ruby.class_io().const_get::<_, RModule>("Splice")?.const_get::<_, RModule>("Copying")?;
    let io: Value = copying.funcall("tls_socket", (value, side == Side::Output))?;
    if !is_io(io) {
        // SAFETY: the name is copied at once, while `value` is alive.
        let class = unsafe { value.classname() }.into_owned();
        return Err(error::wrong_type(
            ruby,
            format!("a {class} encrypts what goes through it: the kernel would move the bytes unencrypted"),
        ));
    }
    Ok(io.as_raw())
}

fn to_io(value: Value) -> Result<VALUE, Error> {
    // SAFETY: it raises what it has against `value`; the name and the method end in NUL.
    protect(|| unsafe {
        rb_sys::rb_convert_type(value.as_raw(), rb_sys::RUBY_T_FILE as _, c"IO".as_ptr(), c"to_io".as_ptr())
    })
}

/// Keeps the conservative garbage collector from missing an IO that only an [`End`] still names.
pub fn keep_alive(end: &End) {
    std::hint::black_box(end);
}
