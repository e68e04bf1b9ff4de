/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes were moved (or, by [`tee`](crate::tee()), duplicated); never 0.
    Moved(usize),
    /// The input has ended: nothing is in it, and nobody is left who could write.
    Ended,
    /// Nothing could be moved now, because the input is empty or the output is full.
    WouldBlock,
}

/// The outcome of an attempt; `EAGAIN` is not an error but [`Step::WouldBlock`].
pub type Attempt = rustix::io::Result<Step>;

/// The most that Linux moves in one call (`MAX_RW_COUNT`), see read(2).
pub(crate) const MAX_RW_COUNT: usize = 0x7fff_f000;

/// Linux takes no more pieces of memory in one call (`UIO_MAXIOV`), see writev(2).
pub const IOV_MAX: usize = 1024;
