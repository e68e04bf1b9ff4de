//! What `vmsplice` puts into a pipe.

use std::os::fd::BorrowedFd;
use std::{io::IoSlice, ptr};

use io_splice_core::{Attempt, IOV_MAX, Step, accepts_pages, copied, vmsplice_pages, write_snapshot};
use magnus::{Error, RArray, RString, Ruby, TryConvert, Value};

use crate::frozen::frozen_copy;
use crate::io_buffer::{self, Gift};
use crate::pages::Pages;
use crate::reentry::once;
use crate::{error, gvl};

/// The bytes of a call, in order, and how far it has come. It lives on the stack, which is where the
/// garbage collector finds the objects that it names.
///
/// The first attempts look at strings and buffers as they are, because no Ruby code runs in between. Before any can,
/// [`Payload::snapshot`] makes sure that nothing that happens to them shows.
pub struct Payload {
    objects: Objects,
    pieces: Vec<Piece>,
    /// The first piece that is not wholly in the pipe, and how much of it is.
    at: usize,
    skip: usize,
    written: usize,
    is_snapshot: bool,
    /// The strings behind [`Piece::Frozen`].
    frozen: Option<RArray>,
}

#[derive(Clone, Copy)]
enum Objects {
    One(Value),
    Many(RArray),
}

/// Objects are named by their place in [`Objects`], since they may move.
enum Piece {
    String(usize),
    Buffer(usize),
    /// What `to_str` has still to be asked of.
    Other(usize),
    Frozen(*const [u8]),
    Copy(Vec<u8>),
    Pages(Pages),
    Gift(usize, Gift),
}

impl Piece {
    fn copy(ruby: &Ruby, bytes: &[u8]) -> Result<Self, Error> {
        copied(bytes).map(Self::Copy).map_err(|errno| error::no_memory(ruby, errno))
    }
}

/// Strings up to this size are copied. Longer ones share memory, which a `read` that was under way when the string was
/// duplicated may still write to, and in Ruby 3.1 `IO::Buffer.for`.
const COPY_BELOW: usize = 64 << 10;

/// More than this in all is copied in two steps: with the GVL only what may have its bytes in the object itself, and then
/// without the GVL the rest, which is shared until then.
const COPY_AT_MOST: usize = 256 << 10;
const MAY_BE_EMBEDDED: usize = 1 << 10;

impl Objects {
    fn len(self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(array) => array.len(),
        }
    }

    fn get(self, index: usize) -> Value {
        match self {
            Self::One(object) => object,
            // SAFETY: the slice is gone before anything else happens to the array.
            Self::Many(array) => (unsafe { array.as_slice() })[index],
        }
    }

    /// The bytes of a String.
    ///
    /// # Safety
    ///
    /// They must not be used any more when Ruby code has run, or another thread: the string may be changed then.
    unsafe fn string<'string>(self, index: usize) -> &'string [u8] {
        let Some(string) = RString::from_value(self.get(index)) else { return &[] };
        // SAFETY: the caller promises that nobody changes the string meanwhile, and `Payload` keeps it alive.
        unsafe { &*ptr::from_ref(string.as_slice()) }
    }
}

impl Payload {
    /// Understands a String, an `IO::Buffer`, an `IO::Splice::Pages` or an Array of them. With `gift`, buffers are
    /// to be given away.
    pub fn new(ruby: &Ruby, call: &str, data: Value, gift: bool) -> Result<Self, Error> {
        let objects = match RArray::from_value(data) {
            // Gifts must be found again, whatever becomes of the array.
            Some(array) => Objects::Many(if gift { array.dup() } else { array }),
            None => Objects::One(data),
        };
        let pieces = Vec::with_capacity(objects.len());
        let mut data = Self { objects, pieces, at: 0, skip: 0, written: 0, is_snapshot: false, frozen: None };
        let mut others = false;
        for index in 0..objects.len() {
            let object = objects.get(index);
            let piece = if RString::from_value(object).is_some() {
                Piece::String(index)
            } else if io_buffer::is_buffer(object) {
                if gift {
                    Piece::Gift(index, Gift::new(ruby, call, object)?)
                } else {
                    io_buffer::check(object)?;
                    Piece::Buffer(index)
                }
            } else if let Some(pages) = Pages::from_value(object) {
                Piece::Pages(pages)
            } else {
                others = true;
                Piece::Other(index)
            };
            data.pieces.push(piece);
        }
        if others {
            data.convert(ruby)?;
        }
        data.advance(0)?;
        Ok(data)
    }

