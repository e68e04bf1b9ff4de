//! Copies from one real end to several.

use std::cell::Cell;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::support::*;
use io_splice_core::copy::{Hints, Side, TeeStream, TeeStreamPause, Waited};
use io_splice_core::{Errno, page_size, set_pipe_size};

const MIB: usize = 1 << 20;

/// Every kind, and an object without a descriptor.
const OUTPUTS: [Option<Kind>; 6] =
    [Some(Kind::File), Some(Kind::Append), Some(Kind::Pipe), Some(Kind::Unix), Some(Kind::Tcp), None];

enum Target {
    End(Output),
    /// The test itself has the other side.
    Bare(OwnedFd),
    /// It is handed its bytes, and takes a part at a time.
    Object(Vec<u8>),
}

impl Target {
    fn new(kind: Option<Kind>) -> Self {
        kind.map_or(Self::Object(Vec::new()), |kind| Self::End(Output::new(kind)))
    }

    fn bare(fd: impl Into<OwnedFd>) -> Self {
        Self::Bare(fd.into())
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::End(output) => Some(output.fd.as_fd()),
            Self::Bare(fd) => Some(fd.as_fd()),
            Self::Object(_) => None,
        }
    }

    /// All that has arrived.
    fn content(self) -> Vec<u8> {
        match self {
            Self::End(output) => output.content(),
            Self::Bare(_) => panic!("only the test knows"),
            Self::Object(taken) => taken,
        }
    }
}

fn fds(outputs: &[Target]) -> Vec<Option<BorrowedFd<'_>>> {
    outputs.iter().map(Target::fd).collect()
}

fn outputs<T: Into<Option<Kind>>>(kinds: impl IntoIterator<Item = T>) -> Vec<Target> {
    kinds.into_iter().map(|kind| Target::new(kind.into())).collect()
}

fn tee_stream(input: impl AsFd, outputs: &[Target], len: Option<u64>) -> TeeStream {
    new_tee_stream(input, &fds(outputs), len)
}

/// Runs it until it is done or has failed, and tells who wants to know of each portion.
fn run(
    copy: &mut TeeStream,
    input: impl AsFd,
    outputs: &mut [Target],
    mut progress: impl FnMut(&TeeStream),
) -> TeeStreamPause {
    let mut host = Patient::new();
    loop {
        match run_tee_stream(copy, &input, &fds(outputs), &mut host) {
            TeeStreamPause::HandOver(output) => {
                let bytes = copy.bytes_for(output).unwrap();
                let part = bytes[..bytes.len().min(70_001)].to_vec();
                copy.handed_over(output, part.len());
                let Target::Object(taken) = &mut outputs[output] else { panic!("it has a descriptor") };
                taken.extend(part);
            }
            TeeStreamPause::Progress => progress(copy),
            TeeStreamPause::Interrupted | TeeStreamPause::Wait => {}
            end => return end,
        }
    }
}

fn finish(copy: &mut TeeStream, input: impl AsFd, outputs: &mut [Target]) -> TeeStreamPause {
    run(copy, input, outputs, |_| panic!("nobody asked"))
}

#[track_caller]
fn assert_all(outputs: Vec<Target>, expected: &[u8], what: &str) {
    for (index, output) in outputs.into_iter().enumerate() {
        assert_same(&output.content(), expected, &format!("{what}, output {index}"));
    }
}

fn delivered(copy: &TeeStream) -> Vec<u64> {
    copy.delivered().collect()
}

#[test]
fn every_byte_arrives_at_every_output() {
    for from in INPUTS {
        for size in [0, 1, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 5] {
            let input = Input::new(from, pattern(size));
            let mut outputs = outputs(OUTPUTS);
            let mut copy = tee_stream(&input.fd, &outputs, None);
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
            assert_eq!(delivered(&copy), [size as u64; OUTPUTS.len()]);
            assert_all(outputs, pattern(size), &format!("from {from:?}"));
            assert_same(&input.rest(), b"", "the rest");
        }
    }
}

