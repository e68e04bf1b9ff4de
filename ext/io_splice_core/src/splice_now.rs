use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread::sleep;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, ioctl_fionread};
use rustix::net::sockopt::{socket_send_buffer_size, socket_type};
use rustix::net::{RecvFlags, SendFlags, SocketType, recv, send};
use rustix::param::page_size;
use rustix::pipe::{PIPE_BUF, SpliceFlags};

use crate::attempt::{Attempt, Step, attempt};
use crate::blocking::{MayBlock, SpliceEnds};
use crate::memory::zeroed;
use crate::pipe::pipe_size;
use crate::read::read_pipe_now;
use crate::ready::{Side, events, ready, wait_until_ready};
use crate::splice::splice;
use crate::terminal::Terminal;
use crate::vmsplice::write_snapshot;

/// As [`splice()`], and waits for no peer either where an end is a socket or a terminal in blocking mode. The mode belongs to
/// the open file, which other processes may share, and stays.
///
/// For such a socket the kernel would wait, flag or not, so its bytes go through memory: recv(2) and send(2) have a flag of
/// their own. A terminal is opened once more, or asked first.
///
/// # References
///  - [recv]
///  - [send]
///
/// [recv]: https://man7.org/linux/man-pages/man2/recv.2.html
/// [send]: https://man7.org/linux/man-pages/man2/send.2.html
///
/// What splice(2) says of a socket is checked: at an urgent byte it says that the socket has ended, or that nothing is
/// there, and neither is true. recv(2) steps over it.
#[inline(always)]
pub fn splice_now(
    ends: &SpliceEnds,
    fd_in: BorrowedFd<'_>,
    off_in: Option<&mut u64>,
    fd_out: BorrowedFd<'_>,
    off_out: Option<&mut u64>,
    len: usize,
    flags: SpliceFlags,
) -> Attempt {
    let attempt = splice_unchecked(ends.may_block, fd_in, off_in, fd_out, off_out, len, flags)?;
    let doubtful = match attempt {
        Step::Moved(_) => false,
        Step::Ended => ends.socket_in,
        Step::WouldBlock => ends.socket_in && ready(fd_in, fd_out)?.both(),
    };
    if doubtful && socket_type(fd_in) == Ok(SocketType::STREAM) {
        return socket_to_pipe(fd_in, fd_out, len);
    }
    Ok(attempt)
}

#[inline(always)]
fn splice_unchecked(
    [input, output]: [MayBlock; 2],
    fd_in: BorrowedFd<'_>,
    off_in: Option<&mut u64>,
    fd_out: BorrowedFd<'_>,
    off_out: Option<&mut u64>,
    len: usize,
    flags: SpliceFlags,
) -> Attempt {
    let waits = |end| matches!(end, MayBlock::Peer | MayBlock::Unknown);
    // What will be refused is refused at once: no peer of ours has a place for an offset.
    let refused = || {
        off_in.is_some()
            || off_out.is_some()
            || if waits(input) {
                !is_open_pipe(fd_out, OFlags::RDONLY)
            } else {
                !is_open_pipe(fd_in, OFlags::WRONLY)
            }
    };
    if !waits(input) && !waits(output) || refused() {
        return splice(fd_in, off_in, fd_out, off_out, len, flags);
    }
    let now = ready(fd_in, fd_out)?;
    let [error_in, error_out] = now.only_error;
    if !now.both() || waits(input) && error_in || waits(output) && error_out {
        return Ok(Step::WouldBlock);
    }
    let splice =
        |fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>, len| splice(fd_in, None, fd_out, None, len, flags);
    match (input, output) {
        (MayBlock::Peer, _) => match socket_type(fd_in) {
            Ok(SocketType::STREAM) => socket_to_pipe(fd_in, fd_out, len),
            // A message must not be cut: the kernel makes room for all of it. It waits if somebody else takes it just now.
            Ok(_) => splice(fd_in, fd_out, len),
            Err(_) => {
                let terminal = Terminal::for_input(fd_in);
                splice(terminal.as_fd(), fd_out, len.min(terminal.most_to_read()))
            }
        },
        (_, MayBlock::Peer) => match socket_type(fd_out) {
            Ok(SocketType::STREAM) => pipe_to_socket(fd_in, fd_out, len, flags),
            Ok(_) => splice(fd_in, fd_out, len),
            Err(_) => Terminal::for_output(fd_out).put(len, |fd_out, _, len| splice(fd_in, fd_out, len)),
        },
        _ => splice(fd_in, fd_out, len),
    }
}

