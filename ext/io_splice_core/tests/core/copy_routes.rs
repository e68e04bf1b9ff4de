//! Copies between real ends of every kind.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;

use crate::support::*;
use io_splice_core::Errno;
use io_splice_core::copy::{CopyStream, Hints, Linux, Pause, Side};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};

/// What bytes go to, and what they come from.
const KINDS: [Kind; 4] = INPUTS;

fn copy(input: impl AsFd, output: impl AsFd, len: Option<u64>, offset: Option<u64>) -> (Pause, CopyStream) {
    let mut copy = new_copy(&input, &output, len, offset);
    let end = finish(&mut copy, input, output);
    (end, copy)
}

#[track_caller]
fn copies(input: impl AsFd, output: impl AsFd, len: Option<u64>, offset: Option<u64>) -> u64 {
    let (end, copy) = copy(input, output, len, offset);
    assert_eq!((end, copy.in_flight()), (Pause::Done, 0));
    copy.delivered()
}

fn position(file: &mut File) -> u64 {
    file.stream_position().unwrap()
}

/// One less, this, one more.
fn around(sizes: [usize; 4]) -> impl Iterator<Item = usize> {
    [0, 1].into_iter().chain(sizes.into_iter().flat_map(|size| [size - 1, size, size + 1]))
}

#[test]
fn every_byte_arrives_between_all_kinds() {
    for from in KINDS {
        for to in KINDS {
            for size in around([io_splice_core::page_size(), 64 << 10, 128 << 10, 1 << 20]) {
                let input = Input::new(from, pattern(size));
                let output = Output::new(to);
                assert_eq!(copies(&input.fd, &output.fd, None, None), size as u64, "{from:?} to {to:?}");
                assert_same(&output.content(), pattern(size), &format!("{from:?} to {to:?}"));
                assert_same(&input.rest(), b"", "the rest");
            }
        }
    }
}

#[test]
fn what_is_known_of_an_input_changes_no_byte() {
    for (likely_file, can_unread) in [(false, true), (true, false), (true, true)] {
        let known = Hints {
            likely_file_in: likely_file,
            likely_file_out: likely_file,
            can_unread,
            ..Hints::default()
        };
        for (from, to) in KINDS.into_iter().flat_map(|from| KINDS.map(|to| (from, to))) {
            for len in [None, Some(100), Some(100_000)] {
                let input = Input::new(from, pattern(300_001));
                let output = Output::new(to);
                let mut copy = copy_by(Linux, &input.fd, &output.fd, len, None, known);
                let what = format!("{from:?} to {to:?}, {known:?}, {len:?}");
                assert_eq!(finish(&mut copy, &input.fd, &output.fd), Pause::Done, "{what}");
                let size = len.map_or(300_001, |len| len as usize);
                assert_same(&output.content(), pattern(size), &what);
                assert_same(&input.rest(), &pattern(300_001)[size..], &what);
            }
        }
    }
}

#[test]
fn ends_in_blocking_mode_get_every_byte_too() {
    let size = 300_001;
    for from in KINDS {
        for to in KINDS {
            for never_block in [false, true] {
                let input = Input::new(from, pattern(size)).in_mode(Blocking::Yes);
                let output = Output::new(to).in_mode(Blocking::Yes);
                let mut copy = copy_all(&input.fd, &output.fd);
                if never_block {
                    copy.never_block();
                }
                assert_eq!(finish(&mut copy, &input.fd, &output.fd), Pause::Done, "{from:?} to {to:?}");
                assert_same(&output.content(), pattern(size), &format!("{from:?} to {to:?}"));
            }
        }
    }
}

#[test]
fn a_len_leaves_the_rest_where_it_is() {
    let size = 300_000;
    for from in KINDS {
        for to in KINDS {
            for len in [0, 1, 4097, 65_536, 131_073, size, size + 1] {
                let input = Input::new(from, pattern(size));
                let output = Output::new(to);
                let copied = copies(&input.fd, &output.fd, Some(len as u64), None) as usize;
                assert_eq!(copied, len.min(size), "{from:?} to {to:?}");
                assert_same(&output.content(), pattern(copied), &format!("{from:?} to {to:?}"));
                assert_same(&input.rest(), &pattern(size)[copied..], "the rest");
            }
        }
    }
}

