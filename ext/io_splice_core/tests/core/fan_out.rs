//! Copies from one real end to several.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::copy_support::{
    TempFile, assert_next_pipe_is_empty, assert_same, make_blocking, make_nonblocking, pattern, pipe,
    unix_pair,
};
use io_splice_core::copy::{FanOut, FanOutPause, Hub, Side, Waited};
use io_splice_core::{Awaited, Errno, wait_until_any_ready};

const MIB: usize = 1 << 20;

/// Generous, since machines are shared.
const GUARD: Duration = Duration::from_secs(60);

/// Waits with poll(2), and fails instead of hanging.
struct Patient(Instant);

impl Patient {
    fn new() -> Self {
        Self(Instant::now() + GUARD)
    }
}

impl Hub for Patient {
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        assert!(Instant::now() < self.0, "still running after {GUARD:?}");
        wait_until_any_ready(ends, Some(timeout.map_or(GUARD, |timeout| timeout.min(GUARD))))
    }

    fn interrupted(&mut self) -> bool {
        assert!(Instant::now() < self.0, "still running after {GUARD:?}");
        false
    }
}

/// Comes back instead of waiting, and remembers for what it was asked to wait.
#[derive(Default)]
struct Impatient {
    asked: Vec<(Side, RawFd)>,
    timeout: Option<Duration>,
}

impl Hub for Impatient {
    fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
        self.asked = ends.iter().map(|end| (end.side, end.fd.as_raw_fd())).collect();
        self.timeout = timeout;
        match wait_until_any_ready(ends, Some(Duration::ZERO)) {
            Waited::TimedOut => Waited::Elsewhere,
            waited => waited,
        }
    }

    fn interrupted(&mut self) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Append,
    Pipe,
    Unix,
    Tcp,
    /// No descriptor: it is handed its bytes, and takes a part at a time.
    Object,
}

const INPUTS: [Kind; 4] = [Kind::File, Kind::Pipe, Kind::Unix, Kind::Tcp];
const OUTPUTS: [Kind; 6] = [Kind::File, Kind::Append, Kind::Pipe, Kind::Unix, Kind::Tcp, Kind::Object];

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    (one, other)
}

struct Input {
    fd: OwnedFd,
    feeder: Option<JoinHandle<()>>,
    _file: Option<TempFile>,
}

impl Input {
    fn new(kind: Kind, content: &[u8]) -> Self {
        let content = content.to_vec();
        let (fd, mut far): (OwnedFd, Box<dyn Write + Send>) = match kind {
            Kind::Pipe => {
                let (reader, writer) = pipe();
                make_blocking(&writer);
                (reader, Box::new(File::from(writer)))
            }
            Kind::Unix => {
                let (one, other) = UnixStream::pair().unwrap();
                (one.into(), Box::new(other))
            }
            Kind::Tcp => {
                let (one, other) = tcp_pair();
                (one.into(), Box::new(other))
            }
            _ => {
                let file = TempFile::new(&content);
                return Self { fd: file.reader().into(), feeder: None, _file: Some(file) };
            }
        };
        make_nonblocking(&fd);
        // Nobody may be left to read all of it; then there is an error to ignore.
        let feeder = std::thread::spawn(move || drop(far.write_all(&content)));
        Self { fd, feeder: Some(feeder), _file: None }
    }

    /// What a copy has left for others.
    fn rest(self) -> Vec<u8> {
        let mut rest = Vec::new();
        make_blocking(&self.fd);
        File::from(self.fd).read_to_end(&mut rest).unwrap();
        if let Some(feeder) = self.feeder {
            feeder.join().unwrap();
        }
        rest
    }
}

struct Output {
    fd: Option<OwnedFd>,
    reader: Option<JoinHandle<Vec<u8>>>,
    file: Option<TempFile>,
    taken: Vec<u8>,
}

