//! Copies with an object at one end or at both: a portion is taken from the source, then the target gets all of it.
//!
//! Only one portion is in flight, in a String. What the target has not taken of it goes back to the source at the end,
//! however the copy ends. A descriptor reads into such Strings and writes from them; it is inspected once.

use std::os::fd::BorrowedFd;

use io_splice_core::Side;
use io_splice_core::copy::{CopyStream, Hints, Pause, Plan, Timeouts};
use magnus::block::Proc;
use magnus::value::ReprValue;
use magnus::{Error, Module, RModule, Ruby, Value};

use crate::copy::{Extent, NAME, empty_opened};
use crate::end::{End, descriptors_for_copy, keep_alive};
use crate::object::{self, Buffer, Portion, SourceObject, TargetObject, Used};
use crate::pages::Pages;
use crate::reentry::once;
use crate::wait::timed_out;
use crate::without_gvl::{GvlFreeHost, Scheduler, cleanup_without_gvl, inspect_without_gvl, without_gvl};
use crate::{error, gvl};

/// How much an object is asked for at once: half a pipe, so that who reads from that works while the next is on its way.
const PORTION: u64 = 32 << 10;

/// How much of pages is written at once, so that an interrupt is noticed soon.
const PAGES_PORTION: u64 = 1 << 20;

/// Copies, with an object at one end at least. `dst_given` is the target as the caller knows it.
pub fn copy_object(
    ruby: &Ruby,
    src: Used,
    dst: Used,
    dst_given: Value,
    extent: Extent,
    progress: Option<Proc>,
) -> Result<u64, Error> {
    let mut target = Target::new(ruby, dst, extent)?;
    let source = Source::new(ruby, src, extent, &target)?;
    if let (Target::Descriptor { copy, .. }, true) = (&mut target, progress.is_some()) {
        copy.report();
    }
    let mut copy = ObjectCopy {
        source,
        target,
        left: extent.len.unwrap_or(u64::MAX),
        delivered: 0,
        portion: None,
        surplus: None,
        buffer: Buffer::default(),
        emptied: false,
        target_failed: false,
    };
    let ended = copy.run(ruby, progress);
    let settled = match copy.portion.or(copy.surplus) {
        Some(_) => once(ruby, || gvl::ensure(|| copy.settle(ruby))).and(ended),
        None => {
            copy.buffer.release();
            ended
        }
    };
    std::hint::black_box(&copy);
    settled.map(|()| copy.delivered).map_err(|error| {
        // Anything else may come from outside.
        let is_own = copy.target_failed && object::is_from_an_end(ruby, &error);
        let error = if is_own { error::of_target(ruby, error, dst_given) } else { error };
        error::partial_write(ruby, error, copy.delivered)
    })
}

struct ObjectCopy {
    source: Source,
    target: Target,
    /// How many bytes are still wanted from the source.
    left: u64,
    delivered: u64,
    /// What the source has given and the target has not taken.
    portion: Option<Portion>,
    /// What it has given behind that, and was not asked for.
    surplus: Option<Portion>,
    buffer: Buffer,
    emptied: bool,
    /// Whether it is the target whose error this is.
    target_failed: bool,
}

/// How far a step has come.
enum Step {
    /// As far as it could; there may be more to do at once.
    Moved,
    /// The input has ended.
    Ended,
    /// A scheduler has to wait for this end, as the host was asked to.
    Wait(End, GvlFreeHost),
}

impl ObjectCopy {
    fn run(&mut self, ruby: &Ruby, progress: Option<Proc>) -> Result<(), Error> {
        let tell = |copied: u64| match progress {
            Some(progress) => once(ruby, || progress.call::<_, Value>((copied,))).map(drop),
            None => Ok(()),
        };
        let mut scheduler = Scheduler::default();
        let mut told = 0;
        while self.left > 0 || self.portion.is_some() {
            match once(ruby, || gvl::deferring_interrupts(ruby, || self.step(ruby)))? {
                Step::Moved if (self.portion.is_none() || self.target.reports()) && self.delivered > told => {
                    told = self.delivered;
                    tell(told)?;
                }
                Step::Moved => {}
                Step::Ended => break,
                Step::Wait(end, host) => once(ruby, || scheduler.wait(ruby, NAME, &host, &[end]))?,
            }
        }
        self.empty_target(ruby)?;
        tell(self.delivered)
    }

