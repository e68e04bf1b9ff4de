//! The pipes that copies have for themselves.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::*;
use crate::{alone, is_open, open_descriptors};
use io_splice_core::copy::{CopyStream, Pause};
use io_splice_core::{Errno, PooledPipe, close_after_fork, pipe_size};
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A socket with bytes to read, and whoever has sent them.
fn socket_with(bytes: &[u8]) -> (OwnedFd, OwnedFd) {
    let (one, other) = unix_pair_in(Blocking::No);
    assert_eq!(rustix::io::write(&other, bytes), Ok(bytes.len()));
    (one, other)
}

/// A socket that takes no more.
fn full_socket() -> (OwnedFd, OwnedFd) {
    let (one, other) = unix_pair_in(Blocking::No);
    fill(&one);
    (one, other)
}

/// A copy from socket to socket that holds these bytes in its pipe.
fn stuck_copy(input: impl AsFd, output: impl AsFd) -> CopyStream {
    let mut copy = copy_all(&input, &output);
    let pause = run_copy(&mut copy, &input, &output, &mut Impatient::default());
    assert_eq!(pause, Pause::Wait);
    assert!(copy.in_flight() > 0);
    copy
}

/// What a copy from one socket to another passes on.
fn passed_on(bytes: &[u8]) -> Vec<u8> {
    let (input, feeder) = socket_with(bytes);
    drop(feeder);
    let (output, reader) = unix_pair_in(Blocking::No);
    assert_eq!(finish(&mut copy_all(&input, &output), &input, &output), Pause::Done);
    drop(output);
    read_to_end(reader)
}

