//! Transfers in the background, between real ends.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::support::*;
use io_splice_core::background::{Engine, Job, Outcome, Stats, Work};
use io_splice_core::copy::{Direction, Pause, RelayPause, TeeStreamPause};
use io_splice_core::{Errno, PrivateFd, Side, wait_until_ready};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

const OUTPUTS: [Kind; 5] = [Kind::File, Kind::Append, Kind::Pipe, Kind::Unix, Kind::Tcp];
const STREAMS: [Kind; 2] = [Kind::Unix, Kind::Tcp];

fn engine() -> Engine {
    Engine::new(1).unwrap()
}

/// A connection to relay: the end that is given away, and the peer.
fn connection(kind: Kind) -> (OwnedFd, UnixOrTcp) {
    let (near, far) = stream(kind);
    set_mode(&near, Blocking::No);
    (near, UnixOrTcp(File::from(far)))
}

/// A socket to read from and to write to.
struct UnixOrTcp(File);

impl UnixOrTcp {
    fn says(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn hears(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        guarded(|| self.0.read_exact(&mut heard)).unwrap();
        assert_same(&heard, bytes, "heard");
    }

    fn hangs_up(&self) {
        shutdown(&self.0, Shutdown::Write).unwrap();
    }

    fn hears_the_end(&mut self) {
        assert_eq!(guarded(|| self.0.read(&mut [0])).unwrap(), 0);
    }

    fn resets(self) {
        set_socket_linger(&self.0, Some(Duration::ZERO)).unwrap();
    }
}

// Copies

#[test]
fn a_copy_goes_on_by_itself_between_any_two_ends() {
    let engine = engine();
    for mode in BOTH_MODES {
        for from in INPUTS {
            for to in OUTPUTS {
                let input = Input::new(from, pattern(1_000_000)).in_mode(mode);
                let output = Output::new(to).in_mode(mode);
                begin(&engine, copy_job(given(input.fd), lent(&output.fd)), 7);
                assert_eq!(done(&engine), [1_000_000], "{from:?} to {to:?}");
                assert_same(&output.content(), pattern(1_000_000), &format!("{from:?} to {to:?}, {mode:?}"));
            }
        }
    }
}

#[test]
fn a_copy_of_a_part_stops_behind_it() {
    let engine = engine();
    let (output, reader) = unix_pair_in(Blocking::No);
    let file = file(pattern(100_000));
    begin(&engine, part_job(lent(&file), given(output), Some(50_000), Some(10_000)), 1);
    assert_eq!(done(&engine), [50_000]);
    assert_same(&read_to_end(reader), &pattern(60_000)[10_000..], "the part");
    assert_eq!((&file).stream_position().unwrap(), 0);
}

#[test]
fn devices_and_files_that_epoll_refuses_are_copied_too() {
    let engine = engine();
    let (zero, null) =
        (File::open("/dev/zero").unwrap(), File::options().write(true).open("/dev/null").unwrap());
    begin(&engine, part_job(given(zero), given(null), Some(10_000_000), None), 1);
    assert_eq!(done(&engine), [10_000_000]);
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, copy_job(given(File::open("/proc/self/stat").unwrap()), given(output)), 1);
    let delivered = done(&engine);
    assert_eq!(read_to_end(reader).len() as u64, delivered[0]);
}

#[test]
fn terminals_are_copied_too() {
    let engine = engine();
    let (master, slave) = pty();
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, part_job(given(slave), given(output), Some(5), None), 1);
    (&master).write_all(b"hello").unwrap();
    assert_eq!(done(&engine), [5]);
    assert_eq!(read_to_end(reader), b"hello");
}

#[test]
fn what_was_read_ahead_goes_first_and_counts() {
    let engine = engine();
    let (input, far) = unix_pair_in(Blocking::No);
    let (output, reader) = unix_pair_in(Blocking::No);
    let mut job = copy_job(given(input), given(output));
    let Work::CopyStream(copy) = &mut job.work else { unreachable!() };
    copy.prepend(b"ahead, ".to_vec());
    begin(&engine, job, 1);
    File::from(far).write_all(b"behind").unwrap();
    assert_eq!(done(&engine), [13]);
    assert_eq!(read_to_end(reader), b"ahead, behind");
}

