use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use crate::descriptor::Descriptor;

/// What an attempt on a descriptor may block for, `SPLICE_F_NONBLOCK` or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MayBlock {
    /// A pipe, a socket or terminal in non-blocking mode, or a device like `/dev/null`.
    Never,
    /// The peer: a socket or terminal in blocking mode. [`splice_now`](crate::splice_now) and
    /// [`write_now`](crate::write_now) rule it out.
    Peer,
    /// The disk, for as long as it takes; never a peer.
    Disk,
    /// A driver that may or may not know of non-blocking mode.
    Unknown,
}

/// What an attempt on `fd` may block for.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/F_GETFL.2const.html
pub fn may_block(fd: BorrowedFd<'_>) -> rustix::io::Result<MayBlock> {
    Ok(may_block_of(fd, &Descriptor::inspect(fd)?))
}

/// What has to be known of the two ends of a splice.
#[derive(Clone, Copy, Debug)]
pub struct SpliceEnds {
    pub(crate) may_block: [MayBlock; 2],
    pub(crate) socket_in: bool,
    /// The size of an input that is a regular file.
    pub(crate) file_in: Option<u64>,
    /// It is from a pipe that is open for reading to a regular file.
    pub(crate) pipe_to_file: bool,
}

impl SpliceEnds {
    /// Looks at both; of what is likely a file in another way, which then saves a system call. When the input is not a pipe,
    /// the output is one, or the call is refused at once; so then the output need not be looked at.
    pub fn inspect(
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        likely_files: [bool; 2],
    ) -> rustix::io::Result<Self> {
        let input = Descriptor::inspect_either(fd_in, likely_files[0])?;
        let output =
            if input.is_pipe() { Some(Descriptor::inspect_either(fd_out, likely_files[1])?) } else { None };
        let is_file = |descriptor: &Descriptor| descriptor.kind() == FileType::RegularFile;
        Ok(Self {
            may_block: [
                may_block_of(fd_in, &input),
                output.as_ref().map_or(MayBlock::Never, |output| may_block_of(fd_out, output)),
            ],
            socket_in: input.kind() == FileType::Socket,
            file_in: is_file(&input).then(|| input.size()),
            pipe_to_file: input.access() != OFlags::WRONLY && output.as_ref().is_some_and(is_file),
        })
    }

    /// What an attempt may block for at each of them.
    pub fn may_block(&self) -> [MayBlock; 2] {
        self.may_block
    }

    /// Whether an attempt waits for nothing but a disk.
    pub fn wait_for_no_peer(&self) -> bool {
        self.may_block.iter().all(|may_block| matches!(may_block, MayBlock::Never | MayBlock::Disk))
    }
}

/// As [`may_block()`], for a descriptor that has just been looked at.
pub(crate) fn may_block_of(fd: BorrowedFd<'_>, descriptor: &Descriptor) -> MayBlock {
    let if_blocking = |end| if descriptor.is_nonblocking() { MayBlock::Never } else { end };
    match descriptor.kind() {
        FileType::Fifo => MayBlock::Never,
        FileType::RegularFile | FileType::Directory | FileType::BlockDevice => MayBlock::Disk,
        FileType::Socket => if_blocking(MayBlock::Peer),
        FileType::CharacterDevice if descriptor.is_memory() => MayBlock::Never,
        FileType::CharacterDevice if rustix::termios::isatty(fd) => if_blocking(MayBlock::Peer),
        _ => MayBlock::Unknown,
    }
}