/// Whether it is a pipe that is not only open for the other direction.
fn is_open_pipe(fd: BorrowedFd<'_>, other: OFlags) -> bool {
    fcntl_getfl(fd).is_ok_and(|mode| mode & OFlags::ACCMODE != other) && pipe_size(fd).is_ok()
}

/// What goes through memory at once.
const PORTION: usize = 64 << 10;

/// Takes no more than the pipe has room for. Both are ready.
fn socket_to_pipe(socket: BorrowedFd<'_>, pipe: BorrowedFd<'_>, len: usize) -> Attempt {
    // What has been taken cannot be given back.
    if events(pipe, PollFlags::OUT)?.contains(PollFlags::ERR) {
        return Err(Errno::PIPE);
    }
    let mut buffer = zeroed(len.min(room(pipe)?).min(PORTION))?;
    let received = match recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
        Ok((0, _)) => return Ok(Step::Ended),
        Ok((received, _)) => received,
        Err(errno) => return attempt(Err(errno)),
    };
    finish(&buffer[..received], pipe, |bytes| write_snapshot(pipe, &[IoSlice::new(bytes)]))
}

/// How many bytes a pipe that is ready has room for. Each that is in it may take a whole slot, which is a page.
pub(crate) fn room(pipe: BorrowedFd<'_>) -> rustix::io::Result<usize> {
    let slots = pipe_size(pipe)? / page_size();
    let taken = ioctl_fionread(pipe)? as usize;
    Ok(slots.saturating_sub(taken).max(1) * page_size())
}

/// Takes no more out of the pipe than the socket has room for. Both are ready.
fn pipe_to_socket(pipe: BorrowedFd<'_>, socket: BorrowedFd<'_>, len: usize, flags: SpliceFlags) -> Attempt {
    let more = if flags.contains(SpliceFlags::MORE) { SendFlags::MORE } else { SendFlags::empty() };
    let now = more | SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // A connection that is broken says so before anything is taken out.
    match send(socket, &[], now) {
        Ok(_) => {}
        Err(errno) => return attempt(Err(errno)),
    }
    // It says that it is ready when at least a third of its buffer is free, in which a byte takes more than a byte.
    let room = (socket_send_buffer_size(socket)? / 8).clamp(PIPE_BUF, PORTION);
    let mut buffer = zeroed(len.min(room))?;
    let taken = match read_pipe_now(pipe, &mut buffer) {
        Ok(0) => return Ok(Step::Ended),
        Ok(taken) => taken,
        Err(errno) => return attempt(Err(errno)),
    };
    finish(&buffer[..taken], socket, |bytes| attempt(send(socket, bytes, now)))
}

/// Puts in what has been taken out for it. There was room for all; if somebody else has used it in between, what is left
/// would be lost, so this once it is waited for.
fn finish(bytes: &[u8], output: BorrowedFd<'_>, mut put: impl FnMut(&[u8]) -> Attempt) -> Attempt {
    let mut rest = bytes;
    while !rest.is_empty() {
        match put(rest) {
            Ok(Step::Moved(bytes)) => rest = &rest[bytes..],
            Ok(_) => {
                wait_until_ready(Side::Output, output, None);
                // Ready may mean room for less than this.
                sleep(Duration::from_millis(1));
            }
            Err(Errno::INTR) => {}
            Err(errno) if rest.len() == bytes.len() => return Err(errno),
            Err(_) => break,
        }
    }
    Ok(Step::Moved(bytes.len() - rest.len()))
}
