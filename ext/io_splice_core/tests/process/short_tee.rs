//! A pipe of the gem's own that takes less than its capacity, because each of many small pieces takes a slot.

use std::os::fd::AsFd;

use crate::alone;
use crate::support::*;
use io_splice_core::copy::TeeStreamPause;
use io_splice_core::{PooledPipe, Step, page_size, set_pipe_size, splice};

const PIECES: usize = 10;

#[test]
fn an_output_to_which_tee_gives_a_part_gets_all() {
    let _alone = alone();
    // A page of a file takes a slot for each splice, however few bytes of it there are.
    let file = file(pattern(PIECES));
    let Pipe { reader: input, writer } = pipe_in(Blocking::No);
    for _ in 0..PIECES {
        assert_eq!(splice(file.as_fd(), None, writer.as_fd(), None, 1, NO_FLAGS), Ok(Step::Moved(1)));
    }
    drop(writer);
    // What is returned last is taken first, and is for the input.
    let [narrow, wide] = [PooledPipe::take().unwrap(), PooledPipe::take().unwrap()];
    assert_eq!(set_pipe_size(narrow.writer(), page_size()), Ok(page_size()));
    narrow.return_to_pool();
    wide.return_to_pool();
    let outputs = [Output::new(Kind::Pipe), Output::new(Kind::Pipe)];
    let fds = outputs.each_ref().map(|output| Some(output.fd.as_fd()));
    let mut copy = new_tee_stream(&input, &fds, None);
    assert_eq!(run_tee_stream(&mut copy, &input, &fds, &mut Patient::new()), TeeStreamPause::Done);
    drop(copy);
    for output in outputs {
        assert_same(&output.content(), pattern(PIECES), "an output");
    }
}
