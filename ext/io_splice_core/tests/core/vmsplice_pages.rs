//! `give`: pages go into a pipe without being copied, and stay what they are.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Attempt, Errno, PageSlice, Pages, Step, page_size, splice, tee, vmsplice_pages};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// What one call takes at most.
const GIVE_MAX: usize = 128 << 10;

#[track_caller]
fn give_all(pipe: impl AsFd, pieces: &[PageSlice<'_>]) -> Attempt {
    guarded(|| vmsplice_pages(pipe.as_fd(), pieces))
}

fn pages(bytes: &[u8]) -> Pages {
    Pages::new(bytes).unwrap()
}

fn all(pages: &Pages) -> PageSlice<'_> {
    pages.slice(0..pages.as_bytes().len())
}

#[test]
fn pages_hold_what_they_were_made_of() {
    for len in [0, 1, page_size(), page_size() + 1, 1 << 20, (1 << 20) + 1, (2 << 20) + 1, 5 << 20] {
        let bytes = pattern(len);
        let pages = pages(bytes);
        assert!(pages.as_bytes() == bytes, "{len}");
        assert_eq!(pages.size(), len.next_multiple_of(page_size()));
        assert_eq!(all(&pages).len(), len);
        assert_eq!(all(&pages).is_empty(), len == 0);
    }
}

#[test]
fn pages_are_page_aligned_and_no_two_share_one() {
    let pages: Vec<_> = (1..2000).map(|number: usize| pages(&number.to_ne_bytes())).collect();
    let mut starts: Vec<_> = pages.iter().map(|pages| pages.as_bytes().as_ptr().addr()).collect();
    assert!(starts.iter().all(|start| start % page_size() == 0));
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len(), pages.len());
    for (number, pages) in (1_usize..).zip(&pages) {
        assert_eq!(pages.as_bytes(), number.to_ne_bytes());
    }
}

#[test]
fn pages_made_in_many_threads_do_not_mix() {
    std::thread::scope(|scope| {
        for letter in b'a'..=b'h' {
            scope.spawn(move || {
                for len in (1..400).map(|number| number * 577) {
                    assert!(pages(&vec![letter; len]).as_bytes() == vec![letter; len]);
                }
            });
        }
    });
}

#[test]
fn bytes_arrive_exactly_and_any_number_of_times() {
    for mode in BOTH_MODES {
        for len in [1, 100, page_size() - 1, page_size(), page_size() + 1, 3 * page_size() + 7] {
            for to in [pipe_in(mode), fifo_in(mode)] {
                let pages = pages(pattern(len));
                for _ in 0..3 {
                    assert_eq!(give_all(&to.writer, &[all(&pages)]), Ok(Step::Moved(len)), "{len}, {mode:?}");
                    assert_eq!(to.content(), pattern(len));
                }
            }
        }
    }
}

#[test]
fn slices_arrive_in_order_and_empty_ones_do_not_matter() {
    let pages = pages(pattern(20_000));
    let to = pipe();
    let pieces = [0..0, 5000..5010, 7..7, 1..9000, 19_999..20_000].map(|range| pages.slice(range));
    assert_eq!(give_all(&to.writer, &pieces), Ok(Step::Moved(10 + 8999 + 1)));
    let bytes = pattern(20_000);
    assert_eq!(to.content(), [&bytes[5000..5010], &bytes[1..9000], &bytes[19_999..]].concat());
}

#[test]
fn of_too_many_pieces_a_prefix_is_taken() {
    let to = pipe();
    io_splice_core::set_pipe_size(to.writer.as_fd(), 1 << 20).unwrap();
    let pages = pages(pattern(3000));
    let pieces: Vec<_> = (0..3000).map(|at| pages.slice(at..at + 1)).collect();
    let taken = moved(give_all(&to.writer, &pieces));
    assert!((1..=1024).contains(&taken), "{taken}");
    assert_eq!(to.content(), pattern(taken));
}

#[test]
fn of_more_than_is_taken_at_once_a_prefix_goes_in() {
    let to = pipe();
    io_splice_core::set_pipe_size(to.writer.as_fd(), 1 << 20).unwrap();
    let (first, second) = (pages(pattern(100_000)), pages(pattern(100_000)));
    assert_eq!(give_all(&to.writer, &[all(&first), all(&second)]), Ok(Step::Moved(GIVE_MAX)));
    assert_eq!(to.content(), [pattern(100_000), pattern(GIVE_MAX - 100_000)].concat());
}

#[test]
fn of_more_than_the_capacity_a_prefix_is_taken() {
    for mode in BOTH_MODES {
        for to in [pipe_in(mode), pipe_in(mode).narrow()] {
            let pages = pages(pattern(2 * to.capacity() + 11));
            assert_eq!(give_all(&to.writer, &[all(&pages)]), Ok(Step::Moved(to.capacity())), "{mode:?}");
            assert_eq!(to.content(), pattern(to.capacity()));
        }
    }
}

