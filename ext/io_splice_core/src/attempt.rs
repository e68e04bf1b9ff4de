use rustix::io::Errno;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The bytes moved (or, by [`tee`](crate::tee()), duplicated); never 0.
    Moved(usize),
    /// End of input: it is empty, and no writer is left.
    Ended,
    /// Nothing could be moved now, because the input is empty or the output is full.
    WouldBlock,
}

/// The outcome of an attempt; `EAGAIN` is not an error but [`Step::WouldBlock`].
pub type Attempt = rustix::io::Result<Step>;

/// The most that Linux moves in one call (`MAX_RW_COUNT`), see read(2).
pub(crate) const MAX_RW_COUNT: usize = 0x7fff_f000;

/// The most buffers that one vectored call accepts (`UIO_MAXIOV`), see writev(2).
pub const IOV_MAX: usize = 1024;

/// The attempt that a call was which takes or brings bytes, and not to or from the end of anything.
pub(crate) fn attempt(moved: rustix::io::Result<usize>) -> Attempt {
    match moved {
        Ok(bytes) => Ok(Step::Moved(bytes)),
        Err(Errno::AGAIN) => Ok(Step::WouldBlock),
        Err(errno) => Err(errno),
    }
}