#[test]
fn every_kind_goes_with_every_other() {
    for from in INPUTS {
        for one in OUTPUTS {
            for other in OUTPUTS {
                let input = Input::new(from, pattern(150_000));
                let mut outputs = outputs([one, other]);
                let mut copy = tee_stream(&input.fd, &outputs, None);
                assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
                assert_all(outputs, pattern(150_000), &format!("{from:?} to {one:?} and {other:?}"));
            }
        }
    }
}

#[test]
fn one_output_and_a_dozen() {
    for number in [1, 3, 12] {
        for kind in OUTPUTS {
            let input = Input::new(Kind::Tcp, pattern(300_000));
            let mut outputs = outputs(vec![kind; number]);
            let mut copy = tee_stream(&input.fd, &outputs, None);
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
            assert_all(outputs, pattern(300_000), &format!("{number} times {kind:?}"));
        }
    }
}

#[test]
fn ends_in_blocking_mode_get_every_byte_too() {
    for from in INPUTS {
        let input = Input::new(from, pattern(MIB + 5));
        let mut outputs = outputs(OUTPUTS);
        set_mode(&input.fd, Blocking::Yes);
        outputs.iter().filter_map(Target::fd).for_each(|fd| set_mode(fd, Blocking::Yes));
        let mut copy = tee_stream(&input.fd, &outputs, None);
        assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
        assert_all(outputs, pattern(MIB + 5), &format!("from {from:?}"));
    }
}

#[test]
fn a_len_leaves_the_rest_where_it_is() {
    for from in INPUTS {
        for len in [0, 1, 65_537, MIB, 2 * MIB, 2 * MIB + 1] {
            let input = Input::new(from, pattern(2 * MIB));
            let mut outputs = outputs(OUTPUTS);
            let mut copy = tee_stream(&input.fd, &outputs, Some(len as u64));
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
            let copied = len.min(2 * MIB);
            assert_all(outputs, pattern(copied), &format!("{len} bytes from {from:?}"));
            assert_same(&input.rest(), &pattern(2 * MIB)[copied..], "the rest");
        }
    }
}

#[test]
fn what_was_read_ahead_goes_first_and_counts() {
    for from in INPUTS {
        let input = Input::new(from, &pattern(200_000)[5000..]);
        let mut outputs = outputs(OUTPUTS);
        let mut copy = tee_stream(&input.fd, &outputs, Some(150_000));
        copy.prepend(pattern(5000).to_vec());
        assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
        assert_eq!(delivered(&copy), [150_000; OUTPUTS.len()]);
        assert_all(outputs, pattern(150_000), &format!("from {from:?}"));
        assert_same(&input.rest(), &pattern(200_000)[150_000..], "the rest");
    }
}

#[test]
fn what_was_read_ahead_may_come_in_portions() {
    for from in INPUTS {
        let input = Input::new(from, b"behind");
        let mut outputs = outputs(OUTPUTS);
        let mut copy = tee_stream(&input.fd, &outputs, None);
        for (portion, more) in [("one ", true), ("two ", true), ("three ", false)] {
            copy.prepend(portion.into());
            copy.set_more_ahead(more);
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), TeeStreamPause::Done);
        }
        assert_all(outputs, b"one two three behind", &format!("from {from:?}"));
    }
}

#[test]
fn somebody_who_wants_to_know_is_told_when_a_portion_has_reached_every_output() {
    let size = 3 * MIB + 5;
    for from in INPUTS {
        let input = Input::new(from, pattern(size));
        let mut outputs = outputs(OUTPUTS);
        let mut copy = tee_stream(&input.fd, &outputs, None);
        let (mut told, mut late, mut was_late) = (vec![0], Told::default(), false);
        copy.report();
        let end = run(&mut copy, &input.fd, &mut outputs, |copy| {
            let counts = delivered(copy);
            let is_late = late.is_late();
            assert!(is_late || counts.iter().all(|count| *count == counts[0]), "{counts:?}");
            let step = counts.iter().min().unwrap() - told.last().unwrap();
            assert!(is_late || step > 0, "told of a portion that nobody has: {told:?}");
            told.push(told.last().unwrap() + step);
            was_late |= is_late;
            assert!(was_late || step <= MIB as u64, "{told:?}");
        });
        assert_eq!(end, TeeStreamPause::Done);
        assert!(was_late || told.len() > 3, "{told:?}");
        assert_all(outputs, pattern(size), &format!("from {from:?}"));
    }
}