#[test]
fn from_an_offset_the_input_stays_where_it_stands() {
    let size = 200_000;
    for to in KINDS {
        for (offset, len) in
            [(0, None), (1, Some(5)), (4097, None), (size, None), (size + 1, None), (9, Some(0))]
        {
            let file = TempFile::new(pattern(size));
            let mut input = file.reader();
            input.seek(SeekFrom::Start(17)).unwrap();
            let output = Output::new(to);
            let copied = copies(&input, &output.fd, len, Some(offset as u64)) as usize;
            let expected = size.saturating_sub(offset).min(len.map_or(size, |len| len as usize));
            assert_eq!(copied, expected, "to {to:?} from {offset}");
            let begin = offset.min(size);
            assert_same(&output.content(), &pattern(begin + expected)[begin..], "from an offset");
            assert_eq!(position(&mut input), 17);
        }
    }
}

#[test]
fn what_was_read_ahead_goes_first() {
    for from in KINDS {
        for to in KINDS {
            let mut input = Input::new(from, pattern(200_000));
            // What is read ahead is in memory, and the input stands behind it.
            let rest = &pattern(200_000)[5000..];
            if from == Kind::File {
                rustix::fs::seek(&input.fd, rustix::fs::SeekFrom::Start(5000)).unwrap();
            } else {
                drop(input.rest());
                input = Input::new(from, rest);
            }
            let output = Output::new(to);
            let mut copy = copy_planned_for_all(&input.fd, &output.fd, 150_000);
            copy.prepend(pattern(5000).to_vec());
            assert_eq!(finish(&mut copy, &input.fd, &output.fd), Pause::Done);
            assert_same(&output.content(), pattern(150_000), &format!("{from:?} to {to:?}"));
            assert_same(&input.rest(), &pattern(200_000)[150_000..], "the rest");
        }
    }
}

#[test]
fn what_was_read_ahead_may_come_in_portions() {
    for from in KINDS {
        for to in KINDS {
            let input = Input::new(from, b"behind");
            let output = Output::new(to);
            let mut copy = copy_all(&input.fd, &output.fd);
            for (portion, more) in [("one ", true), ("two ", true), ("three ", false)] {
                copy.prepend(portion.into());
                copy.set_more_ahead(more);
                assert_eq!(finish(&mut copy, &input.fd, &output.fd), Pause::Done);
            }
            assert_same(&output.content(), b"one two three behind", &format!("{from:?} to {to:?}"));
        }
    }
}

#[test]
fn somebody_who_wants_to_know_is_told_of_every_mebibyte() {
    let size = (3 << 20) + 5;
    for from in KINDS {
        for to in KINDS {
            let input = Input::new(from, pattern(size));
            let output = Output::new(to);
            let (mut before, mut steps, mut told) = (0, Vec::new(), Told::default());
            let mut copy = copy_all(&input.fd, &output.fd);
            copy.report();
            let mut host = Patient::new();
            loop {
                match run_copy(&mut copy, &input.fd, &output.fd, &mut host) {
                    Pause::Done => break,
                    Pause::Progress => steps.push((copy.delivered() - before, told.is_late())),
                    other => panic!("{other:?}"),
                }
                before = copy.delivered();
            }
            // Short pieces make it a little more than a mebibyte each time, but never 2.
            let is_whole = |step: &(u64, bool)| (1 << 20..2 << 20).contains(&step.0);
            assert!(steps.iter().all(|step| is_whole(step) || step.0 > 0 && step.1), "{steps:?}");
            let late = steps.iter().any(|step| step.1);
            assert!(matches!(steps.len(), 2 | 3) || late, "{from:?} to {to:?}: {steps:?}");
            assert_same(&output.content(), pattern(size), &format!("{from:?} to {to:?}"));
        }
    }
}

