//! `splice` on everything that it joins.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::*;
use io_splice_core::{Attempt, Errno, Step, page_size, splice};
use rustix::fs::OFlags;
use rustix::pipe::SpliceFlags;

#[track_caller]
fn move_bytes(from: impl AsFd, to: impl AsFd, len: usize) -> Attempt {
    guarded(|| splice(from.as_fd(), None, to.as_fd(), None, len, NO_FLAGS))
}

/// Puts bytes into `source`, splices them from `from` into a pipe and expects them there.
fn expect_into_a_pipe(mut source: impl Write, from: impl AsFd) {
    let to = pipe();
    source.write_all(b"hello, world").unwrap();
    assert_eq!(move_bytes(&from, &to.writer, 5), Ok(Step::Moved(5)));
    assert_eq!(move_bytes(&from, &to.writer, 100), Ok(Step::Moved(7)));
    assert_eq!(to.content(), b"hello, world");
}

/// Splices bytes from a pipe into `to` and expects them to arrive at `target`.
fn expect_out_of_a_pipe(to: impl AsFd, mut target: impl Read) {
    let from = pipe().holding(b"hello, world");
    assert_eq!(move_bytes(&from.reader, &to, 5), Ok(Step::Moved(5)));
    assert_eq!(move_bytes(&from.reader, &to, 100), Ok(Step::Moved(7)));
    let mut arrived = [0; 12];
    target.read_exact(&mut arrived).unwrap();
    assert_eq!(&arrived, b"hello, world");
}

#[test]
fn a_pipe_to_a_pipe() {
    for mode in BOTH_MODES {
        let from = pipe_in(mode);
        expect_into_a_pipe(&from.writer, &from.reader);
    }
}

#[test]
fn a_fifo_to_a_pipe_and_back() {
    for mode in BOTH_MODES {
        let fifo = fifo_in(mode);
        expect_into_a_pipe(&fifo.writer, &fifo.reader);
        expect_out_of_a_pipe(&fifo.writer, &fifo.reader);
    }
}

#[test]
fn a_unix_socket_to_a_pipe_and_back() {
    let (here, there) = UnixStream::pair().unwrap();
    expect_into_a_pipe(&here, &there);
    expect_out_of_a_pipe(&here, &there);
}

#[test]
fn a_tcp_socket_to_a_pipe_and_back() {
    let (here, there) = tcp_pair();
    let to = pipe();
    (&here).write_all(b"hello, world").unwrap();
    let mut arrived = 0;
    while arrived < 12 {
        arrived += moved(move_bytes(&there, &to.writer, 100));
    }
    assert_eq!(to.content(), b"hello, world");
    expect_out_of_a_pipe(&here, &there);
}

#[test]
fn a_file_to_a_pipe_and_back() {
    for new_file in [file, memfd] {
        let from = new_file(b"hello, world");
        let to = pipe();
        assert_eq!(move_bytes(&from, &to.writer, 100), Ok(Step::Moved(12)));
        assert_eq!(to.content(), b"hello, world");

        let (from, mut to) = (pipe().holding(b"hello, world"), new_file(b""));
        assert_eq!(move_bytes(&from.reader, &to, 100), Ok(Step::Moved(12)));
        to.rewind().unwrap();
        let mut arrived = Vec::new();
        to.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived, b"hello, world");
    }
}

#[test]
fn a_terminal_to_a_pipe_and_back_where_the_kernel_can() {
    let (master, slave) = pty();
    (&master).write_all(b"hello").unwrap();
    let to = pipe();
    match move_bytes(&slave, &to.writer, 100) {
        Ok(step) => assert_eq!((step, to.content()), (Step::Moved(5), b"hello".into())),
        Err(errno) => assert_eq!((errno, to.content()), (Errno::INVAL, vec![])),
    }

    let from = pipe().holding(b"world");
    match move_bytes(&from.reader, &slave, 100) {
        Ok(step) => assert_eq!((step, available(&master)), (Step::Moved(5), b"world".into())),
        Err(errno) => assert_eq!((errno, from.content()), (Errno::INVAL, b"world".into())),
    }
}

