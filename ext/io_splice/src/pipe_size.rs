use std::os::fd::BorrowedFd;

use io_splice_core::Errno;
use magnus::{Error, Ruby, Value};

use crate::end::{End, descriptor_of, keep_alive};
use crate::without_gvl::attempt_without_gvl;
use crate::{error, gvl, number};

/// `IO#pipe_size`
pub fn get(_ruby: &Ruby, io: Value) -> Result<usize, Error> {
    call("pipe_size", io, io_splice_core::pipe_size)
}

/// `IO#pipe_size=`
pub fn set(ruby: &Ruby, io: Value, size: Value) -> Result<usize, Error> {
    let size = number::capacity(ruby, size)?;
    call("pipe_size=", io, |fd| io_splice_core::set_pipe_size(fd, size))
}

/// The kernel takes the lock of the pipe, which others may hold.
fn call(
    name: &str,
    io: Value,
    call: impl Fn(BorrowedFd<'_>) -> io_splice_core::Result<usize>,
) -> Result<usize, Error> {
    let end = End::of_io(io);
    let mut size = Err(Errno::INTR);
    if gvl::alone() {
        size = call(descriptor_of(name, &end)?);
    } else {
        attempt_without_gvl(name, &[end], &mut |fds| size = call(fds[0]))?;
    }
    keep_alive(&end);
    size.map_err(|errno| error::errno(errno, name, None))
}
