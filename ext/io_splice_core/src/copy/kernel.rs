use std::os::fd::BorrowedFd;

use rustix::fs::SeekFrom;
use rustix::io::{Errno, Result};
use rustix::net::RecvFlags;
use rustix::pipe::SpliceFlags;

use crate::attempt::Step;
use crate::descriptor::Descriptor;
use crate::ended::{has_ended, socket_has_ended};
use crate::pool::PooledPipe;
use crate::read::read_when_ready;
use crate::ready::{Readiness, ready};
use crate::room::room;
use crate::tls::{Record, take_control_record};
use crate::write::write_now;

/// The system calls that a copy is made of; each as its manual page has it. The tests put a kernel of
/// their own in its place, which answers short, refuses or fails at any step.
pub trait Kernel {
    /// [splice(2)](https://man7.org/linux/man-pages/man2/splice.2.html), never waiting on a pipe
    fn splice(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize>;

    /// [tee(2)](https://man7.org/linux/man-pages/man2/tee.2.html), never waiting
    fn tee(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>, len: usize) -> Result<usize>;

    /// [sendfile(2)](https://man7.org/linux/man-pages/man2/sendfile.2.html)
    fn sendfile(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        len: usize,
    ) -> Result<usize>;

    /// [copy_file_range(2)](https://man7.org/linux/man-pages/man2/copy_file_range.2.html)
    fn copy_file_range(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize>;

    /// [read(2)](https://man7.org/linux/man-pages/man2/read.2.html), and with an offset
    /// [pread(2)](https://man7.org/linux/man-pages/man2/pread.2.html)
    fn read(&mut self, fd: BorrowedFd<'_>, offset: Option<&mut u64>, buffer: &mut [u8]) -> Result<usize>;

    /// The same without blocking, from a socket or a pipe: somebody else may have taken what was there.
    fn read_now(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
        self.read(fd, None, buffer)
    }

    /// [write(2)](https://man7.org/linux/man-pages/man2/write.2.html)
    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize>;

    /// The same without blocking, where the kernel supports it: the room may be gone by now.
    fn write_now(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        self.write(fd, bytes)
    }

    /// [poll(2)](https://man7.org/linux/man-pages/man2/poll.2.html), at once
    fn ready(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Readiness>;

    /// Whether a pipe or a socket has ended and is empty, or a file is read to its end: as far as that shows without taking
    /// anything, or waiting. `at` is where the next call would read, if that is not where the file stands.
    fn has_ended(&mut self, _input: BorrowedFd<'_>, _is_socket: bool, _at: Option<u64>) -> Result<bool> {
        Ok(false)
    }

    /// How many bytes a socket takes at once, as far as that can be known, and 0 if it is not writable; `None` of what is
    /// not a socket.
    fn room(&mut self, _output: BorrowedFd<'_>) -> Option<usize> {
        None
    }

    /// A pipe of the gem's own, empty.
    fn pipe(&mut self) -> Result<PooledPipe>;

    /// [lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html), forwards; returns where `fd` stood before
    fn reserve(&mut self, fd: BorrowedFd<'_>, len: u64) -> Result<u64>;

    /// [lseek(2)](https://man7.org/linux/man-pages/man2/lseek.2.html), backwards; returns where `fd` stands then
    fn seek_back(&mut self, fd: BorrowedFd<'_>, by: u64) -> Result<u64>;

    /// [FIONREAD](https://man7.org/linux/man-pages/man2/FIONREAD.2const.html): how many bytes wait in a pipe
    fn available(&mut self, pipe: BorrowedFd<'_>) -> Result<usize>;

    /// [recv(2)](https://man7.org/linux/man-pages/man2/recv.2.html): how long the next message of a socket is that has
    /// messages, without taking it
    fn message_size(&mut self, socket: BorrowedFd<'_>) -> Result<usize>;

    /// [recvmsg(2)](https://man7.org/linux/man-pages/man2/recvmsg.2.html): what the next record of TLS is, for which the kernel
    /// has decrypted; one that is not data is taken, but for a close_notify that is to be left
    fn take_control_record(&mut self, _socket: BorrowedFd<'_>, _leave_close_notify: bool) -> Result<Record> {
        Err(Errno::IO)
    }

    /// Whether both are the same pipe. [fstat(2)](https://man7.org/linux/man-pages/man2/fstat.2.html)
    fn is_same_pipe(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> bool;
}

/// The kernel itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Kernel for Linux {
    fn splice(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        // Without SPLICE_F_MORE: left on for the last piece, it makes the peer wait up to 200 ms.
        rustix::pipe::splice(fd_in, off_in, fd_out, off_out, len, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
    }

    fn tee(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>, len: usize) -> Result<usize> {
        rustix::pipe::tee(fd_in, fd_out, len, SpliceFlags::NONBLOCK)
    }

    fn sendfile(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        len: usize,
    ) -> Result<usize> {
        rustix::fs::sendfile(fd_out, fd_in, off_in, len)
    }

    fn copy_file_range(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        rustix::fs::copy_file_range(fd_in, off_in, fd_out, off_out, len)
    }

    fn read(&mut self, fd: BorrowedFd<'_>, offset: Option<&mut u64>, buffer: &mut [u8]) -> Result<usize> {
        let Some(offset) = offset else {
            return rustix::io::read(fd, buffer);
        };
        let read = rustix::io::pread(fd, buffer, *offset)?;
        *offset += read as u64;
        Ok(read)
    }

    fn read_now(&mut self, fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize> {
        read_when_ready(fd, buffer)
    }

    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        rustix::io::write(fd, bytes)
    }

    fn write_now(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        match write_now(fd, bytes)? {
            Step::Moved(written) => Ok(written),
            Step::WouldBlock | Step::Ended => Err(Errno::AGAIN),
        }
    }

    fn ready(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Readiness> {
        ready(input, output)
    }

    fn has_ended(&mut self, input: BorrowedFd<'_>, is_socket: bool, at: Option<u64>) -> Result<bool> {
        if is_socket { socket_has_ended(input) } else { has_ended(input, at) }
    }

    fn room(&mut self, output: BorrowedFd<'_>) -> Option<usize> {
        room(output)
    }

    fn pipe(&mut self) -> Result<PooledPipe> {
        PooledPipe::take()
    }

    fn reserve(&mut self, fd: BorrowedFd<'_>, len: u64) -> Result<u64> {
        let by = i64::try_from(len).map_err(|_| Errno::OVERFLOW)?;
        rustix::fs::seek(fd, SeekFrom::Current(by)).map(|end| end - len)
    }

    fn seek_back(&mut self, fd: BorrowedFd<'_>, by: u64) -> Result<u64> {
        let by = i64::try_from(by).map_err(|_| Errno::OVERFLOW)?;
        rustix::fs::seek(fd, SeekFrom::Current(-by))
    }

    fn available(&mut self, pipe: BorrowedFd<'_>) -> Result<usize> {
        rustix::io::ioctl_fionread(pipe).map(|bytes| bytes as usize)
    }

    fn message_size(&mut self, socket: BorrowedFd<'_>) -> Result<usize> {
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
        rustix::net::recv(socket, &mut [0; 0][..], flags).map(|(_, size)| size)
    }

    fn take_control_record(&mut self, socket: BorrowedFd<'_>, leave_close_notify: bool) -> Result<Record> {
        take_control_record(socket, leave_close_notify)
    }

    fn is_same_pipe(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> bool {
        let inspect = Descriptor::inspect_with_fstat;
        match (inspect(fd_in), inspect(fd_out)) {
            (Ok(from), Ok(to)) => from.is_pipe() && from.is_same_file(&to),
            _ => false,
        }
    }
}
