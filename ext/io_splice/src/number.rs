use io_splice_core::{Errno, Flags};
use magnus::value::{Fixnum, ReprValue};
use magnus::{Error, RBignum, Ruby, Value};

use crate::error;

enum Number {
    Fits(i64),
    TooLarge,
    TooSmall,
}

/// An Integer and nothing that would have to be converted, so no Ruby code runs here.
fn integer(ruby: &Ruby, name: &str, value: Value) -> Result<Number, Error> {
    if let Some(fixnum) = Fixnum::from_value(value) {
        return Ok(Number::Fits(fixnum.to_i64()));
    }
    match RBignum::from_value(value) {
        Some(bignum) => Ok(match bignum.to_i64() {
            Ok(number) => Number::Fits(number),
            Err(_) if bignum.is_positive() => Number::TooLarge,
            Err(_) => Number::TooSmall,
        }),
        None => Err(error::no_conversion(ruby, name, value, "Integer")),
    }
}

/// A length in bytes, at least 0. What is larger than any call takes is clamped.
pub fn length(ruby: &Ruby, name: &str, value: Value) -> Result<usize, Error> {
    match integer(ruby, name, value)? {
        Number::Fits(len) if len >= 0 => Ok(len as usize),
        Number::TooLarge => Ok(usize::MAX),
        _ => Err(error::argument(ruby, format!("negative {name} {value} given"))),
    }
}

/// An offset in bytes, at least 0, or nil.
pub fn offset(ruby: &Ruby, name: &str, value: Value) -> Result<Option<u64>, Error> {
    if value.is_nil() {
        return Ok(None);
    }
    match integer(ruby, name, value)? {
        Number::Fits(offset) if offset >= 0 => Ok(Some(offset as u64)),
        Number::TooLarge => Err(error::range(ruby, format!("{name}: {value} is larger than any file"))),
        _ => Err(error::argument(ruby, format!("{name}: negative offset {value} given"))),
    }
}

/// The flags of a call; nil is none. Bits without a meaning are `EINVAL`.
pub fn flags(ruby: &Ruby, call: &str, value: Option<Value>) -> Result<Flags, Error> {
    let Some(value) = value.filter(|value| !value.is_nil()) else {
        return Ok(Flags::NONE);
    };
    match integer(ruby, "flags", value)? {
        Number::Fits(bits) => u32::try_from(bits).ok(),
        _ => None,
    }
    .and_then(|bits| Flags::from_bits(bits).ok())
    .ok_or_else(|| error::errno(Errno::INVAL, call, Some(&format!("unknown bits in the flags {value}"))))
}

/// A descriptor's number. A negative one is no descriptor.
pub fn descriptor(ruby: &Ruby, value: Value) -> Result<i32, Error> {
    match integer(ruby, "io", value)? {
        Number::Fits(number) => i32::try_from(number).ok(),
        _ => None,
    }
    .ok_or_else(|| error::range(ruby, format!("{value} is too large for a file descriptor")))
}

/// A pipe's capacity in bytes.
pub fn capacity(ruby: &Ruby, value: Value) -> Result<usize, Error> {
    match integer(ruby, "pipe_size", value)? {
        Number::Fits(size) if size >= 0 => Ok(size as usize),
        Number::TooLarge => Ok(usize::MAX),
        _ => Err(error::errno(Errno::INVAL, "pipe_size=", Some(&format!("{value} is negative")))),
    }
}
