use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, fstat, major, open};
use rustix::pipe::PIPE_BUF;

use crate::attempt::{Attempt, Step, attempt};
use crate::private_fd::PrivateFd;
use crate::ready::ready;

/// A terminal in blocking mode, for one attempt that does not wait. Its mode belongs to the open file, which other processes
/// share, and stays.
pub(crate) enum Terminal<'fd> {
    /// An open file of our own, in non-blocking mode.
    Own(PrivateFd),
    /// The one that was given. When it is ready it has room for one byte, and who knows for how many more.
    Shared(BorrowedFd<'fd>),
}

impl<'fd> Terminal<'fd> {
    pub fn for_input(fd: BorrowedFd<'fd>) -> Self {
        Self::open(fd, OFlags::RDONLY)
    }

    pub fn for_output(fd: BorrowedFd<'fd>) -> Self {
        Self::open(fd, OFlags::WRONLY)
    }

    fn open(fd: BorrowedFd<'fd>, access: OFlags) -> Self {
        let own = has_a_name_of_its_own(fd).then(|| {
            let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty())
        });
        match own {
            Some(Ok(own)) => Self::Own(PrivateFd::new(own)),
            _ => Self::Shared(fd),
        }
    }

    /// How many bytes to ask for at once, when it is ready.
    pub fn most_to_read(&self) -> usize {
        match self {
            Self::Own(_) => usize::MAX,
            Self::Shared(_) => PIPE_BUF,
        }
    }

    /// Writes as much of `bytes` as there is room for. It is ready.
    pub fn write(&self, bytes: &[u8]) -> Attempt {
        self.put(bytes.len(), |fd, from, len| attempt(rustix::io::write(fd, &bytes[from..from + len])))
    }

    /// Makes attempts to put `len` bytes in, from the first that it has not taken on. It is ready.
    pub fn put(
        &self,
        len: usize,
        mut attempt: impl FnMut(BorrowedFd<'_>, usize, usize) -> Attempt,
    ) -> Attempt {
        let fd = match self {
            Self::Own(own) => return attempt(own.as_fd(), 0, len),
            Self::Shared(fd) => *fd,
        };
        let mut moved = 0;
        while moved < len.min(PIPE_BUF) {
            match attempt(fd, moved, 1) {
                Ok(Step::Moved(bytes)) => moved += bytes,
                ended if moved == 0 => return ended,
                _ => break,
            }
            if !ready(fd, fd)?.output {
                break;
            }
        }
        Ok(Step::Moved(moved))
    }
}

impl AsFd for Terminal<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(own) => own.as_fd(),
            Self::Shared(fd) => *fd,
        }
    }
}

/// Whether opening it again opens the same terminal. `/dev/ptmx` (the master of a pseudo-terminal) makes a new one, and
/// `/dev/tty` is another one for everybody.
fn has_a_name_of_its_own(fd: BorrowedFd<'_>) -> bool {
    /// See devices.txt of the kernel's documentation.
    const TTYAUX_MAJOR: u32 = 5;
    const PTY_MASTER_MAJORS: std::ops::RangeInclusive<u32> = 128..=135;
    const BSD_PTY_MASTER_MAJOR: u32 = 2;
    fstat(fd).is_ok_and(|stat| {
        let major = major(stat.st_rdev);
        major != TTYAUX_MAJOR && major != BSD_PTY_MASTER_MAJOR && !PTY_MASTER_MAJORS.contains(&major)
    })
}
