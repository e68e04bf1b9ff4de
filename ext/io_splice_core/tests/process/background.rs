//! What transfers in the background take of the process, and what a forked child has of them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use crate::fuse::{STUCK_BYTES, StuckDisk, serve_disk};
use crate::support::*;
use crate::{alone, open_descriptors};
use io_splice_core::background::{Engine, Outcome};
use io_splice_core::{Errno, register_fork_handlers};
use rustix::io::fcntl_getfd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Where in the kernel the engine's threads are: their stacks, since `wchan` is always 0 in Linux 5.10.
fn sleeps() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let paths = tasks.filter_map(|task| Some(task.ok()?.path()));
    let ours = paths.filter(|path| read(path.join("comm")).trim() == "io_splice");
    ours.map(|path| read(path.join("stack"))).collect()
}

/// How many threads there are of the engine's.
fn threads() -> usize {
    sleeps().len()
}

/// How many of them wait for a disk.
fn stuck_threads() -> usize {
    sleeps().iter().filter(|stack| stack.contains("fuse")).count()
}

/// Ends an engine, and waits until nothing is left of it.
fn end(engine: Engine) {
    drop(engine);
    eventually(|| threads() == 0);
}

/// A connection to relay: the end that is given away, and the peer.
fn connection() -> (OwnedFd, File) {
    let (near, far) = unix_pair_in(Blocking::No);
    set_mode(&far, Blocking::Yes);
    (near, far.into())
}

fn ping(client: &mut File, server: &mut File) {
    client.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    guarded(|| server.read_exact(&mut heard)).unwrap();
    assert_eq!(&heard, b"ping");
}

#[test]
fn nothing_is_left_of_an_engine_that_is_dropped_with_transfers_under_way() {
    let _alone = alone();
    let before = open_descriptors();
    let engine = Engine::new(2).unwrap();
    eventually(|| threads() == 2);
    let mut peers = Vec::new();
    for index in 0..100 {
        let ((a, mut client), (b, mut server)) = (connection(), connection());
        begin(&engine, relay_job(given(a), given(b)), index);
        ping(&mut client, &mut server);
        peers.extend([client, server]);
    }
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, copy_job(given(file(pattern(5_000_000))), given(output)), 100);
    end(engine);
    drop((peers, reader));
    eventually(|| open_descriptors().len() <= before.len() + 8);
}

#[test]
fn an_engine_that_takes_no_more_closes_everything_when_the_last_transfer_has_ended() {
    let _alone = alone();
    let before = open_descriptors();
    let engine = Engine::new(2).unwrap();
    let ((a, mut client), (b, mut server)) = (connection(), connection());
    let handle = begin(&engine, relay_job(given(a), given(b)), 1);
    engine.drain();
    let job = copy_job(given(File::open("/dev/null").unwrap()), given(File::open("/dev/null").unwrap()));
    assert!(engine.submit(job, 2).is_err_and(|(_, errno)| errno == Errno::SHUTDOWN));
    ping(&mut client, &mut server);
    drop((client, server));
    assert_eq!(done(&engine), [4, 0]);
    eventually(|| threads() == 0 && engine.take_ended().is_empty() && engine.ended().is_none());
    assert!(open_descriptors().len() <= before.len() + 8);
    assert_eq!((engine.stats().done, handle.bytes()), (1, [4, 0]));
    handle.cancel();
}