    /// Takes a portion from the source, if there is none, and brings it to the target as far as that takes it.
    fn step(&mut self, ruby: &Ruby) -> Result<Step, Error> {
        if self.portion.is_none() {
            let alone = gvl::alone();
            let most = self.left.min(self.target.most());
            let step = self.source.read(ruby, most, &mut self.buffer, &mut self.portion)?;
            let Some(portion) = &mut self.portion else { return Ok(step) };
            self.surplus = portion.split_off(self.left);
            self.left -= portion.len() as u64;
            if alone && !gvl::alone() {
                // From now on interrupts have to be deferred.
                return Ok(step);
            }
        }
        self.empty_target(ruby)?;
        let Some(portion) = &mut self.portion else { return Ok(Step::Moved) };
        let before = portion.len();
        let written = self.target.write(ruby, portion, &mut self.buffer);
        self.delivered += (before - portion.len()) as u64;
        if portion.is_empty() {
            self.portion = None;
        }
        self.target_failed = written.is_err();
        written
    }

    /// A file at a path loses its content when everything else is known to be good.
    fn empty_target(&mut self, ruby: &Ruby) -> Result<(), Error> {
        if let (Target::Descriptor { given, .. }, false) = (&self.target, self.emptied) {
            empty_opened(ruby, NAME, None, &[*given])?;
            self.emptied = true;
        }
        Ok(())
    }

