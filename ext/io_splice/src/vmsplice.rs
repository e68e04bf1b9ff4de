use io_splice_core::{Call, Errno, Flags, Step, refusal};
use magnus::{Error, IntoValue, Ruby, Value};

use crate::data::Data;
use crate::end::{Direction, End, descriptor, keep_alive};
use crate::wait::Waiter;
use crate::{error, gvl, number};

const NAME: &str = Call::Vmsplice.name();

/// `vmsplice(io, data, flags = 0)`
pub fn vmsplice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 2..=3)?;
    let flags = number::flags(ruby, NAME, args.get(2).copied())?;
    let mut data = Data::new(ruby, NAME, args[1], flags.gift)?;
    if End::takes_ruby_code(args[0]) {
        data.hold(ruby)?;
    }
    let end = End::new(ruby, args[0], Direction::Out)?;
    let result = put_all(ruby, end, &mut data, flags);
    keep_alive(&end);
    match result {
        Ok(()) => Ok(data.put_in().into_value_with(ruby)),
        Err(error) => Err(error::partial_write(ruby, error, data.put_in())),
    }
}

fn put_all(ruby: &Ruby, end: End, data: &mut Data, flags: Flags) -> Result<(), Error> {
    if end.has_unwritten() {
        // Writing that out may take a while, in which other threads run.
        data.hold(ruby)?;
    }
    let mut waiter = Waiter::default();
    while !data.is_done() {
        let Some(fd) = descriptor(ruby, NAME, &end, flags.nonblock)? else { return would_block(data) };
        let (attempt, full) = data.put(fd)?;
        match attempt {
            Ok(Step::Moved(_)) => waiter.moved(),
            Ok(Step::WouldBlock | Step::Ended) | Err(Errno::INTR) => {}
            Err(errno) => {
                let why = refusal(Call::Vmsplice, None, fd, errno);
                return Err(error::transfer(errno, NAME, why, data.put_in()));
            }
        }
        if data.is_done() || flags.nonblock && !full {
            continue;
        }
        if flags.nonblock {
            return would_block(data);
        }
        data.hold(ruby)?;
        if full {
            waiter.wait_for_one(ruby, NAME, end)?;
        } else {
            gvl::check_interrupts()?;
        }
    }
    Ok(())
}

/// What is in the pipe counts, if anything is.
fn would_block(data: &Data) -> Result<(), Error> {
    match data.put_in() {
        0 => Err(error::errno(Errno::AGAIN, NAME, None)),
        _ => Ok(()),
    }
}