impl Output {
    fn new(kind: Kind) -> Self {
        let none = Self { fd: None, reader: None, file: None, taken: Vec::new() };
        let (fd, mut far): (OwnedFd, Box<dyn Read + Send>) = match kind {
            Kind::File => {
                let file = TempFile::new(b"");
                return Self { fd: Some(file.writer().into()), file: Some(file), ..none };
            }
            Kind::Append => {
                let file = TempFile::new(b"");
                return Self { fd: Some(file.appender().into()), file: Some(file), ..none };
            }
            Kind::Object => return none,
            Kind::Pipe => {
                let (reader, writer) = pipe();
                make_blocking(&reader);
                (writer, Box::new(File::from(reader)))
            }
            Kind::Unix => {
                let (one, other) = UnixStream::pair().unwrap();
                (one.into(), Box::new(other))
            }
            Kind::Tcp => {
                let (one, other) = tcp_pair();
                (one.into(), Box::new(other))
            }
        };
        make_nonblocking(&fd);
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).unwrap();
            all
        });
        Self { fd: Some(fd), reader: Some(reader), ..none }
    }

    /// All that has arrived.
    fn content(self) -> Vec<u8> {
        drop(self.fd);
        match (self.reader, self.file) {
            (Some(reader), _) => reader.join().unwrap(),
            (_, Some(file)) => file.content(),
            _ => self.taken,
        }
    }
}

fn outputs(kinds: &[Kind]) -> Vec<Output> {
    kinds.iter().map(|kind| Output::new(*kind)).collect()
}

fn fan_out(input: impl AsFd, outputs: &[Output], len: Option<u64>) -> FanOut {
    let fds: Vec<_> = outputs.iter().map(|output| output.fd.as_ref().map(AsFd::as_fd)).collect();
    FanOut::new(Some(input.as_fd()), &fds, len).unwrap()
}

/// Runs it until it is done or has failed, and tells who wants to know of each portion.
fn run(
    copy: &mut FanOut,
    input: impl AsFd,
    outputs: &mut [Output],
    mut progress: impl FnMut(&FanOut),
) -> FanOutPause {
    let mut hub = Patient::new();
    loop {
        let fds: Vec<_> = outputs.iter().map(|output| output.fd.as_ref().map(AsFd::as_fd)).collect();
        match copy.run(Some(input.as_fd()), &fds, &mut hub) {
            FanOutPause::HandOver(output) => {
                let bytes = copy.bytes_for(output).unwrap();
                let part = bytes[..bytes.len().min(70_001)].to_vec();
                copy.handed_over(output, part.len());
                outputs[output].taken.extend(part);
            }
            FanOutPause::Progress => progress(copy),
            FanOutPause::InVain(_) => std::thread::yield_now(),
            FanOutPause::Interrupted | FanOutPause::Wait => {}
            end => return end,
        }
    }
}

fn finish(copy: &mut FanOut, input: impl AsFd, outputs: &mut [Output]) -> FanOutPause {
    run(copy, input, outputs, |_| panic!("nobody asked"))
}

#[track_caller]
fn assert_all(outputs: Vec<Output>, expected: &[u8], what: &str) {
    for (index, output) in outputs.into_iter().enumerate() {
        assert_same(&output.content(), expected, &format!("{what}, output {index}"));
    }
}

fn delivered(copy: &FanOut) -> Vec<u64> {
    copy.delivered().collect()
}

/// Takes what can be taken at once.
fn take_all(fd: impl AsFd) -> Vec<u8> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 65_536];
    loop {
        match rustix::io::read(&fd, &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return all,
            Ok(read) => all.extend_from_slice(&buffer[..read]),
            Err(errno) => panic!("{errno}"),
        }
    }
}

#[test]
fn every_byte_arrives_at_every_output() {
    for from in INPUTS {
        for size in [0, 1, 4097, MIB - 1, MIB, MIB + 1, 3 * MIB + 5] {
            let input = Input::new(from, &pattern()[..size]);
            let mut outputs = outputs(&OUTPUTS);
            let mut copy = fan_out(&input.fd, &outputs, None);
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
            assert_eq!(delivered(&copy), [size as u64; OUTPUTS.len()]);
            assert_all(outputs, &pattern()[..size], &format!("from {from:?}"));
            assert_same(&input.rest(), b"", "the rest");
        }
    }
}

