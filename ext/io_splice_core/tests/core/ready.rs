//! `ready`: which end is a reason to wait.

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::support::*;
use io_splice_core::{Errno, Readiness, ready};

/// (input, output)
#[track_caller]
fn ready_ends(input: impl AsFd, output: impl AsFd) -> (bool, bool) {
    let Readiness { input, output, .. } = guarded(|| ready(input.as_fd(), output.as_fd())).unwrap();
    (input, output)
}

#[test]
fn a_pipe_is_ready_when_it_has_bytes_or_room() {
    for pipe in [pipe, fifo] {
        let (empty, filled, roomy, full) = (pipe(), pipe().holding(b"x"), pipe(), pipe().fill());
        assert_eq!(ready_ends(&empty.reader, &full.writer), (false, false));
        assert_eq!(ready_ends(&empty.reader, &roomy.writer), (false, true));
        assert_eq!(ready_ends(&filled.reader, &full.writer), (true, false));
        assert_eq!(ready_ends(&filled.reader, &roomy.writer), (true, true));
    }
}

#[test]
fn a_socket_is_ready_when_it_has_bytes_or_room() {
    let (here, there) = UnixStream::pair().unwrap();
    assert_eq!(ready_ends(&here, &here), (false, true));
    (&there).write_all(b"x").unwrap();
    assert_eq!(ready_ends(&here, &here), (true, true));
    here.set_nonblocking(true).unwrap();
    fill(&here);
    assert_eq!(ready_ends(&here, &here), (true, false));
    available(&here);
    assert_eq!(ready_ends(&here, &here), (false, false));
}

#[test]
fn an_input_that_has_ended_is_ready() {
    let (from, full) = (pipe(), pipe().fill());
    assert_eq!(ready_ends(&from.reader, &full.writer), (false, false));
    drop(from.writer);
    assert_eq!(ready_ends(&from.reader, &full.writer), (true, false));

    let (here, there) = UnixStream::pair().unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ready_ends(&here, &full.writer), (true, false));
}

#[test]
fn an_output_that_nobody_reads_is_ready() {
    let (empty, full) = (pipe(), pipe().fill());
    assert_eq!(ready_ends(&empty.reader, &full.writer), (false, false));
    drop(full.reader);
    assert_eq!(ready_ends(&empty.reader, &full.writer), (false, true));
}

#[test]
fn a_file_is_always_ready() {
    let file = file(b"");
    assert_eq!(ready_ends(&file, &file), (true, true));
}

#[test]
fn a_closed_number_is_ebadf() {
    let pipe = pipe().holding(b"x");
    assert_eq!(ready(closed(), pipe.writer.as_fd()), Err(Errno::BADF));
    assert_eq!(ready(pipe.reader.as_fd(), closed()), Err(Errno::BADF));
    assert_eq!(ready(closed(), closed()), Err(Errno::BADF));
}

#[test]
fn both_means_both() {
    for (input, output) in [(false, false), (false, true), (true, false), (true, true)] {
        assert_eq!(Readiness { input, output, only_error: [false; 2] }.both(), input && output);
    }
}
