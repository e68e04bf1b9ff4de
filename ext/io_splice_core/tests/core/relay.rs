//! Relays between two real sides, and what they wait with.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::*;
use io_splice_core::copy::{Direction, Ends, Host, Relay, RelayPause, Side, Timeouts, Waited};
use io_splice_core::{Awaited, EpollSet, Errno, page_size, set_pipe_size, wait_until_ready};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::set_socket_linger;
use rustix::net::{Shutdown, shutdown};

const LONG: Duration = Duration::from_secs(3600);
const BOTH: [usize; 2] = [0, 1];

const KINDS: [Kind; 3] = [Kind::Unix, Kind::Tcp, Kind::Pipe];

fn kinds() -> impl Iterator<Item = (Kind, Kind)> {
    KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other)))
}

/// What one end of a relay is given, and what its peer has; `None` is closed.
struct Party {
    input: OwnedFd,
    output: Option<OwnedFd>,
    far_in: Option<File>,
    far_out: Option<File>,
}

impl Party {
    fn new(kind: Kind) -> Self {
        let (input, far_out) = stream(kind);
        let (far_in, output) = match kind {
            Kind::Pipe => stream(kind),
            // A socket is both.
            _ => (far_out.try_clone().unwrap(), input.try_clone().unwrap()),
        };
        set_mode(&input, Blocking::No);
        set_mode(&output, Blocking::No);
        Self { input, output: Some(output), far_in: Some(far_in.into()), far_out: Some(far_out.into()) }
    }

    fn blocking(self) -> Self {
        set_mode(&self.input, Blocking::Yes);
        set_mode(self.output(), Blocking::Yes);
        self
    }

    fn output(&self) -> &OwnedFd {
        self.output.as_ref().unwrap()
    }

    /// Returns when it has come.
    fn says(&mut self, bytes: &[u8]) {
        self.far_out.as_mut().unwrap().write_all(bytes).unwrap();
        self.learns_of(PollFlags::IN);
    }

    /// The same.
    fn hangs_up(&mut self) {
        hang_up(self.far_out.take().unwrap());
        self.learns_of(PollFlags::RDHUP);
    }

    /// The connection is reset by the peer. The same.
    fn resets(&mut self) {
        set_socket_linger(self.far_in.as_ref().unwrap(), Some(Duration::ZERO)).unwrap();
        (self.far_in, self.far_out) = (None, None);
        self.learns_of(PollFlags::RDHUP);
    }

    fn learns_of(&self, events: PollFlags) {
        let guard = (*GUARD).try_into().unwrap();
        assert_eq!(poll(&mut [PollFd::new(&self.input, events)], Some(&guard)), Ok(1));
    }

    fn hears(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.far_in.as_mut().unwrap().read_exact(&mut bytes).unwrap();
        bytes
    }

    fn hears_the_end(&mut self) {
        assert_eq!(self.far_in.as_mut().unwrap().read(&mut [0]).unwrap(), 0);
    }

    /// What has come by now.
    fn has_heard(&mut self) -> Vec<u8> {
        let (bytes, ended) = available_and_end(self.far_in.as_ref().unwrap());
        assert!(!ended);
        bytes
    }

    /// Says it in a thread, and hangs up.
    fn speaks(&mut self, bytes: &'static [u8]) -> JoinHandle<()> {
        let mut far = self.far_out.take().unwrap();
        std::thread::spawn(move || {
            far.write_all(bytes).unwrap();
            hang_up(far);
        })
    }

    /// Hears all there is in a thread.
    fn listens(&mut self) -> JoinHandle<Vec<u8>> {
        let far = self.far_in.take().unwrap();
        std::thread::spawn(move || read_to_end(far))
    }

    /// Fills the way to the peer. TCP goes on moving bytes into the peer's buffer for a while.
    fn fill(&self) -> usize {
        let mut filled = 0;
        loop {
            let more = fill(self.output());
            filled += more;
            if more == 0 {
                break;
            }
            // What TCP passes on meanwhile makes room for some bytes, before poll(2) says so.
            std::thread::sleep(*GUARD / 1200);
        }
        filled
    }
}

fn hang_up(far: File) {
    // A pipe is closed, and that is all.
    let _ = shutdown(&far, Shutdown::Write);
}

type Parties = [Party; 2];

fn between(one: Kind, other: Kind) -> Parties {
    [Party::new(one), Party::new(other)]
}