#[test]
fn every_kind_goes_with_every_other() {
    for from in INPUTS {
        for one in OUTPUTS {
            for other in OUTPUTS {
                let input = Input::new(from, &pattern()[..150_000]);
                let mut outputs = outputs(&[one, other]);
                let mut copy = fan_out(&input.fd, &outputs, None);
                assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
                assert_all(outputs, &pattern()[..150_000], &format!("{from:?} to {one:?} and {other:?}"));
            }
        }
    }
}

#[test]
fn one_output_and_a_dozen() {
    for number in [1, 3, 12] {
        for kind in OUTPUTS {
            let input = Input::new(Kind::Tcp, &pattern()[..300_000]);
            let mut outputs = outputs(&vec![kind; number]);
            let mut copy = fan_out(&input.fd, &outputs, None);
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
            assert_all(outputs, &pattern()[..300_000], &format!("{number} times {kind:?}"));
        }
    }
}

#[test]
fn ends_in_blocking_mode_get_every_byte_too() {
    for from in INPUTS {
        let input = Input::new(from, &pattern()[..MIB + 5]);
        let mut outputs = outputs(&OUTPUTS);
        make_blocking(&input.fd);
        outputs.iter().filter_map(|output| output.fd.as_ref()).for_each(make_blocking);
        let mut copy = fan_out(&input.fd, &outputs, None);
        assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
        assert_all(outputs, &pattern()[..MIB + 5], &format!("from {from:?}"));
    }
}

#[test]
fn a_len_leaves_the_rest_where_it_is() {
    for from in INPUTS {
        for len in [0, 1, 65_537, MIB, 2 * MIB, 2 * MIB + 1] {
            let input = Input::new(from, &pattern()[..2 * MIB]);
            let mut outputs = outputs(&OUTPUTS);
            let mut copy = fan_out(&input.fd, &outputs, Some(len as u64));
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
            let copied = len.min(2 * MIB);
            assert_all(outputs, &pattern()[..copied], &format!("{len} bytes from {from:?}"));
            assert_same(&input.rest(), &pattern()[copied..2 * MIB], "the rest");
        }
    }
}

#[test]
fn what_was_read_ahead_goes_first_and_counts() {
    for from in INPUTS {
        let input = Input::new(from, &pattern()[5000..200_000]);
        let mut outputs = outputs(&OUTPUTS);
        let mut copy = fan_out(&input.fd, &outputs, Some(150_000));
        copy.put_first(pattern()[..5000].to_vec());
        assert_eq!(finish(&mut copy, &input.fd, &mut outputs), FanOutPause::Done);
        assert_eq!(delivered(&copy), [150_000; OUTPUTS.len()]);
        assert_all(outputs, &pattern()[..150_000], &format!("from {from:?}"));
        assert_same(&input.rest(), &pattern()[150_000..200_000], "the rest");
    }
}

#[test]
fn somebody_who_wants_to_know_is_told_when_a_portion_has_reached_every_output() {
    let size = 3 * MIB + 5;
    for from in INPUTS {
        let input = Input::new(from, &pattern()[..size]);
        let mut outputs = outputs(&OUTPUTS);
        let mut copy = fan_out(&input.fd, &outputs, None);
        copy.report();
        let mut told: Vec<u64> = Vec::new();
        let end = run(&mut copy, &input.fd, &mut outputs, |copy| {
            let counts = delivered(copy);
            assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
            told.push(counts[0]);
        });
        assert_eq!(end, FanOutPause::Done);
        assert!(told.len() >= 3, "{told:?}");
        assert!(told[0] > 0, "told of a portion that nobody has: {told:?}");
        let steps: Vec<_> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (1..=MIB as u64).contains(step)), "{steps:?}");
        assert_all(outputs, &pattern()[..size], &format!("from {from:?}"));
    }
}