#[test]
fn a_failure_is_told_as_it_is_in_the_foreground() {
    let engine = engine();
    let (input, far) = unix_pair_in(Blocking::No);
    let (output, reader) = unix_pair_in(Blocking::No);
    drop(reader);
    begin(&engine, copy_job(given(input), given(output)), 9);
    (&UnixStream::from(far)).write_all(b"for nobody").unwrap();
    let ended = ended(&engine);
    assert_eq!((ended.token, ended.outcome), (9, Outcome::CopyStream(Pause::Failed(Errno::PIPE))));
    assert_eq!(ended.delivered, [0]);
}

#[test]
fn a_pipe_copied_to_itself_is_refused_with_the_reason() {
    let engine = engine();
    let pipe = pipe_in(Blocking::No).holding(b"round and round");
    begin(&engine, copy_job(given(pipe.reader), given(pipe.writer)), 1);
    let ended = ended(&engine);
    assert_eq!(ended.outcome, Outcome::CopyStream(Pause::Failed(Errno::INVAL)));
    assert!(ended.why.is_some());
}

#[test]
fn an_end_that_is_not_ready_in_time_ends_a_copy_with_a_timeout_for_it() {
    let engine = engine();
    let (input, _far) = unix_pair_in(Blocking::No);
    let (output, _reader) = unix_pair_in(Blocking::No);
    let mut job = copy_job(given(input), given(output));
    let Work::CopyStream(copy) = &mut job.work else { unreachable!() };
    let timeouts = io_splice_core::copy::Timeouts { input: Some(Duration::from_millis(50)), output: None };
    copy.set_timeouts(timeouts);
    begin(&engine, job, 1);
    assert_eq!(ended(&engine).outcome, Outcome::CopyStream(Pause::TimedOut(Side::Input)));
}

#[test]
fn a_copy_of_more_than_there_is_has_not_ended_well() {
    let engine = engine();
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, part_job(given(file(b"abc")), given(output), Some(4), None), 1);
    let ended = ended(&engine);
    assert_eq!((ended.outcome, ended.delivered), (Outcome::Short, vec![3]));
    assert_eq!(read_to_end(reader), b"abc");
    assert_eq!((engine.stats().done, engine.stats().failed), (0, 1));
}

// tee_streams

#[test]
fn every_output_of_a_tee_stream_gets_every_byte() {
    let engine = engine();
    for from in INPUTS {
        let outputs = OUTPUTS.map(Output::new);
        let input = Input::new(from, pattern(1_000_000));
        begin(&engine, tee_job(given(input.fd), outputs.iter().map(|output| lent(&output.fd)).collect()), 1);
        assert_eq!(done(&engine), [1_000_000; 5]);
        for (output, kind) in outputs.into_iter().zip(OUTPUTS) {
            assert_same(&output.content(), pattern(1_000_000), &format!("{from:?} to {kind:?}"));
        }
    }
}

#[test]
fn an_output_of_a_tee_stream_that_fails_ends_it_when_the_others_have_caught_up() {
    let engine = engine();
    let (input, far) = unix_pair_in(Blocking::No);
    let ((one, reader), (other, broken)) = (unix_pair_in(Blocking::No), unix_pair_in(Blocking::No));
    drop(broken);
    begin(&engine, tee_job(given(input), vec![given(one), given(other)]), 1);
    UnixStream::from(far).write_all(b"hello").unwrap();
    let ended = ended(&engine);
    let failed = TeeStreamPause::OutputFailed(1, Some(Errno::PIPE));
    assert_eq!((ended.outcome, ended.delivered), (Outcome::TeeStream(failed), vec![5, 0]));
    assert_eq!(read_to_end(reader), b"hello");
}

// Relays

#[test]
fn a_relay_passes_on_the_end_of_either_side_and_goes_on_in_the_other_direction() {
    let engine = engine();
    for (kind, other) in STREAMS.into_iter().flat_map(|kind| STREAMS.map(|other| (kind, other))) {
        for first in [0, 1] {
            let ((a, client), (b, server)) = (connection(kind), connection(other));
            begin(&engine, relay_job(given(a), given(b)), 1);
            let mut peers = [client, server];
            for round in 0..10 {
                peers[0].says(pattern(round + 1));
                peers[1].hears(pattern(round + 1));
                peers[1].says(b"pong");
                peers[0].hears(b"pong");
            }
            let second = 1 - first;
            peers[first].hangs_up();
            peers[second].hears_the_end();
            peers[second].says(b"still there");
            peers[first].hears(b"still there");
            peers[second].hangs_up();
            peers[first].hears_the_end();
            let mut expected = [55, 40];
            expected[second] += 11;
            assert_eq!(done(&engine), expected);
        }
    }
}

