//! `refusal`: the reason for an error, asked after real calls that failed.

use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Call, Errno, refusal, splice, tee, write_snapshot};
use rustix::fs::OFlags;

type Refused = (Errno, Option<&'static str>);

fn refused_splice(from: impl AsFd, to: impl AsFd) -> Refused {
    refused_splice_at(from, None, to, None)
}

fn refused_splice_at(
    from: impl AsFd,
    mut from_offset: Option<u64>,
    to: impl AsFd,
    mut to_offset: Option<u64>,
) -> Refused {
    let (from, to) = (from.as_fd(), to.as_fd());
    let errno = splice(from, from_offset.as_mut(), to, to_offset.as_mut(), 5, NO_FLAGS).unwrap_err();
    (errno, refusal(Call::Splice, Some(from), to, errno))
}

fn refused_tee(from: impl AsFd, to: impl AsFd) -> Refused {
    let (from, to) = (from.as_fd(), to.as_fd());
    let errno = tee(from, to, 5, NO_FLAGS).unwrap_err();
    (errno, refusal(Call::Tee, Some(from), to, errno))
}

fn refused_vmsplice(to: impl AsFd) -> Refused {
    let errno = write_snapshot(to.as_fd(), &[IoSlice::new(b"hello")]).unwrap_err();
    (errno, refusal(Call::Vmsplice, None, to.as_fd(), errno))
}

#[test]
fn neither_end_is_a_pipe() {
    let refused = (Errno::INVAL, Some("neither end is a pipe"));
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(refused_splice(file(b"hello"), file(b"")), refused);
    assert_eq!(refused_splice(file(b"hello"), &socket), refused);
    assert_eq!(refused_splice(&socket, append_file()), refused);
}

#[test]
fn both_ends_are_the_same_pipe() {
    let refused = (Errno::INVAL, Some("both ends are the same pipe"));
    for pipe in [pipe().holding(b"hello"), fifo().holding(b"hello")] {
        assert_eq!(refused_splice(&pipe.reader, &pipe.writer), refused);
        assert_eq!(refused_tee(&pipe.reader, &pipe.writer), refused);
    }
}

#[test]
fn the_output_is_in_append_mode() {
    let from = pipe().holding(b"hello");
    assert_eq!(
        refused_splice(&from.reader, append_file()),
        (Errno::INVAL, Some("the output is open in append mode"))
    );
}

#[test]
fn an_end_does_not_support_it() {
    let pipe = pipe().holding(b"hello");
    assert_eq!(
        refused_splice(spliceless(), &pipe.writer),
        (Errno::INVAL, Some("the input does not support it, or not at that offset"))
    );
    assert_eq!(
        refused_splice(&pipe.reader, spliceless()),
        (Errno::INVAL, Some("the output does not support it, or not at that offset"))
    );
}

#[test]
fn an_end_does_not_support_that_offset() {
    let pipe = pipe().holding(b"hello");
    assert_eq!(
        refused_splice_at(file(b"hello"), Some(u64::MAX), &pipe.writer, None),
        (Errno::INVAL, Some("the input does not support it, or not at that offset"))
    );
    assert_eq!(
        refused_splice_at(&pipe.reader, None, file(b""), Some(u64::MAX)),
        (Errno::INVAL, Some("the output does not support it, or not at that offset"))
    );
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(
        refused_splice_at(&pipe.reader, None, &socket, Some(0)),
        (Errno::INVAL, Some("the output does not support it, or not at that offset"))
    );
}

#[test]
fn an_offset_was_given_for_a_pipe() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    let refused = (Errno::SPIPE, Some("an offset was given for a pipe"));
    assert_eq!(refused_splice_at(&from.reader, Some(0), &to.writer, None), refused);
    assert_eq!(refused_splice_at(&from.reader, None, &to.writer, Some(0)), refused);
}

#[test]
fn the_input_of_tee_is_no_pipe() {
    let refused = (Errno::INVAL, Some("the input is not a pipe"));
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(refused_tee(file(b"hello"), pipe().fill().writer), refused);
    assert_eq!(refused_tee(&socket, &socket), refused);
}

#[test]
fn the_output_of_tee_is_no_pipe() {
    let from = pipe().holding(b"hello");
    let refused = (Errno::INVAL, Some("the output is not a pipe"));
    assert_eq!(refused_tee(&from.reader, file(b"")), refused);
    assert_eq!(refused_tee(&from.reader, append_file()), refused);
}

#[test]
fn the_output_of_vmsplice_is_no_pipe() {
    let refused = (Errno::BADF, Some("the output is not a pipe"));
    let (socket, _peer) = UnixStream::pair().unwrap();
    assert_eq!(refused_vmsplice(file(b"")), refused);
    assert_eq!(refused_vmsplice(&socket), refused);
}

#[test]
fn the_input_is_not_open_for_reading() {
    let (from, to) = (pipe(), pipe());
    let refused = (Errno::BADF, Some("the input is not open for reading"));
    assert_eq!(refused_splice(&from.writer, &to.writer), refused);
    assert_eq!(refused_splice(append_file(), &to.writer), refused);
    assert_eq!(refused_tee(&from.writer, &to.writer), refused);
}

#[test]
fn the_output_is_not_open_for_writing() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    let refused = (Errno::BADF, Some("the output is not open for writing"));
    assert_eq!(refused_splice(&from.reader, &to.reader), refused);
    assert_eq!(refused_splice(&from.reader, reopen(&file(b""), OFlags::RDONLY)), refused);
    assert_eq!(refused_tee(&from.reader, &to.reader), refused);
    assert_eq!(refused_vmsplice(&to.reader), refused);
}

#[test]
fn there_is_nothing_to_add_to_an_error_that_speaks_for_itself() {
    let (from, to) = (pipe().holding(b"hello"), pipe());
    drop(to.reader);
    assert_eq!(refused_splice(&from.reader, &to.writer), (Errno::PIPE, None));
    assert_eq!(refused_tee(&from.reader, &to.writer), (Errno::PIPE, None));
    assert_eq!(refused_vmsplice(&to.writer), (Errno::PIPE, None));
}

#[test]
fn nothing_is_made_up_when_all_looks_well() {
    let (from, to) = (pipe(), pipe());
    for call in [Call::Splice, Call::Tee] {
        for errno in [Errno::INVAL, Errno::BADF, Errno::IO] {
            assert_eq!(refusal(call, Some(from.reader.as_fd()), to.writer.as_fd(), errno), None);
        }
    }
    for errno in [Errno::INVAL, Errno::BADF, Errno::NOMEM] {
        assert_eq!(refusal(Call::Vmsplice, None, to.writer.as_fd(), errno), None);
    }
}

#[test]
fn there_is_nothing_to_add_to_a_closed_number() {
    let pipe = pipe().holding(b"hello");
    assert_eq!(refused_splice(closed(), &pipe.writer), (Errno::BADF, None));
    assert_eq!(refused_splice(&pipe.reader, closed()), (Errno::BADF, None));
    assert_eq!(refused_tee(&pipe.reader, closed()), (Errno::BADF, None));
    assert_eq!(refused_vmsplice(closed()), (Errno::BADF, None));
}
