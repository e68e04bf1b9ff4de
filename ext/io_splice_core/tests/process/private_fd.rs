//! `PrivateFd` and `close_after_fork`.

use std::ffi::CString;
use std::io::{Read, Write};
use std::mem::forget;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Once;

use crate::support::*;
use crate::{alone, is_open, open_descriptors};
use io_splice_core::{Errno, PooledPipe, PrivateFd, close_after_fork, open, register_fork_handlers};
use rustix::fs::{OFlags, fcntl_getfl, fstat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn number(fd: impl AsFd) -> RawFd {
    fd.as_fd().as_raw_fd()
}

/// A private descriptor of the same file.
fn reopened(fd: impl AsFd) -> io_splice_core::Result<PrivateFd> {
    let access = fcntl_getfl(&fd)? & OFlags::ACCMODE;
    let path = CString::new(format!("/proc/self/fd/{}", number(&fd))).unwrap();
    open(&path, access.bits() as i32)
}

/// As if another thread were in the middle of a call with it.
fn duplicate_and_forget(fd: impl AsFd) -> RawFd {
    let had = reopened(fd).unwrap();
    let number = number(&had);
    forget(had);
    number
}

#[test]
fn it_is_another_number() {
    let _alone = alone();
    let file = file(b"hello, world");
    let had = reopened(&file).unwrap();
    assert_ne!(number(&had), number(&file));
    let (ours, theirs) = (fstat(&had).unwrap(), fstat(&file).unwrap());
    assert_eq!((ours.st_dev, ours.st_ino), (theirs.st_dev, theirs.st_ino));
}

#[test]
fn it_can_be_closed_before_it_is_dropped_and_then_is_closed_once() {
    let _alone = alone();
    let had = reopened(file(b"hello")).unwrap();
    let number = number(&had);
    assert_eq!(had.close(), Ok(()));
    assert!(!is_open(number));
    // What has the number next is nobody's to close.
    let next = fcntl_dupfd_cloexec(file(b"next"), number).unwrap();
    close_after_fork();
    assert_eq!((is_open(number), next.as_raw_fd()), (true, number));
}

#[test]
fn it_is_closed_on_exec() {
    let _alone = alone();
    let pipe = pipe();
    fcntl_setfd(&pipe.reader, FdFlags::empty()).unwrap();
    let had = reopened(&pipe.reader).unwrap();
    assert_eq!(fcntl_getfd(&had), Ok(FdFlags::CLOEXEC));
    assert_eq!(fcntl_getfd(&pipe.reader), Ok(FdFlags::empty()));
}

#[test]
fn it_can_be_used_after_the_original_is_closed() {
    let _alone = alone();
    let Pipe { reader, writer } = pipe();
    let had = reopened(&writer).unwrap();
    drop(writer);
    assert_eq!(rustix::io::write(&had, b"hello"), Ok(5));
    assert_eq!(available(&reader), b"hello");
    drop(had);
    assert_eq!(guarded(|| (&reader).read(&mut [0])).unwrap(), 0);
}

#[test]
fn it_still_means_the_same_file_when_the_original_number_is_used_again() {
    let _alone = alone();
    let (first, second) = (pipe(), pipe());
    let mut original = OwnedFd::from(first.writer);
    let had = reopened(&original).unwrap();
    rustix::io::dup2(&second.writer, &mut original).unwrap();
    assert_eq!(rustix::io::write(&had, b"hello"), Ok(5));
    assert_eq!(available(&first.reader), b"hello");
    assert_eq!(second.content(), b"");
}

#[test]
fn it_is_closed_on_drop_and_the_original_is_not() {
    let _alone = alone();
    let pipe = pipe();
    let had = reopened(&pipe.writer).unwrap();
    let number = number(&had);
    assert!(is_open(number));
    drop(had);
    assert!(!is_open(number));
    (&pipe.writer).write_all(b"hello").unwrap();
    assert_eq!(pipe.content(), b"hello");
}

#[test]
fn a_closed_number_cannot_be_had() {
    let _alone = alone();
    assert_eq!(reopened(closed()).err(), Some(Errno::BADF));
}

#[test]
fn close_after_fork_closes_what_others_have_lent_and_nothing_else() {
    let _alone = alone();
    let pipe = pipe();
    let numbers = [duplicate_and_forget(&pipe.reader), duplicate_and_forget(&pipe.writer)];
    assert!(numbers.iter().all(|number| is_open(*number)));
    close_after_fork();
    assert!(!numbers.iter().any(|number| is_open(*number)));
    (&pipe.writer).write_all(b"hello").unwrap();
    assert_eq!(pipe.content(), b"hello");
}

#[test]
fn close_after_fork_ends_a_pipe_whose_lent_writer_was_the_last() {
    let _alone = alone();
    let Pipe { mut reader, writer } = pipe();
    duplicate_and_forget(&writer);
    drop(writer);
    close_after_fork();
    assert_eq!(guarded(|| reader.read(&mut [0])).unwrap(), 0);
}

#[test]
fn close_after_fork_with_nothing_lent_closes_nothing() {
    let _alone = alone();
    let before = open_descriptors();
    close_after_fork();
    assert_eq!(open_descriptors(), before);
}

#[test]
fn close_after_fork_leaves_a_number_that_was_given_back_and_used_again() {
    let _alone = alone();
    let pipe = pipe();
    let had = reopened(&pipe.writer).unwrap();
    let freed = number(&had);
    drop(had);
    let again = fcntl_dupfd_cloexec(&pipe.reader, freed).unwrap();
    assert_eq!(number(&again), freed);
    close_after_fork();
    assert!(is_open(freed));
}

#[test]
fn close_after_fork_closes_once() {
    let _alone = alone();
    let pipe = pipe();
    let freed = duplicate_and_forget(&pipe.writer);
    close_after_fork();
    let again = fcntl_dupfd_cloexec(&pipe.reader, freed).unwrap();
    assert_eq!(number(&again), freed);
    close_after_fork();
    assert!(is_open(freed));
}

/// Runs with as many descriptors as there may be.
fn with_many_descriptors(test: impl FnOnce()) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    test();
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn of_any_number_a_child_keeps_none_and_nothing_of_others_is_closed() {
    let _alone = alone();
    let pipe = pipe();
    with_many_descriptors(|| {
        let before = open_descriptors();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..1500 {
            ours.push(duplicate_and_forget(&pipe.writer));
            theirs.push(fcntl_dupfd_cloexec(&pipe.writer, 0).unwrap());
            drop(reopened(&pipe.writer).unwrap());
        }
        assert!(ours.iter().all(|number| is_open(*number)));
        close_after_fork();
        assert_eq!(open_descriptors().len(), before.len() + theirs.len());
        drop(theirs);
        assert_eq!(open_descriptors(), before);
    });
}

/// Forks and looks in the child whether a number is open there.
fn is_open_in_a_child(number: RawFd) -> bool {
    let mut child = Command::new("true");
    // SAFETY: the child makes system calls only.
    unsafe {
        child.pre_exec(move || {
            let number = BorrowedFd::borrow_raw(number);
            fcntl_getfd(number).map(drop).map_err(std::io::Error::from)
        })
    };
    match child.status() {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(Errno::from_io_error(&error), Some(Errno::BADF));
            false
        }
    }
}

#[test]
fn every_fork_runs_the_handler() {
    static ONCE: Once = Once::new();
    let _alone = alone();
    ONCE.call_once(|| register_fork_handlers().unwrap());
    let pipe = pipe();
    let had = reopened(&pipe.writer).unwrap();
    assert!(is_open_in_a_child(number(&pipe.writer)));
    assert!(!is_open_in_a_child(number(&had)));
    assert_eq!(rustix::io::write(&had, b"parent"), Ok(6));
    let new = PooledPipe::take().unwrap();
    assert!(!is_open_in_a_child(number(new.reader())));
    assert!(new.is_of_this_process());
}

#[test]
fn threads_that_lend_at_the_same_time_leave_nothing_behind() {
    let _alone = alone();
    let pipe = pipe();
    let before = open_descriptors();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let had = [(); 30].map(|()| reopened(&pipe.writer).unwrap());
                    assert!(had.iter().all(|one| fcntl_getfd(one).is_ok()));
                }
            });
        }
    });
    assert_eq!(open_descriptors(), before);
    let after = duplicate_and_forget(&pipe.writer);
    close_after_fork();
    assert!(!is_open(after));
}