    /// In the end the target gets what it takes at once, and the rest goes back into the source.
    fn settle(&mut self, ruby: &Ruby) -> Result<(), Error> {
        let mut interrupted = Ok(());
        if let Some(portion) = &mut self.portion {
            let before = portion.len();
            interrupted = self.target.write_now(portion);
            self.delivered += (before - portion.len()) as u64;
        }
        let rest = match (self.portion.filter(|portion| !portion.is_empty()), self.surplus) {
            (Some(portion), Some(surplus)) => portion.joined(surplus),
            (Some(rest), None) | (None, Some(rest)) => rest,
            (None, None) => return interrupted,
        };
        self.source.unread(ruby, rest).and(interrupted)
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Source {
    Object(SourceObject),
    /// `lend` if the target keeps nothing of what it is given.
    Pages {
        pages: Pages,
        at: usize,
        lend: bool,
    },
    Descriptor {
        end: End,
        copy: CopyStream,
        at_offset: bool,
    },
}

impl Source {
    fn new(ruby: &Ruby, src: Used, extent: Extent, target: &Target) -> Result<Self, Error> {
        let end = match src {
            Used::Object(object, by_read) => {
                if let Some(pages) = Pages::from_value(object) {
                    let at = extent.offset.map_or(0, |offset| (pages.len() as u64).min(offset) as usize);
                    let lend = matches!(target, Target::Descriptor { .. });
                    return Ok(Self::Pages { pages, at, lend });
                }
                if extent.offset.is_some() {
                    return Err(error::argument(ruby, "cannot specify src_offset for non-IO"));
                }
                return Ok(Self::Object(SourceObject::new(object, by_read)));
            }
            Used::Descriptor(value) | Used::Path(value) => End::new(ruby, value, Side::Input)?,
        };
        let copy = plan(ruby, end, extent, |fd, hints| Plan::for_input(fd, extent.offset, hints))?;
        Ok(Self::Descriptor { end, copy, at_offset: extent.offset.is_some() })
    }

    /// Takes up to `most` bytes, or about so many, as the next portion.
    fn read(
        &mut self,
        ruby: &Ruby,
        most: u64,
        buffer: &mut Buffer,
        portion: &mut Option<Portion>,
    ) -> Result<Step, Error> {
        match self {
            Self::Object(object) => {
                // SAFETY: there is nothing to be dropped.
                let read = || unsafe { Ok(object.read(ruby, most.min(PORTION), buffer, portion)) };
                match once(ruby, || object::protected(read)) {
                    Ok(true) => Ok(Step::Moved),
                    Ok(false) => Ok(Step::Ended),
                    Err(error) if error.is_kind_of(ruby.exception_eof_error()) => Ok(Step::Ended),
                    Err(error) => Err(error),
                }
            }
            Self::Pages { pages, at, lend } => {
                let rest = &pages.bytes()[*at..];
                let most = most.min(if *lend { PAGES_PORTION } else { PORTION });
                let bytes = &rest[..most.min(rest.len() as u64) as usize];
                if bytes.is_empty() {
                    return Ok(Step::Ended);
                }
                // SAFETY: the pages are kept, and never written to; a descriptor looks at the bytes while it writes them.
                *portion = Some(if *lend { unsafe { Portion::lent(bytes) }? } else { Portion::copy(bytes)? });
                *at += bytes.len();
                Ok(Step::Moved)
            }
            Self::Descriptor { end, at_offset: false, .. } if end.has_read_ahead() => {
                let bytes = end.take_read_ahead(ruby, most)?;
                *portion = Some(Portion::copy(&bytes).inspect_err(|_| end.unread(bytes))?);
                Ok(Step::Moved)
            }
            Self::Descriptor { end, copy, .. } => read(ruby, *end, copy, most, buffer, portion),
        }
    }

    /// Gives back what nobody has taken.
    fn unread(&mut self, ruby: &Ruby, rest: Portion) -> Result<(), Error> {
        let (end, copy) = match self {
            Self::Object(object) => {
                let copying: RModule =
                    ruby.class_io().const_get::<_, RModule>("Splice")?.const_get("Copying")?;
                let args = (object.object(), rest.to_string()?);
                return once(ruby, || copying.funcall::<_, _, Value>("unread_object", args)).map(drop);
            }
            Self::Pages { .. } => return Ok(()),
            Self::Descriptor { end, copy, .. } => (*end, copy),
        };
        let mut sought_back = false;
        let interrupted = cleanup_without_gvl(&[end.to_seek_back()], &mut |fds| {
            sought_back = copy.seek_back(fds[0], rest.len() as u64);
        });
        if !sought_back {
            let bytes = rest.locked(io_splice_core::copied)?;
            end.unread(bytes.map_err(|errno| error::no_memory(ruby, errno))?);
        }
        interrupted
    }
}

fn read(
    ruby: &Ruby,
    end: End,
    copy: &mut CopyStream,
    most: u64,
    buffer: &mut Buffer,
    portion: &mut Option<Portion>,
) -> Result<Step, Error> {
    descriptors_for_copy(NAME, &end, &end)?;
    copy.set_timeouts(Timeouts { input: end.timeout()?, output: None });
    let size = (copy.portion_size() as u64).min(most) as usize;
    let mut host = GvlFreeHost::new();
    let mut read = Err(Pause::Interrupted);
    let interrupted = buffer.fill(size, portion, |memory| {
        let interrupted = without_gvl(NAME, &[end], &mut |fds| {
            read = copy.read_portion(fds[0], memory, &mut host);
        });
        (read.unwrap_or(0), interrupted)
    })?;
    keep_alive(&end);
    interrupted?;
    match read {
        Ok(0) => Ok(Step::Ended),
        Ok(_) => Ok(Step::Moved),
        Err(pause) => after(ruby, pause, end, host),
    }
}

#[expect(clippy::large_enum_variant, reason = "there is one at a time, on the stack")]
enum Target {
    Object(TargetObject),
    Descriptor { given: Value, end: End, copy: CopyStream },
}

impl Target {
    fn new(ruby: &Ruby, dst: Used, extent: Extent) -> Result<Self, Error> {
        let given = match dst {
            Used::Object(object, _) => return Ok(Self::Object(TargetObject::new(object))),
            Used::Descriptor(value) | Used::Path(value) => value,
        };
        let end = End::new(ruby, given, Side::Output)?;
        let copy = plan(ruby, end, extent, Plan::for_output)?;
        Ok(Self::Descriptor { given, end, copy })
    }

    /// How much is to be written to it at once.
    fn most(&self) -> u64 {
        match self {
            Self::Object(object) => object.most(),
            Self::Descriptor { .. } => u64::MAX,
        }
    }

    /// Whether it wants to be told of in the midst of a portion.
    fn reports(&self) -> bool {
        matches!(self, Self::Descriptor { .. })
    }

    /// Brings a portion to the target, and removes from it what that has taken.
    fn write(&mut self, ruby: &Ruby, portion: &mut Portion, buffer: &mut Buffer) -> Result<Step, Error> {
        let (end, copy) = match self {
            Self::Object(object) => {
                // SAFETY: there is nothing to be dropped.
                let write = || unsafe { object.write(ruby, portion, buffer) };
                return once(ruby, || object::protected(write)).map(|()| Step::Moved);
            }
            Self::Descriptor { end, copy, .. } => (*end, copy),
        };
        descriptors_for_copy(NAME, &end, &end)?;
        copy.set_timeouts(Timeouts { input: None, output: end.timeout()? });
        let mut host = GvlFreeHost::new();
        let (mut pause, mut written) = (Pause::Interrupted, 0);
        let interrupted = portion.locked(|bytes| {
            without_gvl(NAME, &[end], &mut |fds| {
                let mut rest = bytes;
                pause = copy.write_portion(fds[0], &mut rest, &mut host);
                written = bytes.len() - rest.len();
            })
        })?;
        keep_alive(&end);
        portion.remove(written);
        interrupted?;
        after(ruby, pause, end, host)
    }

    /// Brings to it what it takes at once.
    fn write_now(&mut self, portion: &mut Portion) -> Result<(), Error> {
        let Self::Descriptor { end, copy, .. } = self else { return Ok(()) };
        let mut written = 0;
        let interrupted = portion.locked(|bytes| {
            cleanup_without_gvl(&[Some(*end)], &mut |fds| {
                let Some(fd) = fds[0] else { return };
                let mut rest = bytes;
                copy.write_now(fd, &mut rest);
                written = bytes.len() - rest.len();
            })
        })?;
        portion.remove(written);
        interrupted
    }
}

/// A copy of what `plan` says of an end, at which it looks.
fn plan(
    ruby: &Ruby,
    end: End,
    extent: Extent,
    plan: impl Fn(BorrowedFd<'_>, Hints) -> io_splice_core::Result<Plan>,
) -> Result<CopyStream, Error> {
    descriptors_for_copy(NAME, &end, &end)?;
    if extent.len == Some(0) && end.is_io() {
        return Ok(CopyStream::default());
    }
    let likely_file = end.is_file(ruby);
    let hints = Hints {
        likely_file_in: likely_file,
        likely_file_out: likely_file,
        likely_socket_in: end.is_duplex(),
        ..Hints::default()
    };
    let plan = inspect_without_gvl(NAME, &[end], |fds| plan(fds[0], hints))?;
    keep_alive(&end);
    let mut copy = CopyStream::new(plan, None, extent.offset);
    if gvl::scheduled() {
        copy.never_block();
    }
    Ok(copy)
}

/// What comes after a pause in reading from an end, or writing to it.
fn after(ruby: &Ruby, pause: Pause, end: End, host: GvlFreeHost) -> Result<Step, Error> {
    match pause {
        Pause::Done | Pause::Progress => Ok(Step::Moved),
        Pause::Interrupted => gvl::check_interrupts().map(|()| Step::Moved),
        Pause::Wait => Ok(Step::Wait(end, host)),
        Pause::TimedOut(side) => Err(timed_out(ruby, side)),
        Pause::Failed(errno) => Err(error::errno(errno, NAME, None)),
    }
}
