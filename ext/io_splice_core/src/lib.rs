//! The Linux side of `io_splice`: it knows no Ruby.
//!
//! Every transfer here is one *attempt*: it moves what can be moved at once and never waits
//! for a peer. A caller that wants to wait asks [`ready`] which end is not ready, waits however it likes, and
//! tries again. A blocking `splice` to a socket sleeps with the pipe's lock held and stalls every other user of that
//! pipe. Nothing here does.
//!
//! - [`splice`], [`tee`], [`write_snapshot`], [`vmsplice_pages`]: the attempts.
//! - [`splice_now`], [`write_now`]: attempts that do not block on an end in blocking mode either.
//! - [`copy`]: a whole copy, made of many attempts.
//! - [`background`]: many of those at once, on threads of their own.
//! - [`may_block`]: what could block in spite of `SPLICE_F_NONBLOCK`.
//! - [`pipe_size`] and the like: a pipe's capacity.
//! - [`refusal`]: the reason behind an errno that hides it.

#![deny(unsafe_code)]

pub mod background;
pub mod copy;

mod attempt;
mod blocking;
mod descriptor;
mod ended;
mod epoll;
mod flags;
mod memory;
mod open;
mod pages;
mod pipe;
mod pool;
mod private_fd;
mod read;
mod ready;
mod refusal;
mod room;
mod splice;
mod splice_now;
mod splice_reserved;
mod tee;
mod terminal;
mod tls;
mod vmsplice;
mod write;

pub use attempt::{Attempt, IOV_MAX, Step};
pub use blocking::{Likely, MayBlock, SpliceEnds, may_block};
pub use descriptor::marks_what_was_opened;
pub use epoll::EpollSet;
pub use flags::Flags;
pub use memory::copied;
pub use open::{
    OPEN_SOURCE, OPEN_TARGET, OPEN_TARGET_AS_IT_IS, check_input, check_output, empties, empty,
    is_regular_file, is_same_regular_file, open,
};
pub use pages::{PageSlice, Pages};
pub use pipe::{default_capacity, pipe_size, set_pipe_size};
pub use pool::PooledPipe;
pub use private_fd::{PrivateFd, close_after_fork, register_fork_handlers};
pub use read::read_now;
pub use ready::{Awaited, Readiness, Side, Waited, ready, wait_until_any_ready, wait_until_ready};
pub use refusal::{Call, refusal};
pub use splice::splice;
pub use splice_now::splice_now;
pub use splice_reserved::Reserved;
pub use tee::tee;
pub use tls::{Record, kernel_tls};
pub use vmsplice::{accepts_pages, vmsplice_pages, write_snapshot};
pub use write::write_now;

pub use rustix::io::{Errno, Result};
pub use rustix::param::page_size;
pub use rustix::pipe::PIPE_BUF;
