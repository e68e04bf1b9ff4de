//! What a forked child finds in the pool.

use crate::alone;
use io_splice_core::{PooledPipe, close_after_fork};

/// Its numbers may belong to other files by then.
#[test]
fn an_idle_pipe_from_before_a_fork_is_not_taken() {
    let _alone = alone();
    PooledPipe::take().unwrap().return_to_pool();
    close_after_fork();
    assert!(PooledPipe::take().unwrap().is_of_this_process());
}
