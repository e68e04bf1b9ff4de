use std::os::fd::BorrowedFd;

use io_splice_core::copy::{CopyStream, Hints, Pause, Plan, Timeouts};
use io_splice_core::{Call, Errno, Side, refusal};
use magnus::block::Proc;
use magnus::value::ReprValue;
use magnus::{Error, RString, Ruby, Value};

use crate::end::{End, descriptors_for_copy, keep_alive};
use crate::opened::Opened;
use crate::park::park;
use crate::reentry::once;
use crate::wait::timed_out;
use crate::without_gvl::{GvlFreeHost, Scheduler, cleanup_without_gvl, inspect_without_gvl, without_gvl};
use crate::{error, gvl, number};

pub const NAME: &str = "copy_stream";

/// `copy_between(src, dst, len, src_offset) { |bytes_so_far| }`: a copy between two descriptors, to the end of the input or
/// `len` bytes; the count may be less.
pub fn copy_between(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    error::check_arity(ruby, args.len(), 4..=4)?;
    let (len, offset) = numbers(ruby, args[2], args[3])?;
    let progress = if ruby.block_given() { Some(ruby.block_proc()?) } else { None };
    copy(ruby, [args[0], args[1]], Extent { len, offset, as_rubys: false }, progress)
}

/// How much is copied, and from where on.
#[derive(Clone, Copy)]
pub struct Extent {
    pub len: Option<u64>,
    pub offset: Option<u64>,
    /// As with Ruby's own `copy_stream` a file ends where it does when the copy begins, and `IO#timeout` is not asked for.
    pub as_rubys: bool,
}

/// Copies between two descriptors.
pub fn copy(
    ruby: &Ruby,
    [src, dst]: [Value; 2],
    extent: Extent,
    progress: Option<Proc>,
) -> Result<u64, Error> {
    let Extent { len, offset, as_rubys } = extent;
    let input = End::new(ruby, src, Side::Input)?;
    let output = End::new(ruby, dst, Side::Output)?;
    descriptors_for_copy(NAME, &input, &output)?;
    if len == Some(0) && input.is_io() && output.is_io() && progress.is_none() {
        return Ok(0);
    }
    let hints = hints(ruby, input, output, offset, as_rubys);
    let plan =
        inspect_without_gvl(NAME, &[input, output], |fds| Plan::new(fds[0], fds[1], len, offset, hints))?;
    empty_opened(ruby, NAME, Some(&input), &[dst])?;
    let mut copy = CopyStream::new(plan, len, offset);
    if progress.is_some() {
        copy.report();
    }
    if gvl::scheduled() {
        copy.never_block();
    }
    let read_ahead = |copy: &mut CopyStream| {
        // What is in the buffer is not at the offset.
        let rest = if offset.is_some() { 0 } else { len.unwrap_or(u64::MAX) - copy.delivered() };
        let bytes = input.take_read_ahead(ruby, rest)?;
        let more = rest > bytes.len() as u64 && input.has_read_ahead();
        copy.set_more_ahead(more);
        copy.prepend(bytes);
        Ok(more)
    };
    let mut ended = run(ruby, &mut copy, input, output, !as_rubys, read_ahead, progress);
    if ended.is_err() && copy.needs_abort() {
        let interrupted = abort_copy(input, output, |fd_in, fd_out| copy.abort(fd_in, fd_out));
        ended = interrupted.and(ended);
    }
    keep_alive(&input);
    keep_alive(&output);
    ended.map(|()| copy.delivered())
}

/// `check_copy(len, src_offset)`: raises what `copy_between` would raise because of them.
pub fn check_copy(ruby: &Ruby, len: Value, offset: Value) -> Result<(), Error> {
    numbers(ruby, len, offset).map(drop)
}

/// `check_ends(src_offset, src, *dsts)`: raises what is wrong with those that are open, before a file is made or emptied.
/// Paths, and nil for an object, are passed over.
pub fn check_ends(ruby: &Ruby, args: &[Value]) -> Result<(), Error> {
    let offset = number::offset(ruby, "src_offset", args[0])?;
    let call = if args.len() > 3 { "tee_stream" } else { NAME };
    let sides = std::iter::once(Side::Input).chain(std::iter::repeat(Side::Output));
    for (value, side) in args[1..].iter().zip(sides) {
        if value.is_nil() || RString::from_value(*value).is_some() {
            continue;
        }
        let end = End::new(ruby, *value, side)?;
        descriptors_for_copy(call, &end, &end)?;
        let checked = inspect_without_gvl(call, &[end], |fds| match side {
            Side::Input => io_splice_core::check_input(fds[0], offset),
            Side::Output => io_splice_core::check_output(fds[0]),
        });
        keep_alive(&end);
        checked?;
    }
    Ok(())
}