#[test]
fn a_file_in_proc_is_copied_though_its_size_is_0() {
    let content = std::fs::read("/proc/filesystems").unwrap();
    let mut outputs = outputs(OUTPUTS);
    let input = File::open("/proc/filesystems").unwrap();
    let mut copy = tee_stream(&input, &outputs, None);
    assert_eq!(finish(&mut copy, &input, &mut outputs), TeeStreamPause::Done);
    assert!(!content.is_empty());
    assert_all(outputs, &content, "from /proc");
}

#[test]
fn segments_of_one_byte_use_up_the_slots_and_lose_nothing() {
    let (one, other) = tcp_pair();
    set_mode(&one, Blocking::No);
    send_one_by_one(other, pattern(20_000));
    let mut outputs = outputs(OUTPUTS);
    let mut copy = tee_stream(&one, &outputs, None);
    assert_eq!(finish(&mut copy, &one, &mut outputs), TeeStreamPause::Done);
    assert_all(outputs, pattern(20_000), "one by one");
}

#[test]
fn a_file_copied_onto_its_own_end_among_others_ends_where_the_file_ended() {
    for (start, place) in [(0, 0), (0, 1), (1000, 2)] {
        let file = TempFile::new(pattern(MIB + 5));
        let mut input = file.reader();
        input.seek(SeekFrom::Start(start)).unwrap();
        let mut outputs = outputs([Some(Kind::Pipe), None]);
        let itself = Target::bare(file.appender());
        outputs.insert(place, itself);
        let mut copy = tee_stream(&input, &outputs, None);
        assert_eq!(finish(&mut copy, &input, &mut outputs), TeeStreamPause::Done);
        let appended = &pattern(MIB + 5)[start as usize..];
        outputs.remove(place);
        assert_all(outputs, appended, "the others");
        assert_same(&file.content(), &[pattern(MIB + 5), appended].concat(), "the file");
    }
}

#[test]
fn a_pipe_is_not_copied_into_itself() {
    let Pipe { reader, writer } = pipe_in(Blocking::No);
    let Pipe { reader: _other_reader, writer: other } = pipe_in(Blocking::No);
    assert_eq!(rustix::io::write(&writer, b"once"), Ok(4));
    let again = writer.try_clone().unwrap();
    for itself in [&writer, &again] {
        for fds in [[itself.as_fd(), other.as_fd()], [other.as_fd(), itself.as_fd()]] {
            assert_eq!(
                TeeStream::new(Some(reader.as_fd()), &fds.map(Some), None, Hints::default()).err(),
                Some(Errno::INVAL)
            );
        }
    }
    assert!(
        TeeStream::new(Some(reader.as_fd()), &[Some(other.as_fd()), None], None, Hints::default()).is_ok()
    );
    assert_eq!(available(&reader), b"once");
}

#[test]
fn a_directory_is_an_error_of_the_input() {
    let mut outputs = outputs(OUTPUTS);
    let input = File::open(std::env::temp_dir()).unwrap();
    let mut copy = tee_stream(&input, &outputs, None);
    assert_eq!(finish(&mut copy, &input, &mut outputs), TeeStreamPause::InputFailed(Errno::ISDIR));
    assert_all(outputs, b"", "nothing");
}

