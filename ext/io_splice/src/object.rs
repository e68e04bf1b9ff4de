//! Objects that are copied through their own methods, and the strings that go in and out of them.
//!
//! A small copy of an object takes hardly longer than a few `protect`s. So some functions here are `unsafe` only because
//! they may raise: call them under `protect`, with nothing to drop in the frames between.

use std::ffi::c_int;

use io_splice_core::Side;
use magnus::rb_sys::{AsRawId, AsRawValue, FromRawValue, protect, resume_error};
use magnus::value::{Fixnum, LazyId, ReprValue};
use magnus::{Error, RBignum, RString, Ruby, Value};
use rb_sys::VALUE;

use crate::pages::Pages;
use crate::ruby_io::is_io;
use crate::{error, io_buffer};

static TO_PATH: LazyId = LazyId::new("to_path");
static TO_IO: LazyId = LazyId::new("to_io");
static READPARTIAL: LazyId = LazyId::new("readpartial");
static READ: LazyId = LazyId::new("read");
static WRITE: LazyId = LazyId::new("write");
static OPENSSL: LazyId = LazyId::new("OpenSSL");
static SSL: LazyId = LazyId::new("SSL");
static SSL_SOCKET: LazyId = LazyId::new("SSLSocket");
static OWNER: LazyId = LazyId::new("owner");
static EXTERNAL_ENCODING: LazyId = LazyId::new("external_encoding");

/// Looks up the names. Later an interrupt could come in between, and be a panic.
pub fn init(ruby: &Ruby) {
    let called = [&TO_PATH, &TO_IO, &READPARTIAL, &READ, &WRITE, &OWNER, &EXTERNAL_ENCODING];
    for name in called.into_iter().chain([&OPENSSL, &SSL, &SSL_SOCKET]) {
        LazyId::force(name, ruby);
    }
}

/// How an end of a copy is used.
#[derive(Clone, Copy)]
pub enum Used {
    /// By its descriptor: an IO or an Integer.
    Descriptor(Value),
    /// By its path, which is a String.
    Path(Value),
    /// Through methods of its own, or as `IO::Splice::Pages`; of a source, by `read` and not by `readpartial`.
    Object(Value, bool),
}

impl Used {
    /// Asks a source and a target how they are used, and whether one of them is a TLS socket. Nothing is opened.
    pub fn ask_both(ruby: &Ruby, src: Value, dst: Value) -> Result<([Self; 2], bool), Error> {
        // SAFETY: there is nothing to be dropped.
        protected(|| unsafe {
            let src = Self::ask(ruby, src, Side::Input)?;
            let dst = Self::ask(ruby, dst, Side::Output)?;
            let is_tls = |used| matches!(used, Self::Object(object, _) if is_tls_socket(ruby, object));
            Ok(([src, dst], is_tls(src) || is_tls(dst)))
        })
    }

    unsafe fn ask(ruby: &Ruby, end: Value, side: Side) -> Result<Self, Error> {
        if is_io(end) || is_integer(end) {
            return Ok(Self::Descriptor(end));
        }
        if side == Side::Input && Pages::from_value(end).is_some() {
            return Ok(Self::Object(end, false));
        }
        if io_buffer::is_buffer(end) {
            let message = "an IO::Buffer has no read and write as an IO has them: copy from IO::Splice::Pages.new(buffer)";
            return Err(error::wrong_type(ruby, message));
        }
        // SAFETY: it is called as said above.
        unsafe {
            if let Some(path) = path(ruby, end) {
                return if responds(ruby, end, &TO_IO) { io_behind(ruby, end) } else { Ok(file_path(path)) };
            }
            match side {
                Side::Input if responds(ruby, end, &READPARTIAL) => Ok(Self::Object(end, false)),
                Side::Input if responds(ruby, end, &READ) => Ok(Self::Object(end, true)),
                Side::Output if responds(ruby, end, &WRITE) => Ok(Self::Object(end, false)),
                _ if is_only_io(ruby, end) => io_behind(ruby, end),
                _ => Err(not_an_end(ruby, end, side)),
            }
        }
    }

