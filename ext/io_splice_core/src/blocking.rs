use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, OFlags};

use crate::descriptor::{Descriptor, has_position};

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

/// What an end probably is: it decides what is asked first, and costs nothing but time when it is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likely {
    /// A pipe, or not known.
    Pipe,
    /// A file or a device that was opened at a path.
    File,
    /// A socket.
    Socket,
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

/// What has to be known of one of them.
struct SpliceEnd {
    may_block: MayBlock,
    is_pipe: bool,
    is_socket: bool,
}

impl SpliceEnd {
    #[inline(always)]
    fn inspect(fd: BorrowedFd<'_>, likely: Likely) -> rustix::io::Result<Self> {
        if likely == Likely::File && has_position(fd) {
            return Ok(Self { may_block: MayBlock::Disk, is_pipe: false, is_socket: false });
        }
        Ok(Self::of(fd, &Descriptor::inspect(fd)?))
    }

    #[inline(always)]
    fn of(fd: BorrowedFd<'_>, descriptor: &Descriptor) -> Self {
        Self {
            may_block: may_block_of(fd, descriptor),
            is_pipe: descriptor.is_pipe(),
            is_socket: descriptor.kind() == FileType::Socket,
        }
    }
}

impl SpliceEnds {
    /// Looks at both, for [`splice_now`](crate::splice_now). One of them is a pipe, or the call is refused at once: so when the
    /// first is not, the other one need not be looked at.
    #[inline(always)]
    pub fn inspect(
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        likely: [Likely; 2],
    ) -> rustix::io::Result<Self> {
        let inspect_input = || SpliceEnd::inspect(fd_in, likely[0]);
        let inspect_output = || SpliceEnd::inspect(fd_out, likely[1]);
        let (input, output) = if likely[0] == Likely::Pipe && likely[1] != Likely::Pipe {
            let output = inspect_output()?;
            (if output.is_pipe { Some(inspect_input()?) } else { None }, Some(output))
        } else {
            let input = inspect_input()?;
            let output = if input.is_pipe { Some(inspect_output()?) } else { None };
            (Some(input), output)
        };
        Ok(Self::of(input, output))
    }

    /// Looks at both, for [`Reserved`](crate::Reserved), which wants to know more of files.
    pub fn inspect_to_reserve(
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        likely: [Likely; 2],
    ) -> rustix::io::Result<Self> {
        let [likely_file_in, likely_file_out] = likely.map(|likely| likely == Likely::File);
        let input = Descriptor::inspect_either(fd_in, likely_file_in)?;
        let output =
            if input.is_pipe() { Some(Descriptor::inspect_either(fd_out, likely_file_out)?) } else { None };
        let is_file = |descriptor: &Descriptor| descriptor.kind() == FileType::RegularFile;
        let ends = Self::of(
            Some(SpliceEnd::of(fd_in, &input)),
            output.as_ref().map(|output| SpliceEnd::of(fd_out, output)),
        );
        Ok(Self {
            file_in: is_file(&input).then(|| input.size()),
            pipe_to_file: input.access() != OFlags::WRONLY && output.as_ref().is_some_and(is_file),
            ..ends
        })
    }

    /// Of those that had to be looked at.
    #[inline(always)]
    fn of(input: Option<SpliceEnd>, output: Option<SpliceEnd>) -> Self {
        let may_block = |end: &Option<SpliceEnd>| end.as_ref().map_or(MayBlock::Never, |end| end.may_block);
        Self {
            may_block: [may_block(&input), may_block(&output)],
            socket_in: input.is_some_and(|input| input.is_socket),
            file_in: None,
            pipe_to_file: false,
        }
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
#[inline(always)]
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
