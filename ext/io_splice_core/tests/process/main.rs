//! What concerns the whole process: its descriptors, its limits, what it does as a forked child. One test runs
//! at a time.

#[allow(dead_code, reason = "it is also there for `core`, which uses all of it")]
#[path = "../support/mod.rs"]
mod support;

mod background;
mod fuse;
mod idle_pipe;
mod pool;
mod private_fd;
mod short_tee;

use std::collections::HashSet;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use io_splice_core::close_after_fork;

/// Keeps the other tests from running; each takes it first.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let guard = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Nothing is kept from the test before.
    close_after_fork();
    guard
}

/// The numbers of all open descriptors.
fn open_descriptors() -> HashSet<RawFd> {
    let names = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let numbers: Vec<_> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    // The directory itself was open.
    numbers.into_iter().filter(|&number| is_open(number)).collect()
}

/// Whether a number is one of an open descriptor.
fn is_open(number: RawFd) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
}