#[test]
fn a_file_in_proc_is_copied_though_its_size_is_0() {
    let content = std::fs::read("/proc/filesystems").unwrap();
    let mut outputs = outputs(&OUTPUTS);
    let input = File::open("/proc/filesystems").unwrap();
    let mut copy = fan_out(&input, &outputs, None);
    assert_eq!(finish(&mut copy, &input, &mut outputs), FanOutPause::Done);
    assert!(!content.is_empty());
    assert_all(outputs, &content, "from /proc");
}

#[test]
fn segments_of_one_byte_use_up_the_slots_and_lose_nothing() {
    let (one, other) = tcp_pair();
    make_nonblocking(&one);
    other.set_nodelay(true).unwrap();
    for byte in &pattern()[..20_000] {
        (&other).write_all(std::slice::from_ref(byte)).unwrap();
    }
    drop(other);
    let mut outputs = outputs(&OUTPUTS);
    let mut copy = fan_out(&one, &outputs, None);
    assert_eq!(finish(&mut copy, &one, &mut outputs), FanOutPause::Done);
    assert_all(outputs, &pattern()[..20_000], "one by one");
}

#[test]
fn a_file_copied_onto_its_own_end_among_others_ends_where_the_file_ended() {
    for (start, place) in [(0, 0), (0, 1), (1000, 2)] {
        let file = TempFile::new(&pattern()[..MIB + 5]);
        let mut input = file.reader();
        input.seek(SeekFrom::Start(start)).unwrap();
        let mut outputs = outputs(&[Kind::Pipe, Kind::Object]);
        let itself = Output { fd: Some(file.appender().into()), ..Output::new(Kind::Object) };
        outputs.insert(place, itself);
        let mut copy = fan_out(&input, &outputs, None);
        assert_eq!(finish(&mut copy, &input, &mut outputs), FanOutPause::Done);
        let appended = &pattern()[start as usize..MIB + 5];
        outputs.remove(place);
        assert_all(outputs, appended, "the others");
        assert_same(&file.content(), &[&pattern()[..MIB + 5], appended].concat(), "the file");
    }
}

#[test]
fn a_pipe_is_not_copied_into_itself() {
    let (reader, writer) = pipe();
    let (_other_reader, other) = pipe();
    assert_eq!(rustix::io::write(&writer, b"once"), Ok(4));
    let again = writer.try_clone().unwrap();
    for itself in [&writer, &again] {
        for fds in [[itself.as_fd(), other.as_fd()], [other.as_fd(), itself.as_fd()]] {
            assert_eq!(FanOut::new(Some(reader.as_fd()), &fds.map(Some), None).err(), Some(Errno::INVAL));
        }
    }
    assert!(FanOut::new(Some(reader.as_fd()), &[Some(other.as_fd()), None], None).is_ok());
    assert_eq!(take_all(&reader), b"once");
}

#[test]
fn a_directory_is_an_error_of_the_input() {
    let mut outputs = outputs(&OUTPUTS);
    let input = File::open(std::env::temp_dir()).unwrap();
    let mut copy = fan_out(&input, &outputs, None);
    assert_eq!(finish(&mut copy, &input, &mut outputs), FanOutPause::InputFailed(Errno::ISDIR));
    assert_all(outputs, b"", "nothing");
}