#[test]
fn a_relay_between_pairs_of_pipes_tells_of_the_end_by_closing() {
    let engine = engine();
    let [a_in, a_out, b_in, b_out] = [(); 4].map(|()| pipe_in(Blocking::No));
    let (mut a, mut b) = (a_in.writer, b_in.writer);
    begin(
        &engine,
        pairs_job([given(a_in.reader), given(a_out.writer)], [given(b_in.reader), given(b_out.writer)]),
        1,
    );
    a.write_all(b"from a").unwrap();
    drop(a);
    assert_eq!(guarded(|| read_to_end(b_out.reader)), b"from a");
    b.write_all(b"from b, later").unwrap();
    drop(b);
    assert_eq!(guarded(|| read_to_end(a_out.reader)), b"from b, later");
    assert_eq!(done(&engine), [6, 13]);
}

#[test]
fn a_reset_ends_a_relay_when_the_other_direction_has_delivered_what_had_arrived() {
    let engine = engine();
    let ((a, client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, relay_job(given(a), given(b)), 3);
    server.says(b"hello");
    let mut client = client;
    client.hears(b"hello");
    client.resets();
    let ended = ended(&engine);
    assert!(
        matches!(ended.outcome, Outcome::Relay(RelayPause::Failed(Direction::AToB, Errno::CONNRESET))),
        "{ended:?}"
    );
    server.hears_the_end();
}

#[test]
fn an_urgent_byte_stops_no_relay() {
    let engine = engine();
    let ((a, client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, relay_job(given(a), given(b)), 1);
    let mut client = client;
    for round in 0..20 {
        client.says(b"before");
        assert_eq!(send(&client.0, b"!", SendFlags::OOB), Ok(1));
        if round % 2 == 0 {
            sleep(Duration::from_millis(2));
        }
        client.says(b"after");
        let mut heard = [0; 11];
        guarded(|| server.0.read_exact(&mut heard)).unwrap();
        assert_eq!(&heard, b"beforeafter");
    }
    client.hangs_up();
    server.hears_the_end();
}

#[test]
fn a_thousand_relays_at_once_lose_no_byte() {
    const RELAYS: usize = 1000;
    const BYTES: usize = 40_000;
    let engine = Engine::new(2).unwrap();
    let kind = |index: usize| STREAMS[index % 2];
    let mut peers: Vec<_> = (0..RELAYS)
        .map(|index| {
            let ((a, client), (b, server)) = (connection(kind(index)), connection(kind(index / 2)));
            begin(&engine, relay_job(given(a), given(b)), index as u64);
            (client, server)
        })
        .collect();
    assert_eq!(engine.stats().under_way, RELAYS as u64);
    for (index, (client, server)) in peers.iter_mut().enumerate() {
        client.says(&pattern(BYTES + index)[index..]);
        server.says(&pattern(BYTES + 2 * index)[2 * index..]);
    }
    for (index, (client, server)) in peers.iter_mut().enumerate() {
        client.hears(&pattern(BYTES + 2 * index)[2 * index..]);
        server.hears(&pattern(BYTES + index)[index..]);
        client.hangs_up();
        server.hangs_up();
    }
    for ended in all_ended(&engine, RELAYS) {
        assert_eq!((ended.outcome, ended.delivered), (Outcome::Done, vec![BYTES as u64; 2]));
    }
    let (begun, bytes) = (RELAYS as u64, (2 * RELAYS * BYTES) as u64);
    assert_eq!(engine.stats(), Stats { under_way: 0, begun, done: begun, cancelled: 0, failed: 0, bytes },);
}

#[test]
fn the_same_connection_may_be_in_two_transfers() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Unix));
    begin(&engine, copy_job(lent(&a), lent(&b)), 1);
    begin(&engine, copy_job(given(b), given(a)), 2);
    for _ in 0..10 {
        client.says(b"ping");
        server.hears(b"ping");
        server.says(b"pong");
        client.hears(b"pong");
    }
    client.hangs_up();
    server.hangs_up();
    let delivered: Vec<_> = all_ended(&engine, 2).into_iter().map(|ended| ended.delivered).collect();
    assert_eq!(delivered, [[40], [40]]);
    server.hears_the_end();
    client.hears_the_end();
}

