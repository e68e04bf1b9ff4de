use std::ffi::{CStr, CString};
use std::fmt::Display;

use io_splice_core::{Errno, Side};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::Lazy;
use magnus::value::ReprValue;
use magnus::{
    Class, Error, Exception, ExceptionClass, IntoValue, Module, Object, RClass, RModule, RObject, RString,
    Ruby, TryConvert, Value,
};
use rb_sys::VALUE;

/// Makes the exception here and now. Left to magnus, it is made where an interrupt (and making an object
/// lets one in) is a panic. Here the interrupt takes the exception's place.
fn new(class: ExceptionClass, message: impl Display) -> Error {
    class.new_instance((message.to_string(),)).map_or_else(|interrupt| interrupt, Error::from)
}

/// An object as a message has it. Left to `format!`, an interrupt meanwhile would be forgotten.
pub fn text(value: Value) -> Result<String, Error> {
    let string = value.to_r_string()?;
    // SAFETY: it is copied before Ruby runs again.
    Ok(unsafe { string.to_string_lossy() }.into_owned())
}

/// The `Errno::*` for a kernel error, with the call's name and, where the number does not say it, the
/// reason: `Invalid argument - splice: neither end is a pipe`.
pub fn errno(errno: Errno, call: &str, detail: Option<&str>) -> Error {
    let message = match detail {
        Some(detail) => format!("{call}: {detail}"),
        None => call.to_owned(),
    };
    let message = CString::new(message).unwrap_or_default();
    // SAFETY: the message ends in NUL; what is raised is the error.
    made(protect(|| unsafe { rb_sys::rb_syserr_new(errno.raw_os_error(), message.as_ptr()) }))
}

/// The same, with the part of a call that has failed, and why.
pub fn errno_of(errno: Errno, call: &str, part: &str, why: Option<&str>) -> Error {
    match why {
        Some(why) => self::errno(errno, call, Some(&format!("{part}: {why}"))),
        None => self::errno(errno, call, Some(part)),
    }
}

fn made(exception: Result<VALUE, Error>) -> Error {
    // SAFETY: it is what Ruby has just returned.
    let exception =
        exception.and_then(|exception| Exception::try_convert(unsafe { Value::from_raw(exception) }));
    exception.map_or_else(|interrupt| interrupt, Error::from)
}

/// The `Errno::*` for a kernel error about the file at a path, the message in the encoding of the path.
pub fn errno_at(ruby: &Ruby, errno: Errno, call: &str, path: RString) -> Error {
    let number = errno.raw_os_error();
    // SAFETY: what is raised is the error.
    let exception =
        |message: RString| protect(|| unsafe { rb_sys::rb_syserr_new_str(number, message.as_raw()) });
    made(text_with(ruby, &format!("{call}: "), path, "").and_then(exception))
}

/// Words around a path, in the encoding of the path.
fn text_with(ruby: &Ruby, before: &str, path: RString, after: &str) -> Result<RString, Error> {
    let text = ruby.str_new(before);
    text.buf_append(path)?;
    text.cat(after);
    Ok(text)
}

/// What a call raises that must not wait, where this end is not ready: `IO::EAGAINWaitReadable` or `…Writable`.
pub fn would_block(call: &str, side: Side) -> Error {
    let message = CString::new(call).unwrap_or_default();
    let waiting = match side {
        Side::Input => rb_sys::rb_io_wait_readwrite::RB_IO_WAIT_READABLE,
        Side::Output => rb_sys::rb_io_wait_readwrite::RB_IO_WAIT_WRITABLE,
    };
    let raised = protect(|| {
        // SAFETY: it raises, and the message ends in NUL.
        unsafe { rb_sys::rb_readwrite_syserr_fail(waiting, Errno::AGAIN.raw_os_error(), message.as_ptr()) }
    });
    made(raised)
}