/// What Ruby knows of the ends.
pub fn hints(ruby: &Ruby, input: End, output: End, offset: Option<u64>, to_size: bool) -> Hints {
    Hints {
        likely_file_in: offset.is_some() || input.is_file(ruby),
        likely_file_out: output.is_file(ruby),
        can_unread: input.is_io(),
        to_size,
        tls_in: input.is_tls(),
    }
}

/// A length and an offset, each a number or nil.
pub fn numbers(ruby: &Ruby, len: Value, offset: Value) -> Result<(Option<u64>, Option<u64>), Error> {
    let len = if len.is_nil() { None } else { Some(number::length(ruby, "length", len)? as u64) };
    Ok((len, number::offset(ruby, "src_offset", offset)?))
}

fn run(
    ruby: &Ruby,
    copy: &mut CopyStream,
    input: End,
    output: End,
    has_timeouts: bool,
    mut read_ahead: impl FnMut(&mut CopyStream) -> Result<bool, Error>,
    progress: Option<Proc>,
) -> Result<(), Error> {
    let mut more_ahead = read_ahead(copy)?;
    let tell = |copied: u64| match progress {
        Some(progress) => once(ruby, || progress.call::<_, Value>((copied,))).map(drop),
        None => Ok(()),
    };
    let mut scheduler = Scheduler::default();
    loop {
        descriptors_for_copy(NAME, &input, &output)?;
        if has_timeouts {
            copy.set_timeouts(timeouts(input, output)?);
        }
        let mut host = GvlFreeHost::new();
        let (mut pause, mut why) = (Pause::Interrupted, None);
        without_gvl(NAME, &[input, output], &mut |fds| {
            pause = copy.run(fds[0], fds[1], &mut host);
            if pause == Pause::Failed(Errno::INVAL) {
                why = refusal(Call::Splice, Some(fds[0]), fds[1], Errno::INVAL);
            }
        })?;
        match pause {
            Pause::Done if more_ahead => more_ahead = read_ahead(copy)?,
            Pause::Done => return tell(copy.delivered()),
            Pause::Progress => {
                let copied = copy.delivered();
                park(ruby, copy, || tell(copied))?;
            }
            Pause::Interrupted => gvl::check_interrupts()?,
            Pause::Wait => park(ruby, copy, || scheduler.wait(ruby, NAME, &host, &[input, output]))?,
            Pause::TimedOut(side) => return Err(timed_out(ruby, side)),
            Pause::Failed(errno) => return Err(error::errno(errno, NAME, why)),
        }
    }
}

/// Empties those of the targets that were opened, unless one of them is the very file that is to be copied.
pub fn empty_opened(ruby: &Ruby, call: &str, input: Option<&End>, targets: &[Value]) -> Result<(), Error> {
    let opened = targets.iter().filter_map(|target| Opened::from_value(ruby, *target));
    let full: Vec<_> = opened.filter(|target| !target.is_emptied()).collect();
    for target in &full {
        let Some(input) = input else { continue };
        let fd = target.borrow();
        if inspect_without_gvl(call, &[*input], |fds| io_splice_core::is_same_regular_file(fds[0], fd))? {
            return Err(error::same_file(ruby, call, &target.path()));
        }
    }
    full.iter().try_for_each(|target| target.empty())
}

/// `IO#timeout` of two ends.
pub fn timeouts(input: End, output: End) -> Result<Timeouts, Error> {
    Ok(Timeouts { input: input.timeout()?, output: output.timeout()? })
}

/// After an error or an exception: delivers what can be delivered, and puts the input back to stand right
/// behind it. `abort` is that of the core. An error takes the place of that exception.
pub fn abort_copy(
    input: End,
    output: impl Into<Option<End>>,
    mut abort: impl FnMut(Option<BorrowedFd<'_>>, Option<BorrowedFd<'_>>) -> Vec<u8>,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let interrupted =
        cleanup_without_gvl(&[input.to_seek_back(), output.into()], &mut |fds| bytes = abort(fds[0], fds[1]));
    if !bytes.is_empty() {
        input.unread(bytes);
    }
    interrupted
}