fn relay(parties: &Parties, idle_timeout: Option<Duration>) -> Relay {
    relay_with(parties, [Timeouts::default(); 2], idle_timeout)
}

fn relay_with(parties: &Parties, timeouts: [Timeouts; 2], idle_timeout: Option<Duration>) -> Relay {
    let [a, b] = parties;
    let ends = [(a, b), (b, a)].map(|(from, to)| (from.input.as_fd(), to.output().as_fd()));
    new_relay(ends, timeouts, idle_timeout)
}

/// Runs a relay once.
fn run(relay: &mut Relay, parties: &Parties, host: &mut impl Host) -> RelayPause {
    let ends: Ends<'_> = BOTH.map(|way| {
        let (from, to) = (&parties[way], &parties[1 - way]);
        (!relay.is_over(Direction::BOTH[way])).then(|| [from.input.as_fd(), to.output().as_fd()])
    });
    run_relay(relay, ends, host)
}

/// Runs a relay on and on, closing pipes when it says so, until something else is to say.
fn go_on(relay: &mut Relay, parties: &mut Parties, host: &mut impl Host) -> RelayPause {
    loop {
        match run(relay, parties, host) {
            RelayPause::Ended(direction) => {
                parties[1 - direction as usize].output = None;
                relay.passed_on(direction);
            }
            pause => return pause,
        }
    }
}

#[track_caller]
fn relays(mut parties: Parties, said: [&'static [u8]; 2], what: &str) {
    let mut relay = relay(&parties, None);
    let listening = BOTH.map(|way| parties[1 - way].listens());
    let speaking = BOTH.map(|way| parties[way].speaks(said[way]));
    assert_eq!(go_on(&mut relay, &mut parties, &mut Patient::new()), RelayPause::Done, "{what}");
    assert_eq!(relay.delivered(), said.map(|bytes| bytes.len() as u64), "{what}");
    for (heard, said) in listening.into_iter().zip(said) {
        assert_same(&heard.join().unwrap(), said, what);
    }
    speaking.into_iter().for_each(|thread| thread.join().unwrap());
    assert_next_pipe_is_empty();
}

#[test]
fn every_byte_arrives_in_both_directions() {
    for (one, other) in kinds() {
        for (to_b, to_a) in [(0, 0), (1, 0), (0, 1), (65_537, 3_000_000), (2_000_001, 1 << 20)] {
            let what = format!("{one:?} and {other:?}, {to_b} and {to_a} bytes");
            relays(between(one, other), [pattern(to_b), &pattern(7 + to_a)[7..]], &what);
        }
    }
}

#[test]
fn sides_in_blocking_mode_get_every_byte_too() {
    for (one, other) in kinds() {
        let parties = between(one, other).map(Party::blocking);
        relays(parties, [pattern(400_001), &pattern(300_000)[9..]], &format!("{one:?} and {other:?}"));
    }
}

#[test]
fn a_side_in_blocking_mode_that_takes_nothing_does_not_hold_up_the_other_direction() {
    for (one, other) in kinds() {
        let parties = between(one, other);
        parties[1].fill();
        let mut parties = parties.map(Party::blocking);
        parties[0].says(b"held up");
        parties[1].says(b"passes");
        let mut relay = relay(&parties, None);
        assert_eq!(run(&mut relay, &parties, &mut Impatient::default()), RelayPause::Wait);
        assert_eq!(parties[0].hears(6), b"passes", "{one:?} and {other:?}");
    }
}

#[test]
fn a_side_in_blocking_mode_is_not_given_more_than_it_takes_at_once() {
    for (one, other) in kinds() {
        let mut parties = between(one, other).map(Party::blocking);
        parties[0].input = File::open("/dev/zero").unwrap().into();
        let mut relay = relay(&parties, None);
        let (done, watched) = channel();
        let waiting = std::thread::spawn(move || {
            let pause = run(&mut relay, &parties, &mut Impatient::default());
            done.send(pause).unwrap();
            parties
        });
        let pause = watched.recv_timeout(*GUARD).expect("it sits in the kernel");
        assert_eq!(pause, RelayPause::Wait, "{one:?} and {other:?}");
        drop(waiting.join().unwrap());
    }
}

#[test]
fn the_end_of_one_direction_is_passed_on_while_the_other_goes_on() {
    for (one, other) in kinds() {
        for first in BOTH {
            let last = 1 - first;
            let mut parties = between(one, other);
            let mut relay = relay(&parties, None);
            let mut host = Impatient::default();
            parties[first].says(b"request");
            parties[first].hangs_up();
            assert_eq!(go_on(&mut relay, &mut parties, &mut host), RelayPause::Wait);
            assert_eq!(
                (relay.is_over(Direction::BOTH[first]), relay.is_over(Direction::BOTH[last])),
                (true, false)
            );
            assert_eq!(host.ends, [(Side::Input, parties[last].input.as_raw_fd())]);
            assert_eq!(parties[last].hears(7), b"request");
            parties[last].hears_the_end();
            for _ in 0..3 {
                parties[last].says(b"answer");
                assert_eq!(go_on(&mut relay, &mut parties, &mut host), RelayPause::Wait);
                assert_eq!(parties[first].hears(6), b"answer", "{one:?} and {other:?}");
            }
            assert_eq!(parties[first].has_heard(), b"", "and not the end");
            parties[last].hangs_up();
            assert_eq!(go_on(&mut relay, &mut parties, &mut host), RelayPause::Done);
            parties[first].hears_the_end();
            assert_eq!((relay.delivered()[first], relay.delivered()[last]), (7, 18));
        }
    }
}

#[test]
fn the_end_is_passed_on_only_behind_the_last_byte() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let filled = parties[1].fill();
        parties[0].says(b"the last");
        parties[0].hangs_up();
        let mut relay = relay(&parties, None);
        assert_eq!(run(&mut relay, &parties, &mut Impatient::default()), RelayPause::Wait);
        assert!(!relay.is_over(Direction::AToB), "{one:?} and {other:?}, {filled}");
        let heard = parties[1].listens();
        parties[1].hangs_up();
        assert_eq!(go_on(&mut relay, &mut parties, &mut Patient::new()), RelayPause::Done);
        assert_eq!(&heard.join().unwrap()[filled..], b"the last", "{one:?} and {other:?}");
    }
}

