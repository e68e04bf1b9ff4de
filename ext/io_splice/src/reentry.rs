//! Guards against a continuation (`callcc`) that re-enters Ruby code after the call around it has ended.

use std::sync::{Mutex, PoisonError};

use magnus::Ruby;
use magnus::rb_sys::resume_error;

use crate::error;

/// What is under way for the first time. A continuation brings back the stack, but not this.
static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay { numbers: Vec::new(), free: Vec::new(), last: 0 });

struct UnderWay {
    /// A number of its own for each run, or 0.
    numbers: Vec<u64>,
    /// Where there is a 0.
    free: Vec<usize>,
    last: u64,
}

impl UnderWay {
    fn begin(&mut self) -> (usize, u64) {
        self.last += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.numbers.push(0);
            self.numbers.len() - 1
        });
        self.numbers[place] = self.last;
        (place, self.last)
    }

    /// Whether it was under way.
    fn end(&mut self, (place, number): (usize, u64)) -> bool {
        let under_way = self.numbers[place] == number;
        if under_way {
            self.numbers[place] = 0;
            self.free.push(place);
        }
        under_way
    }
}

/// Runs Ruby code, and comes back from it once. When it returns again, what the frames above own is gone already: then a
/// `RuntimeError` leaves them behind, and they drop nothing.
pub fn once<R>(ruby: &Ruby, run: impl FnOnce() -> R) -> R {
    let under_way = || UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let this = under_way().begin();
    let result = run();
    if under_way().end(this) {
        return result;
    }
    std::mem::forget(result);
    let error = error::runtime(ruby, "this call has ended: a continuation cannot return into it again");
    // SAFETY: the frames that this jumps over are copies of frames that have ended, so none of their destructors is due.
    unsafe { resume_error(error) }
}
