//! `put`: what the reader gets is what the memory held when it was called.

use std::io::{IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Attempt, Errno, Step, page_size, splice, tee, write_snapshot};
use rustix::fs::OFlags;
use rustix::pipe::{IoSliceRaw, SpliceFlags, vmsplice};

/// A pipe for each of the ways in which the bytes get in: `write`, without waiting by mode or by flag, and pages of
/// our own.
fn pipes() -> [(Pipe, &'static str); 4] {
    [
        (pipe_in(Blocking::No), "a pipe"),
        (pipe_in(Blocking::Yes), "a pipe in blocking mode"),
        (fifo_in(Blocking::No), "a FIFO"),
        (fifo_in(Blocking::Yes), "a FIFO in blocking mode"),
    ]
}

#[track_caller]
fn put_all(pipe: impl AsFd, pieces: &[&[u8]]) -> Attempt {
    let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    guarded(|| write_snapshot(pipe.as_fd(), &pieces))
}

#[test]
fn bytes_arrive_exactly() {
    for mode in BOTH_MODES {
        for len in [1, 100, page_size() - 1, page_size(), page_size() + 1, 3 * page_size() + 7] {
            for to in [pipe_in(mode), fifo_in(mode)] {
                let bytes = pattern(len);
                assert_eq!(put_all(&to.writer, &[bytes]), Ok(Step::Moved(len)), "{len} bytes, {mode:?}");
                assert_eq!(to.content(), bytes);
            }
        }
    }
}

#[test]
fn pieces_arrive_in_order_and_empty_ones_do_not_matter() {
    for (to, mode) in pipes() {
        let long = pattern(page_size() + 10);
        let pieces: [&[u8]; 7] = [b"", b"hello", b"", b"", long, b"world", b""];
        assert_eq!(put_all(&to.writer, &pieces), Ok(Step::Moved(5 + long.len() + 5)), "{mode}");
        assert_eq!(to.content(), pieces.concat());
    }
}

#[test]
fn of_too_many_pieces_a_prefix_is_taken() {
    for (to, mode) in pipes() {
        let bytes = pattern(3000);
        let pieces: Vec<_> = bytes.chunks(1).collect();
        for (pieces, expected) in [(&pieces[..1024], 1024), (&pieces[..1025], 1024), (&pieces, 1024)] {
            assert_eq!(put_all(&to.writer, pieces), Ok(Step::Moved(expected)), "{}, {mode:?}", pieces.len());
            assert_eq!(to.content(), bytes[..expected]);
        }
    }
}

#[test]
fn of_too_many_pieces_with_empty_ones_among_them_the_bytes_taken_are_a_prefix() {
    for (to, mode) in pipes() {
        let bytes = pattern(2000);
        let pieces: Vec<_> = bytes.chunks(1).flat_map(|piece| [&[][..], piece]).collect();
        let taken = moved(put_all(&to.writer, &pieces));
        assert!(taken > 0, "{mode:?}");
        assert_eq!(to.content(), bytes[..taken]);
    }
}

#[test]
fn a_piece_behind_very_many_empty_ones_is_not_lost() {
    for (to, mode) in pipes() {
        let mut pieces: Vec<&[u8]> = vec![b""; 1024];
        pieces.push(b"hello");
        assert_eq!(put_all(&to.writer, &pieces), Ok(Step::Moved(5)), "{mode:?}");
        assert_eq!(to.content(), b"hello");
    }
}

#[test]
fn of_more_than_the_capacity_a_prefix_is_taken() {
    for mode in BOTH_MODES {
        for to in [pipe_in(mode), pipe_in(mode).narrow()] {
            let bytes = pattern(3 * to.capacity() + 11);
            let (mut sent, mut arrived) = (0, vec![]);
            while sent < bytes.len() {
                let taken = moved(put_all(&to.writer, &[&bytes[sent..]]));
                assert!(taken <= to.capacity());
                sent += taken;
                arrived.extend(to.content());
            }
            assert_eq!(arrived, bytes, "{mode:?}");
        }
    }
}

#[test]
fn a_pipe_with_some_room_takes_a_prefix() {
    for (to, mode) in pipes() {
        let before = pattern(to.capacity() - page_size());
        (&to.writer).write_all(before).unwrap();
        let bytes = pattern(3 * page_size());
        let taken = moved(put_all(&to.writer, &[&bytes[..10], &bytes[10..]]));
        assert_eq!(taken, page_size(), "{mode:?}");
        assert_eq!(to.content(), [before, &bytes[..taken]].concat());
    }
}

#[test]
fn a_full_pipe_would_block_in_either_mode() {
    for mode in BOTH_MODES {
        let to = pipe().fill();
        to.set_mode(mode);
        assert_eq!(put_all(&to.writer, &[b"more"]), Ok(Step::WouldBlock), "{mode:?}");
        assert_eq!(to.content(), pattern(to.capacity()));
        assert_eq!(put_all(&to.writer, &[b"more"]), Ok(Step::Moved(4)), "{mode:?}");
        assert_eq!(to.content(), b"more");
    }
}

/// Puts `bytes` in, changes the memory in place, and gives it back so that it is still there.
fn put_and_overwrite(to: &Pipe, bytes: &[u8]) -> Vec<u8> {
    let mut memory = bytes.to_vec();
    assert_eq!(put_all(&to.writer, &[&memory]), Ok(Step::Moved(bytes.len())));
    memory.fill(b'X');
    std::hint::black_box(memory)
}

#[test]
fn a_change_right_after_the_call_does_not_show() {
    for mode in BOTH_MODES {
        for len in [5, 3 * page_size()] {
            let to = pipe_in(mode);
            let _memory = put_and_overwrite(&to, pattern(len));
            assert_eq!(to.content(), pattern(len), "{len} bytes, {mode:?}");
        }
    }
}

#[test]
fn a_change_does_not_show_after_the_bytes_went_on() {
    for mode in BOTH_MODES {
        let bytes = pattern(3 * page_size());
        let (first, second, third) = (pipe_in(mode), pipe(), pipe());
        let _memory = put_and_overwrite(&first, bytes);
        assert_eq!(
            tee(first.reader.as_fd(), second.writer.as_fd(), bytes.len(), NO_FLAGS),
            Ok(Step::Moved(bytes.len()))
        );
        let onward =
            splice(first.reader.as_fd(), None, third.writer.as_fd(), None, bytes.len(), SpliceFlags::MOVE);
        assert_eq!(onward, Ok(Step::Moved(bytes.len())));
        drop(first);
        assert_eq!(second.content(), bytes, "after tee, {mode:?}");
        assert_eq!(third.content(), bytes, "after splice, {mode:?}");
    }
}

#[test]
fn a_later_snapshot_does_not_show_in_an_earlier_one() {
    for (to, mode) in pipes() {
        for letter in b"abcdefgh" {
            assert_eq!(put_all(&to.writer, &[&vec![*letter; page_size()]]), Ok(Step::Moved(page_size())));
        }
        let expected = b"abcdefgh".iter().flat_map(|letter| vec![*letter; page_size()]);
        assert_eq!(to.content(), expected.collect::<Vec<_>>(), "{mode:?}");
    }
}

#[test]
fn the_naive_form_does_show_a_change() {
    let to = pipe();
    let mut memory = vec![b'a'; 3 * page_size()];
    // SAFETY: it is a pipe's write end, so the memory is only read, and it outlives the pipe's use of it.
    let put_in = unsafe { vmsplice(&to.writer, &[IoSliceRaw::from_slice(&memory)], SpliceFlags::NONBLOCK) };
    assert_eq!(put_in, Ok(memory.len()));
    memory.fill(b'X');
    let memory = std::hint::black_box(memory);
    assert_eq!(to.content(), memory);
}

#[test]
fn the_read_end_is_ebadf_and_loses_nothing() {
    for mode in BOTH_MODES {
        let to = pipe_in(mode).holding(b"hello");
        let memory = *b"untouched";
        assert_eq!(put_all(&to.reader, &[&memory]), Err(Errno::BADF), "{mode:?}");
        assert_eq!(&memory, b"untouched");
        assert_eq!(to.content(), b"hello");
    }
}

#[test]
fn a_fifo_open_for_reading_and_writing_takes_bytes() {
    for mode in BOTH_MODES {
        let fifo = fifo();
        let both = reopen(&fifo.writer, OFlags::RDWR);
        set_mode(&both, mode);
        assert_eq!(put_all(&both, &[b"hello"]), Ok(Step::Moved(5)), "{mode:?}");
        assert_eq!(fifo.content(), b"hello");
    }
}

#[test]
fn what_is_no_pipe_is_ebadf_and_gets_nothing() {
    for mode in BOTH_MODES {
        let mut file = file(b"");
        set_mode(&file, mode);
        assert_eq!(put_all(&file, &[b"hello"]), Err(Errno::BADF), "a file, {mode:?}");
        assert_eq!(file.read(&mut [0]).unwrap(), 0);
        let (here, there) = UnixStream::pair().unwrap();
        set_mode(&here, mode);
        assert_eq!(put_all(&here, &[b"hello"]), Err(Errno::BADF), "a socket, {mode:?}");
        assert_eq!(available(&there), b"");
    }
    assert_eq!(put_all(closed(), &[b"hello"]), Err(Errno::BADF));
}

#[test]
fn a_pipe_that_nobody_reads_is_epipe() {
    for (to, mode) in pipes() {
        drop(to.reader);
        assert_eq!(put_all(&to.writer, &[b"hello"]), Err(Errno::PIPE), "{mode:?}");
    }
}
