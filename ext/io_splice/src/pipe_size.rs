use magnus::{Error, Ruby, Value};

use crate::end::{End, descriptor_of};
use crate::{error, number};

/// `IO#pipe_size`
pub fn get(_ruby: &Ruby, io: Value) -> Result<usize, Error> {
    let end = End::of_io(io);
    let fd = descriptor_of("pipe_size", &end)?;
    io_splice_core::pipe_size(fd).map_err(|errno| error::errno(errno, "pipe_size", None))
}

/// `IO#pipe_size=`
pub fn set(ruby: &Ruby, io: Value, size: Value) -> Result<usize, Error> {
    let size = number::capacity(ruby, size)?;
    let end = End::of_io(io);
    let fd = descriptor_of("pipe_size=", &end)?;
    io_splice_core::set_pipe_size(fd, size).map_err(|errno| error::errno(errno, "pipe_size=", None))
}
