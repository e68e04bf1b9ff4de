use io_splice_core::{Errno, Flags};
use magnus::rb_sys::AsRawValue;
use magnus::value::{Fixnum, ReprValue};
use magnus::{Error, RBignum, Ruby, Value};

use crate::error;

enum Number {
    Fits(i64),
    TooLarge,
    TooSmall,
}

/// An Integer and nothing that would have to be converted, so no Ruby code runs here.
#[inline(always)]
fn integer(ruby: &Ruby, name: &str, value: Value) -> Result<Number, Error> {
    if let Some(fixnum) = Fixnum::from_value(value) {
        return Ok(Number::Fits(fixnum.to_i64()));
    }
    match RBignum::from_value(value) {
        Some(bignum) => Ok(of_bignum(bignum)),
        None => Err(error::no_conversion(ruby, name, value, "Integer")),
    }
}

/// No exception says that it does not fit: an interrupt that comes while Ruby makes one would be taken for it.
fn of_bignum(bignum: RBignum) -> Number {
    let mut bits = 0_i64;
    let format = rb_sys::INTEGER_PACK_2COMP
        | rb_sys::INTEGER_PACK_LSWORD_FIRST
        | rb_sys::INTEGER_PACK_NATIVE_BYTE_ORDER;
    // SAFETY: it is an Integer, and there is room for one word of eight bytes.
    let sign =
        unsafe { rb_sys::rb_integer_pack(bignum.as_raw(), (&raw mut bits).cast(), 1, 8, 0, format as _) };
    match (sign, bits) {
        (1, 0..) | (-1, ..0) => Number::Fits(bits),
        (1.., _) => Number::TooLarge,
        _ => Number::TooSmall,
    }
}

/// A length in bytes, at least 0. What is larger than any call takes is clamped.
#[inline(always)]
pub fn length(ruby: &Ruby, name: &str, value: Value) -> Result<usize, Error> {
    match integer(ruby, name, value)? {
        Number::Fits(len) if len >= 0 => Ok(len as usize),
        Number::TooLarge => Ok(usize::MAX),
        _ => Err(error::argument(ruby, format!("negative {name} {} given", error::text(value)?))),
    }
}

/// An offset in bytes, at least 0, or nil.
#[inline(always)]
pub fn offset(ruby: &Ruby, name: &str, value: Value) -> Result<Option<u64>, Error> {
    if value.is_nil() {
        return Ok(None);
    }
    match integer(ruby, name, value)? {
        Number::Fits(offset) if offset >= 0 => Ok(Some(offset as u64)),
        Number::TooLarge => {
            Err(error::range(ruby, format!("{name}: {} exceeds the range of offsets", error::text(value)?)))
        }
        _ => Err(error::argument(ruby, format!("{name}: negative offset {} given", error::text(value)?))),
    }
}

/// The flags of a call; nil is none. Bits without a meaning are `EINVAL`.
pub fn flags(ruby: &Ruby, call: &str, value: Option<Value>) -> Result<Flags, Error> {
    let Some(value) = value.filter(|value| !value.is_nil()) else {
        return Ok(Flags::NONE);
    };
    let bits = match integer(ruby, "flags", value)? {
        Number::Fits(bits) => u32::try_from(bits).ok(),
        _ => None,
    };
    match bits.and_then(|bits| Flags::from_bits(bits).ok()) {
        Some(flags) => Ok(flags),
        None => {
            let why = format!("unknown bits in the flags {}", error::text(value)?);
            Err(error::errno(Errno::INVAL, call, Some(&why)))
        }
    }
}

/// A descriptor's number. A negative one is no descriptor.
pub fn descriptor(ruby: &Ruby, value: Value) -> Result<i32, Error> {
    let number = match integer(ruby, "io", value)? {
        Number::Fits(number) => i32::try_from(number).ok(),
        _ => None,
    };
    match number {
        Some(number) => Ok(number),
        None => {
            Err(error::range(ruby, format!("{} is too large for a file descriptor", error::text(value)?)))
        }
    }
}

/// A pipe's capacity in bytes.
pub fn capacity(ruby: &Ruby, value: Value) -> Result<usize, Error> {
    match integer(ruby, "pipe_size", value)? {
        Number::Fits(size) if size >= 0 => Ok(size as usize),
        Number::TooLarge => Ok(usize::MAX),
        _ => {
            let why = format!("{} is negative", error::text(value)?);
            Err(error::errno(Errno::INVAL, "pipe_size=", Some(&why)))
        }
    }
}
