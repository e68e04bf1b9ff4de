//! `may_block`: what could make an attempt block.

use std::fs::File;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Errno, Likely, MayBlock, SpliceEnds, may_block};
use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};

fn may_block_of(fd: impl AsFd) -> MayBlock {
    may_block(fd.as_fd()).unwrap()
}

/// What `hold` says of the same thing in blocking and in non-blocking mode.
fn hold_in_both_modes(fd: impl AsFd) -> [MayBlock; 2] {
    BOTH_MODES.map(|mode| {
        set_mode(&fd, mode);
        may_block_of(&fd)
    })
}

#[test]
fn nothing_holds_up_a_pipe() {
    let pipe = pipe();
    assert_eq!(hold_in_both_modes(&pipe.reader), [MayBlock::Never; 2]);
    assert_eq!(hold_in_both_modes(&pipe.writer), [MayBlock::Never; 2]);
}

#[test]
fn nothing_holds_up_a_fifo() {
    let fifo = fifo();
    assert_eq!(hold_in_both_modes(&fifo.reader), [MayBlock::Never; 2]);
    assert_eq!(hold_in_both_modes(&fifo.writer), [MayBlock::Never; 2]);
    assert_eq!(hold_in_both_modes(fifo_without_writer()), [MayBlock::Never; 2]);
}

#[test]
fn the_output_matters_only_behind_a_pipe() {
    let pipe = pipe();
    let (socket, _peer) = UnixStream::pair().unwrap();
    let of = |input: &dyn AsFd, output: &dyn AsFd| {
        SpliceEnds::inspect(input.as_fd(), output.as_fd(), [Likely::Pipe; 2]).unwrap().may_block()
    };
    assert_eq!(of(&pipe.reader, &socket), [MayBlock::Never, MayBlock::Peer]);
    assert_eq!(of(&socket, &pipe.writer), [MayBlock::Peer, MayBlock::Never]);
    assert_eq!(of(&socket, &socket), [MayBlock::Peer, MayBlock::Never]);
}

#[test]
fn it_is_no_matter_what_the_ends_are_thought_to_be() {
    const LIKELY: [Likely; 3] = [Likely::Pipe, Likely::File, Likely::Socket];
    let [pipe, fifo] = [pipe(), fifo()];
    let (socket, _peer) = UnixStream::pair().unwrap();
    let (master, slave) = pty();
    let [zero, null] =
        ["/dev/zero", "/dev/null"].map(|path| File::options().read(true).write(true).open(path).unwrap());
    let file = file(b"hello");
    let waits = |input: &dyn AsFd, output: &dyn AsFd, likely| {
        !SpliceEnds::inspect(input.as_fd(), output.as_fd(), likely).unwrap().wait_for_no_peer()
    };
    let ends: [(&dyn AsFd, bool); 6] =
        [(&socket, true), (&slave, true), (&master, true), (&file, false), (&zero, false), (&null, false)];
    for likely in LIKELY.into_iter().flat_map(|input| LIKELY.map(|output| [input, output])) {
        for (end, is_waited_for) in ends {
            assert_eq!(waits(&pipe.reader, end, likely), is_waited_for, "{likely:?}");
            assert_eq!(waits(end, &pipe.writer, likely), is_waited_for, "{likely:?}");
            assert_eq!(waits(&fifo.reader, end, likely), is_waited_for, "{likely:?}");
            assert_eq!(waits(end, &fifo.writer, likely), is_waited_for, "{likely:?}");
        }
        assert!(!waits(&pipe.reader, &fifo.writer, likely), "{likely:?}");
        assert!(!waits(&fifo.reader, &pipe.writer, likely), "{likely:?}");
    }
}

#[test]
fn nothing_holds_up_a_pipe_opened_anew() {
    let pipe = pipe();
    assert_eq!(hold_in_both_modes(reopen(&pipe.reader, OFlags::RDONLY)), [MayBlock::Never; 2]);
    assert_eq!(hold_in_both_modes(reopen(&pipe.writer, OFlags::RDWR)), [MayBlock::Never; 2]);
}

