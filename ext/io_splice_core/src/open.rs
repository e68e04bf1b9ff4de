use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, ftruncate, tell};
use rustix::io::{Errno, Result};

use crate::PrivateFd;

/// The flags with which Ruby's own `IO.copy_stream` opens its source.
pub const OPEN_SOURCE: i32 = OFlags::RDONLY.union(OFlags::NOCTTY).bits() as i32;
/// The flags with which it opens its target.
pub const OPEN_TARGET: i32 =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::TRUNC).union(OFlags::NOCTTY).bits() as i32;

/// The same for a target that is emptied later.
pub const OPEN_TARGET_AS_IT_IS: i32 = OPEN_TARGET & !(OFlags::TRUNC.bits() as i32);

/// `open(path, flags, 0666)`
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/open.2.html
pub fn open(path: &CStr, flags: i32) -> Result<PrivateFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map(PrivateFd::new)
}

/// Whether open(2) with these flags empties a file that is there.
pub fn empties(flags: i32) -> bool {
    OFlags::from_bits_retain(flags as u32).contains(OFlags::TRUNC)
}

/// Empties a regular file, as open(2) with `O_TRUNC` would have done. There is nothing to empty in anything else.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/ftruncate.2.html
pub fn empty(fd: BorrowedFd<'_>) -> Result<()> {
    match ftruncate(fd, 0) {
        Err(Errno::INVAL) => Ok(()),
        emptied => emptied,
    }
}

/// Whether it is a regular file, which may have locks of this process (`F_SETLK` of fcntl(2)).
pub fn is_regular_file(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile)
}

/// Whether both are one regular file, so that emptying one would empty the other.
pub fn is_same_regular_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    let is_same = (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
    Ok(is_same && FileType::from_raw_mode(one.st_mode) == FileType::RegularFile)
}

/// What the first read would report: `EBADF`, `EISDIR`, and `ESPIPE` for an offset where there is no position.
pub fn check_input(fd: BorrowedFd<'_>, offset: Option<u64>) -> Result<()> {
    if fcntl_getfl(fd)? & OFlags::ACCMODE == OFlags::WRONLY {
        return Err(Errno::BADF);
    }
    if FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    offset.map_or(Ok(()), |_| tell(fd).map(drop))
}

/// What the first write would report: `EBADF`.
pub fn check_output(fd: BorrowedFd<'_>) -> Result<()> {
    if fcntl_getfl(fd)? & OFlags::ACCMODE == OFlags::RDONLY { Err(Errno::BADF) } else { Ok(()) }
}
