use std::any::Any;
use std::sync::{Mutex, PoisonError};

use magnus::rb_sys::protect;
use magnus::{DataTypeFunctions, Ruby, TypedData};

use crate::reentry::once;

/// Owned by the garbage collector while its fiber may be abandoned.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Parked", free_immediately)]
pub struct Parked(Mutex<Option<Box<dyn Any + Send>>>);

impl DataTypeFunctions for Parked {}

/// Runs something from which a fiber may never come back: Ruby does not unwind the stack of one that is
/// abandoned. Meanwhile the work is where it is dropped in that case, with its descriptors.
pub fn park<T: Default + Send + 'static, R>(ruby: &Ruby, work: &mut T, run: impl FnOnce() -> R) -> R {
    let mut parked = None;
    let wrapped = protect(|| {
        parked = Some(ruby.obj_wrap(Parked(Mutex::new(None))));
        rb_sys::Qnil as _
    });
    let (Some(parked), Ok(_)) = (parked, wrapped) else { return run() };
    let place = || parked.0.lock().unwrap_or_else(PoisonError::into_inner);
    *place() = Some(Box::new(std::mem::take(work)));
    let result = once(ruby, run);
    if let Some(back) = place().take().and_then(|parked| parked.downcast().ok()) {
        *work = *back;
    }
    result
}