/// That of a file that cannot be opened, in Ruby's own words.
pub fn open(ruby: &Ruby, errno: Errno, path: Value) -> Error {
    let exception =
        ruby.exception_system_call_error().new_instance((path, errno.raw_os_error(), "rb_sysopen"));
    exception.map_or_else(|interrupt| interrupt, Error::from)
}

/// An `IOError`.
pub fn io(ruby: &Ruby, message: impl Display) -> Error {
    new(ruby.exception_io_error(), message)
}

/// The `IO::Buffer::AllocationError` for a buffer that has no memory (any more), in Ruby's own words.
pub fn null_buffer(ruby: &Ruby) -> Error {
    let buffer = ruby.class_io().const_get::<_, RClass>("Buffer");
    match buffer.and_then(|buffer| buffer.const_get::<_, ExceptionClass>("AllocationError")) {
        Ok(class) => new(class, "The buffer is not allocated!"),
        Err(error) => error,
    }
}

/// A `NoMemoryError`.
pub fn no_memory(ruby: &Ruby, errno: Errno) -> Error {
    new(ruby.exception_no_mem_error(), format!("failed to allocate memory ({errno})"))
}

/// An `ArgumentError`.
pub fn argument(ruby: &Ruby, message: impl Display) -> Error {
    new(ruby.exception_arg_error(), message)
}

/// The `ArgumentError` for a file that would be emptied before it is read.
pub fn same_file(ruby: &Ruby, call: &str, path: RString) -> Error {
    let copying =
        ruby.class_io().const_get::<_, RModule>("Splice").and_then(|splice| splice.const_get("Copying"));
    match copying.and_then(|copying: RModule| copying.const_get::<_, ExceptionClass>("SameFile")) {
        Ok(class) => text_with(ruby, &format!("{call}: "), path, " is the source itself")
            .and_then(|message| class.new_instance((message,)))
            .map_or_else(|error| error, Error::from),
        Err(error) => error,
    }
}

/// A `TypeError` in Ruby's own words.
pub fn no_conversion(ruby: &Ruby, what: &str, value: Value, into: &str) -> Error {
    // SAFETY: the name is copied at once, while `value` is alive.
    let class = unsafe { value.classname() }.into_owned();
    let class = if value.is_nil() { "nil".to_owned() } else { class };
    wrong_type(ruby, format!("{what}: no implicit conversion of {class} into {into}"))
}

/// A `TypeError`.
pub fn wrong_type(ruby: &Ruby, message: impl Display) -> Error {
    new(ruby.exception_type_error(), message)
}

/// A `RuntimeError`.
pub fn runtime(ruby: &Ruby, message: impl Display) -> Error {
    new(ruby.exception_runtime_error(), message)
}

/// A `RangeError`.
pub fn range(ruby: &Ruby, message: impl Display) -> Error {
    new(ruby.exception_range_error(), message)
}

/// An `ArgumentError` for the number of arguments, if it is not within `accepted`.
pub fn check_arity(
    ruby: &Ruby,
    given: usize,
    accepted: std::ops::RangeInclusive<usize>,
) -> Result<(), Error> {
    if accepted.contains(&given) {
        return Ok(());
    }
    let (least, most) = accepted.into_inner();
    Err(argument(ruby, format!("wrong number of arguments (given {given}, expected {least}..{most})")))
}

/// An `EOFError`.
pub fn end_of_file(ruby: &Ruby) -> Error {
    new(ruby.exception_eof_error(), "end of file reached")
}

/// `IO::TimeoutError`, for which there is a stand-in where Ruby does not have it.
pub fn timeout(ruby: &Ruby, message: &'static str) -> Error {
    let splice = ruby.class_io().const_get::<_, RModule>("Splice");
    match splice.and_then(|splice| splice.const_get::<_, ExceptionClass>("TimeoutError")) {
        Ok(class) => new(class, message),
        Err(error) => error,
    }
}

