//! `IO::Splice::Pages`

use std::ops::Range;
use std::sync::Arc;

use io_splice_core::{Errno, PageSlice};
use magnus::encoding::{EncodingCapable, Index};
use magnus::rb_sys::protect;
use magnus::typed_data::Obj;
use magnus::value::ReprValue;
use magnus::{DataTypeFunctions, Error, RClass, RString, RTypedData, Ruby, TryConvert, TypedData, Value};

use crate::frozen::frozen_copy;
use crate::{error, gvl, io_buffer, number};

/// Bytes in pages that others may share.
#[derive(TypedData, Clone)]
#[magnus(class = "IO::Splice::Pages", free_immediately, size, frozen_shareable)]
pub struct Pages {
    memory: Arc<Memory>,
    range: Range<usize>,
    encoding: Index,
}

impl DataTypeFunctions for Pages {
    fn size(&self) -> usize {
        size_of_val(self) + self.range.len()
    }
}

/// The pages themselves, of which the garbage collector knows.
struct Memory(io_splice_core::Pages);

impl Memory {
    fn new(ruby: &Ruby, value: Value) -> Result<Self, Error> {
        let pages = match copy(value)? {
            // It may be that others are only waiting to be collected.
            Err(Errno::NOMEM) => {
                ruby.gc_start();
                copy(value)?
            }
            pages => pages,
        };
        let memory = Self(pages.map_err(|errno| error::no_memory(ruby, errno))?);
        ruby.gc_adjust_memory_usage(memory.0.size() as isize);
        protect(|| {
            // SAFETY: it is freed at once. What was said above only counts from the next allocation on, and
            // where there is nothing but these objects, that is too late.
            unsafe { rb_sys::ruby_xfree(rb_sys::ruby_xmalloc(1)) };
            rb_sys::Qnil as rb_sys::VALUE
        })?;
        Ok(memory)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: that it has become less is only counted; the garbage collector may be told so by those that
        // it frees.
        unsafe { rb_sys::rb_gc_adjust_memory_usage(-(self.0.size() as rb_sys::ssize_t)) };
    }
}

/// From here on other threads do not wait for the copying of a string.
const LONG: usize = 256 << 10;

/// Copies what a String or a buffer holds into pages.
fn copy(value: Value) -> Result<io_splice_core::Result<io_splice_core::Pages>, Error> {
    // SAFETY: they are copied at once, or only their number is looked at.
    let bytes = unsafe { bytes_of(value)? };
    if bytes.len() < LONG || gvl::alone() || RString::from_value(value).is_none() {
        return Ok(io_splice_core::Pages::new(bytes));
    }
    let Some(frozen) = frozen_copy(value)? else { return Ok(io_splice_core::Pages::new(bytes)) };
    let mut pages = Err(Errno::INTR);
    // SAFETY: nobody writes to a frozen string, and one of this length has its bytes outside of the object.
    let bytes = unsafe { &*std::ptr::from_ref(frozen.as_slice()) };
    gvl::without_or_raise(|| pages = io_splice_core::Pages::new(bytes))?;
    std::hint::black_box(&frozen);
    Ok(pages)
}

/// What a String or a buffer holds.
///
/// # Safety
///
/// The bytes must not be used any more when Ruby code has run, or another thread.
unsafe fn bytes_of<'value>(value: Value) -> Result<&'value [u8], Error> {
    // SAFETY: it is the caller's to keep Ruby from running, and `value` alive.
    unsafe {
        match RString::from_value(value) {
            Some(string) => Ok(&*std::ptr::from_ref(string.as_slice())),
            None => io_buffer::bytes(value),
        }
    }
}

impl Pages {
    /// `Pages.new(data)`
    pub fn new(ruby: &Ruby, class: RClass, data: Value) -> Result<Obj<Self>, Error> {
        let (data, encoding) = if io_buffer::is_buffer(data) {
            (data, ruby.ascii8bit_encindex())
        } else {
            let string = RString::try_convert(data)?;
            (string.as_value(), string.enc_get())
        };
        let memory = Memory::new(ruby, data)?;
        let range = 0..memory.0.as_bytes().len();
        Ok(Self { memory: Arc::new(memory), range, encoding }.into_object(ruby, class))
    }

    fn into_object(self, ruby: &Ruby, class: RClass) -> Obj<Self> {
        let pages = ruby.obj_wrap_as(self, class);
        pages.freeze();
        pages
    }

    /// The pages behind an object, if it is of this kind.
    pub fn from_value(value: Value) -> Option<Self> {
        let data = RTypedData::from_value(value)?;
        // To ask `get` alone would make an exception of each object that is something else.
        let is_pages = data.is_kind_of(<Self as TypedData>::class(&Ruby::get_with(value)));
        is_pages.then(|| data.get::<Self>().ok().cloned()).flatten()
    }

    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Without the first `skip` bytes.
    pub fn from(&self, skip: usize) -> PageSlice<'_> {
        self.memory.0.slice(self.range.start + skip..self.range.end)
    }

    /// The bytes, which stay as they are.
    pub fn bytes(&self) -> &[u8] {
        &self.memory.0.as_bytes()[self.range.clone()]
    }

    /// `to_s`
    pub fn to_s(ruby: &Ruby, pages: &Self) -> Result<RString, Error> {
        let string = ruby.str_from_slice(pages.bytes());
        string.enc_associate(pages.encoding)?;
        Ok(string)
    }

    /// `slice(offset, length = …)`
    pub fn slice(ruby: &Ruby, pages: Obj<Self>, args: &[Value]) -> Result<Obj<Self>, Error> {
        error::check_arity(ruby, args.len(), 1..=2)?;
        let offset = number::length(ruby, "offset", args[0])?;
        let len = match args.get(1) {
            Some(len) => number::length(ruby, "length", *len)?,
            None => pages.len().saturating_sub(offset),
        };
        let end = offset.checked_add(len).filter(|&end| end <= pages.len()).ok_or_else(|| {
            let (offset, bytes) = (args[0], pages.len());
            error::argument(ruby, format!("slice out of range: {len} bytes at {offset}, size {bytes}"))
        })?;
        let start = pages.range.start;
        let slice = Self { range: start + offset..start + end, ..Self::clone(&pages) };
        Ok(slice.into_object(ruby, pages.class()))
    }

    /// `==`
    pub fn is_equal(&self, other: Value) -> bool {
        Self::from_value(other).is_some_and(|other| self.bytes() == other.bytes())
    }

    /// `hash`
    pub fn hash(&self) -> u64 {
        let bytes = self.bytes();
        // SAFETY: it reads these bytes.
        unsafe { rb_sys::rb_memhash(bytes.as_ptr().cast(), bytes.len() as _) }
    }
}
