//! Real pipes, FIFOs, files, sockets and terminals, and who is at their other side.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use super::pattern;
use io_splice_core::{pipe_size, set_pipe_size};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

// Modes

/// Whether an end waits, which `O_NONBLOCK` says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blocking {
    Yes,
    No,
}

/// For what has to hold in either.
pub const BOTH_MODES: [Blocking; 2] = [Blocking::Yes, Blocking::No];

/// Sets or clears `O_NONBLOCK`.
pub fn set_mode(fd: impl AsFd, mode: Blocking) {
    let flags = fcntl_getfl(&fd).unwrap();
    let flags = match mode {
        Blocking::Yes => flags - OFlags::NONBLOCK,
        Blocking::No => flags | OFlags::NONBLOCK,
    };
    fcntl_setfl(fd, flags).unwrap();
}

// Pipes and FIFOs

/// The two ends of a pipe or FIFO.
pub struct Pipe {
    pub reader: File,
    pub writer: File,
}

/// A pipe in blocking mode.
pub fn pipe() -> Pipe {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    Pipe { reader: reader.into(), writer: writer.into() }
}

/// A pipe whose ends are both in that mode. Those that Ruby makes do not block.
pub fn pipe_in(mode: Blocking) -> Pipe {
    let pipe = pipe();
    pipe.set_mode(mode);
    pipe
}

/// A FIFO in blocking mode.
pub fn fifo() -> Pipe {
    fifo_in(Blocking::Yes)
}

/// A FIFO whose ends are both in that mode.
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
    /// Sets the mode of both ends.
    pub fn set_mode(&self, mode: Blocking) {
        set_mode(&self.reader, mode);
        set_mode(&self.writer, mode);
    }

    /// How many bytes it has room for.
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
        (&self.writer).write_all(pattern(self.capacity())).unwrap();
        self
    }

    /// Puts these bytes in.
    pub fn holding(self, bytes: &[u8]) -> Self {
        (&self.writer).write_all(bytes).unwrap();
        self
    }

    /// Takes out what is in it.
    pub fn content(&self) -> Vec<u8> {
        available(&self.reader)
    }
}

// Files

/// A file that is gone with the test.
pub struct TempFile(PathBuf);