#[test]
fn a_full_pipe_would_block_in_either_mode() {
    for mode in BOTH_MODES {
        let to = pipe().fill();
        to.set_mode(mode);
        let pages = pages(b"more");
        assert_eq!(give_all(&to.writer, &[all(&pages)]), Ok(Step::WouldBlock), "{mode:?}");
        assert_eq!(to.content(), pattern(to.capacity()));
        assert_eq!(give_all(&to.writer, &[all(&pages)]), Ok(Step::Moved(4)), "{mode:?}");
    }
}

#[test]
fn bytes_in_flight_outlive_their_pages_and_those_that_come_after() {
    let (first, second, third) = (pipe(), pipe(), pipe());
    for len in [10, 3 * page_size(), 60_000] {
        let pages = pages(pattern(len));
        assert_eq!(give_all(&first.writer, &[all(&pages)]), Ok(Step::Moved(len)));
        drop(pages);
        let moved = tee(first.reader.as_fd(), second.writer.as_fd(), len, NO_FLAGS);
        assert_eq!(moved, Ok(Step::Moved(len)));
        let moved = splice(first.reader.as_fd(), None, third.writer.as_fd(), None, len, NO_FLAGS);
        assert_eq!(moved, Ok(Step::Moved(len)));
        let others: Vec<_> = (0..500).map(|_| self::pages(&vec![b'X'; len])).collect();
        assert_eq!(second.content(), pattern(len), "after tee");
        assert_eq!(third.content(), pattern(len), "after splice");
        drop(others);
    }
}

/// A private anonymous mapping, as a language's buffer has it.
fn mapping(bytes: &[u8]) -> *mut u8 {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping takes the place of nothing, and it is long enough.
    unsafe {
        let start = mmap_anonymous(std::ptr::null_mut(), bytes.len(), access, MapFlags::PRIVATE)
            .unwrap()
            .cast::<u8>();
        start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        start
    }
}

#[test]
fn what_is_written_to_memory_after_its_pages_were_taken_does_not_show() {
    for len in [page_size(), 5 * page_size() + 100] {
        let to = pipe();
        let memory = mapping(pattern(len));
        // SAFETY: it is a whole mapping of that length, and nobody refers to it.
        let pages = unsafe { Pages::take(memory, len) }.unwrap();
        assert_eq!(pages.as_bytes(), pattern(len));
        assert_eq!(give_all(&to.writer, &[all(&pages)]), Ok(Step::Moved(len)));
        // SAFETY: the mapping is still there, for us alone; it is unmapped whole.
        unsafe {
            assert_eq!(*memory, 0, "where the kernel can take pages away, new ones appear");
            memory.write_bytes(b'X', len);
            munmap(memory.cast(), len).unwrap();
        }
        drop(pages);
        assert_eq!(to.content(), pattern(len));
    }
}

#[test]
fn what_cannot_be_taken_is_copied() {
    // An odd address cannot be moved.
    let memory = mapping(pattern(3 * page_size()));
    // SAFETY: nobody refers to that memory.
    unsafe {
        let pages = Pages::take(memory.add(1), page_size()).unwrap();
        assert_eq!(pages.as_bytes(), &pattern(3 * page_size())[1..page_size() + 1]);
        memory.write_bytes(b'X', 3 * page_size());
        assert_eq!(pages.as_bytes(), &pattern(3 * page_size())[1..page_size() + 1]);
        munmap(memory.cast(), 3 * page_size()).unwrap();
    }
}

#[test]
fn the_read_end_is_ebadf_and_loses_nothing() {
    for mode in BOTH_MODES {
        let to = pipe_in(mode).holding(b"hello");
        let pages = pages(b"untouched");
        assert_eq!(give_all(&to.reader, &[all(&pages)]), Err(Errno::BADF), "{mode:?}");
        assert_eq!(pages.as_bytes(), b"untouched");
        assert_eq!(to.content(), b"hello");
    }
}

#[test]
fn what_is_no_pipe_is_ebadf_and_gets_nothing() {
    let pages = pages(b"hello");
    assert_eq!(give_all(file(b""), &[all(&pages)]), Err(Errno::BADF));
    let (here, there) = UnixStream::pair().unwrap();
    assert_eq!(give_all(&here, &[all(&pages)]), Err(Errno::BADF));
    assert_eq!(available(&there), b"");
    assert_eq!(give_all(closed(), &[all(&pages)]), Err(Errno::BADF));
}

#[test]
fn a_pipe_that_nobody_reads_is_epipe() {
    let to = pipe();
    drop(to.reader);
    assert_eq!(give_all(&to.writer, &[all(&pages(b"hello"))]), Err(Errno::PIPE));
}
