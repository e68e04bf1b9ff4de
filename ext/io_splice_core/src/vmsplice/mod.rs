//! Memory into a pipe: a snapshot of it, which is copied, or pages that nobody writes to any more, which are not.

mod pages;
mod snapshot;

pub use pages::{accepts_pages, vmsplice_pages};
pub use snapshot::write_snapshot;