    /// Asks the other objects for strings. That is Ruby code, which may change everything else.
    fn convert(&mut self, ruby: &Ruby) -> Result<(), Error> {
        if let Objects::Many(array) = self.objects {
            self.objects = Objects::Many(array.dup());
        }
        self.snapshot(ruby)?;
        for piece in &mut self.pieces {
            if let Piece::Other(index) = *piece {
                let object = self.objects.get(index);
                let string = once(ruby, || RString::try_convert(object))?;
                // SAFETY: it is copied at once.
                *piece = Piece::copy(ruby, unsafe { string.as_slice() })?;
            }
        }
        Ok(())
    }

    /// Keeps the bytes as they are now, whatever becomes of the strings and buffers. Call it before other threads or
    /// Ruby code run.
    pub fn snapshot(&mut self, ruby: &Ruby) -> Result<(), Error> {
        if self.is_snapshot {
            return Ok(());
        }
        let mut so_far = 0;
        for index in self.at..self.pieces.len() {
            self.pieces[index] = match &mut self.pieces[index] {
                Piece::String(index) => {
                    let index = *index;
                    let piece = self.snapshot_string(ruby, index, so_far)?;
                    so_far += if let Piece::Copy(bytes) = &piece { bytes.len() } else { 0 };
                    piece
                }
                Piece::Buffer(index) => {
                    // SAFETY: they are copied at once.
                    Piece::copy(ruby, unsafe { io_buffer::bytes(self.objects.get(*index)) }?)?
                }
                Piece::Gift(_, gift) => {
                    gift.pages(0).map_err(|errno| error::no_memory(ruby, errno))?;
                    continue;
                }
                _ => continue,
            };
        }
        self.is_snapshot = true;
        if so_far >= COPY_AT_MOST { self.copy_shared(ruby) } else { Ok(()) }
    }

    /// Copies the strings that are not to be shared for long.
    fn copy_shared(&mut self, ruby: &Ruby) -> Result<(), Error> {
        let mut result = Ok(());
        let mut copy = || {
            for piece in &mut self.pieces {
                if let Piece::Frozen(bytes) = piece {
                    // SAFETY: `frozen` keeps the string, and nobody writes to it.
                    let bytes = unsafe { &**bytes };
                    if bytes.len() < COPY_BELOW && result.is_ok() {
                        result = copied(bytes).map(|bytes| *piece = Piece::Copy(bytes));
                    }
                }
            }
        };
        if gvl::alone() {
            copy();
        } else {
            gvl::without_or_raise(copy)?;
        }
        result.map_err(|errno| error::no_memory(ruby, errno))
    }

    /// Ruby's own copies of long strings share the memory until somebody writes to the original.
    fn snapshot_string(&mut self, ruby: &Ruby, index: usize, so_far: usize) -> Result<Piece, Error> {
        // SAFETY: they are copied, or not looked at again, before Ruby code runs.
        let bytes = unsafe { self.objects.string(index) };
        let copy_below = if so_far < COPY_AT_MOST { COPY_BELOW } else { MAY_BE_EMBEDDED };
        if bytes.len() < copy_below {
            return Piece::copy(ruby, bytes);
        }
        let object = self.objects.get(index);
        let Some(frozen) = frozen_copy(object)? else { return Piece::copy(ruby, bytes) };
        self.frozen.get_or_insert_with(|| ruby.ary_new()).push(frozen)?;
        // SAFETY: nobody writes to a frozen string, and one of this length has its bytes outside of the object.
        Ok(Piece::Frozen(unsafe { frozen.as_slice() }))
    }

    pub fn written(&self) -> usize {
        self.written
    }

    pub fn is_done(&self) -> bool {
        self.at == self.pieces.len()
    }

