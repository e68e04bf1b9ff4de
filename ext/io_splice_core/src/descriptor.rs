use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use rustix::fs::{FileType, Mode, OFlags, Stat, fcntl_getfl, fstat, major, minor, tell};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;

use crate::PrivateFd;

/// What a descriptor is, and how it is open.
///
/// It is looked up each time and true only for now, because a number says nothing: the descriptor may
/// have been closed and its number reused.
pub(crate) struct Descriptor {
    mode: OFlags,
    kind: FileType,
    stat: Option<Stat>,
    socket_type: Option<SocketType>,
}

impl Descriptor {
    /// One `fcntl` for all pipes and sockets that Ruby 3 makes; `fstat` costs twice as much again.
    ///
    /// On 64 bits Linux marks with O_LARGEFILE whatever came from open(2). What has no such mark came
    /// from pipe(2), socket(2), accept(2) and the like. Of those only pipes go one way.
    pub fn inspect(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::inspect_with_mode(fd, fcntl_getfl(fd)?)
    }

    /// As [`Descriptor::inspect`], when the mode is known.
    pub fn inspect_with_mode(fd: BorrowedFd<'_>, mode: OFlags) -> rustix::io::Result<Self> {
        let is_telling = mode.contains(OFlags::NONBLOCK) && !mode.contains(OFlags::LARGEFILE);
        if !is_telling || !marks_what_was_opened() {
            return Self::with_mode(fd, mode);
        }
        let kind = if mode & OFlags::ACCMODE == OFlags::RDWR { FileType::Socket } else { FileType::Fifo };
        Ok(Self { mode, kind, stat: None, socket_type: None })
    }

    /// As [`Descriptor::inspect`]; what is likely a file is asked at once what it is, and not how it is open.
    pub fn inspect_either(fd: BorrowedFd<'_>, likely_file: bool) -> rustix::io::Result<Self> {
        if likely_file { Self::inspect_likely_file(fd) } else { Self::inspect(fd) }
    }

    fn inspect_likely_file(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        let stat = fstat(fd)?;
        let file = Self::with_stat(OFlags::empty(), stat);
        let is_known = file.kind == FileType::RegularFile || file.is_memory();
        if is_known { Ok(file) } else { Ok(Self::with_stat(fcntl_getfl(fd)?, stat)) }
    }

    /// As [`Descriptor::inspect`]; what is likely a socket is asked of which type, and not how it is open.
    pub fn inspect_likely_socket(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        match socket_type(fd) {
            Ok(socket_type) => Ok(Self {
                mode: OFlags::empty(),
                kind: FileType::Socket,
                stat: None,
                socket_type: Some(socket_type),
            }),
            Err(_) => Self::inspect(fd),
        }
    }

    /// As [`Descriptor::inspect`], and takes no descriptor's word for what it is.
    pub fn inspect_with_fstat(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::with_mode(fd, fcntl_getfl(fd)?)
    }

    fn with_mode(fd: BorrowedFd<'_>, mode: OFlags) -> rustix::io::Result<Self> {
        Ok(Self::with_stat(mode, fstat(fd)?))
    }

    fn with_stat(mode: OFlags, stat: Stat) -> Self {
        Self { mode, kind: FileType::from_raw_mode(stat.st_mode), stat: Some(stat), socket_type: None }
    }

    /// If it is known.
    pub fn socket_type(&self) -> Option<SocketType> {
        self.socket_type
    }

    pub fn kind(&self) -> FileType {
        self.kind
    }

    pub fn is_pipe(&self) -> bool {
        self.kind == FileType::Fifo
    }

    /// Whether it is `/dev/null`, `/dev/zero` or `/dev/full`.
    ///
    /// # References
    ///  - [Linux]
    ///
    /// [Linux]: https://man7.org/linux/man-pages/man4/null.4.html
    pub fn is_memory(&self) -> bool {
        matches!(self.device(), Some((1, 3 | 5 | 7)))
    }

    /// Whether it is `/dev/null`.
    pub fn is_null(&self) -> bool {
        self.device() == Some((1, 3))
    }

    /// The numbers of a character device.
    fn device(&self) -> Option<(u32, u32)> {
        let device = self.stat.filter(|_| self.kind == FileType::CharacterDevice)?.st_rdev;
        Some((major(device), minor(device)))
    }

    pub fn is_nonblocking(&self) -> bool {
        self.mode.contains(OFlags::NONBLOCK)
    }

    pub fn appends(&self) -> bool {
        self.mode.contains(OFlags::APPEND)
    }

    pub fn access(&self) -> OFlags {
        self.mode & OFlags::ACCMODE
    }

    /// The size of a file; 0 for what has none.
    pub fn size(&self) -> u64 {
        self.stat.map_or(0, |stat| stat.st_size as u64)
    }

    /// Whether both are known to be the same file. Of pipes that is known only after a close look.
    pub fn is_same_file(&self, other: &Self) -> bool {
        match (&self.stat, &other.stat) {
            (Some(one), Some(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
            _ => false,
        }
    }

    /// Whether both are files of one device; `false` if that is not known.
    pub fn is_on_device_of(&self, other: &Self) -> bool {
        matches!((&self.stat, &other.stat), (Some(one), Some(other)) if one.st_dev == other.st_dev)
    }
}

/// Whether it has a position, as regular files and devices that are memory have: then it has no peer. lseek(2) refuses pipes,
/// sockets and terminals, and takes half the time of fstat(2).
pub(crate) fn has_position(fd: BorrowedFd<'_>) -> bool {
    tell(fd).is_ok()
}

/// Whether the kernel has such a mark for a program like this one. QEMU's user mode does not pass it on.
pub fn marks_what_was_opened() -> bool {
    static MARKS: OnceLock<bool> = OnceLock::new();
    *MARKS.get_or_init(|| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = PrivateFd::make(|| rustix::fs::open("/", flags, Mode::empty()).map(PrivateFd::new));
        let mode = root.and_then(fcntl_getfl);
        cfg!(target_pointer_width = "64") && mode.is_ok_and(|mode| mode.contains(OFlags::LARGEFILE))
    })
}
