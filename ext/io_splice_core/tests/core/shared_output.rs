//! A copy to a file whose position others move too.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::support::*;
use io_splice_core::copy::{Hints, Kernel, Linux, Pause};
use io_splice_core::{PooledPipe, Readiness};
use rustix::io::{Errno, Result};

/// Writes this to the output, right behind each region that is reserved there.
const OTHERS: [u8; 10] = *b"somebody's";

/// The kernel with a neighbour, and with signals that cut short what is written to the output.
struct Neighbour<'file> {
    output: &'file File,
    /// The regions that the copy has reserved there: where, and how long.
    reserved: Vec<(u64, usize)>,
    calls: usize,
    /// What the third call and all after it say.
    fails: Option<Errno>,
}

impl Neighbour<'_> {
    fn is_output(&self, fd: BorrowedFd<'_>) -> bool {
        fd.as_raw_fd() == self.output.as_raw_fd()
    }

    /// How much of what is to be written is written.
    fn cut(&mut self, fd_out: BorrowedFd<'_>, len: usize) -> Result<usize> {
        if !self.is_output(fd_out) {
            return Ok(len);
        }
        self.calls += 1;
        match (self.calls % 3, self.fails) {
            (_, Some(errno)) if self.calls >= 3 => Err(errno),
            (0, _) => Err(Errno::INTR),
            _ => Ok(len.div_ceil(2)),
        }
    }
}

impl Kernel for Neighbour<'_> {
    fn splice(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        let len = self.cut(fd_out, len)?;
        Linux.splice(fd_in, off_in, fd_out, off_out, len)
    }

    fn copy_file_range(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        off_out: Option<&mut u64>,
        len: usize,
    ) -> Result<usize> {
        let len = self.cut(fd_out, len)?;
        Linux.copy_file_range(fd_in, off_in, fd_out, off_out, len)
    }

    fn reserve(&mut self, fd: BorrowedFd<'_>, len: u64) -> Result<u64> {
        let start = Linux.reserve(fd, len)?;
        if self.is_output(fd) && len > 0 {
            self.reserved.push((start, len as usize));
            self.output.write_all(&OTHERS).unwrap();
        }
        Ok(start)
    }

    fn tee(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>, len: usize) -> Result<usize> {
        Linux.tee(fd_in, fd_out, len)
    }

    fn sendfile(
        &mut self,
        fd_in: BorrowedFd<'_>,
        off_in: Option<&mut u64>,
        fd_out: BorrowedFd<'_>,
        len: usize,
    ) -> Result<usize> {
        Linux.sendfile(fd_in, off_in, fd_out, len)
    }

    fn read(&mut self, fd: BorrowedFd<'_>, offset: Option<&mut u64>, buffer: &mut [u8]) -> Result<usize> {
        Linux.read(fd, offset, buffer)
    }

    fn write(&mut self, fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
        Linux.write(fd, bytes)
    }

    fn ready(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> Result<Readiness> {
        Linux.ready(input, output)
    }

    fn pipe(&mut self) -> Result<PooledPipe> {
        Linux.pipe()
    }

    fn seek_back(&mut self, fd: BorrowedFd<'_>, by: u64) -> Result<u64> {
        assert!(!self.is_output(fd), "somebody else stands there");
        Linux.seek_back(fd, by)
    }

    fn available(&mut self, pipe: BorrowedFd<'_>) -> Result<usize> {
        Linux.available(pipe)
    }

    fn message_size(&mut self, socket: BorrowedFd<'_>) -> Result<usize> {
        Linux.message_size(socket)
    }

    fn is_same_pipe(&mut self, fd_in: BorrowedFd<'_>, fd_out: BorrowedFd<'_>) -> bool {
        Linux.is_same_pipe(fd_in, fd_out)
    }
}

/// Copies all of an input, and returns how that ended, what is in the regions of the copy, and all that is in the file.
fn copy_beside_a_neighbour(input: impl AsFd, fails: Option<Errno>) -> (Pause, Vec<u8>, Vec<u8>) {
    let mut output = file(b"");
    let (pause, reserved) = {
        let kernel = Neighbour { output: &output, reserved: Vec::new(), calls: 0, fails };
        let mut copy = copy_by(kernel, &input, &output, None, None, Hints::default());
        let pause = finish(&mut copy, &input, &output);
        (pause, copy.kernel().reserved.clone())
    };
    output.rewind().unwrap();
    let content = read_to_end(output);
    let region = |&(start, len): &(u64, usize)| content[start as usize..start as usize + len].to_vec();
    (pause, reserved.iter().flat_map(region).collect(), content)
}

fn socket_with(bytes: &'static [u8]) -> impl AsFd {
    let (input, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
    std::thread::spawn(move || peer.write_all(bytes));
    input.set_nonblocking(true).unwrap();
    input
}

#[test]
fn a_region_is_filled_when_others_have_moved_on() {
    let bytes = pattern(1_000_000);
    let (pause, copied, content) = copy_beside_a_neighbour(file(bytes), None);
    assert_eq!(pause, Pause::Done);
    assert_same(&copied, bytes, "from a file");
    assert!(!content.contains(&0), "a hole");

    let (pause, copied, content) = copy_beside_a_neighbour(socket_with(bytes), None);
    assert_eq!(pause, Pause::Done);
    assert_same(&copied, bytes, "from a socket");
    assert!(!content.contains(&0), "a hole");
}

#[test]
fn an_error_leaves_what_others_have_written() {
    let (pause, copied, content) = copy_beside_a_neighbour(file(pattern(100_000)), Some(Errno::NOSPC));
    assert_eq!(pause, Pause::Failed(Errno::NOSPC));
    let written = copied.iter().position(|&byte| byte == 0).expect("it is cut short");
    assert_same(&copied[..written], &pattern(100_000)[..written], "what came before the error");
    assert!(content.ends_with(&OTHERS));
}
