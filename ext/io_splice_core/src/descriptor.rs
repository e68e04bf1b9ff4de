use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat};

/// What a descriptor is, and how it is open: looked up now, and true only for now.
pub(crate) struct Descriptor {
    stat: Stat,
    pub mode: OFlags,
}

impl Descriptor {
    pub fn look(fd: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Ok(Self { stat: fstat(fd)?, mode: fcntl_getfl(fd)? })
    }

    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub fn is_pipe(&self) -> bool {
        self.kind() == FileType::Fifo
    }

    pub fn size(&self) -> u64 {
        self.stat.st_size as u64
    }

    pub fn appends(&self) -> bool {
        self.mode.contains(OFlags::APPEND)
    }

    pub fn access(&self) -> OFlags {
        self.mode & OFlags::ACCMODE
    }

    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.stat.st_dev, self.stat.st_ino) == (other.stat.st_dev, other.stat.st_ino)
    }
}