#[test]
fn a_driver_to_a_pipe() {
    let (zero, to) = (File::open("/dev/zero").unwrap(), pipe());
    match rustix::pipe::splice(&zero, None, &pipe().writer, None, 1, SpliceFlags::empty()) {
        Ok(_) => {
            let bytes = moved(move_bytes(&zero, &to.writer, page_size()));
            assert_eq!(to.content(), vec![0; bytes]);
        }
        // Linux before 6.5.
        Err(errno) => {
            assert_eq!((move_bytes(&zero, &to.writer, page_size()), errno), (Err(errno), Errno::INVAL))
        }
    }
}

#[test]
fn the_input_keeps_what_the_output_does_not_take() {
    let (from, to) = (pipe().holding(pattern(3 * page_size())), pipe().narrow());
    let bytes = moved(move_bytes(&from.reader, &to.writer, usize::MAX));
    assert!(bytes <= page_size());
    let arrived = [to.content(), from.content()].concat();
    assert_eq!(arrived, pattern(3 * page_size()));
}

#[test]
fn an_empty_pipe_would_block_as_long_as_it_has_a_writer_and_then_ends() {
    for from in [pipe(), pipe_in(Blocking::No), fifo(), fifo_in(Blocking::No)] {
        let to = pipe();
        assert_eq!(move_bytes(&from.reader, &to.writer, 10), Ok(Step::WouldBlock));
        assert_eq!(move_bytes(&from.reader, file(b""), 10), Ok(Step::WouldBlock));
        let from = from.holding(b"last");
        drop(from.writer);
        assert_eq!(move_bytes(&from.reader, &to.writer, 10), Ok(Step::Moved(4)));
        assert_eq!(move_bytes(&from.reader, &to.writer, 10), Ok(Step::Ended));
        assert_eq!(move_bytes(&from.reader, file(b""), 10), Ok(Step::Ended));
    }
}

#[test]
fn a_full_pipe_would_block_in_either_mode() {
    for mode in BOTH_MODES {
        let (from, to) = (pipe_in(mode).holding(b"more"), pipe().fill());
        to.set_mode(mode);
        assert_eq!(move_bytes(&from.reader, &to.writer, 10), Ok(Step::WouldBlock));
        assert_eq!(move_bytes(file(b"more"), &to.writer, 10), Ok(Step::WouldBlock));
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(b"more").unwrap();
        assert_eq!(move_bytes(&there, &to.writer, 10), Ok(Step::WouldBlock));

        assert_eq!(to.content(), pattern(to.capacity()));
        assert_eq!(move_bytes(&there, &to.writer, 10), Ok(Step::Moved(4)));
        assert_eq!(from.content(), b"more");
    }
}

#[test]
fn a_socket_would_block_in_non_blocking_mode_and_ends_with_its_peer() {
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (tcp, tcp_peer) = tcp_pair();
    let to = pipe();
    for socket in [unix.as_fd(), tcp.as_fd()] {
        set_mode(socket, Blocking::No);
        assert_eq!(move_bytes(socket, &to.writer, 10), Ok(Step::WouldBlock));
    }
    unix_peer.shutdown(Shutdown::Write).unwrap();
    tcp_peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(move_bytes(&unix, &to.writer, 10), Ok(Step::Ended));
    assert_eq!(move_bytes(&tcp, &to.writer, 10), Ok(Step::Ended));
}

#[test]
fn a_socket_that_takes_no_more_would_block_in_non_blocking_mode() {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    fill(&here);
    let from = pipe().holding(b"more");
    assert_eq!(move_bytes(&from.reader, &here, 10), Ok(Step::WouldBlock));
    available(&there);
    assert_eq!(move_bytes(&from.reader, &here, 10), Ok(Step::Moved(4)));
    assert_eq!(available(&there), b"more");
}

#[test]
fn a_file_ends_at_its_end() {
    let (mut from, to) = (file(b"last"), pipe());
    assert_eq!(move_bytes(&from, &to.writer, 10), Ok(Step::Moved(4)));
    assert_eq!(move_bytes(&from, &to.writer, 10), Ok(Step::Ended));
    from.write_all(b"more").unwrap();
    from.seek_relative(-4).unwrap();
    assert_eq!(move_bytes(&from, &to.writer, 10), Ok(Step::Moved(4)));
}

