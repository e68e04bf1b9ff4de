use std::ffi::CString;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use io_splice_core::Errno;
use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::{Error, RString, Ruby, TryConvert, Value};

use crate::{error, gvl};

/// `open_path(path, flags)`: a File, as `File.open` gives it. That one forgets the descriptor when an interrupt
/// comes while the kernel opens the file.
pub fn open_path(ruby: &Ruby, path: Value, flags: i32) -> Result<Value, Error> {
    // SAFETY: it raises what it has against `path`.
    let path = protect(|| unsafe { rb_sys::rb_get_path(path.as_raw()) })?;
    // SAFETY: it is what Ruby has just returned, and copied before Ruby runs again.
    let name = unsafe { RString::try_convert(Value::from_raw(path))?.as_slice().to_vec() };
    let name = CString::new(name).map_err(|_| error::argument(ruby, "string contains null byte"))?;
    let mut in_vain = false;
    loop {
        match gvl::without(|| io_splice_core::open(&name, flags)) {
            Some(Ok(fd)) => return file(fd, flags, &name),
            None | Some(Err(Errno::INTR)) => gvl::check_interrupts()?,
            // It may be that others are only waiting to be collected.
            Some(Err(Errno::MFILE | Errno::NFILE)) if !in_vain => {
                ruby.gc_start();
                in_vain = true;
            }
            Some(Err(errno)) => return Err(error::errno(errno, "open", Some(&name.to_string_lossy()))),
        }
    }
}

fn file(fd: OwnedFd, flags: i32, name: &CString) -> Result<Value, Error> {
    // SAFETY: for want of memory it raises, and then the descriptor is still ours.
    let file = protect(|| unsafe { rb_sys::rb_io_fdopen(fd.as_raw_fd(), flags, name.as_ptr()) })?;
    let _ = fd.into_raw_fd();
    // SAFETY: it is what Ruby has just returned.
    Ok(unsafe { Value::from_raw(file) })
}
