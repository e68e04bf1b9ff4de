//! The `IO.copy_stream` of `io/splice/core_ext`: does what Ruby's own does before it copies, and asks objects the same
//! questions in the same order.

use std::ffi::c_int;

use io_splice_core::{OPEN_SOURCE, OPEN_TARGET};
use magnus::rb_sys::{AsRawId, AsRawValue, FromRawValue, protect};
use magnus::value::{Fixnum, LazyId, ReprValue};
use magnus::{Error, RModule, RString, Ruby, Value, function};
use rb_sys::VALUE;

use crate::copy::{Extent, copy};
use crate::opened::Opened;
use crate::reentry::once;
use crate::ruby_io::{check_reader, is_io, prepare_writer};

/// Ruby's own, which stays reachable under this name.
static RUBYS_OWN: LazyId = LazyId::new("ruby_copy_stream");
static TO_PATH: LazyId = LazyId::new("to_path");

/// `define_copy_stream(module)`
pub fn define_copy_stream(ruby: &Ruby, module: RModule) -> Result<(), Error> {
    LazyId::force(&RUBYS_OWN, ruby);
    LazyId::force(&TO_PATH, ruby);
    type Method = unsafe extern "C" fn(c_int, *const VALUE, VALUE) -> VALUE;
    // SAFETY: Ruby calls it with the arguments that belong to an arity of -1; the name ends in NUL.
    protect(|| unsafe {
        let method = std::mem::transmute::<Method, unsafe extern "C" fn() -> VALUE>(copy_stream);
        rb_sys::rb_define_method(module.as_raw(), c"copy_stream".as_ptr(), Some(method), -1);
        rb_sys::Qnil as VALUE
    })
    .map(drop)
}

/// `copy_stream(src, dst, copy_length = nil, src_offset = nil)`
///
/// A small copy of an object takes hardly longer than a `protect`. So what Ruby raises passes through this frame, in which
/// nothing has to be dropped.
///
/// # Safety
///
/// It is called by Ruby, as a method: `argv` holds `argc` values.
unsafe extern "C" fn copy_stream(argc: c_int, argv: *const VALUE, io: VALUE) -> VALUE {
    // SAFETY: it is a thread of Ruby's, with the GVL, and `argv` is as said above; a `Value` is nothing but a VALUE. The
    // function that magnus has wrapped lets no panic out.
    unsafe {
        let ruby = Ruby::get_unchecked();
        let args = std::slice::from_raw_parts(argv.cast::<Value>(), argc as usize);
        if extent(args).is_some() && is_file_or_path(&ruby, args[0]) && is_file_or_path(&ruby, args[1]) {
            return function!(copy_files, -1)(argc, argv.cast(), ruby.qnil().as_value()).as_raw();
        }
        rb_sys::rb_funcallv(io, LazyId::get_inner_with(&RUBYS_OWN, &ruby).as_raw(), argc, argv)
    }
}

/// Whether Ruby's own uses it by its descriptor.
///
/// # Safety
///
/// It runs Ruby code, which may raise: nothing in the frames above must have to be dropped.
unsafe fn is_file_or_path(ruby: &Ruby, end: Value) -> bool {
    if is_io(end) || RString::from_value(end).is_some() {
        return true;
    }
    // SAFETY: the caller is ready for what it raises.
    unsafe { rb_sys::rb_respond_to(end.as_raw(), LazyId::get_inner_with(&TO_PATH, ruby).as_raw()) != 0 }
}

/// What the arguments say of the length and the offset; `None` if they are not plain numbers, or not as many as there have to
/// be.
fn extent(args: &[Value]) -> Option<Extent> {
    if !(2..=4).contains(&args.len()) {
        return None;
    }
    let plain = |index: usize| match args.get(index) {
        Some(number) if !number.is_nil() => {
            Some(Some(u64::try_from(Fixnum::from_value(*number)?.to_i64()).ok()?))
        }
        _ => Some(None),
    };
    Some(Extent { len: plain(2)?, offset: plain(3)?, as_rubys: true })
}

fn copy_files(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    let Some(extent) = extent(args) else { return Ok(0) };
    with_end(ruby, args[0], OPEN_SOURCE, check_reader, |src| {
        with_end(ruby, args[1], OPEN_TARGET, prepare_writer, |dst| copy(ruby, [src, dst], extent, None))
    })
}

/// Hands over an IO, or the file at a path, which is closed afterwards.
fn with_end<R>(
    ruby: &Ruby,
    end: Value,
    flags: i32,
    prepare: impl FnOnce(Value) -> Result<(), Error>,
    use_end: impl FnOnce(Value) -> Result<R, Error>,
) -> Result<R, Error> {
    let io = if is_io(end) { end } else { once(ruby, || to_io(end))? };
    if !io.is_nil() {
        prepare(io)?;
        return use_end(io);
    }
    Opened::with(ruby, end, flags, use_end)
}

/// What `IO.try_convert` makes of it, an IO or nil.
fn to_io(end: Value) -> Result<Value, Error> {
    // SAFETY: it may run Ruby code, which may raise: this is under `protect`.
    let io = protect(|| unsafe { rb_sys::rb_io_check_io(end.as_raw()) })?;
    // SAFETY: it is what Ruby has just returned.
    Ok(unsafe { Value::from_raw(io) })
}