#[test]
fn the_slowest_sets_the_pace() {
    for from in INPUTS {
        let input = Input::new(from, &pattern()[..4 * MIB]);
        let (slow_reader, slow) = pipe();
        let mut all = outputs(&[Kind::File, Kind::Unix]);
        all.push(Output { fd: Some(slow), ..Output::new(Kind::Object) });
        let mut copy = fan_out(&input.fd, &all, None);
        let mut hub = Impatient::default();
        let mut arrived = Vec::new();
        loop {
            let fds: Vec<_> = all.iter().map(|output| output.fd.as_ref().map(AsFd::as_fd)).collect();
            match copy.run(Some(input.fd.as_fd()), &fds, &mut hub) {
                FanOutPause::Done => break,
                FanOutPause::Wait | FanOutPause::InVain(_) => {}
                other => panic!("{other:?}"),
            }
            let counts = delivered(&copy);
            let ahead = counts[0].max(counts[1]) - counts[2];
            assert!(ahead <= MIB as u64, "{counts:?}");
            let before = arrived.len();
            arrived.extend(take_all(&slow_reader));
            if before == arrived.len() {
                std::thread::yield_now();
            }
        }
        arrived.extend(take_all(&slow_reader));
        assert_same(&arrived, &pattern()[..4 * MIB], &format!("the slow one, from {from:?}"));
        all.pop();
        assert_all(all, &pattern()[..4 * MIB], &format!("from {from:?}"));
    }
}

#[test]
fn only_those_that_are_not_ready_are_waited_for() {
    let (_reader, slow) = pipe();
    let (_far, near) = unix_pair();
    let file = TempFile::new(&pattern()[..150_000]);
    let (input, fast) = (file.reader(), TempFile::new(b""));
    let fast = fast.writer();
    let fds = [Some(fast.as_fd()), Some(slow.as_fd()), Some(near.as_fd())];
    let mut copy = FanOut::new(Some(input.as_fd()), &fds, Some(100_000)).unwrap();
    let mut hub = Impatient::default();
    assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut hub), FanOutPause::Wait);
    assert_eq!(hub.asked, [(Side::Output, slow.as_raw_fd())]);
    assert_eq!(delivered(&copy), [100_000, 65_536, 100_000]);

    let (reader, _writer) = pipe();
    let mut copy = FanOut::new(Some(reader.as_fd()), &fds, None).unwrap();
    assert_eq!(copy.run(Some(reader.as_fd()), &fds, &mut hub), FanOutPause::Wait);
    assert_eq!(hub.asked, [(Side::Input, reader.as_raw_fd())]);
}

#[test]
fn when_one_fails_the_others_have_equal_prefixes() {
    for from in INPUTS {
        for place in 0..=OUTPUTS.len() {
            let input = Input::new(from, &pattern()[..2 * MIB]);
            let mut outputs = outputs(&OUTPUTS);
            let (reader, broken) = pipe();
            drop(reader);
            outputs.insert(place, Output { fd: Some(broken), ..Output::new(Kind::Object) });
            let mut copy = fan_out(&input.fd, &outputs, None);
            let end = finish(&mut copy, &input.fd, &mut outputs);
            assert_eq!(end, FanOutPause::OutputFailed(place, Some(Errno::PIPE)));
            // And it stays so.
            assert_eq!(finish(&mut copy, &input.fd, &mut outputs), end);
            let mut counts = delivered(&copy);
            assert_eq!(counts.remove(place), 0);
            outputs.remove(place);
            let prefix = counts[0] as usize;
            assert!((1..=MIB).contains(&prefix), "{prefix}");
            assert!(counts.iter().all(|count| *count == prefix as u64), "{counts:?}");
            assert_all(outputs, &pattern()[..prefix], &format!("from {from:?}"));
            assert_same(&input.rest(), &pattern()[prefix..2 * MIB], "the rest");
            drop(copy);
            assert_next_pipe_is_empty();
        }
    }
}