#[test]
fn what_is_no_socket_is_left_for_the_caller_to_close() {
    let mut parties = between(Kind::Pipe, Kind::Pipe);
    let mut relay = relay(&parties, None);
    let mut host = Impatient::default();
    parties[0].hangs_up();
    for _ in 0..2 {
        assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Ended(Direction::AToB));
        assert!(!relay.is_over(Direction::AToB));
        assert_eq!(parties[1].has_heard(), b"", "and not the end");
    }
    parties[1].output = None;
    relay.passed_on(Direction::AToB);
    parties[1].hears_the_end();
    assert!(relay.is_over(Direction::AToB));
    assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Wait);
    parties[1].hangs_up();
    assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Ended(Direction::BToA));
    relay.passed_on(Direction::BToA);
    assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Done);
}

#[test]
fn a_peer_that_is_gone_altogether_has_ended() {
    for kind in [Kind::Unix, Kind::Tcp] {
        let mut parties = between(kind, kind);
        parties[0].says(b"goodbye");
        parties[0].far_in = None;
        parties[0].hangs_up();
        let mut relay = relay(&parties, None);
        assert_eq!(run(&mut relay, &parties, &mut Impatient::default()), RelayPause::Wait);
        assert_eq!(parties[1].hears(7), b"goodbye");
        parties[1].hangs_up();
        assert_eq!(run(&mut relay, &parties, &mut Patient::new()), RelayPause::Done);
    }
}

#[test]
fn what_was_read_ahead_goes_first() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let mut relay = relay(&parties, None);
        relay.prepend(Direction::AToB, pattern(300_000).to_vec());
        relay.prepend(Direction::BToA, b"220 ".to_vec());
        let listening = parties[1].listens();
        parties[0].says(b"behind");
        parties[1].says(b"hello");
        parties.iter_mut().for_each(Party::hangs_up);
        assert_eq!(go_on(&mut relay, &mut parties, &mut Patient::new()), RelayPause::Done);
        assert_eq!(relay.delivered(), [300_006, 9]);
        assert_same(&listening.join().unwrap(), &[pattern(300_000), b"behind"].concat(), "to b");
        assert_eq!(parties[0].hears(9), b"220 hello");
    }
}