#[test]
fn the_slowest_sets_the_pace() {
    for from in INPUTS {
        let input = Input::new(from, pattern(4 * MIB));
        let Pipe { reader: slow_reader, writer: slow } = pipe_in(Blocking::No);
        let mut all = outputs([Kind::File, Kind::Unix]);
        all.push(Target::bare(slow));
        let mut copy = tee_stream(&input.fd, &all, None);
        let mut host = Impatient::default();
        let mut arrived = Vec::new();
        loop {
            let fds = fds(&all);
            match run_tee_stream(&mut copy, &input.fd, &fds, &mut host) {
                TeeStreamPause::Done => break,
                TeeStreamPause::Wait => {}
                other => panic!("{other:?}"),
            }
            let counts = delivered(&copy);
            let ahead = counts[0].max(counts[1]) - counts[2];
            assert!(ahead <= MIB as u64, "{counts:?}");
            let before = arrived.len();
            arrived.extend(available(&slow_reader));
            if before == arrived.len() {
                std::thread::yield_now();
            }
        }
        arrived.extend(available(&slow_reader));
        assert_same(&arrived, pattern(4 * MIB), &format!("the slow one, from {from:?}"));
        all.pop();
        assert_all(all, pattern(4 * MIB), &format!("from {from:?}"));
    }
}

#[test]
fn only_those_that_are_not_ready_are_waited_for() {
    let Pipe { reader: _reader, writer: slow } = pipe_in(Blocking::No);
    let (_far, near) = unix_pair_in(Blocking::No);
    let file = TempFile::new(pattern(150_000));
    let (input, fast) = (file.reader(), TempFile::new(b""));
    let fast = fast.writer();
    let fds = [Some(fast.as_fd()), Some(slow.as_fd()), Some(near.as_fd())];
    let mut copy = new_tee_stream(&input, &fds, Some(100_000));
    let mut host = Impatient::default();
    assert_eq!(run_tee_stream(&mut copy, &input, &fds, &mut host), TeeStreamPause::Wait);
    assert_eq!(host.ends, [(Side::Output, slow.as_raw_fd())]);
    assert_eq!(delivered(&copy), [100_000, 65_536, 100_000]);

    let Pipe { reader, writer: _writer } = pipe_in(Blocking::No);
    let mut copy = new_tee_stream(&reader, &fds, None);
    assert_eq!(run_tee_stream(&mut copy, &reader, &fds, &mut host), TeeStreamPause::Wait);
    assert_eq!(host.ends, [(Side::Input, reader.as_raw_fd())]);
}

#[test]
fn when_one_fails_the_others_have_equal_prefixes() {
    for from in INPUTS {
        for place in 0..=OUTPUTS.len() {
            let input = Input::new(from, pattern(2 * MIB));
            let mut outputs = outputs(OUTPUTS);
            let Pipe { reader, writer: broken } = pipe_in(Blocking::No);
            drop(reader);
            outputs.insert(place, Target::bare(broken));
            let mut copy = tee_stream(&input.fd, &outputs, None);
            let end = finish(&mut copy, &input.fd, &mut outputs);
            assert_eq!(end, TeeStreamPause::OutputFailed(place, Some(Errno::PIPE)));
            // And it stays so.
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), end);
            let mut counts = delivered(&copy);
            assert_eq!(counts.remove(place), 0);
            outputs.remove(place);
            let prefix = counts[0] as usize;
            assert!((1..=MIB).contains(&prefix), "{prefix}");
            assert!(counts.iter().all(|count| *count == prefix as u64), "{counts:?}");
            assert_all(outputs, pattern(prefix), &format!("from {from:?}"));
            assert_eq!(copy.abort(Some(input.fd.as_fd()), &vec![None; OUTPUTS.len() + 1]), b"");
            assert_same(&input.rest(), &pattern(2 * MIB)[prefix..], "the rest");
            drop(copy);
            assert_next_pipe_is_empty();
        }
    }
}

