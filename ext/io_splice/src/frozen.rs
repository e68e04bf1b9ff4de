use magnus::rb_sys::{AsRawValue, FromRawValue, protect};
use magnus::value::ReprValue;
use magnus::{Error, RString, Ruby, Value};

use crate::error;

/// A frozen string with the bytes of this one. None while something else (a `read` that was given it as
/// its buffer, say) may write to its memory: then Ruby has locked it.
pub fn frozen_copy(string: Value) -> Result<Option<RString>, Error> {
    let raw = string.as_raw();
    if !string.is_frozen() {
        // SAFETY: it is a String. It raises if that is locked.
        if let Err(error) = protect(|| unsafe { rb_sys::rb_str_locktmp(raw) }) {
            return if is_lock(&error)? { Ok(None) } else { Err(error) };
        }
        // SAFETY: it was locked here.
        protect(|| unsafe { rb_sys::rb_str_unlocktmp(raw) })?;
    }
    // SAFETY: it is a String; for want of memory it raises.
    let frozen = protect(|| unsafe { rb_sys::rb_str_new_frozen(raw) })?;
    // SAFETY: it is what Ruby has just returned.
    Ok(RString::from_value(unsafe { Value::from_raw(frozen) }))
}

/// Whether Ruby says that a string is locked, in the words of Ruby 3.1 to 4.0. While it does, an interrupt may come in its
/// place.
fn is_lock(error: &Error) -> Result<bool, Error> {
    let Some(exception) = error.value() else { return Ok(false) };
    let class = Ruby::get_with(exception).exception_runtime_error();
    Ok(error.is_kind_of(class) && error::text(exception)? == "temporal locking already locked string")
}
