use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// `fcntl(fd, F_GETPIPE_SZ)`—A pipe's capacity in bytes; `EBADF` for what is no pipe.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
pub fn pipe_size(fd: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    fcntl_getpipe_size(fd)
}

/// `fcntl(fd, F_SETPIPE_SZ, size)`—Asks for a capacity and tells what was granted, which may be more.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETPIPE_SZ.2const.html
pub fn set_pipe_size(fd: BorrowedFd<'_>, size: usize) -> rustix::io::Result<usize> {
    // The kernel knows no pipe larger than 2 GiB, and would see only the low half of such a number.
    if size > 1 << 31 {
        fcntl_getpipe_size(fd)?;
        return Err(Errno::INVAL);
    }
    fcntl_setpipe_size(fd, size)
}

/// The capacity of a new pipe here: 64 KiB, or less for a user who is past their soft limit.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/pipe.7.html
pub fn default_capacity() -> rustix::io::Result<usize> {
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_getpipe_size(&reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_capacity_can_be_asked_for_and_read_back() {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(set_pipe_size(writer.as_fd(), 200_000), Ok(262_144));
        assert_eq!(pipe_size(reader.as_fd()), Ok(262_144));
    }

    #[test]
    fn what_is_no_pipe_has_no_capacity() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(pipe_size(file.as_fd()), Err(Errno::BADF));
        assert_eq!(set_pipe_size(file.as_fd(), 4096), Err(Errno::BADF));
        assert_eq!(set_pipe_size(file.as_fd(), 1 << 40), Err(Errno::BADF));
    }

    #[test]
    fn a_capacity_beyond_all_reason_is_refused() {
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(set_pipe_size(writer.as_fd(), 1 << 40), Err(Errno::INVAL));
        assert_eq!(set_pipe_size(writer.as_fd(), usize::MAX), Err(Errno::INVAL));
    }
}