#[test]
fn a_tee_stream_may_go_back_to_where_it_comes_from() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, tee_job(lent(&a), vec![given(a), given(b)]), 1);
    for _ in 0..10 {
        client.says(b"hello");
        server.hears(b"hello");
        client.hears(b"hello");
    }
    client.hangs_up();
    assert_eq!(done(&engine), [50, 50]);
}

// Fairness

#[test]
fn neither_who_never_reads_nor_who_never_stops_holds_up_others() {
    let engine = engine();
    let ((a, sender), (b, never_reads)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, relay_job(given(a), given(b)), 1);
    let writer = sender.0.try_clone().unwrap();
    set_mode(&writer, Blocking::No);
    eventually(|| fill(&writer) == 0);
    let zero = File::open("/dev/zero").unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    let fire_hose = begin(&engine, copy_job(given(zero), given(null)), 2);
    let ((c, mut client), (d, mut server)) = (connection(Kind::Unix), connection(Kind::Unix));
    begin(&engine, relay_job(given(c), given(d)), 3);
    for _ in 0..200 {
        client.says(b"ping");
        server.hears(b"ping");
        server.says(b"pong");
        client.hears(b"pong");
    }
    assert!(fire_hose.bytes()[0] > 0);
    drop((client, server));
    assert_eq!(ended(&engine).token, 3);
    fire_hose.cancel();
    let ended = ended(&engine);
    assert_eq!((ended.token, ended.outcome), (2, Outcome::Cancelled));
    drop((sender, never_reads));
}

#[test]
fn a_direction_that_never_stops_does_not_hold_up_the_other() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Unix), connection(Kind::Unix));
    let zero = File::open("/dev/zero").unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    // From a to b nothing ever waits.
    begin(&engine, pairs_job([given(zero), given(a)], [given(b), given(null)]), 1);
    for _ in 0..20 {
        server.says(b"hello");
        client.hears(b"hello");
    }
}

// Cancelling, timeouts, rates

#[test]
fn what_is_cancelled_delivers_what_goes_at_once_and_closes_its_ends() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    let handle = begin(&engine, relay_job(given(a), given(b)), 5);
    client.says(b"hello");
    server.hears(b"hello");
    eventually(|| handle.bytes() == [5, 0]);
    handle.cancel();
    let ended = ended(&engine);
    assert_eq!((ended.token, ended.outcome, ended.delivered), (5, Outcome::Cancelled, vec![5, 0]));
    client.hears_the_end();
    server.hears_the_end();
    handle.cancel();
    assert_eq!(handle.bytes(), [5, 0]);
}

#[test]
fn what_is_cancelled_gives_back_what_it_holds_of_an_end_that_is_kept() {
    let engine = engine();
    let (input, far) = unix_pair_in(Blocking::No);
    let (output, reader) = unix_pair_in(Blocking::No);
    let filled = fill(&output);
    let mut job = copy_job(lent(&input), lent(&output));
    job.keep = true;
    let handle = begin(&engine, job, 1);
    UnixStream::from(far).write_all(b"hello, world").unwrap();
    eventually(|| rustix::io::ioctl_fionread(&input) == Ok(0));
    handle.cancel();
    let ended = ended(&engine);
    assert_eq!((ended.outcome, &*ended.delivered), (Outcome::Cancelled, &[0][..]));
    assert_eq!(ended.unread[0], b"hello, world");
    let reader = UnixStream::from(reader);
    assert_eq!(available(&reader).len(), filled);
    assert!(rustix::io::write(&output, b"ours again").is_ok());
}

#[test]
fn a_file_that_is_kept_stands_right_behind_what_was_delivered() {
    let engine = engine();
    let file = file(pattern(4_000_000));
    let (output, reader) = unix_pair_in(Blocking::No);
    let mut job = copy_job(lent(&file), lent(&output));
    job.keep = true;
    let handle = begin(&engine, job, 1);
    eventually(|| handle.bytes()[0] > 0);
    let mut reader = UnixStream::from(reader);
    reader.read_exact(&mut [0; 1000]).unwrap();
    handle.cancel();
    let ended = ended(&engine);
    assert_eq!((ended.outcome, ended.stuck), (Outcome::Cancelled, false));
    assert_eq!((&file).stream_position().unwrap(), ended.delivered[0]);
    drop(output);
    assert_eq!(1000 + read_to_end(reader).len() as u64, ended.delivered[0]);
}