impl TempFile {
    /// Makes it.
    pub fn new(content: &[u8]) -> Self {
        let path = new_path();
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    /// Opens it for reading.
    pub fn reader(&self) -> File {
        File::open(&self.0).unwrap()
    }

    /// Opens it for writing.
    pub fn writer(&self) -> File {
        File::options().write(true).open(&self.0).unwrap()
    }

    /// Opens it in append mode.
    pub fn appender(&self) -> File {
        File::options().append(true).open(&self.0).unwrap()
    }

    /// Reads all of it.
    pub fn content(&self) -> Vec<u8> {
        std::fs::read(&self.0).unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file for reading and writing that has no name any more, standing at its start.
pub fn file(content: &[u8]) -> File {
    let file = TempFile::new(content);
    File::options().read(true).write(true).open(&file.0).unwrap()
}

/// An empty file in append mode that has no name any more.
pub fn append_file() -> File {
    TempFile::new(b"").appender()
}

/// A second, independent opening of `file`.
pub fn reopen(file: &File, flags: OFlags) -> File {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).unwrap().into()
}

/// A file that was never on a disk, standing at its start.
pub fn memfd(content: &[u8]) -> File {
    let mut file = File::from(memfd_create("io_splice_core", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    file
}

/// Where nothing is yet.
pub fn new_path() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("io_splice_core-{}-{number}", std::process::id()))
}

// Sockets, terminals and others

/// Two connected sockets in blocking mode.
pub fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (there, _) = listener.accept().unwrap();
    (here, there)
}

/// Two connected sockets in that mode. Those that Ruby makes do not block.
pub fn unix_pair_in(mode: Blocking) -> (OwnedFd, OwnedFd) {
    let (here, there) = UnixStream::pair().unwrap();
    set_mode(&here, mode);
    set_mode(&there, mode);
    (here.into(), there.into())
}

/// Sends each byte in a segment of its own.
pub fn send_one_by_one(mut socket: TcpStream, bytes: &[u8]) {
    socket.set_nodelay(true).unwrap();
    for byte in bytes {
        socket.write_all(std::slice::from_ref(byte)).unwrap();
    }
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

// Reading and writing

/// All that can be read without waiting.
pub fn available(reader: impl AsFd + Read) -> Vec<u8> {
    available_and_end(reader).0
}

/// All that can be read without waiting, and whether that is the end.
pub fn available_and_end(mut reader: impl AsFd + Read) -> (Vec<u8>, bool) {
    let before = fcntl_getfl(&reader).unwrap();
    set_mode(&reader, Blocking::No);
    let mut bytes = Vec::new();
    let read = reader.read_to_end(&mut bytes).map_err(|error| error.kind());
    assert!(matches!(read, Ok(_) | Err(ErrorKind::WouldBlock)), "{read:?}");
    fcntl_setfl(&reader, before).unwrap();
    (bytes, read.is_ok())
}

/// All there is to the end, for which it waits.
pub fn read_to_end(reader: impl Into<OwnedFd>) -> Vec<u8> {
    let reader = reader.into();
    set_mode(&reader, Blocking::Yes);
    let mut bytes = Vec::new();
    File::from(reader).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Puts bytes into an end that does not block until it takes no more; says how many that were.
pub fn fill(fd: impl AsFd) -> usize {
    let written: usize = std::iter::from_fn(|| rustix::io::write(&fd, pattern(4096)).ok()).sum();
    // Before Linux 6.5 a UNIX socket that is full for write(2) takes more pages by splice.
    let (from, into) = rustix::pipe::pipe().unwrap();
    let spliced = std::iter::from_fn(|| {
        rustix::io::write(&into, pattern(4096)).unwrap();
        splice(&from, None, &fd, None, 1 << 16, SpliceFlags::NONBLOCK).ok()
    });
    written + spliced.sum::<usize>()
}

// An end with somebody at its other side

/// What an end can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    /// A file in append mode, where something is written to it.
    Append,
    Pipe,
    Unix,
    Tcp,
}

/// What bytes come from.
pub const INPUTS: [Kind; 4] = [Kind::File, Kind::Pipe, Kind::Unix, Kind::Tcp];

/// The two ends of a stream, in blocking mode: what is written to the second comes out of the first.
pub fn stream(kind: Kind) -> (OwnedFd, OwnedFd) {
    match kind {
        Kind::Pipe => {
            let Pipe { reader, writer } = pipe();
            (reader.into(), writer.into())
        }
        Kind::Unix => unix_pair_in(Blocking::Yes),
        Kind::Tcp => {
            let (here, there) = tcp_pair();
            (here.into(), there.into())
        }
        Kind::File | Kind::Append => unreachable!("a file is no stream"),
    }
}

/// An end to copy from; if it is no file, somebody writes to its other side.
pub struct Input {
    pub fd: OwnedFd,
    feeder: Option<JoinHandle<()>>,
}

impl Input {
    /// It does not block, and ends behind these bytes.
    pub fn new(kind: Kind, content: &[u8]) -> Self {
        if matches!(kind, Kind::File | Kind::Append) {
            return Self { fd: TempFile::new(content).reader().into(), feeder: None };
        }
        let (fd, far) = stream(kind);
        set_mode(&fd, Blocking::No);
        let content = content.to_vec();
        // Nobody may be left to read all of it; then there is an error to ignore.
        let feeder = std::thread::spawn(move || drop(File::from(far).write_all(&content)));
        Self { fd, feeder: Some(feeder) }
    }

    /// The same in that mode.
    pub fn in_mode(self, mode: Blocking) -> Self {
        set_mode(&self.fd, mode);
        self
    }

    /// What a copy has left for others.
    pub fn rest(self) -> Vec<u8> {
        let rest = read_to_end(self.fd);
        if let Some(feeder) = self.feeder {
            feeder.join().unwrap();
        }
        rest
    }
}

/// An end to copy to; if it is no file, somebody reads from its other side.
pub struct Output {
    pub fd: OwnedFd,
    arrived: Arrived,
}

enum Arrived {
    In(TempFile),
    At(JoinHandle<Vec<u8>>),
}

impl Output {
    /// It does not block.
    pub fn new(kind: Kind) -> Self {
        if matches!(kind, Kind::File | Kind::Append) {
            let file = TempFile::new(b"");
            let opened = if kind == Kind::File { file.writer() } else { file.appender() };
            return Self { fd: opened.into(), arrived: Arrived::In(file) };
        }
        let (far, fd) = stream(kind);
        set_mode(&fd, Blocking::No);
        Self { fd, arrived: Arrived::At(std::thread::spawn(move || read_to_end(far))) }
    }

    /// The same in that mode.
    pub fn in_mode(self, mode: Blocking) -> Self {
        set_mode(&self.fd, mode);
        self
    }

    /// All that has arrived.
    pub fn content(self) -> Vec<u8> {
        drop(self.fd);
        match self.arrived {
            Arrived::In(file) => file.content(),
            Arrived::At(reader) => reader.join().unwrap(),
        }
    }
}
