//! Work without the GVL on ends that Ruby knows to be in use.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_splice_core::copy::Host;
use io_splice_core::{Awaited, EpollSet, Errno, PrivateFd, Side, Waited, wait_until_any_ready};
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
pub fn without_gvl(call: &str, ends: &[End], work: &mut dyn FnMut(&[BorrowedFd<'_>])) -> Result<(), Error> {
    use_ends(call, ends, &mut Vec::with_capacity(ends.len()), work)
}

fn use_ends<'fd>(
    call: &str,
    ends: &'fd [End],
    fds: &mut Vec<BorrowedFd<'fd>>,
    work: &mut dyn FnMut(&[BorrowedFd<'_>]),
) -> Result<(), Error> {
    let Some(end) = ends.get(fds.len()) else {
        return gvl::without_or_raise(|| work(fds));
    };
    // What `handle_interrupt(… => :on_blocking)` has held off so far Ruby does not look for when the work begins.
    gvl::check_interrupts()?;
    // For a moment at each of them the GVL is gone, in which those that are still to come may be closed.
    let fd = descriptor_of(call, end)?;
    let io = end
        .ruby_io()
        .filter(|io| !gvl::alone() && !ends[..fds.len()].iter().any(|other| other.ruby_io() == Some(*io)));
    fds.push(fd);
    match io {
        Some(io) if fds.len() == ends.len() => {
            gvl::without_while_using(io.as_ptr(), fd.as_raw_fd(), || work(fds))
        }
        Some(io) => gvl::while_using(io.as_ptr(), fd.as_raw_fd(), || use_ends(call, ends, fds, work)),
        None => use_ends(call, ends, fds, work),
    }
}

/// Works on ends after an exception, when they may be closed and nothing registers them. The work must wait for
/// nobody; another interrupt does not keep it from being done. Nothing is raised and rescued here: a `throw` that is
/// on its way would be forgotten.
pub fn cleanup_without_gvl(ends: &[Option<End>], work: &mut dyn FnMut(&[Option<BorrowedFd<'_>>])) {
    let open: Vec<_> = ends.iter().map(|end| end.as_ref()?.descriptor_if_open()).collect();
    let own: Vec<_> = open.iter().map(|fd| fd.map(PrivateFd::duplicate)).collect();
    // With descriptors of its own others may close theirs meanwhile. When there are none to be had, they may not.
    if own.iter().flatten().all(|own| !matches!(own, Err(Errno::MFILE | Errno::NFILE))) {
        let fds: Vec<_> = own.iter().map(|own| Some(own.as_ref()?.as_ref().ok()?.as_fd())).collect();
        if gvl::without(|| work(&fds)).is_some() {
            return;
        }
    }
    work(&open);
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
        Self { thread: CurrentThread::new(), scheduled: gvl::scheduled(), awaited: Vec::new(), timeout: None }
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
