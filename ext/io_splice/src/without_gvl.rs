//! Work without the GVL on ends that Ruby knows to be in use.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_splice_core::copy::Host;
use io_splice_core::{Awaited, EpollSet, Errno, Side, Waited, wait_until_any_ready};
use magnus::rb_sys::AsRawValue;
use magnus::value::ReprValue;
use magnus::{Error, IntoValue, Ruby, Value};

use crate::end::{End, descriptor_of};
use crate::error;
use crate::gvl::{self, CurrentThread};
use crate::park::park;
use crate::wait::{sleep, wait_until_ready};

/// Works without the GVL while Ruby knows that the ends are in use, so that closing one of them ends the work. It is
/// handed their descriptors, in the same order. An error says that an exception is due. When an interrupt is
/// pending, the work may not run at all.
///
/// No descriptor is duplicated for that: when the duplicate of a file is closed, the process loses its locks of that file
/// (`F_SETLK` of fcntl(2)). A number without an IO is the caller's to keep open.
pub fn without_gvl(call: &str, ends: &[End], work: &mut dyn FnMut(&[BorrowedFd<'_>])) -> Result<(), Error> {
    use_all(call, ends, true, work)
}

/// As [`without_gvl`], for work that waits for nobody. When it is done, it is no error that an end is being closed: whoever
/// uses that next will hear of it.
pub fn attempt_without_gvl(
    call: &str,
    ends: &[End],
    work: &mut dyn FnMut(&[BorrowedFd<'_>]),
) -> Result<(), Error> {
    let mut done = false;
    let mut work = |fds: &[BorrowedFd<'_>]| {
        work(fds);
        done = true;
    };
    match use_all(call, ends, false, &mut work) {
        Err(error) if done && is_close(&error, ends) => Ok(()),
        result => result,
    }
}

/// Looks at what the ends are. A network or FUSE may take its time to say, so while other threads live that is done without
/// the GVL.
pub fn inspect_without_gvl<R>(
    call: &str,
    ends: &[End],
    mut inspect: impl FnMut(&[BorrowedFd<'_>]) -> io_splice_core::Result<R>,
) -> Result<R, Error> {
    let mut found = Err(Errno::INTR);
    if gvl::alone() {
        found = with_descriptors(call, ends, inspect)?;
    } else {
        attempt_without_gvl(call, ends, &mut |fds| found = inspect(fds))?;
    }
    found.map_err(|errno| error::errno(errno, call, None))
}

fn is_close(error: &Error, ends: &[End]) -> bool {
    error.value().is_some_and(|exception| error.is_kind_of(Ruby::get_with(exception).exception_io_error()))
        && ends.iter().any(|end| end.descriptor_if_open().is_none())
}

fn use_all(
    call: &str,
    ends: &[End],
    waits: bool,
    work: &mut dyn FnMut(&[BorrowedFd<'_>]),
) -> Result<(), Error> {
    if waits && gvl::alone() {
        // Also those that were held off until a call blocks.
        gvl::check_interrupts()?;
    }
    while gvl::alone() {
        // Nobody but a signal's handler can close an end. It does not run between the look and the work.
        if with_descriptors(call, ends, |fds| gvl::without(|| work(fds)))?.is_some() {
            return Ok(());
        }
        gvl::check_interrupts()?;
    }
    let Some(first) = ends.first() else { return gvl::without_or_raise(|| work(&[])) };
    // Only places, until each is looked up.
    let fd = descriptor_of(call, first)?;
    match ends.len() {
        // Without memory to allocate.
        1 | 2 => use_beside_others(call, ends, waits, &mut [fd; 2][..ends.len()], 0, work),
        len => use_beside_others(call, ends, waits, &mut vec![fd; len], 0, work),
    }
}

/// Hands over the descriptors of all ends, each of which must be open.
fn with_descriptors<R>(
    call: &str,
    ends: &[End],
    work: impl FnOnce(&[BorrowedFd<'_>]) -> R,
) -> Result<R, Error> {
    Ok(match ends {
        // Without memory to allocate.
        [one, other] => work(&[descriptor_of(call, one)?, descriptor_of(call, other)?]),
        _ => {
            let mut fds = Vec::with_capacity(ends.len());
            for end in ends {
                fds.push(descriptor_of(call, end)?);
            }
            work(&fds)
        }
    })
}

fn use_beside_others<'fd>(
    call: &str,
    ends: &'fd [End],
    waits: bool,
    fds: &mut [BorrowedFd<'fd>],
    used: usize,
    work: &mut dyn FnMut(&[BorrowedFd<'_>]),
) -> Result<(), Error> {
    let Some(end) = ends.get(used) else {
        return gvl::without_or_raise(|| work(fds));
    };
    if waits {
        // What `handle_interrupt(… => :on_blocking)` has held off so far Ruby does not look for when the work begins.
        gvl::check_interrupts()?;
    }
    // For a moment at each of them the GVL is gone, in which those that are still to come may be closed.
    let fd = descriptor_of(call, end)?;
    let io = end.ruby_io().filter(|io| !ends[..used].iter().any(|other| other.ruby_io() == Some(*io)));
    fds[used] = fd;
    let used = used + 1;
    match io {
        Some(io) if used == ends.len() => gvl::without_while_using(io.as_ptr(), fd.as_raw_fd(), || work(fds)),
        Some(io) => gvl::while_using(io.as_ptr(), fd.as_raw_fd(), || {
            use_beside_others(call, ends, waits, fds, used, work)
        }),
        None => use_beside_others(call, ends, waits, fds, used, work),
    }
}

/// Works on ends after an exception, each if it is still open. The work must wait for nobody; another interrupt does not keep
/// it from being done, and is the error: then it takes the place of the exception, as in `ensure`.
pub fn cleanup_without_gvl(
    ends: &[Option<End>],
    work: &mut dyn FnMut(&[Option<BorrowedFd<'_>>]),
) -> Result<(), Error> {
    gvl::ensure(|| {
        let mut interrupted = Ok(());
        let mut done = false;
        // Each turn takes one interrupt, or finds one end less that is open.
        while !done {
            let open: Vec<_> =
                ends.iter().map(|end| end.filter(|end| end.descriptor_if_open().is_some())).collect();
            let used: Vec<_> = open.iter().copied().flatten().collect();
            let result = attempt_without_gvl("close", &used, &mut |fds| {
                let mut fds = fds.iter().copied();
                work(&open.iter().map(|end| end.and_then(|_| fds.next())).collect::<Vec<_>>());
                done = true;
            });
            interrupted = result.and(interrupted);
        }
        interrupted
    })
}

/// The host of a copy that runs without the GVL.
pub struct GvlFreeHost {
    thread: CurrentThread,
    scheduled: bool,
    /// What a scheduler has to wait for, and for how long.
    awaited: Vec<(Side, RawFd)>,
    timeout: Option<Duration>,
}

impl GvlFreeHost {
    pub fn new() -> Self {
        Self { scheduled: gvl::scheduled(), ..Self::never_waiting() }
    }

    /// One that leaves each wait to the caller.
    pub fn never_waiting() -> Self {
        Self { thread: CurrentThread::new(), scheduled: true, awaited: Vec::new(), timeout: None }
    }

    /// What the caller is to wait for: either side, and for how long.
    pub fn awaited(&self) -> ([bool; 2], Option<Duration>) {
        let awaits = |side| self.awaited.iter().any(|(awaited, _)| *awaited == side);
        ([awaits(Side::Input), awaits(Side::Output)], self.timeout)
    }
}

impl Host for GvlFreeHost {
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        if self.thread.interrupted() {
            return Waited::Interrupted;
        }
        // An interrupt from here on ends the wait: Ruby signals the thread until it has come back.
        if !self.scheduled || timeout == Some(Duration::ZERO) {
            return wait_until_any_ready(ends, timeout);
        }
        if ends.len() > 1 {
            match wait_until_any_ready(ends, Some(Duration::ZERO)) {
                Waited::TimedOut => {}
                waited => return waited,
            }
        }
        self.awaited = ends.iter().map(|end| (end.side, end.fd.as_raw_fd())).collect();
        self.timeout = timeout;
        Waited::Yield
    }

    fn interrupted(&mut self) -> bool {
        self.thread.interrupted()
    }
}

/// Waits through the fiber scheduler for what a copy yielded to wait for.
#[derive(Default)]
pub struct Scheduler {
    /// Several descriptors, in the guise of one.
    set: Option<EpollSet>,
    /// The same descriptor, to wait for. It lives on the stack, where the garbage collector finds it.
    io: Option<Value>,
}

impl Scheduler {
    /// Waits for what `host` was asked to wait for. `ends` are those of the copy: where it is a single IO, that is what the
    /// scheduler gets to see.
    pub fn wait(&mut self, ruby: &Ruby, call: &str, host: &GvlFreeHost, ends: &[End]) -> Result<(), Error> {
        let timeout = host.timeout.map(|timeout| timeout.as_secs_f64());
        let awaited = |end: &&End| match host.awaited[..] {
            [(side, fd)] => {
                end.side() == side && end.descriptor_if_open().map(|fd| fd.as_raw_fd()) == Some(fd)
            }
            _ => false,
        };
        match ends.iter().find(awaited) {
            Some(end) => wait_until_ready(end.io(ruby)?, end.side(), timeout.into_value_with(ruby)).map(drop),
            None if host.awaited.is_empty() => sleep(ruby, timeout.unwrap_or_default()),
            None => self.wait_for_any(ruby, call, host, timeout),
        }
    }

    fn wait_for_any(
        &mut self,
        ruby: &Ruby,
        call: &str,
        host: &GvlFreeHost,
        timeout: Option<f64>,
    ) -> Result<(), Error> {
        let fail = |errno| error::errno(errno, call, None);
        if self.set.is_none() {
            self.set = Some(EpollSet::new().map_err(fail)?);
        }
        let Some(set) = &mut self.set else { return Ok(()) };
        // SAFETY: these were descriptors a moment ago. If one is closed by now, the kernel says so.
        let borrow = |fd| unsafe { BorrowedFd::borrow_raw(fd) };
        let awaited = host.awaited.iter().map(|&(side, fd)| Awaited { side, fd: borrow(fd), ready: false });
        set.set(&awaited.collect::<Vec<_>>()).map_err(fail)?;
        let io = match self.io {
            Some(io) => io,
            None => {
                let number = set.as_fd().as_raw_fd();
                ruby.class_io().funcall("for_fd", (number, magnus::kwargs!("autoclose" => false)))?
            }
        };
        self.io = Some(io);
        let timeout = timeout.into_value_with(ruby);
        park(ruby, &mut self.set, || wait_until_ready(io.as_raw(), Side::Input, timeout)).map(drop)
    }
}