#[test]
fn a_slow_one_catches_up_before_the_failure_is_told() {
    let file = TempFile::new(&pattern()[..2 * MIB]);
    let (slow_reader, slow) = pipe();
    let (reader, broken) = pipe();
    drop(reader);
    for (place, fds) in [(1, [&slow, &broken]), (0, [&broken, &slow])] {
        let fds = fds.map(|fd| Some(fd.as_fd()));
        let input = file.reader();
        let mut copy = FanOut::new(Some(input.as_fd()), &fds, None).unwrap();
        let mut arrived = Vec::new();
        let mut waits = 0;
        let end = loop {
            match copy.run(Some(input.as_fd()), &fds, &mut Impatient::default()) {
                FanOutPause::Wait => arrived.extend(take_all(&slow_reader)),
                end => break end,
            }
            waits += 1;
        };
        arrived.extend(take_all(&slow_reader));
        assert_eq!(end, FanOutPause::OutputFailed(place, Some(Errno::PIPE)));
        assert!(waits > 1, "{waits}");
        assert_same(&arrived, &pattern()[..MIB], "the slow one");
        assert_eq!(delivered(&copy)[1 - place], MIB as u64);
    }
}

#[test]
fn of_several_that_fail_the_first_is_told() {
    let (reader, broken) = pipe();
    drop(reader);
    let full = File::options().append(true).open("/dev/full").unwrap();
    let (broken, full) = (broken.as_fd(), full.as_fd());
    for (first, second, errno) in [(broken, full, Errno::PIPE), (full, broken, Errno::NOSPC)] {
        let (file, into) = (TempFile::new(&pattern()[..1000]), TempFile::new(b""));
        let (input, output) = (file.reader(), into.writer());
        let fds = [Some(output.as_fd()), Some(first), Some(second)];
        let mut copy = FanOut::new(Some(input.as_fd()), &fds, None).unwrap();
        let end = copy.run(Some(input.as_fd()), &fds, &mut Patient::new());
        assert_eq!(end, FanOutPause::OutputFailed(1, Some(errno)));
        assert_eq!(delivered(&copy), [1000, 0, 0]);
        assert_same(&into.content(), &pattern()[..1000], "the one that did not fail");
    }
}

#[test]
fn an_output_without_a_descriptor_is_handed_its_bytes_and_may_fail() {
    let file = TempFile::new(&pattern()[..2 * MIB]);
    let into = TempFile::new(b"");
    let (input, output) = (file.reader(), into.writer());
    let fds = [None, Some(output.as_fd())];
    let mut copy = FanOut::new(Some(input.as_fd()), &fds, None).unwrap();
    let mut hub = Patient::new();
    assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut hub), FanOutPause::HandOver(0));
    assert_same(copy.bytes_for(0).unwrap(), &pattern()[..MIB], "a portion");
    copy.handed_over(0, 1000);
    assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut hub), FanOutPause::HandOver(0));
    assert_same(copy.bytes_for(0).unwrap(), &pattern()[1000..MIB], "the rest of it");
    copy.fail(0, None);
    assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut hub), FanOutPause::OutputFailed(0, None));
    assert_eq!(delivered(&copy), [1000, MIB as u64]);
    assert_same(&into.content(), &pattern()[..MIB], "the other");
}

#[test]
fn given_up_midway_it_tells_what_each_has() {
    for from in INPUTS {
        let input = Input::new(from, &pattern()[..4 * MIB]);
        let (slow_reader, slow) = pipe();
        let mut all = outputs(&[Kind::File, Kind::Unix, Kind::Tcp]);
        all.push(Output { fd: Some(slow), ..Output::new(Kind::Object) });
        let mut copy = fan_out(&input.fd, &all, None);
        let fds: Vec<_> = all.iter().map(|output| output.fd.as_ref().map(AsFd::as_fd)).collect();
        let mut arrived = Vec::new();
        // It comes to stand when the slow one has 64 KiB more than was read.
        while delivered(&copy)[3] < 300_000 {
            copy.run(Some(input.fd.as_fd()), &fds, &mut Impatient::default());
            arrived.extend(take_all(&slow_reader));
        }
        copy.run(Some(input.fd.as_fd()), &fds, &mut Impatient::default());
        copy.give_up(Some(input.fd.as_fd()), &fds);
        let counts = delivered(&copy);
        drop(copy);
        assert_next_pipe_is_empty();
        arrived.extend(take_all(&slow_reader));
        drop(fds);
        all.pop();
        for (count, output) in counts.iter().zip(all) {
            assert_same(&output.content(), &pattern()[..*count as usize], &format!("from {from:?}"));
        }
        assert_same(&arrived, &pattern()[..counts[3] as usize], "the slow one");
    }
}