    /// Makes an attempt with the next pieces of one kind, and says how many bytes it was made with if that is known. It is
    /// [recorded](Self::record) afterwards. With a snapshot it touches nothing of Ruby's.
    pub fn attempt(&mut self, pipe: BorrowedFd<'_>) -> Result<(Attempt, usize), Error> {
        let rest = &mut self.pieces[self.at..];
        let mut skip = self.skip;
        Ok(match rest {
            [Piece::Gift(_, gift), ..] => (give_gift(pipe, gift, skip), 0),
            [Piece::Pages(_), ..] => {
                let pages = rest.iter().map_while(|piece| match piece {
                    Piece::Pages(pages) => Some(pages.from(std::mem::take(&mut skip))),
                    _ => None,
                });
                (vmsplice_pages(pipe, &pages.take(IOV_MAX).collect::<Vec<_>>()), 0)
            }
            _ => {
                let mut slices = Vec::with_capacity(rest.len().min(IOV_MAX));
                for piece in self.pieces[self.at..].iter().take(IOV_MAX) {
                    // SAFETY: no Ruby code runs before the attempt is over.
                    let Some(bytes) = (unsafe { self.bytes(piece) })? else { break };
                    slices.push(IoSlice::new(&bytes[std::mem::take(&mut skip)..]));
                }
                (write_snapshot(pipe, &slices), slices.iter().map(|slice| slice.len()).sum())
            }
        })
    }

    /// Records an attempt. Bytes that are only in part in the pipe have filled it, which is the answer.
    pub fn record(&mut self, attempt: Attempt, offered: usize) -> Result<bool, Error> {
        let Ok(Step::Moved(bytes)) = attempt else { return Ok(true) };
        self.advance(bytes)?;
        Ok(bytes < offered)
    }

    /// Records that `bytes` more are in the pipe.
    fn advance(&mut self, bytes: usize) -> Result<(), Error> {
        self.written += bytes;
        self.skip += bytes;
        while !self.is_done() {
            let len = self.len(&self.pieces[self.at])?;
            if self.skip < len {
                break;
            }
            if let Piece::Gift(index, gift) = &mut self.pieces[self.at] {
                gift.gone(self.objects.get(*index))?;
            }
            self.skip -= len;
            self.at += 1;
        }
        Ok(())
    }

    fn len(&self, piece: &Piece) -> Result<usize, Error> {
        Ok(match piece {
            Piece::Pages(pages) => pages.len(),
            Piece::Gift(_, gift) => gift.len(),
            // SAFETY: only their number is looked at.
            _ => unsafe { self.bytes(piece) }?.map_or(0, <[u8]>::len),
        })
    }

    /// The bytes that have to be copied into the pipe.
    ///
    /// # Safety
    ///
    /// They must not be used any more when Ruby code has run, or another thread.
    unsafe fn bytes<'data>(&self, piece: &'data Piece) -> Result<Option<&'data [u8]>, Error> {
        Ok(match piece {
            // SAFETY: it is the caller's to keep Ruby from running.
            Piece::String(index) => Some(unsafe { self.objects.string(*index) }),
            // SAFETY: the same.
            Piece::Buffer(index) => Some(unsafe { io_buffer::bytes(self.objects.get(*index)) }?),
            // SAFETY: `frozen` keeps the string.
            Piece::Frozen(bytes) => Some(unsafe { &**bytes }),
            Piece::Copy(bytes) => Some(bytes),
            Piece::Other(_) | Piece::Pages(_) | Piece::Gift(..) => None,
        })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        for piece in &mut self.pieces[self.at..] {
            if let Piece::Gift(index, gift) = piece {
                gift.restore(self.objects.get(*index));
            }
        }
        // So that the compiler does not forget them early.
        std::hint::black_box((&self.objects, &self.frozen));
    }
}

/// The pages are only taken when some of them will go in.
fn give_gift(pipe: BorrowedFd<'_>, gift: &mut Gift, skip: usize) -> Attempt {
    if !accepts_pages(pipe)? {
        return Ok(Step::WouldBlock);
    }
    vmsplice_pages(pipe, &[gift.pages(skip)?])
}