#[test]
fn a_slow_one_catches_up_before_the_failure_is_told() {
    let file = TempFile::new(pattern(2 * MIB));
    let Pipe { reader: slow_reader, writer: slow } = pipe_in(Blocking::No);
    let Pipe { reader, writer: broken } = pipe_in(Blocking::No);
    drop(reader);
    set_pipe_size(slow.as_fd(), page_size()).unwrap();
    for (place, fds) in [(1, [&slow, &broken]), (0, [&broken, &slow])] {
        let fds = fds.map(|fd| Some(fd.as_fd()));
        let input = file.reader();
        let mut copy = new_tee_stream(&input, &fds, None);
        let mut arrived = Vec::new();
        // It holds less than a portion.
        set_pipe_size(slow.as_fd(), page_size()).unwrap();
        let mut waits = 0;
        let end = loop {
            match run_tee_stream(&mut copy, &input, &fds, &mut Impatient::default()) {
                TeeStreamPause::Wait => arrived.extend(available(&slow_reader)),
                end => break end,
            }
            waits += 1;
        };
        arrived.extend(available(&slow_reader));
        assert_eq!(end, TeeStreamPause::OutputFailed(place, Some(Errno::PIPE)));
        assert!(waits > 1, "{waits}");
        assert_same(&arrived, pattern(arrived.len()), "the slow one");
        assert_eq!(delivered(&copy)[1 - place], arrived.len() as u64);
    }
}

#[test]
fn of_several_that_fail_the_first_is_told() {
    let Pipe { reader, writer: broken } = pipe_in(Blocking::No);
    drop(reader);
    let full = File::options().append(true).open("/dev/full").unwrap();
    let (broken, full) = (broken.as_fd(), full.as_fd());
    for (first, second, errno) in [(broken, full, Errno::PIPE), (full, broken, Errno::NOSPC)] {
        let (file, into) = (TempFile::new(pattern(1000)), TempFile::new(b""));
        let (input, output) = (file.reader(), into.writer());
        let fds = [Some(output.as_fd()), Some(first), Some(second)];
        let mut copy = new_tee_stream(&input, &fds, None);
        let end = run_tee_stream(&mut copy, &input, &fds, &mut Patient::new());
        assert_eq!(end, TeeStreamPause::OutputFailed(1, Some(errno)));
        assert_eq!(delivered(&copy), [1000, 0, 0]);
        assert_same(&into.content(), pattern(1000), "the one that did not fail");
    }
}

#[test]
fn an_output_without_a_descriptor_is_handed_its_bytes_and_may_fail() {
    let file = TempFile::new(pattern(2 * MIB));
    let into = TempFile::new(b"");
    let (input, output) = (file.reader(), into.writer());
    let fds = [None, Some(output.as_fd())];
    let mut copy = new_tee_stream(&input, &fds, None);
    let mut host = Patient::new();
    assert_eq!(run_tee_stream(&mut copy, &input, &fds, &mut host), TeeStreamPause::HandOver(0));
    let portion = copy.bytes_for(0).unwrap().len();
    assert!(portion > 1000, "{portion}");
    assert_same(copy.bytes_for(0).unwrap(), pattern(portion), "a portion");
    copy.handed_over(0, 1000);
    assert_eq!(run_tee_stream(&mut copy, &input, &fds, &mut host), TeeStreamPause::HandOver(0));
    assert_same(copy.bytes_for(0).unwrap(), &pattern(portion)[1000..], "the rest of it");
    copy.fail(0, None);
    assert_eq!(run_tee_stream(&mut copy, &input, &fds, &mut host), TeeStreamPause::OutputFailed(0, None));
    assert_eq!(delivered(&copy), [1000, portion as u64]);
    assert_same(&into.content(), pattern(portion), "the other");
}

#[test]
fn given_up_midway_it_tells_what_each_has() {
    for from in INPUTS {
        let input = Input::new(from, pattern(4 * MIB));
        let Pipe { reader: slow_reader, writer: slow } = pipe_in(Blocking::No);
        let mut all = outputs([Kind::File, Kind::Unix, Kind::Tcp]);
        all.push(Target::bare(slow));
        let mut copy = tee_stream(&input.fd, &all, None);
        let fds = fds(&all);
        let mut arrived = Vec::new();
        // It comes to stand when the slow one has 64 KiB more than was read.
        while delivered(&copy)[3] < 300_000 {
            run_tee_stream(&mut copy, &input.fd, &fds, &mut Impatient::default());
            arrived.extend(available(&slow_reader));
        }
        run_tee_stream(&mut copy, &input.fd, &fds, &mut Impatient::default());
        copy.abort(Some(input.fd.as_fd()), &fds);
        let counts = delivered(&copy);
        drop(copy);
        assert_next_pipe_is_empty();
        arrived.extend(available(&slow_reader));
        drop(fds);
        all.pop();
        for (count, output) in counts.iter().zip(all) {
            assert_same(&output.content(), pattern(*count as usize), &format!("from {from:?}"));
        }
        assert_same(&arrived, pattern(counts[3] as usize), "the slow one");
    }
}