#[test]
fn what_was_read_ahead_may_come_in_portions() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let mut relay = relay(&parties, None);
        parties[0].says(b"behind");
        parties[1].says(b"hello");
        parties.iter_mut().for_each(Party::hangs_up);
        for portion in ["one ", "two "] {
            relay.prepend(Direction::AToB, portion.into());
            relay.set_more_ahead(Direction::AToB, true);
            let pause = go_on(&mut relay, &mut parties, &mut Patient::new());
            assert_eq!(pause, RelayPause::ReadAhead(Direction::AToB));
        }
        relay.prepend(Direction::AToB, b"three ".to_vec());
        relay.set_more_ahead(Direction::AToB, false);
        assert_eq!(go_on(&mut relay, &mut parties, &mut Patient::new()), RelayPause::Done);
        assert_eq!(relay.delivered(), [20, 5]);
        assert_eq!(parties[1].hears(20), b"one two three behind");
        assert_eq!(parties[0].hears(5), b"hello");
    }
}

#[test]
fn a_direction_that_never_has_to_wait_does_not_keep_the_other_from_its_turn() {
    for endless in BOTH {
        let mut parties = between(Kind::Unix, Kind::Unix);
        let mut far_in = parties[endless].far_in.take().unwrap();
        parties[1 - endless].says(b"small");
        parties[endless].input = File::open("/dev/zero").unwrap().into();
        parties[1 - endless].output = Some(File::options().write(true).open("/dev/null").unwrap().into());
        let mut relay = relay(&parties, None);
        let mut chances = 10_000_u32;
        // Ends it when the other side has heard something, or after so many chances.
        let mut host = MadeUp::new(
            |_, timeout| {
                assert_eq!(timeout, Some(Duration::ZERO), "there is nothing to wait for");
                Waited::TimedOut
            },
            || {
                chances -= 1;
                wait_until_ready(Side::Input, far_in.as_fd(), Some(Duration::ZERO)) == Waited::Ready
                    || chances == 0
            },
        );
        for _ in 0..10 {
            assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Interrupted);
        }
        assert!(chances > 0, "direction {endless} has taken all the turns");
        let mut heard = [0; 5];
        far_in.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"small");
    }
}

#[test]
fn an_interrupt_ends_a_turn_and_the_next_one_goes_on() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let listening = BOTH.map(|way| parties[1 - way].listens());
        let said: [&[u8]; 2] = [pattern(300_000), &pattern(300_001)[1..]];
        let speaking = BOTH.map(|way| parties[way].speaks(said[way]));
        let mut relay = relay(&parties, None);
        let guard = Instant::now() + *GUARD;
        let mut wanted = MadeUp::new(|_, _| Waited::Interrupted, || true);
        loop {
            assert!(Instant::now() < guard);
            match go_on(&mut relay, &mut parties, &mut wanted) {
                RelayPause::Interrupted => std::thread::yield_now(),
                pause => break assert_eq!(pause, RelayPause::Done),
            }
            // What a signal interrupts is looked at again afterwards.
            let pause = go_on(&mut relay, &mut parties, &mut Impatient::default());
            if pause == RelayPause::Done {
                break;
            }
            assert_eq!(pause, RelayPause::Wait);
        }
        for (heard, said) in listening.into_iter().zip(said) {
            assert_same(&heard.join().unwrap(), said, &format!("{one:?} and {other:?}"));
        }
        speaking.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn it_waits_for_the_inputs_and_for_an_output_that_is_full() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let mut relay = relay(&parties, None);
        let mut host = Impatient::default();
        assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Wait);
        let inputs = [0, 1].map(|way: usize| (Side::Input, parties[way].input.as_raw_fd()));
        assert_eq!((&host.ends[..], &host.timeouts[..]), (&inputs[..], &[None][..]));
        parties[1].fill();
        parties[0].says(b"too much");
        assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Wait);
        let output = (Side::Output, parties[1].output().as_raw_fd());
        assert_eq!(host.ends, [output, inputs[1]], "{one:?} and {other:?}");
    }
}

#[test]
fn what_is_held_when_it_is_given_up_comes_back() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        let filled = parties[1].fill();
        parties[0].says(b"too much");
        let mut relay = relay(&parties, None);
        assert_eq!(run(&mut relay, &parties, &mut Impatient::default()), RelayPause::Wait);
        let mut back = relay.abort(Direction::AToB, None, None);
        parties[0].hangs_up();
        set_mode(&parties[0].input, Blocking::Yes);
        File::from(parties[0].input.try_clone().unwrap()).read_to_end(&mut back).unwrap();
        let sent = relay.delivered()[0] as usize;
        assert_eq!(back, b"too much"[sent..], "{one:?} and {other:?}");
        assert_eq!(parties[1].hears(filled + sent)[filled..], b"too much"[..sent]);
        drop(relay);
        assert_next_pipe_is_empty();
    }
}

