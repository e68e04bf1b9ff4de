//! `splice_now` and `write_now` with ends in blocking mode: they wait for nobody, and the mode stays.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Attempt, Errno, Likely, SpliceEnds, Step, splice_now, write_now};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::pipe::SpliceFlags;

/// Moves bytes, and checks that no mode has changed.
#[track_caller]
fn move_bytes(from: impl AsFd, to: impl AsFd, len: usize) -> Attempt {
    let (from, to) = (from.as_fd(), to.as_fd());
    let modes = || [from, to].map(|fd| fcntl_getfl(fd).unwrap());
    let before = modes();
    let ends = SpliceEnds::inspect(from, to, [Likely::File; 2]).unwrap();
    let attempt = guarded(|| splice_now(&ends, from, None, to, None, len, SpliceFlags::empty()));
    assert_eq!(modes(), before);
    attempt
}

/// Both ends of what is in blocking mode and is no pipe: the first writes what the second reads.
fn pairs() -> Vec<[OwnedFd; 2]> {
    let (unix, unix_peer) = UnixStream::pair().unwrap();
    let (tcp, tcp_peer) = tcp_pair();
    let (master, slave) = pty();
    let (other_master, other_slave) = pty();
    vec![
        [unix.into(), unix_peer.into()],
        [tcp.into(), tcp_peer.into()],
        [master.into(), slave.into()],
        [other_slave.into(), other_master.into()],
    ]
}

/// Fills it for good: what TCP and terminals hold they may pass on a little later.
fn stuff(fd: BorrowedFd<'_>) {
    let mut calm = 0;
    while calm < 8 {
        calm = if let Ok(Step::Moved(_)) = write_now(fd, pattern(4096)) { 0 } else { calm + 1 };
        if calm > 0 {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

#[test]
fn an_empty_input_is_not_waited_for() {
    for [_writer, reader] in pairs() {
        assert_eq!(move_bytes(&reader, &pipe().writer, 10), Ok(Step::WouldBlock));
    }
}

#[test]
fn a_full_output_is_not_waited_for() {
    for [writer, _reader] in pairs() {
        stuff(writer.as_fd());
        let from = pipe().holding(b"more");
        assert_eq!(move_bytes(&from.reader, &writer, 10), Ok(Step::WouldBlock));
        assert_eq!(guarded(|| write_now(writer.as_fd(), b"more")), Ok(Step::WouldBlock));
        assert_eq!(from.content(), b"more");
    }
}

#[test]
fn bytes_that_are_there_move() {
    for [writer, reader] in pairs() {
        let (from, to) = (pipe().holding(b"hello"), pipe());
        assert_eq!(move_bytes(&from.reader, &writer, 10), Ok(Step::Moved(5)));
        let mut moved = 0;
        guarded(|| {
            while moved < 5 {
                if let Ok(Step::Moved(bytes)) = move_bytes(&reader, &to.writer, 10) {
                    moved += bytes;
                }
            }
        });
        assert_eq!(to.content(), b"hello");
        assert_eq!(guarded(|| write_now(writer.as_fd(), b"again")), Ok(Step::Moved(5)));
    }
}

#[test]
fn a_pipe_gets_no_more_than_it_has_room_for() {
    for slots_taken in 0..=16 {
        let to = pipe();
        for slot in 0..slots_taken {
            // Each has a slot of its own.
            let single = pipe().holding(&[slot]);
            assert_eq!(move_bytes(&single.reader, &to.writer, 1), Ok(Step::Moved(1)));
        }
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(pattern(100_000)).unwrap();
        match move_bytes(&here, &to.writer, 100_000) {
            Ok(Step::Moved(bytes)) => {
                assert_eq!(to.content()[slots_taken as usize..], pattern(bytes)[..bytes])
            }
            attempt => assert_eq!((attempt, slots_taken), (Ok(Step::WouldBlock), 16)),
        }
    }
}

#[test]
fn the_end_of_a_socket_and_of_a_pipe_is_the_end() {
    let (here, there) = UnixStream::pair().unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    assert_eq!(move_bytes(&here, &pipe().writer, 10), Ok(Step::Ended));
    let Pipe { reader, writer } = pipe();
    drop(writer);
    assert_eq!(move_bytes(&reader, &here, 10), Ok(Step::Ended));
}

#[test]
fn a_broken_connection_takes_nothing_out_of_the_pipe() {
    let from = pipe().holding(b"hello");
    let (closed, _) = UnixStream::pair().unwrap();
    assert_eq!(move_bytes(&from.reader, &closed, 10), Err(Errno::PIPE));
    for (ours, _peer) in [tcp_pair(), tcp_pair()] {
        ours.shutdown(Shutdown::Write).unwrap();
        assert_eq!(move_bytes(&from.reader, &ours, 10), Err(Errno::PIPE));
    }
    assert_eq!(from.content(), b"hello");
}

#[test]
fn a_refused_call_takes_nothing_from_a_socket() {
    let (here, mut there) = UnixStream::pair().unwrap();
    there.write_all(b"hello").unwrap();
    let to = pipe();
    assert_eq!(move_bytes(&here, &to.reader, 10), Err(Errno::BADF));
    assert_eq!(move_bytes(&here, &here, 10), Err(Errno::INVAL));
    assert_eq!(move_bytes(&here, file(b""), 10), Err(Errno::INVAL));
    assert_eq!(move_bytes(&to.writer, &here, 10), Err(Errno::BADF));
    let ends = SpliceEnds::inspect(here.as_fd(), to.writer.as_fd(), [Likely::Pipe; 2]).unwrap();
    let mut offset = 0;
    let offset = Some(&mut offset);
    let refused = splice_now(&ends, here.as_fd(), offset, to.writer.as_fd(), None, 10, SpliceFlags::empty());
    assert!(matches!(refused, Err(Errno::INVAL | Errno::SPIPE)), "{refused:?}");
    assert_eq!(available(&here), b"hello");
}

#[test]
fn a_fifo_open_in_both_directions_is_read_from() {
    let fifo = fifo().holding(b"hello");
    let both = reopen(&fifo.writer, OFlags::RDWR);
    let (here, there) = UnixStream::pair().unwrap();
    assert_eq!(move_bytes(&both, &here, 10), Ok(Step::Moved(5)));
    assert_eq!(available(&there), b"hello");
    assert_eq!(fifo.content(), b"");
}

#[test]
fn what_is_written_arrives_whatever_it_is_written_to() {
    for mode in BOTH_MODES {
        let to = pipe_in(mode);
        assert_eq!(write_now(to.writer.as_fd(), b"hello"), Ok(Step::Moved(5)));
        assert_eq!(to.content(), b"hello");
        let to = to.fill();
        assert_eq!(guarded(|| write_now(to.writer.as_fd(), b"more")), Ok(Step::WouldBlock));
        let file = memfd(b"");
        assert_eq!(write_now(file.as_fd(), b"hello"), Ok(Step::Moved(5)));
    }
    assert_eq!(write_now(closed(), b"hello"), Err(Errno::BADF));
}
