use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};
use rustix::io::Errno;

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
    let to = End::look(output).ok()?;
    let from = match input {
        Some(input) => Some(End::look(input).ok()?),
        None => None,
    };
    match (errno, call, from) {
        (Errno::BADF, _, Some(from)) if from.access == OFlags::WRONLY => {
            Some("the input is not open for reading")
        }
        (Errno::BADF, _, _) if to.access == OFlags::RDONLY => Some("the output is not open for writing"),
        (Errno::BADF, Call::Vmsplice, _) if !to.pipe() => Some("the output is not a pipe"),
        (Errno::SPIPE, ..) => Some("an offset was given for a pipe"),
        (Errno::INVAL, _, Some(from)) => why_invalid(call, &from, &to),
        _ => None,
    }
}

fn why_invalid(call: Call, from: &End, to: &End) -> Option<&'static str> {
    match (from.pipe(), to.pipe()) {
        (true, true) if from.same_file(to) => Some("both ends are the same pipe"),
        (false, _) if call == Call::Tee => Some("the input is not a pipe"),
        (_, false) if call == Call::Tee => Some("the output is not a pipe"),
        (false, false) => Some("neither end is a pipe"),
        (_, false) if to.append => Some("the output is open in append mode"),
        (_, false) => Some("the output does not support it, or not at that offset"),
        (false, _) => Some("the input does not support it, or not at that offset"),
        (true, true) => None,
    }
}

struct End {
    stat: Stat,
    access: OFlags,
    append: bool,
}

impl End {
    fn look(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let mode = fcntl_getfl(fd)?;
        let access = mode & OFlags::ACCMODE;
        Ok(Self { stat: fstat(fd)?, access, append: mode.contains(OFlags::APPEND) })
    }

    fn pipe(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Fifo
    }

    fn same_file(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }
}
