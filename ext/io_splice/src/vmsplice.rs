use std::io::IoSlice;

use io_splice_core::{Call, Errno, Step, put, refusal};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::{Error, IntoValue, RArray, RString, Ruby, TryConvert, Value};

use crate::end::{Direction, End, descriptor, keep_alive};
use crate::wait::Waiter;
use crate::{error, gvl, number};

/// `vmsplice(io, data, flags = 0)`
pub fn vmsplice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    const NAME: &str = "vmsplice";
    error::check_arity(ruby, args.len(), 2..=3)?;
    let flags = number::flags(ruby, NAME, args.get(2).copied())?;
    let end = End::new(ruby, args[0], Direction::Out)?;
    let mut data = Data::new(ruby, args[1])?;

    if end.has_unwritten() {
        // Writing that out may take a while, in which other threads run.
        data.freeze(ruby)?;
    }
    let mut waiter = Waiter::default();
    let (mut put_in, total) = (0, data.len());
    while put_in < total {
        let Some(fd) = descriptor(ruby, NAME, end, flags.nonblock)? else {
            return Err(error::errno(Errno::AGAIN, NAME, None));
        };
        match put(fd, &data.slices(put_in)) {
            Ok(Step::Moved(bytes)) => {
                put_in += bytes;
                waiter.moved();
            }
            Ok(Step::WouldBlock) if flags.nonblock && put_in > 0 => break,
            Ok(Step::WouldBlock) if flags.nonblock => return Err(error::errno(Errno::AGAIN, NAME, None)),
            // From here on other threads run, so from here on the strings must not change.
            Ok(Step::WouldBlock | Step::Ended) => {
                data.freeze(ruby)?;
                waiter.wait_for_one(ruby, NAME, (end, fd))?;
            }
            Err(Errno::INTR) => {
                data.freeze(ruby)?;
                gvl::check_interrupts()?;
            }
            Err(errno) => {
                let why = refusal(Call::Vmsplice, None, fd, errno);
                return Err(error::transfer(errno, NAME, why, put_in));
            }
        }
    }
    keep_alive(&end);
    Ok(put_in.into_value_with(ruby))
}

/// The strings of a call, in order. It lives on the stack, which is where the garbage collector
/// finds what it names.
#[derive(Clone, Copy)]
enum Data {
    One(RString),
    /// An array of nothing but Strings that only this call knows.
    Many(RArray),
    /// The same, and the strings are frozen copies (of the kind that shares the bytes).
    Frozen(RArray),
}

impl Data {
    fn new(ruby: &Ruby, value: Value) -> Result<Self, Error> {
        if let Some(string) = RString::from_value(value) {
            return Ok(Self::One(string));
        }
        let Some(array) = RArray::from_value(value) else {
            return Ok(Self::One(RString::try_convert(value)?));
        };
        let strings = ruby.ary_new_capa(array.len());
        for piece in array {
            strings.push(RString::try_convert(piece)?)?;
        }
        Ok(Self::Many(strings))
    }

    fn strings(&self) -> impl Iterator<Item = RString> {
        let (one, many) = match *self {
            Self::One(string) => (Some(string), None),
            Self::Many(strings) | Self::Frozen(strings) => (None, Some(strings)),
        };
        one.into_iter().chain(many.into_iter().flatten().filter_map(RString::from_value))
    }

    fn len(&self) -> usize {
        self.strings().map(RString::len).sum()
    }

    /// The bytes behind the first `skip`. They are good until Ruby code runs or the garbage collector
    /// does, which it does not while nothing is allocated on Ruby's heap.
    fn slices<'call>(&self, mut skip: usize) -> Vec<IoSlice<'call>> {
        let mut slices = Vec::new();
        for string in self.strings() {
            // SAFETY: the GVL is held and no Ruby code runs before the slices are used and dropped.
            let bytes: &'call [u8] =
                unsafe { std::slice::from_raw_parts(string.as_slice().as_ptr(), string.len()) };
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if skipped < bytes.len() {
                slices.push(IoSlice::new(&bytes[skipped..]));
            }
        }
        slices
    }

    /// Makes sure that the strings stay what they are, whatever others do to the caller's.
    fn freeze(&mut self, ruby: &Ruby) -> Result<(), Error> {
        if let Self::Frozen(_) = self {
            return Ok(());
        }
        let frozen = ruby.ary_new();
        for string in self.strings() {
            // SAFETY: `string` is a String; running out of memory raises.
            let copy = protect(|| unsafe { rb_sys::rb_str_new_frozen(string.as_raw()) })?;
            // SAFETY: it is what Ruby has just returned.
            frozen.push(unsafe { Value::from_raw(copy) })?;
        }
        *self = Self::Frozen(frozen);
        Ok(())
    }
}
