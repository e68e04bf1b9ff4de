use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_splice_core::{Errno, PrivateFd};
use magnus::encoding::{EncodingCapable, Index};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::typed_data::Obj;
use magnus::value::ReprValue;
use magnus::{DataTypeFunctions, Error, RString, RTypedData, Ruby, TryConvert, TypedData, Value};

use crate::reentry::once;
use crate::ruby_io::is_io;
use crate::{error, gvl};

/// A file that a copy has opened. It is no File of Ruby's, because an interrupt can make that forget its descriptor,
/// both while it opens and while it closes.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Opened", free_immediately)]
pub struct Opened {
    fd: Mutex<Option<PrivateFd>>,
    path: CString,
    encoding: Index,
    emptied: AtomicBool,
    /// What is under way has a descriptor of its own.
    handed_over: AtomicBool,
}

impl DataTypeFunctions for Opened {}

impl Opened {
    /// `Opened.new(path, flags)`
    pub fn new(ruby: &Ruby, path: Value, flags: i32) -> Result<Obj<Self>, Error> {
        // SAFETY: it raises what it has against `path`.
        let path = protect(|| unsafe { rb_sys::rb_get_path(path.as_raw()) })?;
        // SAFETY: it is what Ruby has just returned.
        let path = RString::try_convert(unsafe { Value::from_raw(path) })?;
        // SAFETY: they are copied before Ruby runs again.
        let name = unsafe { path.as_slice().to_vec() };
        let name = CString::new(name).map_err(|_| error::argument(ruby, "string contains null byte"))?;
        let fd = Mutex::new(None);
        let opened = ruby.obj_wrap(Self {
            fd,
            path: name.clone(),
            encoding: path.enc_get(),
            emptied: AtomicBool::new(io_splice_core::empties(flags)),
            handed_over: AtomicBool::new(false),
        });
        let mut collected = false;
        // As in `without_gvl`: a FIFO may wait for somebody.
        gvl::check_interrupts()?;
        loop {
            match gvl::without(|| io_splice_core::open(&name, flags)) {
                Some(Ok(fd)) => {
                    *opened.fd() = Some(fd);
                    return Ok(opened);
                }
                None | Some(Err(Errno::INTR)) => gvl::check_interrupts()?,
                // It may be that others are only waiting to be collected.
                Some(Err(Errno::MFILE | Errno::NFILE)) if !collected => {
                    ruby.gc_start();
                    collected = true;
                }
                Some(Err(errno)) => return Err(error::open(ruby, errno, path.as_value())),
            }
        }
    }

    /// Hands over the file at a path, which is closed afterwards.
    pub fn with<R>(
        ruby: &Ruby,
        path: Value,
        flags: i32,
        use_file: impl FnOnce(Value) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let opened = once(ruby, || Self::new(ruby, path, flags))?;
        let used = use_file(opened.as_value());
        let closed = if used.is_ok() { Self::finish(ruby, &opened) } else { gvl::ensure(|| opened.close()) };
        closed.and(used)
    }

    fn fd(&self) -> MutexGuard<'_, Option<PrivateFd>> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, if it is one of these.
    pub fn from_value(ruby: &Ruby, value: Value) -> Option<Obj<Self>> {
        let is_data = !is_io(value) && RTypedData::from_value(value).is_some();
        (is_data && value.is_kind_of(Self::class(ruby))).then(|| Obj::try_convert(value).ok()).flatten()
    }

    /// `empty`: a file that was there before loses its content, once. A copy does that when nothing else can be wrong.
    pub fn empty(ruby: &Ruby, opened: &Self) -> Result<(), Error> {
        if !opened.is_emptied() {
            // A file system may take its time. Interrupts are raised before it, or it goes on.
            loop {
                match gvl::without(|| io_splice_core::empty(opened.borrow())) {
                    Some(Ok(())) => break,
                    None | Some(Err(Errno::INTR)) => gvl::check_interrupts()?,
                    Some(Err(errno)) => {
                        return Err(error::errno_at(ruby, errno, "ftruncate", opened.path(ruby)?));
                    }
                }
            }
            opened.emptied.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether it has lost the content that it had before.
    pub fn is_emptied(&self) -> bool {
        self.emptied.load(Ordering::Relaxed)
    }

    /// Its path.
    pub fn path(&self, ruby: &Ruby) -> Result<RString, Error> {
        let path = ruby.str_from_slice(self.path.as_bytes());
        path.enc_associate(self.encoding)?;
        Ok(path)
    }

    /// The descriptor.
    pub fn borrow(&self) -> BorrowedFd<'_> {
        // SAFETY: it is open, and closed by nobody but the copy that uses it, afterwards.
        unsafe { BorrowedFd::borrow_raw(self.fileno()) }
    }

    /// `fileno`
    pub fn fileno(&self) -> RawFd {
        self.fd().as_ref().map_or(-1, |fd| fd.as_fd().as_raw_fd())
    }

    /// From now on no interrupt comes out of [`close`](Opened::close).
    pub fn hand_over(&self) {
        self.handed_over.store(true, Ordering::Relaxed);
    }

    /// `finish`: closes it after a copy that has succeeded. A file system that writes later may say only now that it could not.
    pub fn finish(ruby: &Ruby, opened: &Self) -> Result<(), Error> {
        match opened.close_it() {
            (Some(errno), Ok(())) => Err(error::errno_at(ruby, errno, "close", opened.path(ruby)?)),
            (_, interrupted) => interrupted,
        }
    }

    /// `close`
    pub fn close(&self) -> Result<(), Error> {
        self.close_it().1
    }

    /// Returns what close(2) says, and an interrupt.
    fn close_it(&self) -> (Option<Errno>, Result<(), Error>) {
        let mut fd = self.fd().take();
        if self.handed_over.load(Ordering::Relaxed) {
            gvl::without(|| drop(fd.take()));
            return (None, Ok(()));
        }
        let mut failed = None;
        let mut interrupted = Ok(());
        // A disk may take its time.
        while fd.is_some() {
            let mut close = || failed = fd.take().and_then(|fd| fd.close().err());
            interrupted = gvl::without_or_raise(&mut close).and(interrupted);
        }
        (failed, interrupted)
    }
}
