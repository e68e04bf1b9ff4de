//! Copying from one descriptor to another, in the fastest way that the two allow.
//!
//! A [`Pump`] has a list of [`Route`]s, the best first. When the kernel refuses one, the pump falls back to the next
//! at the same position. That works because bytes that have left the input and not reached the output are in one place,
//! its bytes in flight. Three rules keep them from being lost, repeated or mixed up.
//!
//! - Nothing is taken from the input while anything is in flight.
//! - Bytes count as delivered when the output has taken them, and never before.
//! - A route changes only while nothing is in flight, or by reading what a pipe holds into memory.
//!
//! A pump never waits. [`CopyStream`], [`Relay`] and [`TeeStream`] run one or more of them, and leave every wait to their
//! [`Host`].

mod copy_stream;
mod host;
mod in_flight;
mod kernel;
pub(crate) mod position;
mod pump;
mod rate;
mod relay;
mod report;
mod route;
mod tee_stream;

pub use crate::ready::{Side, Waited};
pub use copy_stream::{CopyStream, Pause};
pub use host::{Host, Timeouts, back_off};
pub use kernel::{Kernel, Linux};
pub use pump::{Advance, Pump};
pub use relay::{Direction, Ends, Relay, RelayPause};
pub use route::{ControlRecords, Hints, Plan, Route};
pub use tee_stream::{TeeStream, TeeStreamPause};

/// How much is moved before the caller is told, or another pump has its turn.
const PORTION: u64 = 1 << 20;
