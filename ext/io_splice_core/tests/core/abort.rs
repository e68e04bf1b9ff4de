//! What becomes of the bytes in flight when a copy is aborted.

use std::io::Seek;
use std::os::fd::AsFd;

use crate::support::*;
use io_splice_core::copy::{Pause, TeeStreamPause};

const MIB: usize = 1 << 20;

/// A file can seek back, so nothing is read out of the pipe: it still holds the bytes, and is not for the next copy.
#[test]
fn a_pipe_with_bytes_of_a_file_in_it_is_not_returned_to_the_pool() {
    let mut input = file(pattern(MIB));
    let (output, _far) = unix_pair_in(Blocking::No);
    fill(&output);
    let outputs = [Some(output.as_fd())];
    let mut copy = new_tee_stream(&input, &outputs, None);
    let pause = run_tee_stream(&mut copy, &input, &outputs, &mut Impatient::default());
    assert_eq!(pause, TeeStreamPause::Wait);
    assert!(input.stream_position().unwrap() > 0, "nothing is in flight");
    assert!(copy.abort(Some(input.as_fd()), &outputs).is_empty());
    assert_eq!(input.stream_position().unwrap(), 0);
    drop(copy);
    assert_next_pipe_is_empty();
}

#[test]
fn of_bytes_in_memory_those_that_were_not_delivered_come_back() {
    let Pipe { reader: input, writer: _feeder } = pipe_in(Blocking::No);
    let Pipe { reader, writer: output } = pipe_in(Blocking::No);
    let mut copy = copy_all(&input, &output);
    copy.prepend(pattern(MIB).to_vec());
    assert_eq!(run_copy(&mut copy, &input, &output, &mut Impatient::default()), Pause::Wait);
    let back = copy.abort(Some(input.as_fd()), Some(output.as_fd()));
    let arrived = available(&reader);
    assert!(!arrived.is_empty() && !back.is_empty(), "it is not in the middle");
    assert_same(&[arrived, back].concat(), pattern(MIB), "what has arrived and what comes back");
}
