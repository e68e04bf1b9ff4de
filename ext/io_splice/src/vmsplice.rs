use std::os::fd::BorrowedFd;

use io_splice_core::{Attempt, Call, Errno, Flags, Side, Step, refusal};
use magnus::{Error, IntoValue, Ruby, Value};

use crate::end::{End, descriptor, keep_alive};
use crate::payload::Payload;
use crate::wait::Waiter;
use crate::without_gvl::attempt_without_gvl;
use crate::{error, gvl, number};

const NAME: &str = Call::Vmsplice.name();

/// `vmsplice(io, data, flags = 0)`
pub fn vmsplice(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    error::check_arity(ruby, args.len(), 2..=3)?;
    let flags = number::flags(ruby, NAME, args.get(2).copied())?;
    let mut payload = Payload::new(ruby, NAME, args[1], flags.gift)?;
    if End::takes_ruby_code(args[0]) {
        payload.snapshot(ruby)?;
    }
    let end = End::new(ruby, args[0], Side::Output)?;
    let result = write_all(ruby, end, &mut payload, flags);
    keep_alive(&end);
    match result {
        Ok(()) => Ok(payload.written().into_value_with(ruby)),
        Err(error) => Err(error::partial_write(ruby, error, payload.written() as u64)),
    }
}

fn write_all(ruby: &Ruby, end: End, payload: &mut Payload, flags: Flags) -> Result<(), Error> {
    if end.has_unwritten() {
        // Writing that out may take a while, in which other threads run.
        payload.snapshot(ruby)?;
    }
    let mut waiter = Waiter::default();
    while !payload.is_done() {
        let Some(fd) = descriptor(ruby, NAME, &end, flags.nonblock)? else { return would_block(payload) };
        let (attempt, full, why) = attempt(ruby, &end, fd, payload)?;
        match attempt {
            Ok(Step::Moved(_)) => waiter.moved(),
            Ok(Step::WouldBlock | Step::Ended) | Err(Errno::INTR) => {}
            Err(errno) => return Err(error::transfer(errno, NAME, why, payload.written())),
        }
        if payload.is_done() || flags.nonblock && !full {
            continue;
        }
        if flags.nonblock {
            return would_block(payload);
        }
        payload.snapshot(ruby)?;
        if full {
            waiter.wait_for_one(ruby, NAME, end)?;
        } else {
            gvl::check_interrupts()?;
        }
    }
    Ok(())
}

/// Makes one attempt, and says whether the pipe is full, and the reason that an errno hides. Another thread could wait for
/// the GVL as long as somebody else holds the lock of the pipe.
fn attempt(
    ruby: &Ruby,
    end: &End,
    fd: BorrowedFd<'_>,
    payload: &mut Payload,
) -> Result<(Attempt, bool, Option<&'static str>), Error> {
    let mut found = None;
    let mut work = |fd: BorrowedFd<'_>, payload: &mut Payload| {
        let attempt = payload.attempt(fd);
        let why = match attempt {
            Ok((Err(errno), _)) => refusal(Call::Vmsplice, None, fd, errno),
            _ => None,
        };
        found = Some((attempt, why));
    };
    let mut interrupted = Ok(());
    if gvl::alone() {
        work(fd, payload);
    } else {
        payload.snapshot(ruby)?;
        interrupted = attempt_without_gvl(NAME, &[*end], &mut |fds| work(fds[0], payload));
    }
    let Some((attempt, why)) = found else {
        interrupted?;
        return Ok((Err(Errno::INTR), false, None));
    };
    let (attempt, offered) = attempt?;
    let full = payload.record(attempt, offered)?;
    interrupted?;
    Ok((attempt, full, why))
}

/// What is in the pipe counts, if anything is.
fn would_block(payload: &Payload) -> Result<(), Error> {
    match payload.written() {
        0 => Err(error::would_block(NAME, Side::Output)),
        _ => Ok(()),
    }
}