#[test]
fn a_pipe_is_nonblocking_and_close_on_exec_and_as_large_as_it_is_said() {
    let _alone = alone();
    let pipe = PooledPipe::take().unwrap();
    for end in [pipe.reader(), pipe.writer()] {
        assert!(fcntl_getfl(end).unwrap().contains(OFlags::NONBLOCK));
        assert!(fcntl_getfd(end).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(pipe_size(end), Ok(pipe.capacity()));
    }
    assert!(pipe.capacity() >= io_splice_core::page_size());
    assert!(pipe.is_of_this_process());
}

#[test]
fn a_pipe_that_was_given_back_is_taken_again() {
    let _alone = alone();
    let pipe = PooledPipe::take().unwrap();
    let number = pipe.reader().as_raw_fd();
    pipe.return_to_pool();
    assert!(is_open(number));
    assert_eq!(PooledPipe::take().unwrap().reader().as_raw_fd(), number);
    assert!(!is_open(number), "a pipe that is dropped is closed");
}

#[test]
fn at_most_four_are_kept() {
    let _alone = alone();
    let before = open_descriptors();
    let pipes: Vec<_> = (0..20).map(|_| PooledPipe::take().unwrap()).collect();
    assert_eq!(open_descriptors().len(), before.len() + 40);
    pipes.into_iter().for_each(PooledPipe::return_to_pool);
    assert_eq!(open_descriptors().len(), before.len() + 8);
    let pipes: Vec<_> = (0..20).map(|_| PooledPipe::take().unwrap()).collect();
    drop(pipes);
    assert_eq!(open_descriptors(), before);
}

#[test]
fn copies_one_after_another_share_a_pipe() {
    let _alone = alone();
    let before = open_descriptors();
    for _ in 0..50 {
        assert_eq!(passed_on(b"again"), b"again");
    }
    assert_eq!(open_descriptors().len(), before.len() + 2);
}

#[test]
fn a_copy_that_failed_leaves_its_bytes_to_nobody() {
    let _alone = alone();
    let before = open_descriptors();
    let (input, feeder) = socket_with(b"secret");
    let (output, reader) = full_socket();
    drop(stuck_copy(&input, &output));
    assert_next_pipe_is_empty();
    assert_eq!(passed_on(b"mine"), b"mine");
    drop((input, feeder, output, reader));
    assert_eq!(open_descriptors().len(), before.len() + 2, "only the empty pipe is kept");
}

#[test]
fn a_copy_that_was_given_up_leaves_its_bytes_to_nobody() {
    let _alone = alone();
    let (input, _feeder) = socket_with(b"secret");
    let (output, _reader) = full_socket();
    let mut copy = stuck_copy(&input, &output);
    assert_eq!(copy.abort(Some(input.as_fd()), Some(output.as_fd())), b"secret");
    assert_eq!(copy.in_flight(), 0);
    drop(copy);
    assert_next_pipe_is_empty();
    assert_eq!(passed_on(b"mine"), b"mine");
}

#[test]
fn a_hundred_stuck_copies_do_not_meet() {
    let _alone = alone();
    let before = open_descriptors();
    let mut copies: Vec<_> = (0..100_u8)
        .map(|number| {
            let (input, output) = (socket_with(&[number; 100]), full_socket());
            let copy = stuck_copy(&input.0, &output.0);
            (number, input, output, copy)
        })
        .collect();
    for (number, input, output, copy) in &mut copies {
        let returned = copy.abort(Some(input.0.as_fd()), Some(output.0.as_fd()));
        assert_same(&returned, &[*number; 100], "its own bytes");
    }
    drop(copies);
    assert!(open_descriptors().len() <= before.len() + 8);
    for _ in 0..20 {
        assert_next_pipe_is_empty();
    }
}

#[test]
fn a_forked_child_closes_what_the_parent_had_and_copies_on_its_own() {
    let _alone = alone();
    let before = open_descriptors();
    assert_eq!(passed_on(b"parent"), b"parent");
    let kept = PooledPipe::take().unwrap();
    let taken = PooledPipe::take().unwrap();
    kept.return_to_pool();
    assert_eq!(open_descriptors().len(), before.len() + 4);
    close_after_fork();
    assert_eq!(open_descriptors(), before, "those that were kept and those in use");
    assert!(!taken.is_of_this_process());

    // The numbers are other files' now, and must be left alone.
    let others = [pipe(), pipe()];
    let after = open_descriptors();
    taken.return_to_pool();
    assert_eq!(open_descriptors(), after);
    drop(others);
    assert_eq!(passed_on(b"child"), b"child");
    assert_next_pipe_is_empty();
}

#[test]
fn a_copy_under_way_stays_with_the_parent() {
    let _alone = alone();
    let (input, _feeder) = socket_with(b"parent's");
    let (output, _reader) = full_socket();
    let mut copy = stuck_copy(&input, &output);
    close_after_fork();
    let others = [pipe(), pipe()];
    let after = open_descriptors();
    assert_eq!(run_copy(&mut copy, &input, &output, &mut Impatient::default()), Pause::Failed(Errno::BADF));
    assert_eq!(copy.abort(Some(input.as_fd()), Some(output.as_fd())), b"");
    drop(copy);
    assert_eq!(open_descriptors(), after);
    drop(others);
}

#[test]
fn without_descriptors_it_is_copied_through_memory() {
    let _alone = alone();
    let (input, feeder) = unix_pair_in(Blocking::No);
    let file = TempFile::new(b"");
    UnixStream::from(feeder).write_all(pattern(100_000)).unwrap();
    let writer = file.writer();
    let limit = getrlimit(Resource::Nofile);
    let highest = open_descriptors().into_iter().max().unwrap();
    // Whatever lies below the highest is filled up.
    let low = Rlimit { current: Some(highest as u64 + 1), ..limit };
    setrlimit(Resource::Nofile, low).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = rustix::io::fcntl_dupfd_cloexec(&input, 0) {
        fillers.push(filler);
    }
    let refused = PooledPipe::take().map(drop);
    let mut copy = copy_all(&input, &writer);
    let end = finish(&mut copy, &input, &writer);
    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(refused, Err(Errno::MFILE));
    assert_eq!((end, copy.delivered()), (Pause::Done, 100_000));
    assert_same(&file.content(), pattern(100_000), "through memory");
}

#[test]
fn with_one_descriptor_too_few_none_is_left_behind() {
    let _alone = alone();
    let before = open_descriptors();
    let highest = before.iter().max().unwrap() + 1;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest as u64 + 1), ..limit }).unwrap();
    let gaps = (0..=highest).filter(|number| !before.contains(number)).count();
    let fillers: Vec<_> =
        (1..gaps).map(|_| rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).unwrap()).collect();
    let refused = PooledPipe::take().map(drop);
    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!(refused, Err(Errno::MFILE));
    assert_eq!(open_descriptors(), before);
}
