use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::fs::{FileType, tell};
use rustix::io::Errno;
use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr};

use crate::blocking::{MayBlock, may_block_of};
use crate::descriptor::{Descriptor, has_position};

/// How bytes get from one end to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From file to file inside the file system, which may share the blocks instead of copying.
    CopyFileRange,
    /// From a file to anything.
    Sendfile,
    /// Straight, when one end is a pipe.
    Splice,
    /// From pipe to pipe. There `EINVAL` may mean that both are the same pipe, and then a copy by any route would never
    /// end.
    PipeToPipe,
    /// ViaPipe a pipe of the gem's own.
    ViaPipe,
    /// ViaPipe memory: what works for everything.
    ReadWrite,
}

impl Route {
    /// Whether an error closes this route, though another may be open.
    ///
    /// - `EINVAL`: no support for one of these files (some of /proc and /dev, FUSE, terminals); an
    ///   output in append mode; for copy_file_range also ranges of one file that overlap.
    /// - `EBADF`: copy_file_range, to an output in append mode.
    /// - `EXDEV`: copy_file_range, across file systems (before Linux 5.3, and again since 5.19).
    /// - `EOPNOTSUPP`, `ETXTBSY`, `EOVERFLOW`: copy_file_range and sendfile, on some files.
    /// - `EIO`: copy_file_range, on CIFS of old kernels (golang/go#42334).
    /// - `ENOSYS`, `EPERM`, `EACCES`: seccomp in a container.
    ///
    /// Where such an error is meant, the next route reports it again; reading and writing comes last.
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
        match self {
            Self::ReadWrite => false,
            Self::CopyFileRange if errno == Errno::IO => true,
            Self::CopyFileRange | Self::Sendfile | Self::Splice | Self::PipeToPipe | Self::ViaPipe => {
                closed.contains(&errno)
            }
        }
    }
}

/// Facts that a descriptor does not reveal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints {
    /// The input is probably a regular file: guessing right saves a system call.
    pub likely_file_in: bool,
    /// The same of the output.
    pub likely_file_out: bool,
    /// The input is probably a socket.
    pub likely_socket_in: bool,
    /// The same of the output.
    pub likely_socket_out: bool,
    /// A call may wait for a peer: a signal ends that. Then a small copy need not know what could.
    pub may_wait: bool,
    /// Bytes that were taken from it and cannot be delivered can be put back. Then a pipe is emptied into one of the
    /// gem's own before it is written to a file: straight, it would be locked while its bytes are copied, and who
    /// writes to it would wait (measured with a processor for each: 0.9 instead of 1.6 GB/s).
    pub can_unread: bool,
    /// A regular file ends where it claims to, when the copy begins. What it has grown by until then is not copied.
    pub to_size: bool,
    /// If the kernel decrypts what comes from the input: what becomes of records that are not data.
    pub tls_in: Option<ControlRecords>,
    /// The kernel encrypts what goes to the output, and its end is a close_notify.
    pub tls_out: bool,
}

impl Hints {
    fn small(&self) -> u64 {
        small_for(if self.likely_file_out { FileType::RegularFile } else { FileType::Socket })
    }

    /// Whether a small copy goes through memory, whatever the output is.
    fn is_output_of_no_concern(&self, from: &Descriptor) -> bool {
        match from.kind() {
            // Onto itself it ends at its size.
            FileType::RegularFile => self.to_size && (from.size() > 0 || !self.likely_file_out),
            FileType::Socket => self.can_unread,
            // To a socket splice(2) is quicker.
            FileType::Fifo => self.can_unread && !self.likely_socket_out,
            _ => from.is_null(),
        }
    }
}

/// What becomes of records of TLS that are not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlRecords {
    /// At such a record, and at the end, the copy is done: what that is only the TLS library can tell.
    Left,
    /// Tickets are passed over, a close_notify is the end, and all others are errors; so is an end without a close_notify.
    Taken,
    /// The same, and the close_notify is left to the TLS library.
    TakenButTheLast,
}

/// What is known of how much an input has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Extent {
    /// Nothing.
    Unknown,
    /// What there is to copy, when the output is the very file that is read: without an end of its own
    /// the copy would follow what it writes until the disk is full.
    Limit(u64),
    /// The size that an input claims that is a regular file. What is behind that, or is not there, only read(2) tells.
    Size(u64),
}

