use std::os::fd::BorrowedFd;

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::descriptor::Descriptor;

/// The system call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html)
    Splice,
    /// [tee(2)](https://man7.org/linux/man-pages/man2/tee.2.html)
    Tee,
    /// [vmsplice(2)](https://man7.org/linux/man-pages/man2/vmsplice.2.html)
    Vmsplice,
}

impl Call {
    /// Its name in the manual.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Splice => "splice",
            Self::Tee => "tee",
            Self::Vmsplice => "vmsplice",
        }
    }
}

/// Finds out why a call was refused, where the errno alone does not say. The descriptors are those of
/// the failed call; `vmsplice` has no input. `None` when there is nothing to add.
///
/// It is for after the failure: the normal path pays nothing for it.
pub fn refusal(
    call: Call,
    input: Option<BorrowedFd<'_>>,
    output: BorrowedFd<'_>,
    errno: Errno,
) -> Option<&'static str> {
    let to = Descriptor::inspect_with_fstat(output).ok()?;
    let from = match input {
        Some(input) => Some(Descriptor::inspect_with_fstat(input).ok()?),
        None => None,
    };
    match (errno, call, from) {
        (Errno::BADF, _, Some(from)) if from.access() == OFlags::WRONLY => {
            Some("the input is not open for reading")
        }
        (Errno::BADF, _, _) if to.access() == OFlags::RDONLY => Some("the output is not open for writing"),
        (Errno::BADF, Call::Vmsplice, _) if !to.is_pipe() => Some("the output is not a pipe"),
        (Errno::SPIPE, ..) => Some("an offset was given for a pipe"),
        (Errno::INVAL, _, Some(from)) => why_invalid(call, &from, &to),
        _ => None,
    }
}

fn why_invalid(call: Call, from: &Descriptor, to: &Descriptor) -> Option<&'static str> {
    match (from.is_pipe(), to.is_pipe()) {
        (true, true) if from.is_same_file(to) => Some("both ends are the same pipe"),
        (false, _) if call == Call::Tee => Some("the input is not a pipe"),
        (_, false) if call == Call::Tee => Some("the output is not a pipe"),
        (false, false) => Some("neither end is a pipe"),
        (_, false) if to.appends() => Some("the output is open in append mode"),
        (_, false) => Some("the output does not support it, or not at that offset"),
        (false, _) => Some("the input does not support it, or not at that offset"),
        (true, true) => None,
    }
}