    /// What is used, unless that is an object.
    fn value(self) -> Option<Value> {
        match self {
            Self::Descriptor(value) | Self::Path(value) => Some(value),
            Self::Object(..) => None,
        }
    }
}

/// `tls?(end)`: whether it is an `OpenSSL::SSL::SSLSocket`.
pub fn is_tls(ruby: &Ruby, end: Value) -> Result<bool, Error> {
    // SAFETY: there is nothing to be dropped.
    protected(|| unsafe { Ok(is_tls_socket(ruby, end)) })
}

/// The same. In Ruby, `defined?(OpenSSL::SSL)` would swallow what another thread raises meanwhile.
unsafe fn is_tls_socket(ruby: &Ruby, object: Value) -> bool {
    // SAFETY: it is called as said above; what is looked up in is a class or a module.
    unsafe {
        let mut class = rb_sys::rb_cObject;
        for name in [&OPENSSL, &SSL, &SSL_SOCKET] {
            let name = LazyId::get_inner_with(name, ruby).as_raw();
            let is_module = [rb_sys::RUBY_T_CLASS, rb_sys::RUBY_T_MODULE]
                .into_iter()
                .any(|kind| rb_sys::RB_TYPE_P(class, kind));
            if !is_module || rb_sys::rb_const_defined_at(class, name) == 0 {
                return false;
            }
            class = rb_sys::rb_const_get_at(class, name);
        }
        rb_sys::rb_obj_is_kind_of(object.as_raw(), class) == rb_sys::Qtrue as VALUE
    }
}

/// `descriptor?(end)`: whether the bytes are those of a descriptor, and not of an object's own making.
pub fn is_descriptor(ruby: &Ruby, end: Value) -> Result<bool, Error> {
    // SAFETY: there is nothing to be dropped.
    protected(|| unsafe {
        Ok(is_io(end) || is_integer(end) || path(ruby, end).is_some() || is_only_io(ruby, end))
    })
}

/// `resolve_source(end)`: how it is used, as an IO, an Integer or the String of a path; nil if it has methods of its own.
pub fn resolve_source(ruby: &Ruby, end: Value) -> Result<Option<Value>, Error> {
    // SAFETY: there is nothing to be dropped.
    protected(|| unsafe { Used::ask(ruby, end, Side::Input) }).map(Used::value)
}

/// `resolve_target(end)`
pub fn resolve_target(ruby: &Ruby, end: Value) -> Result<Option<Value>, Error> {
    // SAFETY: there is nothing to be dropped.
    protected(|| unsafe { Used::ask(ruby, end, Side::Output) }).map(Used::value)
}

/// Runs what may raise. What it returns as an error is the last thing in it.
pub fn protected<R>(run: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    let mut result = None;
    protect(|| {
        result = Some(run());
        rb_sys::Qnil as VALUE
    })?;
    result.unwrap_or_else(|| unreachable!("it has returned"))
}

/// What names a file, if it is a String or has a path.
unsafe fn path(ruby: &Ruby, end: Value) -> Option<Value> {
    if RString::from_value(end).is_some() {
        return Some(end);
    }
    // SAFETY: it is called as said above.
    unsafe {
        let path = responds(ruby, end, &TO_PATH).then(|| funcall(ruby, end, &TO_PATH, &[]));
        path.filter(|path| !path.is_nil())
    }
}

unsafe fn file_path(path: Value) -> Used {
    // SAFETY: it is called as said above; and it is what Ruby has just returned.
    Used::Path(unsafe { Value::from_raw(rb_sys::rb_get_path(path.as_raw())) })
}

unsafe fn is_only_io(ruby: &Ruby, end: Value) -> bool {
    // SAFETY: it is called as said above.
    let responds = |name| unsafe { responds(ruby, end, name) };
    responds(&TO_IO) && ![&READPARTIAL, &READ, &WRITE].into_iter().any(responds)
}

