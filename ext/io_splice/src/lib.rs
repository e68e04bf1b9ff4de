//! The Ruby side of `io_splice`: it knows Ruby and no system call; those are in `io_splice_core`.
//!
//! One place for each decision: [`end`] makes a descriptor of an argument, [`number`] makes lengths,
//! offsets and flags, [`wait`] waits, [`gvl`] lets go of the GVL, [`error`] makes exceptions.

mod end;
mod error;
mod gvl;
mod number;
mod pipe_size;
mod transfer;
mod vmsplice;
mod wait;

use io_splice_core::{Flags, PIPE_BUF, default_capacity, page_size};
use magnus::value::{Lazy, ReprValue, StaticSymbol};
use magnus::{Error, Module, Object, Ruby, function, method};

/// What a `try…` call answers instead of waiting, interned once.
static EAGAIN: Lazy<StaticSymbol> = Lazy::new(|ruby| ruby.sym_new("EAGAIN"));

/// Defines what the gem has in Ruby.
#[magnus::init]
fn init(ruby: &Ruby) -> Result<(), Error> {
    // SAFETY: nothing here is shared between Ractors but what core keeps in atomics.
    unsafe { rb_sys::rb_ext_ractor_safe(true) };

    let io = ruby.class_io();
    let splice = io.define_module("Splice")?;

    macro_rules! both_homes {
        ($($name:literal => $function:path),+ $(,)?) => {$(
            splice.define_module_function($name, function!($function, -1))?;
            io.define_singleton_method($name, function!($function, -1))?;
        )+};
    }
    both_homes! {
        "splice" => transfer::splice,
        "trysplice" => transfer::trysplice,
        "tee" => transfer::tee,
        "trytee" => transfer::trytee,
        "vmsplice" => vmsplice::vmsplice,
    }
    splice.define_singleton_method("close_lent", function!(io_splice_core::close_lent, 0))?;
    io.define_method("pipe_size", method!(pipe_size::get, 0))?;
    io.define_method("pipe_size=", method!(pipe_size::set, 1))?;

    Lazy::force(&EAGAIN, ruby);
    let version = ruby.str_new(env!("CARGO_PKG_VERSION"));
    version.freeze();
    splice.const_set("VERSION", version)?;
    splice.const_set("F_MOVE", 1)?;
    splice.const_set("F_NONBLOCK", 2)?;
    splice.const_set("F_MORE", 4)?;
    splice.const_set("F_GIFT", 8)?;
    splice.const_set("WAITALL", Flags::WAITALL)?;
    splice.const_set("F_SETPIPE_SZ", 1031)?;
    splice.const_set("F_GETPIPE_SZ", 1032)?;
    splice.const_set("PIPE_BUF", PIPE_BUF)?;
    splice.const_set("PIPE_CAPA", default_capacity().unwrap_or(65_536))?;
    splice.const_set("PAGE_SIZE", page_size())?;
    Ok(())
}
