use std::io::IoSlice;

use io_splice_core::{Call, Errno, Step, put, refusal};
use magnus::value::ReprValue;
use magnus::{Error, IntoValue, RArray, RString, Ruby, TryConvert, Value};

use crate::end::{Direction, End, descriptor, keep_alive};
use crate::wait::Waiter;
use crate::{error, gvl, number};

const NAME: &str = Call::Vmsplice.name();

/// `vmsplice(io, data, flags = 0)`
pub fn vmsplice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 2..=3)?;
    let flags = number::flags(ruby, NAME, args.get(2).copied())?;
    let end = End::new(ruby, args[0], Direction::Out)?;
    let mut data = Data::new(args[1])?;
    if end.has_unwritten() {
        // Writing that out may take a while, in which other threads run.
        data.snapshot();
    }

    let mut waiter = Waiter::default();
    let (mut put_in, total) = (0, data.len());
    while put_in < total {
        let Some(fd) = descriptor(ruby, NAME, end, flags.nonblock)? else {
            if put_in > 0 {
                break;
            }
            return Err(error::errno(Errno::AGAIN, NAME, None));
        };
        match put(fd, &data.slices(put_in)) {
            Ok(Step::Moved(bytes)) => {
                put_in += bytes;
                waiter.moved();
            }
            Ok(Step::WouldBlock) if flags.nonblock && put_in > 0 => break,
            Ok(Step::WouldBlock) if flags.nonblock => return Err(error::errno(Errno::AGAIN, NAME, None)),
            // From here on other threads run, so from here on the strings may change.
            Ok(Step::WouldBlock | Step::Ended) => {
                data.snapshot();
                waiter.wait_for_one(ruby, NAME, (end, fd))?;
            }
            Err(Errno::INTR) => {
                data.snapshot();
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

/// The bytes of a call, in order. It lives on the stack, which is where the garbage collector finds
/// the objects that it names.
enum Data {
    One(RString),
    /// An array with nothing but Strings in it.
    Many(RArray),
    /// What the strings held when the call was made. A real copy: Ruby's own copies share the memory, into
    /// which a `read` that was given the string as its buffer goes on reading.
    Snapshot(Vec<u8>),
}

impl Data {
    fn new(value: Value) -> Result<Self, Error> {
        if let Some(string) = RString::from_value(value) {
            return Ok(Self::One(string));
        }
        let Some(array) = RArray::from_value(value) else {
            return Ok(Self::One(RString::try_convert(value)?));
        };
        if strings_of(array).count() == array.len() {
            return Ok(Self::Many(array));
        }
        // `to_str` is Ruby code and may change the other strings and the array, so those are copied before.
        let array: RArray = array.funcall("dup", ())?;
        let mut strings: Vec<_> = strings_of(array).map(bytes_of).collect();
        let mut strings = strings.iter_mut();
        let mut snapshot = Vec::new();
        for index in 0..array.len() {
            let piece = array.entry::<Value>(index as isize)?;
            match RString::from_value(piece) {
                Some(_) => snapshot.append(strings.next().unwrap_or(&mut Vec::new())),
                None => snapshot.append(&mut bytes_of(RString::try_convert(piece)?)),
            }
        }
        Ok(Self::Snapshot(snapshot))
    }

    fn snapshot(&mut self) {
        if let Self::One(_) | Self::Many(_) = self {
            *self = Self::Snapshot(self.pieces().concat());
        }
    }

    fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// The bytes behind the first `skip`; no piece is empty.
    fn slices(&self, mut skip: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::new();
        for piece in self.pieces() {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            if skipped < piece.len() {
                slices.push(IoSlice::new(&piece[skipped..]));
            }
        }
        slices
    }

    /// All bytes. They are good until Ruby code runs, or the garbage collector, which it does not while
    /// nothing is allocated on Ruby's heap.
    fn pieces(&self) -> Vec<&[u8]> {
        match self {
            // SAFETY: as above.
            Self::One(string) => vec![unsafe { string.as_slice() }],
            Self::Many(array) => {
                // SAFETY: as above, and the strings are as good as the array that names them.
                let bytes = |string: RString| unsafe { &*std::ptr::from_ref(string.as_slice()) };
                strings_of(*array).map(bytes).collect()
            }
            Self::Snapshot(bytes) => vec![bytes],
        }
    }
}

/// The Strings in an array, good until Ruby code runs.
fn strings_of(array: RArray) -> impl Iterator<Item = RString> {
    // SAFETY: nobody changes the array while no Ruby code runs.
    unsafe { &*std::ptr::from_ref(array.as_slice()) }.iter().filter_map(|&piece| RString::from_value(piece))
}

fn bytes_of(string: RString) -> Vec<u8> {
    // SAFETY: they are copied before Ruby runs again.
    unsafe { string.as_slice() }.to_vec()
}