#[test]
fn a_file_in_proc_is_copied_though_its_size_is_0() {
    let content = std::fs::read("/proc/filesystems").unwrap();
    assert!(!content.is_empty());
    for to in KINDS {
        let output = Output::new(to);
        let input = File::open("/proc/filesystems").unwrap();
        assert_eq!(copies(&input, &output.fd, None, None), content.len() as u64, "to {to:?}");
        assert_same(&output.content(), &content, &format!("to {to:?}"));
    }
}

#[test]
fn a_file_in_proc_of_which_some_was_read_ahead_is_copied_to_its_end() {
    let content = std::fs::read("/proc/filesystems").unwrap();
    for to in KINDS {
        let output = Output::new(to);
        let mut input = File::open("/proc/filesystems").unwrap();
        let mut ahead = vec![0; 10];
        input.read_exact(&mut ahead).unwrap();
        let mut copy = copy_all(&input, &output.fd);
        copy.prepend(ahead);
        assert_eq!(finish(&mut copy, &input, &output.fd), Pause::Done);
        assert_same(&output.content(), &content, &format!("to {to:?}"));
    }
}

#[test]
fn an_empty_file_is_copied_to_nothing() {
    for to in KINDS {
        let output = Output::new(to);
        assert_eq!(copies(TempFile::new(b"").reader(), &output.fd, None, None), 0);
        assert_same(&output.content(), b"", "nothing");
    }
}

#[test]
fn an_output_in_append_mode_gets_it_at_its_end() {
    for from in KINDS {
        let input = Input::new(from, pattern(200_000));
        let file = TempFile::new(b"before");
        assert_eq!(copies(&input.fd, file.appender(), None, None), 200_000, "from {from:?}");
        let expected = [b"before", pattern(200_000)].concat();
        assert_same(&file.content(), &expected, &format!("from {from:?}"));
    }
}

#[test]
fn a_file_copied_onto_its_own_end_ends_where_the_file_ended() {
    for (start, offset) in [(0, None), (100, None), (0, Some(0)), (0, Some(100)), (100, Some(7))] {
        let file = TempFile::new(pattern(200_000));
        let mut input = file.reader();
        input.seek(SeekFrom::Start(start)).unwrap();
        let begin = offset.unwrap_or(start) as usize;
        let copied = copies(&input, file.appender(), None, offset) as usize;
        assert_eq!(copied, 200_000 - begin);
        let expected = [pattern(200_000), &pattern(200_000)[begin..]].concat();
        assert_same(&file.content(), &expected, "the file, twice");
    }
}

#[test]
fn a_file_copied_onto_itself_where_both_overlap_ends_too() {
    let file = TempFile::new(pattern(200_000));
    let mut output = file.writer();
    output.seek(SeekFrom::Start(10)).unwrap();
    assert_eq!(copies(file.reader(), output, None, None), 200_000);
    assert_eq!(file.content().len(), 200_010);
    assert_same(&file.content()[..10], pattern(10), "what lies before");
}

#[test]
fn a_pipe_is_not_copied_into_itself() {
    let Pipe { reader, writer } = pipe_in(Blocking::No);
    assert_eq!(rustix::io::write(&writer, b"once"), Ok(4));
    let (end, copy) = copy(&reader, &writer, None, None);
    assert_eq!((end, copy.delivered(), copy.in_flight()), (Pause::Failed(Errno::INVAL), 0, 0));
    drop(writer);
    assert_eq!(read_to_end(reader), b"once");
}

#[test]
fn a_directory_is_nothing_to_read() {
    for to in KINDS {
        let output = Output::new(to);
        let (end, copy) = copy(File::open(std::env::temp_dir()).unwrap(), &output.fd, None, None);
        assert_eq!(
            (end, copy.delivered(), copy.in_flight()),
            (Pause::Failed(Errno::ISDIR), 0, 0),
            "to {to:?}"
        );
        assert_same(&output.content(), b"", "nothing");
    }
}