// Errors

#[test]
fn a_reset_is_reported_when_both_directions_have_delivered_what_had_arrived() {
    for broken in BOTH {
        let whole = 1 - broken;
        let mut parties = between(Kind::Tcp, Kind::Tcp);
        parties[broken].says(pattern(50_000));
        parties[whole].says(b"a request");
        parties[broken].resets();
        let mut relay = relay(&parties, None);
        let pause = go_on(&mut relay, &mut parties, &mut Patient::new());
        assert!(
            matches!(pause, RelayPause::Failed(_, Errno::CONNRESET | Errno::PIPE)),
            "party {broken}: {pause:?}"
        );
        assert_eq!((relay.delivered()[broken], relay.delivered()[whole]), (50_000, 0));
        assert_same(&parties[whole].hears(50_000), pattern(50_000), "from the one that was reset");
        // What could not be delivered is not lost.
        let mut back = relay.abort(Direction::BOTH[whole], None, None);
        back.extend(read_now(&parties[whole].input));
        assert_eq!(back, b"a request");
    }
}

fn read_now(input: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; 100];
    let read = rustix::io::read(input, &mut bytes[..]).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

#[test]
fn the_other_direction_delivers_all_there_is_before_an_error_is_reported() {
    for broken in BOTH {
        let whole = 1 - broken;
        let mut parties = between(Kind::Unix, Kind::Unix);
        let (from, to) = (TempFile::new(pattern(3_000_000)), TempFile::new(b""));
        parties[broken].says(b"for nobody");
        let nobody = Party { far_in: None, ..Party::new(Kind::Pipe) };
        parties[whole] = Party { input: from.reader().into(), ..nobody };
        parties[broken].output = Some(to.writer().into());
        let mut relay = relay(&parties, None);
        let pause = go_on(&mut relay, &mut parties, &mut Patient::new());
        assert_eq!(pause, RelayPause::Failed(Direction::BOTH[broken], Errno::PIPE));
        assert_same(&to.content(), pattern(3_000_000), "the other direction");
    }
}

#[test]
fn who_is_gone_by_then_need_not_be_told_of_the_end() {
    let mut parties = between(Kind::Unix, Kind::Tcp);
    let mut relay = relay(&parties, None);
    parties[0].says(b"request");
    parties[1].says(b"answer");
    hang_up(parties[1].far_out.take().unwrap());
    let host = &mut Impatient::default();
    while !relay.is_over(Direction::BToA) {
        assert_eq!(run(&mut relay, &parties, host), RelayPause::Wait);
    }
    parties[1].resets();
    parties[0].hangs_up();
    assert_eq!(run(&mut relay, &parties, host), RelayPause::Done);
    assert_eq!(relay.delivered(), [7, 6]);
}

#[test]
fn an_error_says_in_which_direction_it_came() {
    for broken in BOTH {
        let mut parties = between(Kind::Unix, Kind::Unix);
        parties[broken].says(b"for nobody");
        parties[1 - broken] = Party::new(Kind::Pipe);
        parties[1 - broken].far_in = None;
        let mut relay = relay(&parties, None);
        let pause = run(&mut relay, &parties, &mut Impatient::default());
        assert_eq!(pause, RelayPause::Failed(Direction::BOTH[broken], Errno::PIPE));
        assert_eq!(run(&mut relay, &parties, &mut Impatient::default()), pause);
    }
}

// Timeouts

#[test]
fn idle_is_when_no_byte_has_gone_in_either_direction() {
    for idle_timeout in [Duration::ZERO, Duration::from_millis(5)] {
        let parties = between(Kind::Unix, Kind::Tcp);
        let mut relay = relay(&parties, Some(idle_timeout));
        let begun = Instant::now();
        assert_eq!(run(&mut relay, &parties, &mut Patient::new()), RelayPause::Idle);
        assert!(begun.elapsed() >= idle_timeout);
        assert_eq!(relay.delivered(), [0, 0]);
    }
}