#[test]
fn what_does_not_move_for_too_long_is_idle_and_what_moves_is_not() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    let mut job = relay_job(given(a), given(b));
    job.idle_timeout = Some(Duration::from_millis(600));
    let begun = Instant::now();
    begin(&engine, job, 1);
    for _ in 0..6 {
        sleep(Duration::from_millis(200));
        server.says(b"x");
        client.hears(b"x");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1200));
    assert!(engine.take_ended().is_empty());
    let ended = ended(&engine);
    assert_eq!((ended.outcome, ended.delivered), (Outcome::Idle, vec![0, 6]));
    assert!(begun.elapsed() >= Duration::from_millis(1800));
}

/// What a rate lets through since then, and half a second's more at once.
fn most(rate: u64, start: Instant) -> u64 {
    (rate as f64 * (start.elapsed().as_secs_f64() + 0.6)) as u64
}

#[test]
fn a_transfer_keeps_to_its_rate_and_is_not_idle_meanwhile() {
    let (engine, start) = (engine(), Instant::now());
    let transfers = [Kind::File, Kind::Tcp, Kind::Pipe].map(|from| {
        let input = Input::new(from, pattern(5 << 20));
        let output = Output::new(Kind::Unix);
        let mut job = copy_job(given(input.fd), lent(&output.fd));
        (job.rate, job.idle_timeout) = (NonZeroU64::new(1_000_000), Some(Duration::from_millis(1500)));
        // It goes at once, and it takes most of three seconds until more may go.
        let Work::CopyStream(copy) = &mut job.work else { unreachable!() };
        copy.prepend(pattern(3_000_000).to_vec());
        (begin(&engine, job, 1), output)
    });
    sleep(Duration::from_millis(4000));
    for (handle, output) in transfers {
        let bytes = handle.bytes()[0];
        assert!((3_000_000..=most(1_000_000, start)).contains(&bytes), "{bytes}");
        handle.cancel();
        assert_eq!(ended(&engine).outcome, Outcome::Cancelled);
        output.content();
    }
}

#[test]
fn a_rate_is_that_of_each_direction() {
    let (engine, start) = (engine(), Instant::now());
    let ((a, client), (b, server)) = (connection(Kind::Unix), connection(Kind::Unix));
    let mut job = relay_job(given(a), given(b));
    job.rate = NonZeroU64::new(100_000);
    let handle = begin(&engine, job, 1);
    let mut threads = Vec::new();
    for peer in [client, server] {
        let (mut reader, mut writer) = (peer.0.try_clone().unwrap(), peer.0);
        threads.push(spawn(move || while writer.write_all(pattern(10_000)).is_ok() {}));
        threads.push(spawn(move || while reader.read(&mut [0; 10_000]).is_ok_and(|read| read > 0) {}));
    }
    sleep(Duration::from_millis(2000));
    let bytes = handle.bytes();
    let most = most(100_000, start);
    handle.cancel();
    assert!(bytes.iter().all(|bytes| (50_000..=most).contains(bytes)), "{bytes:?}");
    assert_eq!(ended(&engine).outcome, Outcome::Cancelled);
    threads.into_iter().for_each(|thread| guarded(|| thread.join()).unwrap());
}

// What goes wrong

#[test]
fn what_is_refused_comes_back_whole() {
    let engine = engine();
    let (input, _far) = unix_pair_in(Blocking::No);
    let (output, _reader) = unix_pair_in(Blocking::No);
    let mut job = copy_job(given(input), given(output));
    job.ends.pop();
    let (job, errno) = engine.submit(job, 1).unwrap_err();
    assert_eq!((errno, job.ends.len()), (Errno::INVAL, 1));
    engine.stop();
    let (job, errno) = engine.submit(*job, 1).unwrap_err();
    assert_eq!((errno, job.ends.len()), (Errno::SHUTDOWN, 1));
    assert_eq!(engine.stats(), Stats::default());
}

#[test]
fn a_panic_ends_one_transfer_and_no_other() {
    let engine = engine();
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, relay_job(given(a), given(b)), 1);
    let (input, far) = unix_pair_in(Blocking::No);
    let (output, _reader) = unix_pair_in(Blocking::No);
    let mut job = tee_job(given(input), vec![given(output)]);
    // Of this output the machine does not know.
    job.ends.push(lent(&server.0));
    (&UnixStream::from(far)).write_all(b"hello").unwrap();
    begin(&engine, job, 2);
    assert_eq!(ended(&engine).outcome, Outcome::Panicked);
    client.says(b"hello");
    server.hears(b"hello");
}