#[test]
fn without_an_offset_the_file_position_moves() {
    let (mut from, mut to, between) = (file(b"hello, world"), file(b""), pipe());
    from.seek(std::io::SeekFrom::Start(7)).unwrap();
    assert_eq!(move_bytes(&from, &between.writer, 3), Ok(Step::Moved(3)));
    assert_eq!(from.stream_position().unwrap(), 10);
    assert_eq!(move_bytes(&between.reader, &to, 3), Ok(Step::Moved(3)));
    assert_eq!(to.stream_position().unwrap(), 3);
}

#[test]
fn an_input_offset_is_moved_on_and_the_file_position_stays() {
    let (mut from, to) = (file(b"hello, world"), pipe());
    from.seek(std::io::SeekFrom::Start(2)).unwrap();
    let mut offset = 7;
    let attempt = splice(from.as_fd(), Some(&mut offset), to.writer.as_fd(), None, 3, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(3)), 10));
    let attempt = splice(from.as_fd(), Some(&mut offset), to.writer.as_fd(), None, 10, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(2)), 12));
    let attempt = splice(from.as_fd(), Some(&mut offset), to.writer.as_fd(), None, 10, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Ended), 12));
    assert_eq!(to.content(), b"world");
    assert_eq!(from.stream_position().unwrap(), 2);
}

#[test]
fn an_output_offset_is_moved_on_and_the_file_position_stays() {
    let (from, mut to) = (pipe().holding(b"world"), file(b"hello, WORLD!"));
    to.seek(std::io::SeekFrom::Start(2)).unwrap();
    let mut offset = 7;
    let attempt = splice(from.reader.as_fd(), None, to.as_fd(), Some(&mut offset), 3, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(3)), 10));
    let attempt = splice(from.reader.as_fd(), None, to.as_fd(), Some(&mut offset), 10, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(2)), 12));
    let attempt = splice(from.reader.as_fd(), None, to.as_fd(), Some(&mut offset), 10, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::WouldBlock), 12));
    assert_eq!(to.stream_position().unwrap(), 2);
    to.rewind().unwrap();
    assert_eq!(std::io::read_to_string(to).unwrap(), "hello, world!");
}

#[test]
fn an_offset_beyond_4_gib_is_whole() {
    let (from, mut to) = (pipe().holding(b"far"), memfd(b""));
    let far = (1 << 32) + 5;
    let mut offset = far;
    let attempt = splice(from.reader.as_fd(), None, to.as_fd(), Some(&mut offset), 3, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(3)), far + 3));
    assert_eq!(to.seek(std::io::SeekFrom::End(0)).unwrap(), far + 3);
    offset = far;
    let attempt = splice(to.as_fd(), Some(&mut offset), from.writer.as_fd(), None, 100, NO_FLAGS);
    assert_eq!((attempt, offset), (Ok(Step::Moved(3)), far + 3));
    assert_eq!(from.content(), b"far");
}

#[test]
fn a_length_beyond_what_the_kernel_takes_is_clamped() {
    for len in [0x7fff_f000, 0x7fff_f001, 1 << 32, usize::MAX / 2 + 1, usize::MAX] {
        let to = pipe();
        assert_eq!(move_bytes(file(b"hello"), &to.writer, len), Ok(Step::Moved(5)), "{len:#x} from a file");
        let out = file(b"");
        assert_eq!(move_bytes(&to.reader, &out, len), Ok(Step::Moved(5)), "{len:#x} to a file");
        let from = pipe().holding(b"hello");
        assert_eq!(move_bytes(&from.reader, &to.writer, len), Ok(Step::Moved(5)), "{len:#x} between pipes");
        let (here, there) = UnixStream::pair().unwrap();
        (&here).write_all(b"hello").unwrap();
        assert_eq!(move_bytes(&there, &from.writer, len), Ok(Step::Moved(5)), "{len:#x} from a socket");
    }
}

