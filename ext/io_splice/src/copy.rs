use std::os::fd::BorrowedFd;

use io_splice_core::copy::{ControlRecords, CopyStream, Hints, Pause, Plan, Timeouts};
use io_splice_core::{Call, Errno, OPEN_SOURCE, OPEN_TARGET_AS_IT_IS, Side, refusal};
use magnus::block::Proc;
use magnus::value::ReprValue;
use magnus::{Error, Module, RModule, RString, Ruby, Value};

use crate::copy_object::copy_object;
use crate::end::{End, descriptors_for_copy, keep_alive};
use crate::object::Used;
use crate::opened::Opened;
use crate::park::park;
use crate::reentry::once;
use crate::ruby_io::is_io;
use crate::wait::timed_out;
use crate::without_gvl::{GvlFreeHost, Scheduler, cleanup_without_gvl, inspect_without_gvl, without_gvl};
use crate::{error, gvl, number};

pub const NAME: &str = "copy_stream";

/// `copy(src, dst, len, src_offset) { |bytes_so_far| }`: a copy to the end of the input or of `len` bytes; the count may be
/// less.
pub fn copy_stream(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    error::check_arity(ruby, args.len(), 4..=4)?;
    let extent = extent(ruby, args[2], args[3])?;
    let progress = progress(ruby)?;
    if is_io(args[0]) && is_io(args[1]) {
        return copy(ruby, [args[0], args[1]], extent, progress);
    }
    let (ends, tls) = Used::ask_both(ruby, args[0], args[1])?;
    if tls {
        let copying: RModule = ruby.class_io().const_get::<_, RModule>("Splice")?.const_get("Copying")?;
        return once(ruby, || match progress {
            Some(progress) => copying.funcall_with_block("copy_tls", args, progress),
            None => copying.funcall("copy_tls", args),
        });
    }
    copy_used(ruby, ends, args[1], extent, progress)
}

/// `copy_by_methods(src, dst, len, src_offset) { |bytes_so_far| }`: the same, also of a TLS socket by its own methods.
pub fn copy_by_methods(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    error::check_arity(ruby, args.len(), 4..=4)?;
    let (ends, _) = Used::ask_both(ruby, args[0], args[1])?;
    copy_used(ruby, ends, args[1], extent(ruby, args[2], args[3])?, progress(ruby)?)
}

/// `copy_between(src, dst, len, src_offset) { |bytes_so_far| }`: the same between two descriptors.
pub fn copy_between(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    error::check_arity(ruby, args.len(), 4..=4)?;
    copy(ruby, [args[0], args[1]], extent(ruby, args[2], args[3])?, progress(ruby)?)
}

/// `copy_from_object(src, dst, len) { |bytes_so_far| }`: the same from the `readpartial` of an object to a descriptor.
pub fn copy_from_object(ruby: &Ruby, args: &[Value]) -> Result<u64, Error> {
    error::check_arity(ruby, args.len(), 3..=3)?;
    let extent = extent(ruby, args[2], ruby.qnil().as_value())?;
    let [src, dst] = [Used::Object(args[0], false), Used::Descriptor(args[1])];
    copy_object(ruby, src, dst, args[1], extent, progress(ruby)?)
}

fn extent(ruby: &Ruby, len: Value, offset: Value) -> Result<Extent, Error> {
    let (len, offset) = numbers(ruby, len, offset)?;
    Ok(Extent { len, offset, as_rubys: false })
}

fn progress(ruby: &Ruby) -> Result<Option<Proc>, Error> {
    if ruby.block_given() { ruby.block_proc().map(Some) } else { Ok(None) }
}

fn copy_used(
    ruby: &Ruby,
    [src, dst]: [Used; 2],
    dst_given: Value,
    extent: Extent,
    progress: Option<Proc>,
) -> Result<u64, Error> {
    with_opened(ruby, src, OPEN_SOURCE, |src| {
        match (src, dst) {
            // Before a file is made.
            (Used::Descriptor(src), Used::Path(_)) => check_end(ruby, NAME, src, Side::Input, extent.offset)?,
            // Of a number Ruby does not know what it is open for.
            (_, Used::Descriptor(dst)) if !is_io(dst) => check_end(ruby, NAME, dst, Side::Output, None)?,
            _ => {}
        }
        with_opened(ruby, dst, OPEN_TARGET_AS_IT_IS, |dst| match (src, dst) {
            (Used::Descriptor(src), Used::Descriptor(dst)) => copy(ruby, [src, dst], extent, progress),
            _ => copy_object(ruby, src, dst, dst_given, extent, progress),
        })
    })
}

/// Hands over an end, and if it is a path, the file there, which is closed afterwards.
fn with_opened<R>(
    ruby: &Ruby,
    end: Used,
    flags: i32,
    use_end: impl FnOnce(Used) -> Result<R, Error>,
) -> Result<R, Error> {
    match end {
        Used::Path(path) => Opened::with(ruby, path, flags, |opened| use_end(Used::Descriptor(opened))),
        end => use_end(end),
    }
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
    let scheduled = gvl::scheduled();
    let hints = Hints { may_wait: as_rubys && !scheduled, ..hints(ruby, input, output, offset, as_rubys) };
    let plan =
        inspect_without_gvl(NAME, &[input, output], |fds| Plan::new(fds[0], fds[1], len, offset, hints))?;
    if output.is_opened() {
        empty_opened(ruby, NAME, Some(&input), &[dst])?;
    }
    let mut copy = CopyStream::new(plan, len, offset);
    if progress.is_some() {
        copy.report();
    }
    if scheduled {
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
    let delivered = copy.delivered();
    ended.map(|()| delivered).map_err(|error| match as_rubys {
        true => error,
        false => error::partial_write(ruby, error, delivered),
    })
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
        if !value.is_nil() && RString::from_value(*value).is_none() {
            check_end(ruby, call, *value, side, offset)?;
        }
    }
    Ok(())
}

fn check_end(ruby: &Ruby, call: &str, value: Value, side: Side, offset: Option<u64>) -> Result<(), Error> {
    let end = End::new(ruby, value, side)?;
    descriptors_for_copy(call, &end, &end)?;
    let checked = inspect_without_gvl(call, &[end], |fds| match side {
        Side::Input => io_splice_core::check_input(fds[0], offset),
        Side::Output => io_splice_core::check_output(fds[0]),
    });
    keep_alive(&end);
    checked
}

/// What Ruby knows of the ends.
pub fn hints(ruby: &Ruby, input: End, output: End, offset: Option<u64>, to_size: bool) -> Hints {
    Hints {
        likely_file_in: offset.is_some() || input.is_file(ruby),
        likely_file_out: output.is_file(ruby),
        likely_socket_in: input.is_duplex(),
        likely_socket_out: output.is_duplex(),
        may_wait: false,
        can_unread: input.is_io(),
        to_size,
        tls_in: input.is_tls().then_some(ControlRecords::Left),
        tls_out: output.is_tls(),
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
    // Since the caller has checked them, no other code has run.
    let mut are_checked = gvl::alone() && !output.is_opened();
    loop {
        if !are_checked {
            descriptors_for_copy(NAME, &input, &output)?;
        }
        are_checked = false;
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
            return Err(error::same_file(ruby, call, target.path(ruby)?));
        }
    }
    full.iter().try_for_each(|target| Opened::empty(ruby, target))
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
