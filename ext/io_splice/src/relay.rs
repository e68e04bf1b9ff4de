use std::os::fd::BorrowedFd;
use std::time::Duration;

use io_splice_core::copy::{Direction, Hints, Plan, Relay, RelayPause};
use io_splice_core::{Errno, Side};
use magnus::value::ReprValue;
use magnus::{Error, IntoValue, Ruby, TryConvert, Value};

use crate::copy::{abort_copy, timeouts};
use crate::end::{End, descriptors_for_copy, keep_alive};
use crate::park::park;
use crate::wait::timed_out;
use crate::without_gvl::{GvlFreeHost, Scheduler, inspect_without_gvl, without_gvl};
use crate::{error, gvl};

pub const NAME: &str = "relay";

/// The two ends of a direction.
type Ends = (End, End);

/// `relay_between(a_in, b_out, b_in, a_out, idle_timeout) { |direction| … }`: both directions until both have ended. The
/// block tells an output that is no socket of the end. Returns the bytes of each direction.
pub fn relay_between(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 5..=5)?;
    let end = |index: usize, direction| End::new(ruby, args[index], direction);
    let ends = [(end(0, Side::Input)?, end(1, Side::Output)?), (end(2, Side::Input)?, end(3, Side::Output)?)];
    let pass_on = ruby.block_proc()?;
    let idle_timeout = seconds(ruby, args[4])?;

    for (input, output) in &ends {
        descriptors_for_copy(NAME, input, output)?;
    }
    let all = ends.map(<[End; 2]>::from).concat();
    let plan = |fds: &[BorrowedFd<'_>]| Plan::new(fds[0], fds[1], None, None, Hints::default());
    let plans = inspect_without_gvl(NAME, &all, |fds| Ok([plan(&fds[..2])?, plan(&fds[2..])?]))
        .map_err(|error| error::relayed(ruby, error, [0; 2]))?;
    let timeouts = [timeouts(ends[0].0, ends[0].1)?, timeouts(ends[1].0, ends[1].1)?];
    let mut relay = Relay::new(plans, timeouts, idle_timeout);
    let pass_on = |direction: Direction| pass_on.call::<_, Value>((direction as usize,)).map(drop);
    let mut ended = run(ruby, &mut relay, ends, pass_on);
    if ended.is_err() {
        for (direction, (input, output)) in Direction::BOTH.into_iter().zip(ends) {
            if relay.needs_abort(direction) {
                let interrupted =
                    abort_copy(input, output, |fd_in, fd_out| relay.abort(direction, fd_in, fd_out));
                ended = interrupted.and(ended);
            }
        }
    }
    keep_alive(&ends[0].0);
    keep_alive(&ends[0].1);
    keep_alive(&ends[1].0);
    keep_alive(&ends[1].1);
    let relayed = relay.delivered();
    match ended {
        Ok(()) => Ok(ruby.ary_new_from_values(&relayed.map(|bytes| bytes.into_value_with(ruby))).as_value()),
        Err(error) => Err(error::relayed(ruby, error, relayed)),
    }
}

/// A timeout in seconds, or nil.
pub fn seconds(ruby: &Ruby, value: Value) -> Result<Option<Duration>, Error> {
    let Some(seconds) = Option::<f64>::try_convert(value)? else { return Ok(None) };
    if seconds.is_nan() || seconds < 0.0 {
        let value = error::text(value)?;
        return Err(error::argument(ruby, format!("invalid idle_timeout: {value}")));
    }
    Ok(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

/// The kernel has refused in this direction.
pub fn failure(direction: Direction, errno: Errno, why: Option<&str>) -> Error {
    error::errno_of(errno, NAME, ["a to b", "b to a"][direction as usize], why)
}

fn run(
    ruby: &Ruby,
    relay: &mut Relay,
    ends: [Ends; 2],
    pass_on: impl Fn(Direction) -> Result<(), Error>,
) -> Result<(), Error> {
    let read_ahead = |relay: &mut Relay, direction| -> Result<(), Error> {
        let (input, _) = ends[direction as usize];
        relay.prepend(direction, input.take_read_ahead(ruby, u64::MAX)?);
        relay.set_more_ahead(direction, input.has_read_ahead());
        Ok(())
    };
    for direction in Direction::BOTH {
        read_ahead(relay, direction)?;
    }
    let mut scheduler = Scheduler::default();
    loop {
        let mut open = Vec::with_capacity(4);
        for (direction, (input, output)) in Direction::BOTH.into_iter().zip(ends) {
            if !relay.is_over(direction) {
                descriptors_for_copy(NAME, &input, &output)?;
                open.extend([input, output]);
            }
        }
        let over = Direction::BOTH.map(|direction| relay.is_over(direction));
        let mut host = GvlFreeHost::new();
        let mut pause = RelayPause::Interrupted;
        without_gvl(NAME, &open, &mut |fds| {
            let mut pairs = fds.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
            pause = relay.run(over.map(|over| if over { None } else { pairs.next() }), &mut host);
        })?;
        match pause {
            RelayPause::Done => return Ok(()),
            RelayPause::ReadAhead(direction) => read_ahead(relay, direction)?,
            RelayPause::Ended(direction) => {
                park(ruby, relay, || pass_on(direction))?;
                relay.passed_on(direction);
            }
            RelayPause::Interrupted => gvl::check_interrupts()?,
            RelayPause::Wait => park(ruby, relay, || scheduler.wait(ruby, NAME, &host, &open))?,
            RelayPause::Idle => return Err(error::timeout(ruby, "Timed out: no byte in either direction")),
            RelayPause::TimedOut(_, side) => return Err(timed_out(ruby, side)),
            RelayPause::Failed(direction, errno) => {
                return Err(failure(direction, errno, None));
            }
        }
    }
}