#[test]
fn the_flags_of_the_kernel_are_taken() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    let flags = SpliceFlags::MOVE | SpliceFlags::MORE | SpliceFlags::NONBLOCK;
    let attempt = splice(from.reader.as_fd(), None, to.writer.as_fd(), None, 5, flags);
    assert_eq!(attempt, Ok(Step::Moved(5)));
    let unknown = SpliceFlags::from_bits_retain(1 << 20);
    let attempt = splice(to.reader.as_fd(), None, from.writer.as_fd(), None, 5, unknown);
    assert_eq!(attempt, Err(Errno::INVAL));
}

#[test]
fn invalid_ends_are_einval() {
    let same = pipe().holding(b"hello");
    assert_eq!(move_bytes(&same.reader, &same.writer, 5), Err(Errno::INVAL));
    assert_eq!(move_bytes(file(b"hello"), file(b""), 5), Err(Errno::INVAL));
    assert_eq!(move_bytes(&same.reader, append_file(), 5), Err(Errno::INVAL));
    assert_eq!(move_bytes(spliceless(), &same.writer, 5), Err(Errno::INVAL));
    assert_eq!(move_bytes(&same.reader, spliceless(), 5), Err(Errno::INVAL));
    assert_eq!(same.content(), b"hello");
}

#[test]
fn an_offset_for_a_pipe_is_espipe() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    let attempt = splice(from.reader.as_fd(), Some(&mut 0), to.writer.as_fd(), None, 5, NO_FLAGS);
    assert_eq!(attempt, Err(Errno::SPIPE));
    let attempt = splice(from.reader.as_fd(), None, to.writer.as_fd(), Some(&mut 0), 5, NO_FLAGS);
    assert_eq!(attempt, Err(Errno::SPIPE));
    assert_eq!(from.content(), b"hello");
}

#[test]
fn an_offset_beyond_all_files_is_an_error_and_stays() {
    let mut offset = u64::MAX;
    let attempt = splice(file(b"hello").as_fd(), Some(&mut offset), pipe().writer.as_fd(), None, 5, NO_FLAGS);
    assert_eq!((attempt, offset), (Err(Errno::INVAL), u64::MAX));
}

#[test]
fn an_output_that_nobody_reads_is_epipe() {
    let to = pipe();
    drop(to.reader);
    let from = pipe().holding(b"hello");
    assert_eq!(move_bytes(&from.reader, &to.writer, 5), Err(Errno::PIPE));
    assert_eq!(move_bytes(file(b"hello"), &to.writer, 5), Err(Errno::PIPE));
    let (here, there) = UnixStream::pair().unwrap();
    drop(there);
    assert_eq!(move_bytes(&from.reader, &here, 5), Err(Errno::PIPE));
}

#[test]
fn the_wrong_direction_and_a_closed_end_are_ebadf() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    assert_eq!(move_bytes(&to.writer, &from.writer, 5), Err(Errno::BADF));
    assert_eq!(move_bytes(&from.reader, &to.reader, 5), Err(Errno::BADF));
    assert_eq!(move_bytes(&from.reader, reopen(&file(b""), OFlags::RDONLY), 5), Err(Errno::BADF));
    assert_eq!(move_bytes(reopen(&file(b"hello"), OFlags::WRONLY), &to.writer, 5), Err(Errno::BADF));
    assert_eq!(move_bytes(closed(), &to.writer, 5), Err(Errno::BADF));
    assert_eq!(move_bytes(&from.reader, closed(), 5), Err(Errno::BADF));
    assert_eq!(from.content(), b"hello");
}

#[test]
fn a_pipe_that_others_fill_and_empty_meanwhile_has_not_ended() {
    let (from, to) = (pipe().narrow(), pipe().narrow());
    from.set_mode(Blocking::No);
    to.set_mode(Blocking::No);
    let stop = AtomicBool::new(false);
    guarded(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = (&from.writer).write(b"x");
                    let _ = (&to.writer).write(b"y");
                    let _ = (&from.reader).read(&mut [0]);
                    let _ = (&to.reader).read(&mut [0; 8]);
                }
            });
            let ended = (0..100_000)
                .map(|_| splice(from.reader.as_fd(), None, to.writer.as_fd(), None, 10, NO_FLAGS))
                .find(|attempt| matches!(attempt, Ok(Step::Ended) | Err(_)));
            stop.store(true, Ordering::Relaxed);
            assert_eq!(ended, None);
        });
    });
}
