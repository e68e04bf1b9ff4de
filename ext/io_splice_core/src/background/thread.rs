#![expect(unsafe_code, reason = "pthread_sigmask(3)")]

use std::ffi::c_int;
use std::thread::Builder;

use rustix::io::{Errno, Result};

/// Enough for a few calls; what is not used is not there.
const STACK_SIZE: usize = 128 << 10;

/// Starts a thread that gets none of the process's signals. `EAGAIN`: there is none to be had.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man3/pthread_sigmask.3.html
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    // The new thread begins with the mask of this one: so there is no moment at which it could get a signal.
    let mask = set_mask(&all_signals());
    let spawned = Builder::new().name("io_splice".into()).stack_size(STACK_SIZE).spawn(work);
    set_mask(&mask);
    spawned.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
}

/// What C calls `sigset_t`: 1024 bits, in glibc and in musl.
#[repr(C, align(8))]
struct SigSet([u8; 128]);

/// As everywhere but on MIPS and SPARC.
const SIG_SETMASK: c_int = 2;

unsafe extern "C" {
    fn sigfillset(set: *mut SigSet) -> c_int;
    fn pthread_sigmask(how: c_int, set: *const SigSet, old: *mut SigSet) -> c_int;
}

fn all_signals() -> SigSet {
    let mut set = SigSet([0; 128]);
    // SAFETY: it writes a set, and nothing else.
    unsafe { sigfillset(&mut set) };
    set
}

/// Sets the mask of this thread, and returns the one before.
fn set_mask(set: &SigSet) -> SigSet {
    let mut old = SigSet([0; 128]);
    // SAFETY: it reads one set and writes the other.
    unsafe { pthread_sigmask(SIG_SETMASK, set, &mut old) };
    old
}
