//! All tests that get along with each other in one process. In `process` are those that must be alone in
//! theirs, in `memory` is the one that measures it.

#[path = "../support/mod.rs"]
mod support;

mod abort;
mod background;
mod blocking;
mod blocking_ends;
mod by_reading;
mod copy_faults;
mod copy_routes;
mod portions;
mod ready;
mod refusal;
mod relay;
mod shared_output;
mod splice;
mod tee;
mod tee_stream;
mod vmsplice_pages;
mod vmsplice_snapshot;
