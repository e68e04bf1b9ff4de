//! The memory that `put` maps, where it maps any. A test binary of its own, because other tests' memory would count too.

#[allow(dead_code, unused_imports, reason = "it is also there for `core`, which uses all of it")]
mod support;

use std::io::IoSlice;
use std::os::fd::AsFd;

use io_splice_core::{Step, page_size, write_snapshot};
use support::*;

#[test]
fn no_memory_is_left_behind() {
    let to = fifo();
    let bytes = pattern(to.capacity());
    let before = resident_pages();
    for _ in 0..1000 {
        assert_eq!(write_snapshot(to.writer.as_fd(), &[IoSlice::new(bytes)]), Ok(Step::Moved(bytes.len())));
        to.content();
    }
    let all = 1000 * bytes.len() / page_size();
    let more = resident_pages().saturating_sub(before);
    assert!(more < all / 2, "{more} pages more after putting {all}");
}

fn resident_pages() -> usize {
    let memory = std::fs::read_to_string("/proc/self/statm").unwrap();
    memory.split(' ').nth(1).unwrap().parse().unwrap()
}
