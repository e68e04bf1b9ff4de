//! Memory into a pipe: a snapshot, which is copied, or pages that are never written to again, which are not.

mod pages;
mod snapshot;

pub use pages::{accepts_pages, vmsplice_pages};
pub use snapshot::write_snapshot;