#[test]
fn what_is_there_goes_before_it_is_idle() {
    for (one, other) in kinds() {
        let mut parties = between(one, other);
        parties[0].says(b"there");
        parties[1].says(b"already");
        let mut relay = relay(&parties, Some(Duration::ZERO));
        assert_eq!(run(&mut relay, &parties, &mut Patient::new()), RelayPause::Idle);
        assert_eq!(relay.delivered(), [5, 7]);
        parties.iter_mut().for_each(Party::hangs_up);
        assert_eq!(go_on(&mut relay, &mut parties, &mut Patient::new()), RelayPause::Done);
    }
}

#[test]
fn a_timeout_too_long_to_be_reached_is_none() {
    let mut parties = between(Kind::Unix, Kind::Unix);
    let mut relay = relay(&parties, Some(Duration::MAX));
    let mut host = Impatient::default();
    assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Wait);
    assert_eq!(host.timeouts, [None]);
    parties.iter_mut().for_each(Party::hangs_up);
    assert_eq!(run(&mut relay, &parties, &mut host), RelayPause::Done);
}

/// Runs the relay until it has to wait. The time it then has is all of it after a byte, and else less.
#[track_caller]
fn waits_as_long_as_it_should(relay: &mut Relay, parties: &Parties) {
    let gone = |relay: &mut Relay| (relay.delivered(), Direction::BOTH.map(|way| relay.in_flight(way)));
    let before = gone(relay);
    let mut host = Impatient::default();
    std::thread::sleep(Duration::from_millis(1));
    assert_eq!(run(relay, parties, &mut host), RelayPause::Wait);
    let longest = host.timeouts.into_iter().max().unwrap().unwrap();
    match gone(relay) == before {
        true => assert!(longest < LONG, "nothing has gone, and the time begins anew"),
        false => assert_eq!(longest, LONG, "bytes have gone, and the time does not begin anew"),
    }
}

#[test]
fn a_byte_in_one_direction_begins_the_time_anew() {
    for (one, other) in kinds() {
        for from in BOTH {
            let mut parties = between(one, other);
            let mut relay = relay(&parties, Some(LONG));
            for number in 1..=3 {
                waits_as_long_as_it_should(&mut relay, &parties);
                parties[from].says(b"x");
                waits_as_long_as_it_should(&mut relay, &parties);
                assert_eq!(relay.delivered()[from], number, "{one:?} and {other:?}");
            }
        }
    }
}

#[test]
fn a_byte_that_goes_out_of_what_is_held_begins_the_time_anew() {
    for to in BOTH {
        let mut parties = between(Kind::Pipe, Kind::Pipe);
        set_pipe_size(parties[to].output().as_fd(), page_size()).unwrap();
        let mut relay = relay(&parties, Some(LONG));
        relay.prepend(Direction::BOTH[1 - to], pattern(10 * page_size()).to_vec());
        for page in pattern(10 * page_size()).chunks(page_size()) {
            waits_as_long_as_it_should(&mut relay, &parties);
            waits_as_long_as_it_should(&mut relay, &parties);
            assert_same(&parties[to].has_heard(), page, "what was held");
        }
    }
}

#[test]
fn an_end_that_is_not_ready_in_time_is_named() {
    let soon = Some(Duration::from_millis(1));
    let late = Some(LONG);
    for way in BOTH {
        let mut parties = between(Kind::Unix, Kind::Unix);
        let patient = Timeouts { input: late, output: late };
        let mut timeouts = [patient; 2];
        timeouts[way].input = soon;
        let pause = run(&mut relay_with(&parties, timeouts, late), &parties, &mut Patient::new());
        assert_eq!(pause, RelayPause::TimedOut(Direction::BOTH[way], Side::Input));

        timeouts[way] = Timeouts { output: soon, ..patient };
        parties[1 - way].fill();
        parties[way].says(b"too much");
        let pause = run(&mut relay_with(&parties, timeouts, late), &parties, &mut Patient::new());
        assert_eq!(pause, RelayPause::TimedOut(Direction::BOTH[way], Side::Output));

        let pause = run(&mut relay_with(&parties, [patient; 2], soon), &parties, &mut Patient::new());
        assert_eq!(pause, RelayPause::Idle);
    }
}

// The watch

fn is_readable(watch: &EpollSet) -> bool {
    wait_until_ready(Side::Input, watch.as_fd(), Some(Duration::ZERO)) == Waited::Ready
}