unsafe fn io_behind(ruby: &Ruby, end: Value) -> Result<Used, Error> {
    // SAFETY: it is called as said above; and it is what Ruby has just returned.
    let io = unsafe { Value::from_raw(rb_sys::rb_io_check_io(end.as_raw())) };
    if io.is_nil() {
        return Err(error::wrong_type(ruby, format!("{} is not an IO: its to_io gives nil", kind(end))));
    }
    Ok(Used::Descriptor(io))
}

fn not_an_end(ruby: &Ruby, end: Value, side: Side) -> Error {
    let (role, methods) = match side {
        Side::Input => ("source", "readpartial or read"),
        Side::Output => ("target", "write"),
    };
    let kind = kind(end);
    let message = format!("{kind} cannot be a {role}: it has no descriptor, no path and no method {methods}");
    error::wrong_type(ruby, message)
}

fn kind(value: Value) -> String {
    // SAFETY: the name is copied at once, while `value` is alive.
    if value.is_nil() { "nil".to_owned() } else { format!("a {}", unsafe { value.classname() }) }
}

fn is_integer(value: Value) -> bool {
    Fixnum::from_value(value).is_some() || RBignum::from_value(value).is_some()
}

unsafe fn responds(ruby: &Ruby, object: Value, name: &'static LazyId) -> bool {
    // SAFETY: it is called as said above.
    unsafe { rb_sys::rb_respond_to(object.as_raw(), LazyId::get_inner_with(name, ruby).as_raw()) != 0 }
}

unsafe fn funcall(ruby: &Ruby, object: Value, name: &'static LazyId, args: &[VALUE]) -> Value {
    let name = LazyId::get_inner_with(name, ruby).as_raw();
    // SAFETY: it is called as said above, with so many arguments; and it is what Ruby has just returned.
    unsafe {
        Value::from_raw(rb_sys::rb_funcallv_public(object.as_raw(), name, args.len() as _, args.as_ptr()))
    }
}

/// Bytes that a source has given and that no target has taken yet: a part of a String, which nothing changes meanwhile.
///
/// The String is one that the copy has for itself and reuses, or frozen. It lives on the stack only, which is where the
/// garbage collector finds it.
#[derive(Clone, Copy)]
pub struct Portion {
    string: VALUE,
    start: usize,
    end: usize,
}

impl Portion {
    /// All bytes of a String.
    fn new(string: VALUE) -> Self {
        // SAFETY: it is a String.
        Self { string, start: 0, end: unsafe { rb_sys::RSTRING_LEN(string) } as usize }
    }

    /// Those bytes.
    pub fn copy(bytes: &[u8]) -> Result<Self, Error> {
        new_string(bytes).map(|string| Self::new(string.as_raw()))
    }

