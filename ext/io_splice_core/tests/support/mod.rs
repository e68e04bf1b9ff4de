//! What the tests share: real pipes, FIFOs, files, sockets and terminals.
#![allow(dead_code, reason = "each test binary uses its own share of it")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::Location;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use io_splice_core::{Attempt, Step, pipe_size, set_pipe_size};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

pub const NO_FLAGS: SpliceFlags = SpliceFlags::empty();

/// Runs what must not hang; if it does, the whole test binary ends.
#[track_caller]
pub fn guarded<T>(what_must_not_hang: impl FnOnce() -> T) -> T {
    let place = Location::caller();
    let (done, watched) = channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            // Not `eprintln!`, which the test harness would keep to itself.
            let _ = writeln!(std::io::stderr(), "{place}: this has been waiting for a minute");
            std::process::abort();
        }
    });
    let result = what_must_not_hang();
    drop(done);
    result
}

/// The two ends of a pipe or FIFO.
pub struct Pipe {
    pub reader: File,
    pub writer: File,
}

/// Whether `O_NONBLOCK` is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blocking {
    Yes,
    No,
}

pub const BOTH_MODES: [Blocking; 2] = [Blocking::Yes, Blocking::No];

pub fn pipe() -> Pipe {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    Pipe { reader: reader.into(), writer: writer.into() }
}

pub fn pipe_in(mode: Blocking) -> Pipe {
    let pipe = pipe();
    pipe.set_mode(mode);
    pipe
}

pub fn fifo() -> Pipe {
    fifo_in(Blocking::Yes)
}

pub fn fifo_in(mode: Blocking) -> Pipe {
    let path = fifo_path();
    // Without O_NONBLOCK this open would wait for a writer.
    let reader = open_nonblocking(&path);
    let writer = File::options().write(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let pipe = Pipe { reader, writer };
    pipe.set_mode(mode);
    pipe
}

/// The read end of a FIFO that nobody has ever opened for writing.
pub fn fifo_without_writer() -> File {
    let path = fifo_path();
    let reader = open_nonblocking(&path);
    std::fs::remove_file(path).unwrap();
    reader
}

fn fifo_path() -> PathBuf {
    let path = new_path();
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

fn open_nonblocking(path: &PathBuf) -> File {
    let nonblocking = OFlags::NONBLOCK.bits().try_into().unwrap();
    File::options().read(true).custom_flags(nonblocking).open(path).unwrap()
}

impl Pipe {
    pub fn set_mode(&self, mode: Blocking) {
        set_mode(&self.reader, mode);
        set_mode(&self.writer, mode);
    }

    pub fn capacity(&self) -> usize {
        pipe_size(self.reader.as_fd()).unwrap()
    }

    /// Gives it room for one page and no more.
    pub fn narrow(self) -> Self {
        set_pipe_size(self.writer.as_fd(), io_splice_core::page_size()).unwrap();
        self
    }

    /// Fills the empty pipe to the brim.
    pub fn fill(self) -> Self {
        (&self.writer).write_all(&pattern(self.capacity())).unwrap();
        self
    }

    pub fn holding(self, bytes: &[u8]) -> Self {
        (&self.writer).write_all(bytes).unwrap();
        self
    }

    pub fn content(&self) -> Vec<u8> {
        available(&self.reader)
    }
}

/// All that can be read without waiting.
pub fn available(mut reader: impl AsFd + Read) -> Vec<u8> {
    let before = fcntl_getfl(&reader).unwrap();
    set_mode(&reader, Blocking::No);
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    fcntl_setfl(&reader, before).unwrap();
    bytes
}

pub fn set_mode(fd: impl AsFd, mode: Blocking) {
    let flags = fcntl_getfl(&fd).unwrap();
    let flags = match mode {
        Blocking::Yes => flags - OFlags::NONBLOCK,
        Blocking::No => flags | OFlags::NONBLOCK,
    };
    fcntl_setfl(fd, flags).unwrap();
}

/// A file for reading and writing that has no name any more, standing at its start.
pub fn file(content: &[u8]) -> File {
    let path = new_path();
    std::fs::write(&path, content).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// The same in append mode.
pub fn append_file() -> File {
    let path = new_path();
    let file = File::options().append(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// A second, independent opening of `file`.
pub fn reopen(file: &File, flags: OFlags) -> File {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap().into()
}

pub fn memfd(content: &[u8]) -> File {
    use std::io::Seek;
    let mut file = File::from(memfd_create("io_splice_core", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

fn new_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("io_splice_core-{}-{number}", std::process::id()))
}

pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (there, _) = listener.accept().unwrap();
    (here, there)
}

/// Master and slave of a terminal that passes every byte on as it is.
pub fn pty() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(ptsname(&master, Vec::new()).unwrap(), flags, Mode::empty()).unwrap();
    let mut terminal = tcgetattr(&slave).unwrap();
    terminal.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &terminal).unwrap();
    (master.into(), slave.into())
}

/// Something readable and writable that knows no splice.
pub fn spliceless() -> OwnedFd {
    eventfd(1, EventfdFlags::CLOEXEC).unwrap()
}

/// A descriptor that is not open.
pub fn closed() -> BorrowedFd<'static> {
    // SAFETY: nothing is ever open under so high a number, so nobody's descriptor is touched.
    unsafe { BorrowedFd::borrow_raw(i32::MAX) }
}

/// Bytes in which a shift, a repetition or a gap would show.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8 | 1).collect()
}

/// How many bytes an attempt has moved.
pub fn moved(attempt: Attempt) -> usize {
    match attempt {
        Ok(Step::Moved(bytes)) => bytes,
        other => panic!("nothing was moved: {other:?}"),
    }
}
