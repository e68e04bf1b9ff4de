//! `tee` between pipes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;
use io_splice_core::{Attempt, Errno, Step, page_size, tee};
use rustix::fs::OFlags;
use rustix::pipe::SpliceFlags;

#[track_caller]
fn duplicate(from: impl AsFd, to: impl AsFd, len: usize) -> Attempt {
    guarded(|| tee(from.as_fd(), to.as_fd(), len, NO_FLAGS))
}

#[test]
fn bytes_are_duplicated_and_stay() {
    for (from, to) in [(pipe(), pipe()), (pipe_in(Blocking::No), pipe_in(Blocking::No)), (fifo(), fifo())] {
        let from = from.holding(b"hello, world");
        assert_eq!(duplicate(&from.reader, &to.writer, 5), Ok(Step::Moved(5)));
        assert_eq!(duplicate(&from.reader, &to.writer, 100), Ok(Step::Moved(12)));
        assert_eq!(to.content(), b"hellohello, world");
        assert_eq!(from.content(), b"hello, world");
    }
}

#[test]
fn only_a_prefix_is_duplicated_when_the_output_has_room_for_no_more() {
    let bytes = pattern(3 * page_size());
    let (from, to) = (pipe().holding(bytes), pipe().narrow());
    let duplicated = moved(duplicate(&from.reader, &to.writer, usize::MAX));
    assert!(duplicated <= page_size());
    assert_eq!(to.content(), bytes[..duplicated]);
    assert_eq!(from.content(), bytes);
}

#[test]
fn an_empty_pipe_would_block_as_long_as_it_has_a_writer_and_then_ends() {
    for from in [pipe(), pipe_in(Blocking::No), fifo(), fifo_in(Blocking::No)] {
        let to = pipe();
        assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::WouldBlock));
        let from = from.holding(b"last");
        drop(from.writer);
        assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::Moved(4)));
        assert_eq!(available(&from.reader), b"last");
        assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::Ended));
    }
}

#[test]
fn a_fifo_that_never_had_a_writer_ends_as_it_does_for_splice() {
    let (from, to) = (fifo_without_writer(), pipe());
    let spliced = io_splice_core::splice(from.as_fd(), None, to.writer.as_fd(), None, 10, NO_FLAGS);
    assert_eq!(spliced, Ok(Step::Ended));
    assert_eq!(duplicate(&from, &to.writer, 10), spliced);
}

#[test]
fn a_full_output_would_block_in_either_mode() {
    for mode in BOTH_MODES {
        let (from, to) = (pipe_in(mode).holding(b"more"), pipe().fill());
        to.set_mode(mode);
        assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::WouldBlock));
        to.content();
        assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::Moved(4)));
    }
}

#[test]
fn a_full_output_has_not_ended_while_the_input_has_bytes_and_no_writers() {
    let (from, to) = (pipe().holding(b"more"), pipe().fill());
    drop(from.writer);
    assert_eq!(duplicate(&from.reader, &to.writer, 10), Ok(Step::WouldBlock));
    assert_eq!(available(&from.reader), b"more");
}

#[test]
fn a_length_beyond_what_the_kernel_takes_is_clamped() {
    for len in [0x7fff_f000, 0x7fff_f001, 1 << 32, usize::MAX / 2 + 1, usize::MAX] {
        let (from, to) = (pipe().holding(b"hello"), pipe());
        assert_eq!(duplicate(&from.reader, &to.writer, len), Ok(Step::Moved(5)), "{len:#x}");
    }
}

#[test]
fn the_flags_of_the_kernel_are_taken() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    let flags = SpliceFlags::MOVE | SpliceFlags::MORE | SpliceFlags::NONBLOCK;
    assert_eq!(tee(from.reader.as_fd(), to.writer.as_fd(), 5, flags), Ok(Step::Moved(5)));
    let unknown = SpliceFlags::from_bits_retain(1 << 20);
    assert_eq!(tee(from.reader.as_fd(), to.writer.as_fd(), 5, unknown), Err(Errno::INVAL));
}

#[test]
fn what_is_no_pipe_and_a_pipe_to_itself_are_einval() {
    let pipe = pipe().holding(b"hello");
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(duplicate(file(b"hello"), &pipe.writer, 5), Err(Errno::INVAL));
    assert_eq!(duplicate(&pipe.reader, file(b""), 5), Err(Errno::INVAL));
    assert_eq!(duplicate(&socket, &pipe.writer, 5), Err(Errno::INVAL));
    assert_eq!(duplicate(&pipe.reader, &socket, 5), Err(Errno::INVAL));
    assert_eq!(duplicate(&pipe.reader, &pipe.writer, 5), Err(Errno::INVAL));
    assert_eq!(pipe.content(), b"hello");
}

#[test]
fn an_output_that_nobody_reads_is_epipe() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    drop(to.reader);
    assert_eq!(duplicate(&from.reader, &to.writer, 5), Err(Errno::PIPE));
}

#[test]
fn the_wrong_direction_and_a_closed_end_are_ebadf() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    assert_eq!(duplicate(&from.writer, &to.writer, 5), Err(Errno::BADF));
    assert_eq!(duplicate(&from.reader, &to.reader, 5), Err(Errno::BADF));
    assert_eq!(duplicate(closed(), &to.writer, 5), Err(Errno::BADF));
    assert_eq!(duplicate(&from.reader, closed(), 5), Err(Errno::BADF));
    assert_eq!(from.content(), b"hello");
}

#[test]
fn both_ends_of_a_fifo_opened_for_reading_and_writing_work() {
    let (from, to) = (fifo(), fifo());
    let from = reopen(&from.reader, OFlags::RDWR);
    let into = reopen(&to.writer, OFlags::RDWR);
    (&from).write_all(b"hello").unwrap();
    assert_eq!(duplicate(&from, &into, 10), Ok(Step::Moved(5)));
    assert_eq!(to.content(), b"hello");
    assert_eq!(available(&from), b"hello");
    assert_eq!(duplicate(&from, &into, 10), Ok(Step::WouldBlock));
}

/// Calls `tee` again and again while another thread does `meddle`, and expects no end of the input.
#[track_caller]
fn expect_no_end(from: &File, to: &Pipe, meddle: impl Fn() + Sync) {
    let stop = AtomicBool::new(false);
    guarded(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    meddle();
                }
            });
            let mut all = (0..300_000).map(|_| tee(from.as_fd(), to.writer.as_fd(), 10, NO_FLAGS));
            let wrong = all.find(|attempt| matches!(attempt, Ok(Step::Ended | Step::Moved(0)) | Err(_)));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(wrong, None);
        });
    });
}

#[test]
fn an_output_that_another_fills_meanwhile_does_not_look_like_the_end() {
    let (with_writer, without_writer) = (pipe().holding(b"x"), pipe().holding(b"x"));
    drop(without_writer.writer);
    for from in [&with_writer.reader, &without_writer.reader] {
        let to = pipe_in(Blocking::No).narrow();
        expect_no_end(from, &to, || {
            let _ = (&to.writer).write(b"y");
            let _ = (&to.reader).read(&mut [0; 64]);
        });
    }
}

#[test]
fn an_input_that_another_empties_meanwhile_does_not_look_like_the_end() {
    let (from, to) = (pipe_in(Blocking::No), pipe_in(Blocking::No));
    expect_no_end(&from.reader, &to, || {
        let _ = (&from.writer).write(b"x");
        let _ = (&from.reader).read(&mut [0; 64]);
        let _ = (&to.reader).read(&mut [0; 4096]);
    });
}