    /// Those bytes, where they are. Ruby code cannot get hold of the String.
    ///
    /// # Safety
    ///
    /// They must stay as they are as long as the portion is used.
    pub unsafe fn lent(bytes: &[u8]) -> Result<Self, Error> {
        // SAFETY: the bytes are looked at by the portion only.
        let string = protect(|| unsafe {
            let string = rb_sys::rb_str_new_static(bytes.as_ptr().cast(), bytes.len() as _);
            rb_sys::rb_obj_hide(rb_sys::rb_obj_freeze(string))
        })?;
        Ok(Self::new(string))
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A target has taken so many of them.
    pub fn remove(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Takes off what is more than `most` bytes.
    pub fn split_off(&mut self, most: u64) -> Option<Self> {
        let surplus = (self.len() as u64).saturating_sub(most) as usize;
        let end = self.end;
        self.end -= surplus;
        (surplus > 0).then_some(Self { start: self.end, end, ..*self })
    }

    /// These and the bytes that were [split off](Portion::split_off).
    pub fn joined(self, behind: Self) -> Self {
        Self { end: behind.end, ..self }
    }

    /// A new String of them.
    pub fn to_string(self) -> Result<RString, Error> {
        // SAFETY: Ruby copies them before anything else runs.
        new_string(unsafe { self.bytes() })
    }

    /// The bytes themselves.
    ///
    /// # Safety
    ///
    /// The String must stay as it is as long as they are used, and alive.
    unsafe fn bytes<'portion>(&self) -> &'portion [u8] {
        // SAFETY: it is a String, and the rest is for the caller to see to.
        let bytes = unsafe {
            let len = rb_sys::RSTRING_LEN(self.string) as usize;
            std::slice::from_raw_parts(rb_sys::RSTRING_PTR(self.string).cast(), len)
        };
        // A source may have made its String shorter.
        bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// Hands over the bytes while nobody can change them, also without the GVL.
    pub fn locked<R>(&self, use_bytes: impl FnOnce(&[u8]) -> R) -> Result<R, Error> {
        // SAFETY: it is a String.
        let is_frozen = unsafe { Value::from_raw(self.string) }.is_frozen();
        if !is_frozen {
            // SAFETY: it is a String. When somebody else has locked it, that is the error.
            protect(|| unsafe { rb_sys::rb_str_locktmp(self.string) })?;
        }
        // SAFETY: the String is locked, or frozen.
        let result = use_bytes(unsafe { self.bytes() });
        if !is_frozen {
            // SAFETY: of a String that is locked it raises nothing.
            unsafe { rb_sys::rb_str_unlocktmp(self.string) };
        }
        std::hint::black_box(self);
        Ok(result)
    }
}

/// A String of these bytes.
pub fn new_string(bytes: &[u8]) -> Result<RString, Error> {
    // SAFETY: Ruby copies the bytes; for want of memory it raises.
    let string = protect(|| unsafe { rb_sys::rb_str_new(bytes.as_ptr().cast(), bytes.len() as _) })?;
    // SAFETY: it is what Ruby has just returned.
    magnus::TryConvert::try_convert(unsafe { Value::from_raw(string) })
}

/// Memory that a copy has for itself, and fills anew for each portion: a String.
#[derive(Default)]
pub struct Buffer(Option<VALUE>);

impl Buffer {
    /// Lets `fill` fill up to `size` bytes and say how many those are, which become the portion.
    pub fn fill<R>(
        &mut self,
        size: usize,
        portion: &mut Option<Portion>,
        fill: impl FnOnce(&mut [u8]) -> (usize, R),
    ) -> Result<R, Error> {
        let string = self.locked_with_room(size)?;
        // SAFETY: the String has memory of its own, and room for so many bytes. It is locked, and no Ruby code looks at what
        // is behind its end. `fill` only writes there.
        let (filled, result) = fill(unsafe {
            std::slice::from_raw_parts_mut(rb_sys::RSTRING_PTR(string).cast_mut().cast(), size)
        });
        // SAFETY: of a String that is locked the first raises nothing, nor does the second of one that is not any more. So
        // many bytes were written.
        unsafe {
            rb_sys::rb_str_unlocktmp(string);
            rb_sys::rb_str_set_len(string, filled.min(size) as _);
        }
        *portion = (filled > 0).then(|| Portion::new(string));
        Ok(result)
    }

    fn locked_with_room(&mut self, size: usize) -> Result<VALUE, Error> {
        // SAFETY: it is a String. What is raised is the error, also when somebody else has locked it.
        protect(|| unsafe {
            let own = self.0.filter(|string| {
                // A target may have made a part of it a String of its own, which has the same memory.
                rb_sys::rb_str_modify(*string);
                rb_sys::rb_str_capacity(*string) as usize >= size
            });
            rb_sys::rb_str_locktmp(*self.0.insert(own.unwrap_or_else(|| rb_sys::rb_str_buf_new(size as _))))
        })
    }

    /// The String, for an object to fill.
    unsafe fn string(&mut self) -> VALUE {
        // SAFETY: it is called as said above.
        *self.0.get_or_insert_with(|| unsafe { rb_sys::rb_str_new(std::ptr::null(), 0) })
    }

    /// Gives the memory back at once. Left to the garbage collector, many small copies would cost it more than the copies.
    pub fn release(&mut self) {
        // SAFETY: it is a String.
        let is_short = |string| unsafe { rb_sys::rb_str_capacity(string) as usize } < SHORT;
        if let Some(string) = self.0.take().filter(|string| !is_short(*string)) {
            // SAFETY: it is a String. An object may have frozen it, and may keep it then.
            let _ = protect(|| unsafe { rb_sys::rb_str_resize(string, 0) });
        }
    }
}

/// An object that is read from.
#[derive(Clone, Copy)]
pub struct SourceObject {
    object: Value,
    by_read: bool,
}

impl SourceObject {
    pub fn new(object: Value, by_read: bool) -> Self {
        Self { object, by_read }
    }

    /// Takes the next bytes, about `most` of them, as the portion; `false` at the end.
    pub unsafe fn read(
        self,
        ruby: &Ruby,
        most: u64,
        buffer: &mut Buffer,
        portion: &mut Option<Portion>,
    ) -> bool {
        let name = if self.by_read { &READ } else { &READPARTIAL };
        // SAFETY: it is called as said above.
        unsafe {
            let own = buffer.string();
            let args = [ruby.integer_from_u64(most).as_raw(), own];
            let given = funcall(ruby, self.object, name, &args);
            if given.is_nil() {
                return false;
            }
            let string = if RString::from_value(given).is_some() { given.as_raw() } else { own };
            if rb_sys::RSTRING_LEN(string) == 0 {
                // It may give nothing for ever.
                rb_sys::rb_thread_check_ints();
                return !self.by_read;
            }
            // Somebody else's is copied as soon as it is changed.
            let string = if string == own { own } else { rb_sys::rb_str_new_frozen(string) };
            *portion = Some(Portion::new(string));
        }
        true
    }

    pub fn object(self) -> Value {
        self.object
    }
}

/// An object that is written to.
pub struct TargetObject {
    object: Value,
    /// Once that is known: the encoding of what it neither keeps nor changes, if it does neither.
    keeps_nothing_in: Option<Option<c_int>>,
    /// How much it is to be given at once.
    most: u64,
}

/// Whose `write` neither keeps nor changes what it is given, by name: not all of them are loaded.
const KEEP_NOTHING: [&[u8]; 3] = [STRING_IO, b"Zlib::GzipWriter", TLS];
const STRING_IO: &[u8] = b"StringIO";
const TLS: &[u8] = b"OpenSSL::Buffering";

/// What a record of TLS holds. `write` of more copies what does not fit into the first one once more.
const RECORD: u64 = 16 << 10;

/// A shorter String is rather copied than looked after.
const SHORT: usize = 8 << 10;

impl TargetObject {
    pub fn new(object: Value) -> Self {
        Self { object, keeps_nothing_in: None, most: u64::MAX }
    }

    /// How much it is to be given at once, as far as that is known.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Writes a portion, and removes from it what the object says that it has taken. The object may keep the String that it
    /// is given, and change it.
    pub unsafe fn write(
        &mut self,
        ruby: &Ruby,
        portion: &mut Portion,
        buffer: &mut Buffer,
    ) -> Result<(), Error> {
        // SAFETY: it is called as said above.
        let written = unsafe {
            let string = self.string_for(ruby, portion, buffer);
            funcall(ruby, self.object, &WRITE, &[string])
        };
        match count(written) {
            Some(bytes) => portion.remove(bytes.min(portion.len())),
            None => {
                let message = format!("write returned {}, expected a byte count", kind(written));
                return Err(error::wrong_type(ruby, message));
            }
        }
        // SAFETY: the same.
        unsafe { rb_sys::rb_thread_check_ints() };
        Ok(())
    }

    unsafe fn string_for(&mut self, ruby: &Ruby, portion: &Portion, buffer: &mut Buffer) -> VALUE {
        let string = portion.string;
        // SAFETY: it is called as said above, with a String. Whoever changes one of two that share memory gets memory of
        // its own.
        unsafe {
            let whole = portion.len() == rb_sys::RSTRING_LEN(string) as usize;
            if whole && portion.len() >= SHORT {
                if let Some(encoding) = self.keeps_nothing_in(ruby) {
                    return encoded(string, encoding);
                }
            }
            // What shares memory that is mostly empty would keep all of it.
            if whole && portion.len() >= rb_sys::rb_str_capacity(string) as usize / 2 {
                buffer.0 = None;
                return encoded(rb_sys::rb_str_resurrect(string), rb_sys::rb_ascii8bit_encindex());
            }
            let bytes = portion.bytes();
            rb_sys::rb_str_new(bytes.as_ptr().cast(), bytes.len() as _)
        }
    }

    unsafe fn keeps_nothing_in(&mut self, ruby: &Ruby) -> Option<c_int> {
        if let Some(known) = self.keeps_nothing_in {
            return known;
        }
        // SAFETY: it is called as said above.
        let owner = unsafe { owner_of_write(ruby, self.object) };
        // SAFETY: the same.
        let encoding_in = |owner| unsafe {
            // A StringIO in UTF-8 dups what is not, to convert it, and the two share memory then.
            let encoding = (owner == STRING_IO).then(|| funcall(ruby, self.object, &EXTERNAL_ENCODING, &[]));
            let utf_8 = rb_sys::rb_utf8_encindex();
            let is_utf_8 = |encoding: Value| rb_sys::rb_to_encoding_index(encoding.as_raw()) == utf_8;
            if encoding.is_some_and(is_utf_8) { utf_8 } else { rb_sys::rb_ascii8bit_encindex() }
        };
        if owner == Some(TLS) {
            self.most = RECORD;
        }
        let known = owner.filter(|owner| KEEP_NOTHING.contains(owner)).map(encoding_in);
        self.keeps_nothing_in = Some(known);
        known
    }
}

/// The name of the class or module that an object has its `write` from. It is looked at before Ruby runs again.
unsafe fn owner_of_write<'name>(ruby: &Ruby, object: Value) -> Option<&'name [u8]> {
    let write = ruby.sym_new("write").as_raw();
    // SAFETY: what it raises is the error.
    match protect(|| unsafe { rb_sys::rb_obj_method(object.as_raw(), write) }) {
        // SAFETY: it is called as said above; the owner of a method is a Module, which keeps its name.
        Ok(method) => unsafe {
            let owner = funcall(ruby, Value::from_raw(method), &OWNER, &[]);
            let name = RString::from_value(Value::from_raw(rb_sys::rb_mod_name(owner.as_raw())))?;
            Some(std::slice::from_raw_parts(name.as_slice().as_ptr(), name.len()))
        },
        Err(error) if error.is_kind_of(ruby.exception_name_error()) => None,
        // SAFETY: it is called as said above.
        Err(error) => unsafe { resume_error(error) },
    }
}

/// The String if it is in that encoding, or one of the same bytes that is: a target is not to convert them.
unsafe fn encoded(string: VALUE, encoding: c_int) -> VALUE {
    // SAFETY: it is called as said above, with a String; the new one is not frozen.
    unsafe {
        if rb_sys::rb_enc_get_index(string) == encoding {
            return string;
        }
        let is_frozen = Value::from_raw(string).is_frozen();
        let own = if is_frozen { rb_sys::rb_str_resurrect(string) } else { string };
        rb_sys::rb_enc_associate_index(own, encoding)
    }
}

/// What `write` says that it has taken.
fn count(written: Value) -> Option<usize> {
    match Fixnum::from_value(written) {
        Some(number) => usize::try_from(number.to_i64()).ok(),
        // Nobody has taken so much, and what is more than all is all.
        None => RBignum::from_value(written).filter(|number| number.is_positive()).map(|_| usize::MAX),
    }
}

/// Whether it is an error such as an end of a copy has.
pub fn is_from_an_end(ruby: &Ruby, error: &Error) -> bool {
    error.is_kind_of(ruby.exception_io_error()) || error.is_kind_of(ruby.exception_system_call_error())
}