#[test]
fn the_peer_holds_up_a_blocking_socket_only() {
    let (unix, _peer) = UnixStream::pair().unwrap();
    assert_eq!(hold_in_both_modes(&unix), [MayBlock::Peer, MayBlock::Never]);
    let (connected, accepted) = tcp_pair();
    assert_eq!(hold_in_both_modes(&connected), [MayBlock::Peer, MayBlock::Never]);
    assert_eq!(hold_in_both_modes(&accepted), [MayBlock::Peer, MayBlock::Never]);
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(hold_in_both_modes(&udp), [MayBlock::Peer, MayBlock::Never]);
}

#[test]
fn the_disk_holds_up_a_file_in_either_mode() {
    let file = file(b"hello");
    assert_eq!(hold_in_both_modes(&file), [MayBlock::Disk; 2]);
    for access in [OFlags::RDONLY, OFlags::WRONLY, OFlags::RDWR] {
        assert_eq!(may_block_of(reopen(&file, access | OFlags::NONBLOCK)), MayBlock::Disk);
    }
    assert_eq!(hold_in_both_modes(append_file()), [MayBlock::Disk; 2]);
    assert_eq!(hold_in_both_modes(memfd(b"hello")), [MayBlock::Disk; 2]);
    assert_eq!(hold_in_both_modes(File::open("/proc/self/status").unwrap()), [MayBlock::Disk; 2]);
}

#[test]
fn the_disk_holds_up_a_directory_in_either_mode() {
    let directory = File::open(std::env::temp_dir()).unwrap();
    assert_eq!(hold_in_both_modes(&directory), [MayBlock::Disk; 2]);
    assert_eq!(may_block_of(reopen(&directory, OFlags::RDONLY | OFlags::NONBLOCK)), MayBlock::Disk);
}

#[test]
fn nothing_holds_up_devices_that_are_memory() {
    for path in ["/dev/zero", "/dev/null", "/dev/full"] {
        let device = File::open(path).unwrap();
        assert_eq!(hold_in_both_modes(&device), [MayBlock::Never; 2], "{path}");
    }
}

#[test]
fn nobody_knows_what_a_driver_does() {
    let device = File::open("/dev/urandom").unwrap();
    assert_eq!(hold_in_both_modes(&device), [MayBlock::Unknown; 2]);
    assert_eq!(may_block_of(reopen(&device, OFlags::RDONLY | OFlags::NONBLOCK)), MayBlock::Unknown);
}

#[test]
fn the_peer_holds_up_a_blocking_terminal_only() {
    let (master, slave) = pty();
    assert_eq!(hold_in_both_modes(&slave), [MayBlock::Peer, MayBlock::Never]);
    assert_eq!(hold_in_both_modes(&master), [MayBlock::Peer, MayBlock::Never]);
    let unnamed = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    assert_eq!(hold_in_both_modes(unnamed.unwrap()), [MayBlock::Peer, MayBlock::Never]);
}

#[test]
fn a_number_says_nothing_when_it_has_been_used_again() {
    let mut number = OwnedFd::from(pipe_in(Blocking::No).reader);
    let raw = number.as_raw_fd();
    assert_eq!(may_block_of(&number), MayBlock::Never);
    let nonblocking_file = file(b"");
    set_mode(&nonblocking_file, Blocking::No);
    let (blocking_socket, _peer) = UnixStream::pair().unwrap();
    for (other, expected) in [
        (OwnedFd::from(file(b"")), MayBlock::Disk),
        (nonblocking_file.into(), MayBlock::Disk),
        (blocking_socket.into(), MayBlock::Peer),
        (pipe().writer.into(), MayBlock::Never),
    ] {
        // Another close and open in one, which no other thread's open can get between.
        rustix::io::dup2(&other, &mut number).unwrap();
        assert_eq!((number.as_raw_fd(), may_block_of(&number)), (raw, expected));
    }
}

#[test]
fn a_closed_number_is_ebadf() {
    assert_eq!(may_block(closed()), Err(Errno::BADF));
}