/// What has to be known of two ends before a copy.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The routes to try, in this order.
    pub(crate) routes: &'static [Route],
    /// Poll this end first: it may block in spite of `SPLICE_F_NONBLOCK`.
    pub(crate) poll_first_in: bool,
    pub(crate) poll_first_out: bool,
    /// A terminal in blocking mode may have room for a single byte when it says that it is ready, and waits for more. So may
    /// what is not known.
    pub(crate) terminal_out: bool,
    /// What is known of how much there is.
    pub(crate) extent: Extent,
    /// An input that is a regular file ends at its size, unless it claims to be empty.
    pub(crate) to_size: bool,
    /// The input is a socket: what splice(2) says of its end is checked by read(2). It stops at an urgent byte.
    pub(crate) socket_in: bool,
    /// The input is a socket for which the kernel decrypts.
    pub(crate) tls_in: Option<ControlRecords>,
    /// The output is a socket for which the kernel encrypts.
    pub(crate) tls_out: bool,
    /// The output is a socket.
    pub(crate) socket_out: bool,
    /// The input is a socket with messages, which are kept whole.
    pub(crate) messages_in: bool,
    /// The output is a regular file, or a device that has a position.
    pub(crate) file_out: bool,
    /// The output is a pipe, which takes nothing by splice(2) while it is full or has no reader, whatever the input says.
    pub(crate) pipe_out: bool,
    /// Small pieces for a pipe go through memory: spliced, each takes a slot of it, however small, and there are 16 of them.
    pub(crate) merge: bool,
    /// The output is a socket with messages: what is no message is cut into such as Ruby's own `copy_stream` makes.
    pub(crate) messages_out: bool,
    /// The input is a terminal that ends after a silence (termios(3): VMIN 0, VTIME), which poll(2) does not tell.
    pub(crate) silence: Option<Silence>,
    /// It is for a small copy, and how much there is is not known. [`Plan::at_length`] follows if it is a lot, and comes quickly.
    pub(crate) is_provisional: bool,
}

impl Plan {
    /// Looks at both ends of a copy of `len` bytes, or to the end of the input, that begins at `offset`, or
    /// where the input stands.
    pub fn new(
        fd_in: BorrowedFd<'_>,
        fd_out: BorrowedFd<'_>,
        len: Option<u64>,
        offset: Option<u64>,
        hints: Hints,
    ) -> rustix::io::Result<Self> {
        let to_the_end = hints.may_wait && len.is_none() && hints.can_unread;
        let is_small = |most| hints.may_wait && most <= hints.small();
        let from = inspect_input(fd_in, hints, to_the_end || len.is_some_and(is_small))?;
        let most = most(&from, len);
        check_offset(fd_in, &from, offset)?;
        if is_small(most) && hints.is_output_of_no_concern(&from) {
            return Ok(Self::through_memory(fd_in, &from, hints, false));
        }
        let from_a_pipe_to_the_end = to_the_end && from.is_pipe();
        if to_the_end && from.kind() == FileType::Socket || from_a_pipe_to_the_end && hints.likely_socket_out
        {
            return Ok(Self::through_memory(fd_in, &from, hints, true));
        }
        // Through memory it does not matter how a file is open, and copy_file_range(2) refuses one that is in append mode.
        let of_no_concern = from.kind() == FileType::RegularFile
            || from_a_pipe_to_the_end
            || most <= small_for(FileType::RegularFile);
        let to = Descriptor::inspect_either(fd_out, hints.likely_file_out && of_no_concern)?;
        // A pipe may be copied to itself by mistake, and by read(2) that would never end.
        if from_a_pipe_to_the_end && !matches!(to.kind(), FileType::Fifo | FileType::Unknown) {
            return Ok(Self::through_memory(fd_in, &from, hints, true));
        }
        check_special(fd_in, fd_out, &from, &to)?;
        let limit = limit(fd_in, &from, &to, offset)?;
        let (may_block_in, may_block_out) = (may_block_of(fd_in, &from), may_block_of(fd_out, &to));
        let (poll_first_in, poll_first_out) =
            (needs_poll(may_block_in, &from), needs_poll(may_block_out, &to));
        let terminal_out = is_terminal(may_block_out, &to);
        let routes = choose(&from, &to, poll_first_out, most, hints, || is_unix_to_tcp(fd_in, fd_out));
        let mut plan = Self {
            routes,
            poll_first_in,
            poll_first_out,
            terminal_out,
            extent: limit.map_or(Extent::Unknown, Extent::Limit),
            to_size: hints.to_size && from.size() > 0,
            tls_in: hints.tls_in,
            tls_out: hints.tls_out,
            file_out: to.kind() == FileType::RegularFile,
            pipe_out: to.is_pipe(),
            merge: to.is_pipe() && hints.can_unread,
            socket_out: to.kind() == FileType::Socket,
            ..Self::UNKNOWN
        };
        if routes[0] == Route::CopyFileRange && !from.is_on_device_of(&to) && is_refused(fd_in, fd_out) {
            plan.routes = &routes[1..];
        }
        plan.describe_input(fd_in, may_block_in, &from);
        plan.file_out &= limit.is_none();
        // Ruby's own `copy_stream` leaves it to sendfile(2) too, how long the messages are that it makes of a file.
        let by_sendfile = hints.may_wait && routes[0] == Route::Sendfile;
        if plan.socket_out
            && !plan.messages_in
            && most > MESSAGE as u64
            && !by_sendfile
            && has_messages(fd_out)
        {
            plan.messages_out = true;
            plan.routes = &[Route::ReadWrite];
        }
        Ok(plan)
    }