#[test]
fn an_interrupt_stops_it_and_it_goes_on_later() {
    struct Interrupted(Patient, u32);
    impl Hub for Interrupted {
        fn wait(&mut self, ends: &mut [Awaited<'_>], timeout: Option<Duration>) -> Waited {
            self.1 += 1;
            if self.1 % 2 == 0 { Waited::Interrupted } else { self.0.wait(ends, timeout) }
        }
        fn interrupted(&mut self) -> bool {
            self.1 += 1;
            self.1 % 3 == 0
        }
    }
    for from in INPUTS {
        let input = Input::new(from, &pattern()[..2 * MIB + 5]);
        let outputs = outputs(&[Kind::Pipe, Kind::Unix, Kind::Tcp]);
        let fds: Vec<_> = outputs.iter().map(|output| output.fd.as_ref().map(AsFd::as_fd)).collect();
        let mut copy = fan_out(&input.fd, &outputs, None);
        let mut hub = Interrupted(Patient::new(), 0);
        let mut interrupts = 0;
        loop {
            match copy.run(Some(input.fd.as_fd()), &fds, &mut hub) {
                FanOutPause::Interrupted => interrupts += 1,
                FanOutPause::InVain(_) => {}
                FanOutPause::Done => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(interrupts > 0);
        drop(fds);
        assert_all(outputs, &pattern()[..2 * MIB + 5], &format!("from {from:?}"));
    }
}

#[test]
fn an_end_that_is_not_ready_in_time_is_named() {
    let (reader, _writer) = pipe();
    let ((_far, near), (_other_reader, full)) = (unix_pair(), pipe());
    while rustix::io::write(&full, &pattern()[..4096]).is_ok() {}
    let fds = [Some(near.as_fd()), Some(full.as_fd())];
    let soon = Some(Duration::from_millis(10));
    let mut copy = FanOut::new(Some(reader.as_fd()), &fds, None).unwrap();
    copy.set_timeouts(soon, [None, None]);
    assert_eq!(copy.run(Some(reader.as_fd()), &fds, &mut Patient::new()), FanOutPause::TimedOut(None));

    let file = TempFile::new(b"something");
    let input = file.reader();
    let mut copy = FanOut::new(Some(input.as_fd()), &fds, None).unwrap();
    copy.set_timeouts(None, [Some(GUARD), soon]);
    assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut Patient::new()), FanOutPause::TimedOut(Some(1)));
    assert_eq!(delivered(&copy), [9, 0]);
}

#[test]
fn the_time_that_an_end_may_take_does_not_begin_anew_after_a_pause() {
    let (reader, _writer) = pipe();
    let ((_far, near), (_other_reader, full)) = (unix_pair(), pipe());
    while rustix::io::write(&full, &pattern()[..4096]).is_ok() {}
    let fds = [Some(near.as_fd()), Some(full.as_fd())];
    let file = TempFile::new(b"something");
    let regular: OwnedFd = file.reader().into();
    for input in [&regular, &reader] {
        let mut copy = FanOut::new(Some(input.as_fd()), &fds, None).unwrap();
        copy.set_timeouts(Some(GUARD), [None, Some(GUARD)]);
        let mut left = GUARD;
        for _ in 0..3 {
            let mut hub = Impatient::default();
            assert_eq!(copy.run(Some(input.as_fd()), &fds, &mut hub), FanOutPause::Wait);
            let timeout = hub.timeout.expect("a limit");
            std::thread::sleep(Duration::from_millis(2));
            assert!(timeout <= left, "{timeout:?} of {left:?}");
            left = timeout.saturating_sub(Duration::from_millis(1));
        }
    }
}