#[test]
fn an_interrupt_stops_it_and_it_goes_on_later() {
    for from in INPUTS {
        let input = Input::new(from, pattern(2 * MIB + 5));
        let outputs = outputs([Kind::Pipe, Kind::Unix, Kind::Tcp]);
        let fds = fds(&outputs);
        let mut copy = tee_stream(&input.fd, &outputs, None);
        let (mut patient, calls) = (Patient::new(), Cell::new(0));
        let every = |number| {
            calls.set(calls.get() + 1);
            calls.get() % number == 0
        };
        let mut host = MadeUp::new(
            |ends, timeout| if every(2) { Waited::Interrupted } else { patient.wait(ends, timeout) },
            || every(3),
        );
        let mut interrupts = 0;
        loop {
            match run_tee_stream(&mut copy, &input.fd, &fds, &mut host) {
                TeeStreamPause::Interrupted => interrupts += 1,
                TeeStreamPause::Done => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(interrupts > 0);
        drop(fds);
        assert_all(outputs, pattern(2 * MIB + 5), &format!("from {from:?}"));
    }
}

#[test]
fn an_end_that_is_not_ready_in_time_is_named() {
    let Pipe { reader, writer: _writer } = pipe_in(Blocking::No);
    let (_far, near) = unix_pair_in(Blocking::No);
    let Pipe { reader: _other_reader, writer: full } = pipe_in(Blocking::No);
    fill(&full);
    let fds = [Some(near.as_fd()), Some(full.as_fd())];
    let soon = Some(Duration::from_millis(10));
    let mut copy = new_tee_stream(&reader, &fds, None);
    copy.set_timeouts(soon, [None, None]);
    assert_eq!(run_tee_stream(&mut copy, &reader, &fds, &mut Patient::new()), TeeStreamPause::TimedOut(None));

    let file = TempFile::new(b"something");
    let input = file.reader();
    let mut copy = new_tee_stream(&input, &fds, None);
    copy.set_timeouts(None, [Some(*GUARD), soon]);
    assert_eq!(
        run_tee_stream(&mut copy, &input, &fds, &mut Patient::new()),
        TeeStreamPause::TimedOut(Some(1))
    );
    assert_eq!(delivered(&copy), [9, 0]);
}

#[test]
fn the_time_that_an_end_may_take_does_not_begin_anew_after_a_pause() {
    let Pipe { reader, writer: _writer } = pipe_in(Blocking::No);
    let (_far, near) = unix_pair_in(Blocking::No);
    let Pipe { reader: _other_reader, writer: full } = pipe_in(Blocking::No);
    fill(&full);
    let fds = [Some(near.as_fd()), Some(full.as_fd())];
    let file = TempFile::new(b"something");
    let regular = file.reader();
    for input in [&regular, &reader] {
        let mut copy = new_tee_stream(input, &fds, None);
        copy.set_timeouts(Some(*GUARD), [None, Some(*GUARD)]);
        let mut left = *GUARD;
        for _ in 0..3 {
            let mut host = Impatient::default();
            assert_eq!(run_tee_stream(&mut copy, input, &fds, &mut host), TeeStreamPause::Wait);
            let timeout = host.timeouts.last().unwrap().expect("a limit");
            std::thread::sleep(Duration::from_millis(2));
            assert!(timeout <= left, "{timeout:?} of {left:?}");
            left = timeout.saturating_sub(Duration::from_millis(1));
        }
    }
}