/// `IO::Splice::Cancelled`
pub fn cancelled(ruby: &Ruby) -> Error {
    let splice = ruby.class_io().const_get::<_, RModule>("Splice");
    match splice.and_then(|splice| splice.const_get::<_, ExceptionClass>("Cancelled")) {
        Ok(class) => new(class, "the transfer was cancelled"),
        Err(error) => error,
    }
}

/// The `Errno::*` that ended a transfer, which may have moved something before.
pub fn transfer(code: Errno, call: &str, why: Option<&str>, moved: usize) -> Error {
    let moved = (moved > 0).then(|| format!("after {moved} bytes"));
    let detail = [why, moved.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(", ");
    errno(code, call, Some(detail.as_str()).filter(|detail| !detail.is_empty()))
}

/// Modules that mark exceptions which came when something had moved, and that say how much.
pub static PARTIAL_WRITE: Lazy<RModule> = Lazy::new(|ruby| module(ruby, "PartialWrite"));
pub static PARTIAL_TEE: Lazy<RModule> = Lazy::new(|ruby| module(ruby, "PartialTee"));
pub static RELAYED: Lazy<RModule> = Lazy::new(|ruby| module(ruby, "Relayed"));

fn module(ruby: &Ruby, name: &str) -> RModule {
    let splice = ruby.class_io().const_get::<_, RModule>("Splice");
    splice.and_then(|splice| splice.define_module(name)).expect("IO::Splice is there")
}

/// Adds to an exception how many bytes had moved before it, if any had.
pub fn partial_write(ruby: &Ruby, error: Error, moved: u64) -> Error {
    if moved == 0 {
        return error;
    }
    mark(ruby, error, Some(&PARTIAL_WRITE), "@bytes_written", moved)
}

/// Adds to an exception of a copy to an object that it is the target's.
pub fn of_target(ruby: &Ruby, error: Error, target: Value) -> Error {
    mark(ruby, error, None, "@target", target)
}

/// Adds to an exception how many bytes a relay had moved before it, in each direction.
pub fn relayed(ruby: &Ruby, error: Error, bytes: [u64; 2]) -> Error {
    let bytes = ruby.ary_new_from_values(&bytes.map(|bytes| bytes.into_value_with(ruby)));
    mark(ruby, error, Some(&RELAYED), "@bytes_relayed", bytes)
}

/// Adds to an exception how many bytes each output had got before it, and which of them it was.
pub fn partial_tee(ruby: &Ruby, error: Error, failed: impl IntoValue, bytes: &[u64]) -> Error {
    let bytes = ruby.ary_from_iter(bytes.iter().copied());
    let error = mark(ruby, error, Some(&PARTIAL_TEE), "@bytes_written", bytes);
    mark(ruby, error, None, "@target", failed)
}

/// What is no exception, a `throw` or `Thread#kill`, cannot be marked, nor can one that is frozen.
fn mark(
    ruby: &Ruby,
    error: Error,
    with: Option<&'static Lazy<RModule>>,
    name: &str,
    value: impl IntoValue,
) -> Error {
    // For one that is frozen Ruby would make another, whose message asks it for its `inspect`.
    let exception = error.value().filter(|exception| !exception.is_frozen()).and_then(Exception::from_value);
    if let Some(exception) = exception.and_then(|exception| RObject::from_value(exception.as_value())) {
        // No Ruby code runs here, so no interrupt can come either.
        let extended = with.map_or(Ok(()), |with| exception.extend_object(ruby.get_inner(with)));
        let _ = extended.and_then(|()| exception.ivar_set(name, value));
    }
    error
}

/// Writes a warning to where Ruby's own go.
pub fn warn(message: &CStr) -> Result<(), Error> {
    // SAFETY: the format takes one string that ends in NUL. It may run Ruby code, which may raise.
    protect(|| unsafe {
        rb_sys::rb_warn(c"%s".as_ptr(), message.as_ptr());
        rb_sys::Qnil as _
    })
    .map(drop)
}