/// A peer that sends what nobody reads, before the end of a copy to it and after.
fn hears_all_though_it_sends(job: impl Fn(PrivateFd) -> Job, bytes: &[u8]) {
    let engine = engine();
    let (connection, mut peer) = connection(Kind::Tcp);
    peer.says(b"before");
    let handle = begin(&engine, job(given(connection)), 1);
    let (mut heard, mut part) = (Vec::new(), vec![0; 64 << 10]);
    let mut moved = u64::MAX;
    while engine.stats().done == 0 {
        // It reads no more than it must, so that much is on its way at the end.
        sleep(Duration::from_millis(20));
        if std::mem::replace(&mut moved, handle.bytes()[0]) == handle.bytes()[0] {
            let count = peer.0.read(&mut part).unwrap();
            heard.extend(&part[..count]);
        }
    }
    assert_eq!(done(&engine)[0], bytes.len() as u64);
    // If it has got everything by now, it is reset by this; what it has got it can still read.
    let _ = peer.0.write_all(b"after");
    sleep(Duration::from_millis(50));
    while heard.len() < bytes.len() {
        let count = guarded(|| peer.0.read(&mut part)).unwrap();
        assert_ne!(count, 0);
        heard.extend(&part[..count]);
    }
    assert_same(&heard, bytes, "heard");
    // Now it is closed, and tells so of what it has not read.
    eventually(|| !matches!(recv(&peer.0, &mut [0; 1][..], RecvFlags::DONTWAIT), Err(Errno::AGAIN)));
}

#[test]
fn a_peer_that_sends_meanwhile_gets_the_end_of_a_copy_too() {
    let bytes = pattern(3_000_000);
    hears_all_though_it_sends(|output| copy_job(given(file(bytes)), output), bytes);
    hears_all_though_it_sends(
        |output| {
            let other = given(file(b""));
            tee_job(given(file(bytes)), vec![output, other])
        },
        bytes,
    );
}

#[test]
fn a_connection_that_lingers_is_closed_without_holding_up_others() {
    let engine = engine();
    let (here, there) = tcp_pair();
    set_mode(&here, Blocking::No);
    set_socket_linger(&here, Some(Duration::from_secs(600))).unwrap();
    let stuffed: OwnedFd = here.into();
    fill(&stuffed);
    let (input, far) = unix_pair_in(Blocking::No);
    let handle = begin(&engine, copy_job(given(input), given(stuffed)), 1);
    let ((a, mut client), (b, mut server)) = (connection(Kind::Tcp), connection(Kind::Tcp));
    begin(&engine, relay_job(given(a), given(b)), 2);
    handle.cancel();
    for _ in 0..10 {
        client.says(b"hello");
        server.hears(b"hello");
    }
    let ended = ended(&engine);
    assert_eq!((ended.token, ended.outcome, ended.stuck), (1, Outcome::Cancelled, true));
    drop((there, far));
}

#[test]
fn stopping_ends_all() {
    let engine = Engine::new(2).unwrap();
    let mut peers = Vec::new();
    for index in 0..10 {
        let ((a, client), (b, server)) = (connection(Kind::Tcp), connection(Kind::Unix));
        begin(&engine, relay_job(given(a), given(b)), index);
        peers.extend([client, server]);
    }
    let (output, reader) = unix_pair_in(Blocking::No);
    begin(&engine, copy_job(given(file(pattern(5_000_000))), given(output)), 10);
    engine.stop();
    assert!(all_ended(&engine, 11).iter().all(|ended| ended.outcome == Outcome::Cancelled));
    peers.iter_mut().for_each(UnixOrTcp::hears_the_end);
    drop(reader);
}

#[test]
fn the_end_is_readable_until_it_is_taken() {
    let engine = engine();
    let now = Some(Duration::ZERO);
    let is_ready = || {
        wait_until_ready(Side::Input, engine.ended().unwrap().as_fd(), now) == io_splice_core::Waited::Ready
    };
    assert!(!is_ready());
    begin(&engine, copy_job(given(file(b"")), given(file(b""))), 1);
    eventually(is_ready);
    assert_eq!(engine.take_ended().len(), 1);
    assert!(!is_ready() && engine.take_ended().is_empty());
}