#[test]
fn an_end_that_is_not_open_for_it_is_refused() {
    let (read_only, write_only) = (TempFile::new(b"content"), TempFile::new(b""));
    let (end, _) = copy(write_only.writer(), TempFile::new(b"").writer(), None, None);
    assert_eq!(end, Pause::Failed(Errno::BADF));
    let (end, mut copy) = copy(read_only.reader(), write_only.reader(), None, None);
    assert_eq!(end, Pause::Failed(Errno::BADF));
    let mut input = read_only.reader();
    input.seek(SeekFrom::End(0)).unwrap();
    // It had to be read before it could be refused.
    assert_eq!(copy.in_flight(), 7);
    assert_eq!(copy.abort(Some(input.as_fd()), None), b"");
    assert_eq!(position(&mut input), 0);
}

fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_full_device_leaves_a_file_where_it_stood() {
    let file = TempFile::new(pattern(300_000));
    let mut input = file.reader();
    input.seek(SeekFrom::Start(1000)).unwrap();
    let (end, mut copy) = copy(&input, full(), None, None);
    assert_eq!((end, copy.delivered()), (Pause::Failed(Errno::NOSPC), 0));
    assert_eq!(copy.abort(Some(input.as_fd()), Some(full().as_fd())), b"");
    assert_eq!((position(&mut input), copy.in_flight()), (1000, 0));
}

#[test]
fn what_a_full_device_does_not_take_from_a_stream_is_returned() {
    for from in [Kind::Pipe, Kind::Unix, Kind::Tcp] {
        for mode in BOTH_MODES {
            let input = Input::new(from, pattern(300_000)).in_mode(mode);
            let (end, mut copy) = copy(&input.fd, full(), None, None);
            assert_eq!((end, copy.delivered()), (Pause::Failed(Errno::NOSPC), 0), "from {from:?}");
            let mut all = copy.abort(Some(input.fd.as_fd()), Some(full().as_fd()));
            drop(copy);
            all.extend(input.rest());
            assert_same(&all, pattern(300_000), &format!("from {from:?}"));
            assert_next_pipe_is_empty();
        }
    }
}

#[test]
fn a_device_without_end_gives_as_much_as_is_wanted() {
    for to in KINDS {
        let output = Output::new(to);
        let input = File::open("/dev/zero").unwrap();
        assert_eq!(copies(&input, &output.fd, Some(2_500_001), None), 2_500_001, "to {to:?}");
        assert_same(&output.content(), &vec![0; 2_500_001], &format!("to {to:?}"));
    }
}

#[test]
fn a_device_takes_everything_from_everywhere() {
    for from in KINDS {
        let input = Input::new(from, pattern(300_000));
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(copies(&input.fd, null, None, None), 300_000, "from {from:?}");
    }
}

#[test]
fn an_output_without_a_reader_is_a_broken_pipe() {
    for from in KINDS {
        let input = Input::new(from, pattern(300_000));
        let Pipe { reader, writer } = pipe_in(Blocking::No);
        drop(reader);
        let (end, mut copy) = copy(&input.fd, &writer, None, None);
        assert_eq!((end, copy.delivered()), (Pause::Failed(Errno::PIPE), 0), "from {from:?}");
        let mut all = copy.abort(Some(input.fd.as_fd()), Some(writer.as_fd()));
        all.extend(input.rest());
        assert_same(&all, pattern(300_000), &format!("from {from:?}"));
    }
}

#[test]
fn an_empty_input_and_a_full_output_are_waited_for() {
    fn waits_for(input: impl AsFd, output: impl AsFd) -> Vec<Side> {
        let mut host = Impatient::default();
        let pause = run_copy(&mut copy_all(&input, &output), &input, &output, &mut host);
        assert_eq!(pause, Pause::Wait);
        host.ends.into_iter().map(|(side, _)| side).collect()
    }
    let pipes = [(); 2].map(|()| pipe_in(Blocking::No));
    let sockets = [(); 2].map(|()| unix_pair_in(Blocking::No));
    let inputs = [pipes[0].reader.as_fd(), sockets[0].0.as_fd()];
    let outputs = [pipes[1].writer.as_fd(), sockets[1].0.as_fd()];
    for input in inputs {
        for output in outputs {
            assert_eq!(waits_for(input, output), [Side::Input]);
        }
    }
    for output in outputs {
        fill(output);
    }
    let file = TempFile::new(b"something");
    for output in outputs {
        assert_eq!(waits_for(file.reader(), output), [Side::Output]);
    }
}

