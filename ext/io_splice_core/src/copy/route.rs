use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat, tell};
use rustix::io::Errno;

use crate::hold::{Hold, hold};

/// A way for bytes from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From file to file inside the file system, which may share the blocks instead of copying.
    CopyFileRange,
    /// From a file to anything.
    Sendfile,
    /// Straight, when one end is a pipe.
    Splice,
    /// Through a pipe of the gem's own.
    Through,
    /// Through memory: what works for everything.
    ReadWrite,
}

impl Route {
    /// Whether an error says that this way is closed, though another may be open.
    ///
    /// - `EINVAL`: no support for one of these files (some of /proc and /dev, FUSE, terminals); an
    ///   output in append mode; for copy_file_range also ranges of one file that overlap.
    /// - `EBADF`: copy_file_range, to an output in append mode.
    /// - `EXDEV`: copy_file_range, across file systems (before Linux 5.3, and again since 5.19).
    /// - `EOPNOTSUPP`, `ETXTBSY`, `EOVERFLOW`: copy_file_range and sendfile, on some files.
    /// - `ENOSYS`, `EPERM`, `EACCES`: seccomp in a container.
    ///
    /// Where such an error is meant, the next way says it again; reading and writing comes last.
    pub(crate) fn refused(self, errno: Errno) -> bool {
        let closed = [
            Errno::INVAL,
            Errno::BADF,
            Errno::XDEV,
            Errno::OPNOTSUPP,
            Errno::TXTBSY,
            Errno::OVERFLOW,
            Errno::NOSYS,
            Errno::PERM,
            Errno::ACCESS,
        ];
        self != Self::ReadWrite && closed.contains(&errno)
    }
}

/// What has to be known of two ends before a copy.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The ways to try, in this order.
    pub(crate) routes: &'static [Route],
    /// An end that may block all the same is asked first whether it is ready.
    pub(crate) wary_in: bool,
    pub(crate) wary_out: bool,
    /// What there is to copy, when the output is the very file that is read: without an end of its own
    /// the copy would follow what it writes until the disk is full.
    pub(crate) limit: Option<u64>,
}

impl Plan {
    /// Looks at both ends of a copy that begins at `offset`, or where the input stands.
    pub fn new(
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        offset: Option<u64>,
    ) -> rustix::io::Result<Self> {
        let (from, to) = (End::look(fd_in)?, End::look(fd_out)?);
        let limit = if from.regular() && from.same_file(&to) {
            let start = offset.map_or_else(|| tell(fd_in), Ok)?;
            Some((from.stat.st_size as u64).saturating_sub(start))
        } else {
            None
        };
        Ok(Self { routes: routes(&from, &to), wary_in: from.wary, wary_out: to.wary, limit })
    }
}

fn routes(from: &End, to: &End) -> &'static [Route] {
    use Route::{CopyFileRange, ReadWrite, Sendfile, Splice, Through};
    match (from.kind, to.kind) {
        _ if to.append && to.kind != FileType::Fifo => &[ReadWrite],
        (FileType::RegularFile, FileType::RegularFile) => &[CopyFileRange, Sendfile, ReadWrite],
        (_, FileType::Fifo) => &[Splice, ReadWrite],
        // A blocking splice from a pipe keeps that pipe locked, so it had better be a pipe of our own.
        (FileType::Fifo, _) if to.wary => &[Through, ReadWrite],
        (FileType::Fifo, _) => &[Splice, ReadWrite],
        (FileType::RegularFile | FileType::BlockDevice, _) => &[Sendfile, ReadWrite],
        _ => &[Through, ReadWrite],
    }
}

struct End {
    stat: Stat,
    kind: FileType,
    append: bool,
    wary: bool,
}

impl End {
    fn look(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let stat = fstat(fd)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = fcntl_getfl(fd)?;
        let wary = match kind {
            FileType::Fifo => !mode.contains(OFlags::NONBLOCK),
            _ => matches!(hold(fd)?, Hold::Peer | Hold::Driver),
        };
        Ok(Self { stat, kind, append: mode.contains(OFlags::APPEND), wary })
    }

    fn regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    fn same_file(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }
}