#[test]
fn a_relay_that_waits_holds_its_ends_and_no_pipe() {
    let _alone = alone();
    let engine = Engine::new(1).unwrap();
    let before = open_descriptors();
    let mut peers = Vec::new();
    for index in 0..100 {
        let ((a, mut client), (b, mut server)) = (connection(), connection());
        begin(&engine, relay_job(given(a), given(b)), index);
        ping(&mut client, &mut server);
        peers.extend([client, server]);
    }
    // Four idle pipes are kept for all.
    eventually(|| open_descriptors().len() <= before.len() + 400 + 8);
    // Those that were in full use hold theirs for a second.
    let mut threads = Vec::new();
    for pair in peers.chunks_exact_mut(2) {
        let (mut client, mut server) = (pair[0].try_clone().unwrap(), pair[1].try_clone().unwrap());
        if threads.len() < 10 {
            threads.push(std::thread::spawn(move || client.write_all(pattern(2_000_000)).unwrap()));
            let mut bytes = vec![0; 2_000_000];
            server.read_exact(&mut bytes).unwrap();
            assert_same(&bytes, pattern(2_000_000), "relayed");
        }
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually(|| open_descriptors().len() <= before.len() + 400 + 8);
    end(engine);
}

#[test]
fn a_forked_child_has_none_of_its_parents_transfers_and_the_parents_go_on() {
    static ONCE: Once = Once::new();
    let _alone = alone();
    ONCE.call_once(|| register_fork_handlers().unwrap());
    let engine = Engine::new(1).unwrap();
    let ((a, mut client), (b, mut server)) = (connection(), connection());
    let ends = [given(a), given(b)];
    let signal = engine.ended().unwrap().as_fd().as_raw_fd();
    let numbers = [ends[0].as_fd().as_raw_fd(), ends[1].as_fd().as_raw_fd(), signal];
    let [a, b] = ends;
    let handle = begin(&engine, relay_job(a, b), 1);
    ping(&mut client, &mut server);
    let (child_engine, child_handle) = (std::sync::Arc::new(engine), handle.clone());
    let engine = child_engine.clone();
    let mut child = Command::new("true");
    // SAFETY: malloc(3) is safe in a child, and of everything else that is the question.
    unsafe {
        child.pre_exec(move || {
            let is_open = |number: &i32| fcntl_getfd(BorrowedFd::borrow_raw(*number)).is_ok();
            let (input, output) = (File::open("/dev/null")?, File::open("/dev/null")?);
            let job = copy_job(given(input), given(output));
            let refused = child_engine.submit(job, 2).is_err_and(|(_, errno)| errno == Errno::BADF);
            child_handle.cancel();
            child_engine.stop();
            let nothing = child_engine.take_ended().is_empty() && !child_engine.is_of_this_process();
            let fine = refused && nothing && !numbers.iter().any(is_open);
            if fine { Ok(()) } else { Err(std::io::Error::from(Errno::INVAL)) }
        })
    };
    assert!(child.status().unwrap().success());
    drop(child);
    assert!(engine.is_of_this_process());
    ping(&mut client, &mut server);
    ping(&mut server, &mut client);
    drop((client, server));
    assert_eq!(all_ended(&engine, 1)[0].delivered, [8, 4]);
    engine.stop();
    eventually(|| threads() == 0);
}

/// Runs with no number left for another descriptor.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> T {
    let limit = getrlimit(Resource::Nofile);
    let highest = open_descriptors().into_iter().max().unwrap();
    setrlimit(Resource::Nofile, Rlimit { current: Some(highest as u64 + 1), ..limit }).unwrap();
    let fillers: Vec<_> =
        std::iter::from_fn(|| rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 0).ok()).collect();
    let result = work();
    drop(fillers);
    setrlimit(Resource::Nofile, limit).unwrap();
    result
}

#[test]
fn without_descriptors_there_is_no_engine_but_one_that_is_there_goes_on() {
    let _alone = alone();
    let engine = Engine::new(1).unwrap();
    let ((a, mut client), (b, mut server)) = (connection(), connection());
    let job = relay_job(given(a), given(b));
    let before = open_descriptors();
    let refused = without_descriptors(|| {
        let refused = Engine::new(1).map(drop);
        begin(&engine, job, 1);
        for _ in 0..10 {
            ping(&mut client, &mut server);
        }
        refused
    });
    assert_eq!(refused, Err(Errno::MFILE));
    assert_eq!(open_descriptors(), before);
    drop((client, server));
    assert_eq!(ended(&engine).outcome, Outcome::Done);
    end(engine);
}

#[test]
fn ten_thousand_short_transfers_leave_nothing() {
    let _alone = alone();
    let engine = Engine::new(1).unwrap();
    let before = open_descriptors();
    for round in 0..100 {
        for index in 0..100 {
            let pipe = pipe_in(Blocking::No).holding(b"short");
            let (output, reader) = unix_pair_in(Blocking::No);
            begin(&engine, copy_job(given(pipe.reader), given(output)), index);
            drop((pipe.writer, reader));
        }
        assert_eq!(all_ended(&engine, 100).len(), 100, "{round}");
    }
    assert_eq!(engine.stats().begun, 10_000);
    assert!(open_descriptors().len() <= before.len() + 8);
    end(engine);
}

