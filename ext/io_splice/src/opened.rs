use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_splice_core::{Errno, PrivateFd};
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::typed_data::Obj;
use magnus::{DataTypeFunctions, Error, RString, Ruby, TryConvert, TypedData, Value};

use crate::{error, gvl};

/// A file that a copy has opened. It is no File of Ruby's, because an interrupt can make that forget its descriptor,
/// both while it opens and while it closes.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Opened", free_immediately)]
pub struct Opened(Mutex<Option<PrivateFd>>);

impl DataTypeFunctions for Opened {}

impl Opened {
    /// `Opened.new(path, flags)`
    pub fn new(ruby: &Ruby, path: Value, flags: i32) -> Result<Obj<Self>, Error> {
        // SAFETY: it raises what it has against `path`.
        let path = protect(|| unsafe { rb_sys::rb_get_path(path.as_raw()) })?;
        // SAFETY: it is what Ruby has just returned, and copied before Ruby runs again.
        let name = unsafe { RString::try_convert(Value::from_raw(path))?.as_slice().to_vec() };
        let name = CString::new(name).map_err(|_| error::argument(ruby, "string contains null byte"))?;
        let opened = ruby.obj_wrap(Self(Mutex::new(None)));
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
                Some(Err(errno)) => return Err(error::errno(errno, "open", Some(&name.to_string_lossy()))),
            }
        }
    }

    fn fd(&self) -> MutexGuard<'_, Option<PrivateFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `fileno`
    pub fn fileno(&self) -> RawFd {
        self.fd().as_ref().map_or(-1, |fd| fd.as_fd().as_raw_fd())
    }

    /// `close`
    pub fn close(&self) -> Result<(), Error> {
        let mut fd = self.fd().take();
        let mut interrupted = Ok(());
        // A disk may take its time.
        while fd.is_some() {
            interrupted = gvl::without_or_raise(|| drop(fd.take())).and(interrupted);
        }
        interrupted
    }
}
