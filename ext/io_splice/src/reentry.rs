//! Ruby code that a continuation (`callcc`) enters again after the call around it has ended.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use magnus::Ruby;
use magnus::rb_sys::resume_error;

use crate::error;

/// What is under way for the first time. A continuation brings back the stack, but not this.
static UNDER_WAY: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Runs Ruby code, and comes back from it once. When it returns again, what the frames above own is gone already: then a
/// `RuntimeError` leaves them behind, and they drop nothing.
pub fn once<R>(ruby: &Ruby, run: impl FnOnce() -> R) -> R {
    let under_way = || UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    under_way().insert(number);
    let result = run();
    if under_way().remove(&number) {
        return result;
    }
    std::mem::forget(result);
    let error = error::runtime(ruby, "this call has ended: a continuation cannot return into it again");
    // SAFETY: the frames that this jumps over are copies of frames that have ended, so none of their destructors is due.
    unsafe { resume_error(error) }
}