/// The test that is the other side of a [`StuckDisk`].
const SERVER: &str = "background::is_a_disk";

#[test]
#[ignore = "others run it, in a process of its own"]
fn is_a_disk() {
    serve_disk();
}

/// Whether the peer has closed its end.
fn is_at_its_end(reader: &File) -> bool {
    available_and_end(reader).1
}

#[test]
fn a_disk_that_is_stuck_holds_up_nothing_but_its_own() {
    let _alone = alone();
    let Some(disk) = StuckDisk::new(SERVER) else { return };
    let readers: Vec<_> = (0..23).map(|_| disk.reader()).collect();
    let another = TempFile::new(pattern(1_000_000));
    disk.stops();
    let mut readers = readers.into_iter();
    let engine = Engine::new(1).unwrap();
    let mut from_disk = |token, idle_timeout| {
        let (output, reader) = unix_pair_in(Blocking::No);
        let mut job = copy_job(given(readers.next().unwrap()), given(output));
        job.idle_timeout = idle_timeout;
        (begin(&engine, job, token), File::from(reader))
    };
    let (patient, patient_reader) = from_disk(0, None);
    let (cancelled, cancelled_reader) = from_disk(1, None);
    let (_idle, idle_reader) = from_disk(2, Some(std::time::Duration::from_millis(50)));
    let others: Vec<_> = (10..30).map(|token| from_disk(token, None)).collect();

    // Others are not even slow.
    let ((a, mut client), (b, mut server)) = (connection(), connection());
    begin(&engine, relay_job(given(a), given(b)), 100);
    for _ in 0..100 {
        ping(&mut client, &mut server);
    }
    drop((client, server));
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, copy_job(given(another.reader()), given(output)), 101);
    assert_same(&guarded(|| read_to_end(reader)), pattern(1_000_000), "from another disk");
    cancelled.cancel();
    let ended = all_ended(&engine, 4);
    let outcomes: Vec<_> = ended.iter().map(|ended| (ended.token, ended.outcome, ended.stuck)).collect();
    let expected = [
        (1, Outcome::Cancelled, true),
        (2, Outcome::Idle, true),
        (100, Outcome::Done, false),
        (101, Outcome::Done, false),
    ];
    assert_eq!(outcomes, expected);
    // The other disk has a second thread when a turn was asked for before that of the last one had come to rest.
    assert!(stuck_threads() <= 8 && threads() <= 1 + 8 + 8);
    assert!(!is_at_its_end(&cancelled_reader), "it is closed when the disk goes on");

    disk.goes_on();
    eventually(|| is_at_its_end(&cancelled_reader) && is_at_its_end(&idle_reader));
    let ended = all_ended(&engine, 1 + others.len());
    assert!(ended.iter().all(|ended| ended.outcome == Outcome::Done && !ended.stuck));
    assert_eq!(patient.bytes(), [STUCK_BYTES.len() as u64, 0]);
    assert_eq!(read_to_end(patient_reader), STUCK_BYTES);
    end(engine);
}

#[test]
fn an_engine_stops_although_a_disk_is_stuck_and_its_threads_end_when_that_goes_on() {
    let _alone = alone();
    let Some(disk) = StuckDisk::new(SERVER) else { return };
    let before = open_descriptors();
    let engine = Engine::new(1).unwrap();
    let (output, reader) = unix_pair_in(Blocking::No);
    let job = copy_job(given(disk.reader()), given(output));
    disk.stops();
    begin(&engine, job, 1);
    eventually(|| stuck_threads() > 0);
    engine.stop();
    let stopped = ended(&engine);
    assert_eq!((stopped.outcome, stopped.stuck), (Outcome::Cancelled, true));
    drop(engine);
    eventually(|| threads() == 1);
    disk.goes_on();
    eventually(|| threads() == 0);
    drop(reader);
    eventually(|| open_descriptors().len() <= before.len() + 8);
}