    /// A plan for a small copy in calls that may wait, or for one that only begins like that.
    fn through_memory(fd_in: BorrowedFd<'_>, from: &Descriptor, hints: Hints, begins_small: bool) -> Self {
        let mut plan = Self {
            routes: &[Route::ReadWrite],
            terminal_out: true,
            to_size: hints.to_size && from.size() > 0,
            tls_in: hints.tls_in,
            tls_out: hints.tls_out,
            ..Self::UNKNOWN
        };
        plan.describe_input(fd_in, MayBlock::Unknown, from);
        plan.is_provisional = begins_small && !plan.messages_in;
        plan
    }

    /// What follows a provisional plan: there is a lot to copy.
    pub(crate) fn at_length(fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> rustix::io::Result<Self> {
        Self::new(fd_in, fd_out, None, None, Hints { can_unread: true, ..Hints::default() })
    }

    /// A plan for taking bytes from an input that go to several outputs. `EINVAL` if one of them leads back to it.
    pub(crate) fn for_outputs(
        fd_in: BorrowedFd<'_>,
        fds_out: &[Option<BorrowedFd<'_>>],
        hints: Hints,
    ) -> rustix::io::Result<Self> {
        let from = Descriptor::inspect_with_fstat(fd_in)?;
        let may_block = may_block_of(fd_in, &from);
        let mut plan =
            Self { poll_first_in: needs_poll(may_block, &from), tls_in: hints.tls_in, ..Self::UNKNOWN };
        if fds_out.iter().all(Option::is_none) {
            plan.routes = &[Route::ReadWrite];
        }
        for fd_out in fds_out.iter().flatten() {
            let to = Descriptor::inspect_with_fstat(*fd_out)?;
            if from.is_pipe() && from.is_same_file(&to) {
                return Err(Errno::INVAL);
            }
            if let (Extent::Unknown, Some(limit)) = (plan.extent, limit(fd_in, &from, &to, None)?) {
                plan.extent = Extent::Limit(limit);
            }
        }
        plan.describe_input(fd_in, may_block, &from);
        Ok(plan)
    }

    fn describe_input(&mut self, fd_in: BorrowedFd<'_>, may_block: MayBlock, from: &Descriptor) {
        // Of the very same file it is not known whether the position is one as well.
        if from.kind() == FileType::RegularFile && matches!(self.extent, Extent::Unknown) {
            self.extent = Extent::Size(from.size());
        }
        self.silence = is_terminal(may_block, from).then(|| silence(fd_in)).flatten();
        self.socket_in = from.kind() == FileType::Socket;
        self.messages_in =
            self.socket_in && is_of_messages(from.socket_type().or_else(|| socket_type(fd_in).ok()));
        if self.messages_in {
            self.routes = &[Route::ReadWrite];
        }
    }

    /// A plan for taking bytes from an input that others bring to where they go, from `offset` or from where it stands.
    pub fn for_input(fd_in: BorrowedFd<'_>, offset: Option<u64>, hints: Hints) -> rustix::io::Result<Self> {
        let from = inspect_input(fd_in, hints, true)?;
        check_offset(fd_in, &from, offset)?;
        let may_block = may_block_of(fd_in, &from);
        let mut plan = Self {
            routes: &[Route::ReadWrite],
            poll_first_in: needs_poll(may_block, &from),
            ..Self::UNKNOWN
        };
        plan.describe_input(fd_in, may_block, &from);
        Ok(plan)
    }

    /// A plan for passing on bytes that are held.
    pub fn for_output(fd_out: BorrowedFd<'_>, hints: Hints) -> rustix::io::Result<Self> {
        if hints.likely_file_out && has_position(fd_out) {
            return Ok(Self { file_out: true, ..Self::UNKNOWN });
        }
        let to = Descriptor::inspect(fd_out)?;
        let may_block = may_block_of(fd_out, &to);
        Ok(Self {
            poll_first_out: needs_poll(may_block, &to),
            terminal_out: is_terminal(may_block, &to),
            file_out: to.kind() == FileType::RegularFile,
            socket_out: to.kind() == FileType::Socket,
            ..Self::UNKNOWN
        })
    }

    /// A plan for ends that are not known.
    pub(crate) const UNKNOWN: Self = Self {
        routes: &[Route::ViaPipe, Route::ReadWrite],
        poll_first_in: false,
        poll_first_out: false,
        terminal_out: false,
        extent: Extent::Unknown,
        to_size: false,
        socket_in: false,
        tls_in: None,
        tls_out: false,
        socket_out: false,
        messages_in: false,
        file_out: false,
        pipe_out: false,
        merge: false,
        messages_out: false,
        silence: None,
        is_provisional: false,
    };
}

/// Looks at an input. A socket that is only read need not be known to be in blocking mode.
fn inspect_input(
    fd_in: BorrowedFd<'_>,
    hints: Hints,
    is_mode_of_no_concern: bool,
) -> rustix::io::Result<Descriptor> {
    match hints.likely_socket_in && is_mode_of_no_concern {
        true => Descriptor::inspect_likely_socket(fd_in),
        false => Descriptor::inspect_either(fd_in, hints.likely_file_in),
    }
}

/// `EINVAL` for what can never be read, or written: an epoll or pidfd descriptor is ready now and then all the same. What
/// has no type of its own is asked by a call of no bytes.
fn check_special(
    fd_in: BorrowedFd<'_>,
    fd_out: BorrowedFd<'_>,
    from: &Descriptor,
    to: &Descriptor,
) -> rustix::io::Result<()> {
    if from.kind() == FileType::Unknown {
        rustix::io::readv(fd_in, &mut [IoSliceMut::new(&mut [])])?;
    }
    if to.kind() == FileType::Unknown {
        rustix::io::writev(fd_out, &[IoSlice::new(&[])])?;
    }
    Ok(())
}

/// `ESPIPE` for an offset where there is no position: read(2) would ignore it.
fn check_offset(fd_in: BorrowedFd<'_>, from: &Descriptor, offset: Option<u64>) -> rustix::io::Result<()> {
    if offset.is_some() && from.kind() != FileType::RegularFile {
        tell(fd_in)?;
    }
    Ok(())
}

/// The most that is going to be copied, as far as that is known: a file may grow.
fn most(from: &Descriptor, len: Option<u64>) -> u64 {
    let size = (from.kind() == FileType::RegularFile || from.is_null()).then(|| from.size());
    len.unwrap_or(u64::MAX).min(size.unwrap_or(u64::MAX))
}

/// How long a terminal may be silent before it ends, in tenths of a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence(u8);

impl Silence {
    pub fn duration(self) -> Duration {
        Duration::from_millis(100) * u32::from(self.0)
    }
}

/// What there is to copy from a file to itself.
fn limit(
    fd_in: BorrowedFd<'_>,
    from: &Descriptor,
    to: &Descriptor,
    offset: Option<u64>,
) -> rustix::io::Result<Option<u64>> {
    if from.kind() != FileType::RegularFile || !from.is_same_file(to) {
        return Ok(None);
    }
    let start = offset.map_or_else(|| tell(fd_in), Ok)?;
    Ok(Some(from.size().saturating_sub(start)))
}

/// Below this a copy through memory costs less than the two ways into and out of a pipe, or than to reserve what is
/// copied of a file.
fn small_for(to: FileType) -> u64 {
    if to == FileType::RegularFile { 16 << 10 } else { 4 << 10 }
}

/// The longest message that is made of bytes which are none: as long as those of Ruby's own `copy_stream`.
pub(crate) const MESSAGE: usize = 16 << 10;

/// From here on it is worth asking of which family two sockets are.
const LARGE: u64 = 64 << 10;

/// The routes for a copy of at most so many bytes, the best first.
fn choose(
    from: &Descriptor,
    to: &Descriptor,
    poll_first_out: bool,
    most: u64,
    hints: Hints,
    is_unix_to_tcp: impl FnOnce() -> bool,
) -> &'static [Route] {
    use Route::{CopyFileRange, PipeToPipe, ReadWrite, Sendfile, Splice, ViaPipe};
    let small = most <= small_for(to.kind());
    let large = most >= LARGE;
    match (from.kind(), to.kind()) {
        (FileType::RegularFile, _) if small => &[ReadWrite],
        (_, FileType::Fifo) if small && hints.can_unread => &[ReadWrite],
        (FileType::Fifo, FileType::Fifo) => &[PipeToPipe, ReadWrite],
        (_, FileType::Fifo) => &[Splice, ReadWrite],
        _ if to.appends() => &[ReadWrite],
        // sendfile(2) has no offset for its output.
        (FileType::RegularFile, FileType::RegularFile) => &[CopyFileRange, ViaPipe, ReadWrite],
        (FileType::Fifo, FileType::RegularFile) if small && hints.can_unread => &[ReadWrite],
        (FileType::Fifo, FileType::RegularFile) if large && hints.can_unread => &[ViaPipe, ReadWrite],
        // A blocking splice from a pipe keeps that pipe locked, so it had better be a pipe of our own.
        (FileType::Fifo, _) if poll_first_out => via_pipe_unless(small),
        (FileType::Fifo, _) => &[Splice, ReadWrite],
        (FileType::RegularFile | FileType::BlockDevice, _) => &[Sendfile, ReadWrite],
        _ => via_pipe_unless(small || large && is_unix_to_tcp()),
    }
}

fn via_pipe_unless(through_memory: bool) -> &'static [Route] {
    if through_memory { &[Route::ReadWrite] } else { &[Route::ViaPipe, Route::ReadWrite] }
}

