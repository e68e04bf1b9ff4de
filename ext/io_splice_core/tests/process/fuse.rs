//! A disk that gets stuck: a file system in user space, whose process can be stopped.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_parent_process_death_signal, waitpid};

use crate::support::new_path;

/// A mount with one file in it. When its process dies, what waits for it fails.
pub struct StuckDisk {
    path: PathBuf,
    server: Child,
}

/// What there is to read when it goes on.
pub const STUCK_BYTES: &[u8] = b"at last";

impl StuckDisk {
    /// `None` where nobody may mount. `server` is the test that calls [`serve_disk`].
    pub fn new(server: &str) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let path = new_path();
        std::fs::create_dir(&path).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).unwrap();
        if mount("io_splice_core", &path, "fuse", MountFlags::empty(), &*options).is_err() {
            std::fs::remove_dir(&path).unwrap();
            return None;
        }
        let server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", server, "--ignored"])
            .stdin(device)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let disk = Self { path, server };
        // Closing the first one tells the kernel that nobody wants to be asked about that.
        drop(disk.reader());
        Some(disk)
    }

    /// Opens its file for reading.
    pub fn reader(&self) -> File {
        File::open(self.path.join("file")).unwrap()
    }

    /// From now on nothing is answered.
    pub fn stops(&self) {
        self.signal(Signal::STOP);
        // Its threads may still be answering.
        let stopped = waitpid(Some(Pid::from_child(&self.server)), WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
    }

    /// From now on everything is.
    pub fn goes_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server), signal).unwrap();
    }
}

impl Drop for StuckDisk {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        unmount(&self.path, UnmountFlags::DETACH).unwrap();
        std::fs::remove_dir(&self.path).unwrap();
    }
}

/// Answers the requests that come from stdin, as linux/fuse.h has them.
pub fn serve_disk() {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const RELEASE: u32 = 18;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const BATCH_FORGET: u32 = 42;
    const ENOSYS: i32 = 38;
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let device = File::from(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).unwrap());
    let mut request = vec![0; 1 << 20];
    while (&device).read(&mut request).is_ok_and(|len| len > 0) {
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let long = |at: usize| u64::from_ne_bytes(request[at..at + 8].try_into().unwrap());
        let (opcode, unique, node) = (word(4), long(8), long(16));
        let answer = match opcode {
            INIT => Ok([words(&[7, 31, 0, 0, 0, 4096, 1]), vec![0; 36]].concat()),
            LOOKUP => Ok([longs(&[2, 0, 3600, 3600, 0]), attributes(2)].concat()),
            GETATTR => Ok([longs(&[3600, 0]), attributes(node)].concat()),
            OPEN => Ok(longs(&[0, 0])),
            READ => Ok(STUCK_BYTES[(long(48) as usize).min(STUCK_BYTES.len())..].to_vec()),
            RELEASE => Ok(Vec::new()),
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            _ => Err(ENOSYS),
        };
        let error = answer.as_ref().err().map_or(0, |errno| -errno);
        let body = answer.unwrap_or_default();
        let head = [words(&[16 + body.len() as u32, error as u32]), longs(&[unique])].concat();
        let _ = (&device).write_all(&[head, body].concat());
    }
}

/// Those of the directory, which is node 1, or of the file in it.
fn attributes(node: u64) -> Vec<u8> {
    let mode = if node == 1 { 0o40755 } else { 0o100_644 };
    let size = STUCK_BYTES.len() as u64;
    let times = [0; 3];
    [longs(&[node, size, 1, 0, 0, 0]), words(&times), words(&[mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