#[test]
fn a_copy_given_up_midway_accounts_for_every_byte() {
    for from in KINDS {
        for to in [Kind::Pipe, Kind::Unix, Kind::Tcp] {
            for mode in BOTH_MODES {
                let size = 3_000_000;
                let input = Input::new(from, pattern(size)).in_mode(mode);
                let (reader, output) = stream(to);
                if to == Kind::Tcp {
                    // By default they would take all of it.
                    set_socket_send_buffer_size(&output, 64 << 10).unwrap();
                    set_socket_recv_buffer_size(&reader, 64 << 10).unwrap();
                }
                set_mode(&output, mode);
                let mut copy = copy_all(&input.fd, &output);
                copy.never_block();
                // Nobody reads, so it comes to stand with the output full.
                loop {
                    let mut host = Impatient::default();
                    match (run_copy(&mut copy, &input.fd, &output, &mut host), &host.ends[..]) {
                        (Pause::Wait, [(Side::Output, _)]) => break,
                        (Pause::Wait, _) => std::thread::yield_now(),
                        other => panic!("{other:?}"),
                    }
                }
                let returned = copy.abort(Some(input.fd.as_fd()), Some(output.as_fd()));
                let delivered = copy.delivered() as usize;
                assert!((1..size).contains(&delivered), "{delivered}");
                drop(copy);
                drop(output);
                assert_same(&read_to_end(reader), pattern(delivered), &format!("{from:?} to {to:?}"));
                let rest = [returned, input.rest()].concat();
                assert_same(&rest, &pattern(size)[delivered..], &format!("{from:?} to {to:?}, the rest"));
            }
        }
    }
}

#[test]
fn a_peer_that_ends_its_side_is_the_end() {
    let (one, other) = tcp_pair();
    (&other).write_all(b"all").unwrap();
    other.shutdown(Shutdown::Write).unwrap();
    set_mode(&one, Blocking::No);
    let file = TempFile::new(b"");
    assert_eq!(copies(&one, file.writer(), None, None), 3);
    assert_eq!(file.content(), b"all");
}

#[test]
fn twenty_thousand_segments_of_one_byte_pass_through() {
    let (one, other) = tcp_pair();
    set_mode(&one, Blocking::No);
    let feeder = std::thread::spawn(move || send_one_by_one(other, pattern(20_000)));
    let output = Output::new(Kind::Unix);
    assert_eq!(copies(&one, &output.fd, None, None), 20_000);
    feeder.join().unwrap();
    assert_same(&output.content(), pattern(20_000), "one by one");
}

#[test]
fn to_its_size_a_file_is_copied_as_it_was_when_the_copy_began() {
    let input = file(pattern(100_000));
    let known = Hints { to_size: true, ..Hints::default() };
    for to_file in [true, false] {
        let mut grown = reopen(&input, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::APPEND);
        (&input).seek(SeekFrom::Start(7)).unwrap();
        let (socket, peer) = unix_pair_in(Blocking::No);
        let target = file(b"");
        let output = if to_file { target.as_fd() } else { socket.as_fd() };
        let before = input.metadata().unwrap().len();
        let mut copy = copy_by(Linux, &input, output, None, None, known);
        grown.write_all(b"later").unwrap();
        let reader = std::thread::spawn(move || read_to_end(peer));
        assert_eq!(finish(&mut copy, &input, output), Pause::Done);
        assert_eq!((copy.delivered(), rustix::fs::tell(&input)), (before - 7, Ok(before)));
        drop(socket);
        reader.join().unwrap();
    }
}