/// Whether copy_file_range(2) does not copy between these two. It is asked with a length of 0, before anything is reserved
/// for what it then would not write.
fn is_refused(fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> bool {
    let copied = rustix::fs::copy_file_range(fd_in, None, fd_out, None, 0);
    copied.is_err_and(|errno| Route::CopyFileRange.refused(errno))
}

/// From a UNIX to a TCP socket, splice costs twice the time of reading and writing: it passes on the pages of
/// each small message by themselves, and wakes the peer for each.
fn is_unix_to_tcp(fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> bool {
    socket_domain(fd_in) == Ok(AddressFamily::UNIX)
        && matches!(socket_domain(fd_out), Ok(AddressFamily::INET | AddressFamily::INET6))
}

/// Whether a socket has messages with bounds, and not a stream.
fn has_messages(socket: BorrowedFd<'_>) -> bool {
    is_of_messages(socket_type(socket).ok())
}

fn is_of_messages(socket: Option<SocketType>) -> bool {
    matches!(socket, Some(SocketType::DGRAM | SocketType::SEQPACKET | SocketType::RAW))
}

/// How long a terminal may be silent before read(2) says 0.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man3/termios.3.html
fn silence(terminal: BorrowedFd<'_>) -> Option<Silence> {
    let state = tcgetattr(terminal).ok()?;
    let ends =
        !state.local_modes.contains(LocalModes::ICANON) && state.special_codes[SpecialCodeIndex::VMIN] == 0;
    ends.then(|| Silence(state.special_codes[SpecialCodeIndex::VTIME]))
}

/// Whether an end is a terminal in blocking mode.
fn is_terminal(may_block: MayBlock, end: &Descriptor) -> bool {
    end.kind() == FileType::CharacterDevice && may_block == MayBlock::Peer
}

/// Whether an end may hold up the kernel, so that it is asked first whether it is ready.
fn needs_poll(may_block: MayBlock, end: &Descriptor) -> bool {
    // Splicing to a pipe never waits; writing to one in blocking mode does.
    let pipe_waits = end.is_pipe() && !end.is_nonblocking();
    pipe_waits || matches!(may_block, MayBlock::Peer | MayBlock::Unknown)
}
