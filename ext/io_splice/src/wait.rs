use std::os::fd::AsRawFd;
use std::time::Instant;

use io_splice_core::copy::back_off;
use io_splice_core::{Readiness, Side};
use magnus::rb_sys::{AsRawValue, protect};
use magnus::value::ReprValue;
use magnus::{Error, Ruby, Value};
use rb_sys::VALUE;

use crate::end::{End, descriptor_of};
use crate::{error, gvl, ruby_io};

/// Waits after attempts that would have blocked.
#[derive(Default)]
pub struct Waiter {
    /// How often in a row both ends were called ready and yet nothing moved.
    stalls: u32,
    stalled_since: Option<Instant>,
}

impl Waiter {
    /// Something moved.
    pub fn moved(&mut self) {
        (self.stalls, self.stalled_since) = (0, None);
    }

    /// Waits until the end that is not ready may be: for the input first, then for the output.
    ///
    /// In a fiber with a scheduler the scheduler waits. Otherwise the thread waits without the GVL, for
    /// as long as `IO#timeout` allows, and closing either IO ends that. Signals run their handlers.
    /// Afterwards the descriptors may be others: take them again. `ready` is what poll(2) said of the ends after the attempt.
    pub fn wait(
        &mut self,
        ruby: &Ruby,
        call: &str,
        ready: Option<Readiness>,
        input: End,
        output: End,
    ) -> Result<(), Error> {
        let ready = ready.unwrap_or(Readiness { input: true, output: true, only_error: [false; 2] });
        if !ready.input {
            wait_for(ruby, call, input, Some(output))
        } else if !ready.output {
            wait_for(ruby, call, output, Some(input))
        } else {
            self.on_spurious_readiness(ruby, input, output)
        }
    }

    /// Waits until a single end may be ready, here the output of vmsplice.
    pub fn wait_for_one(&mut self, ruby: &Ruby, call: &str, end: End) -> Result<(), Error> {
        match self.stalled() {
            Some(rest) => self.rest(ruby, rest, &[end]),
            None => wait_for(ruby, call, end, None),
        }
    }

    /// Either something has become ready just now, or the kernel says one thing and does
    /// another (a socket that is writable while the system is short of socket memory). That must not
    /// become a loop at full speed.
    fn on_spurious_readiness(&mut self, ruby: &Ruby, input: End, output: End) -> Result<(), Error> {
        match self.stalled() {
            Some(rest) => self.rest(ruby, rest, &[input, output]),
            None => gvl::check_interrupts(),
        }
    }

    /// Rests, under `IO#timeout` of the ends.
    fn rest(&mut self, ruby: &Ruby, seconds: f64, ends: &[End]) -> Result<(), Error> {
        let since = *self.stalled_since.get_or_insert_with(Instant::now);
        for end in ends {
            if end.timeout()?.is_some_and(|timeout| since.elapsed() >= timeout) {
                return Err(timed_out(ruby, end.side()));
            }
        }
        sleep(ruby, seconds)
    }

    /// Nothing has moved although it could: how long to rest then, in seconds.
    fn stalled(&mut self) -> Option<f64> {
        self.stalls = self.stalls.saturating_add(1);
        back_off(self.stalls).map(|rest| rest.as_secs_f64())
    }
}

/// Sleeps; under a scheduler only the fiber does.
pub fn sleep(ruby: &Ruby, seconds: f64) -> Result<(), Error> {
    ruby.module_kernel().funcall::<_, _, Value>("sleep", (seconds,)).map(drop)
}

/// What `IO#timeout` means for a wait that took too long.
pub fn timed_out(ruby: &Ruby, side: Side) -> Error {
    error::timeout(
        ruby,
        match side {
            Side::Input => "Timed out waiting for IO to become readable!",
            Side::Output => "Timed out waiting for IO to become writable!",
        },
    )
}

/// Waits until one end is ready, and is interrupted when it or the other one is closed.
pub fn wait_for(ruby: &Ruby, call: &str, end: End, other: Option<End>) -> Result<(), Error> {
    let io = end.io(ruby)?;
    // Ruby looks it up by itself where a thread waits, but not for a scheduler.
    let timeout = ruby_io::timeout(io)?;
    let wait = || match wait_until_ready(io, end.side(), timeout)? {
        true => Ok(()),
        false => Err(timed_out(ruby, end.side())),
    };
    // Ruby watches for the close of the one IO that it waits for. A fiber cannot hold a region, so
    // there a scheduler learns of the close of the other one when it comes back.
    match other.and_then(|other| Some((other, other.ruby_io()?))) {
        Some((other, io)) if !gvl::scheduled() => {
            gvl::while_using(io.as_ptr(), descriptor_of(call, &other)?.as_raw_fd(), wait)
        }
        _ => wait(),
    }
}

/// `rb_io_wait`: whether the IO has become ready in time.
pub fn wait_until_ready(io: VALUE, side: Side, timeout: Value) -> Result<bool, Error> {
    let events = match side {
        Side::Input => rb_sys::RB_WAITFD_IN,
        Side::Output => rb_sys::RB_WAITFD_OUT,
    };
    // SAFETY: `io` is an IO and the events are a Fixnum. What it raises is the error.
    let answer =
        protect(|| unsafe { rb_sys::rb_io_wait(io, rb_sys::rb_int2inum(events as _), timeout.as_raw()) })?;
    Ok(answer != rb_sys::Qfalse as VALUE)
}