fn awaited(side: Side, fd: BorrowedFd<'_>) -> Awaited<'_> {
    Awaited { side, fd, ready: false }
}

#[test]
fn a_watch_is_readable_when_one_of_the_ends_is_ready() {
    for kind in KINDS {
        let mut party = Party::new(kind);
        let other = Party::new(kind);
        let mut watch = EpollSet::new().unwrap();
        let input = [&party, &other].map(|party| party.input.try_clone().unwrap());
        watch.set(&[awaited(Side::Input, input[0].as_fd()), awaited(Side::Input, input[1].as_fd())]).unwrap();
        assert!(!is_readable(&watch));
        party.says(b"x");
        assert!(is_readable(&watch) && is_readable(&watch));
        read_now(&input[0]);
        assert!(!is_readable(&watch));
        party.hangs_up();
        assert!(is_readable(&watch));
    }
}

#[test]
fn a_watch_of_an_output_is_readable_when_it_takes_bytes() {
    for kind in KINDS {
        let mut party = Party::new(kind);
        let output = party.output().try_clone().unwrap();
        let mut watch = EpollSet::new().unwrap();
        watch.set(&[awaited(Side::Output, output.as_fd())]).unwrap();
        assert!(is_readable(&watch));
        let filled = party.fill();
        assert!(!is_readable(&watch), "{kind:?}");
        party.hears(filled);
        wait_until_ready(Side::Output, output.as_fd(), Some(*GUARD));
        assert!(is_readable(&watch), "{kind:?}");
    }
}

#[test]
fn a_watch_watches_what_was_set_last_and_nothing_else() {
    let mut parties = between(Kind::Unix, Kind::Unix);
    let mut watch = EpollSet::new().unwrap();
    assert!(!is_readable(&watch));
    parties[0].says(b"x");
    for _ in 0..2 {
        watch.set(&[awaited(Side::Input, parties[0].input.as_fd())]).unwrap();
        assert!(is_readable(&watch));
        watch.set(&[awaited(Side::Input, parties[1].input.as_fd())]).unwrap();
        assert!(!is_readable(&watch));
        watch.set(&[awaited(Side::Output, parties[1].input.as_fd())]).unwrap();
        assert!(is_readable(&watch));
        watch.set(&[]).unwrap();
        assert!(!is_readable(&watch));
    }
}

#[test]
fn a_watch_can_watch_one_end_for_both() {
    let mut party = Party::new(Kind::Unix);
    let near = party.input.try_clone().unwrap();
    let filled = party.fill();
    let mut watch = EpollSet::new().unwrap();
    for order in [[Side::Input, Side::Output], [Side::Output, Side::Input]] {
        watch.set(&order.map(|side| awaited(side, near.as_fd()))).unwrap();
        assert!(!is_readable(&watch));
        party.says(b"x");
        assert!(is_readable(&watch));
        read_now(&near);
        assert!(!is_readable(&watch));
    }
    party.hears(filled);
    assert!(is_readable(&watch));
}

#[test]
fn a_watch_notices_that_a_number_is_of_another_file() {
    let quiet = Party::new(Kind::Unix);
    let mut loud = Party::new(Kind::Unix);
    loud.says(b"x");
    let mut watch = EpollSet::new().unwrap();
    let mut number = quiet.input;
    watch.set(&[awaited(Side::Input, number.as_fd())]).unwrap();
    assert!(!is_readable(&watch));
    // Nobody else has the file of the quiet party, so that its number is free for the loud one.
    drop(quiet.output);
    rustix::io::dup2(&loud.input, &mut number).unwrap();
    watch.set(&[awaited(Side::Input, number.as_fd())]).unwrap();
    assert!(is_readable(&watch));
}

#[test]
fn a_watch_refuses_what_cannot_be_waited_for() {
    let mut watch = EpollSet::new().unwrap();
    assert_eq!(watch.set(&[awaited(Side::Input, closed())]), Err(Errno::BADF));
    let file = TempFile::new(b"always ready");
    assert_eq!(watch.set(&[awaited(Side::Input, file.reader().as_fd())]), Err(Errno::PERM));
    let mut party = Party::new(Kind::Unix);
    watch.set(&[awaited(Side::Input, party.input.as_fd())]).unwrap();
    assert!(!is_readable(&watch));
    party.says(b"x");
    assert!(is_readable(&watch));
}
