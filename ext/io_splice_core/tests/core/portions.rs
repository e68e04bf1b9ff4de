//! Bytes that a copy reads into memory of the caller's, and writes from it.

use std::io::{Seek, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crate::support::*;
use io_splice_core::copy::{CopyStream, Hints, Pause, Plan, Timeouts};
use io_splice_core::{Errno, Side, Waited};

const MIB: usize = 1 << 20;

fn reading(input: impl AsFd, offset: Option<u64>) -> CopyStream {
    let plan = Plan::for_input(input.as_fd(), offset, Hints::default()).unwrap();
    CopyStream::new(plan, None, offset)
}

fn writing(output: impl AsFd) -> CopyStream {
    CopyStream::new(Plan::for_output(output.as_fd(), Hints::default()).unwrap(), None, None)
}

fn read(copy: &mut CopyStream, input: impl AsFd, size: usize) -> Result<Vec<u8>, Pause> {
    let mut buffer = vec![0; size];
    let read = copy.read_portion(input.as_fd(), &mut buffer, &mut Impatient::default())?;
    buffer.truncate(read);
    Ok(buffer)
}

fn write(copy: &mut CopyStream, output: impl AsFd, bytes: &mut &[u8]) -> Pause {
    copy.write_portion(output.as_fd(), bytes, &mut Impatient::default())
}

#[test]
fn a_file_is_read_as_far_as_there_is_memory_and_to_its_end() {
    for likely_file_in in [false, true] {
        let mut input = file(pattern(10_000));
        let hints = Hints { likely_file_in, ..Hints::default() };
        let mut copy = CopyStream::new(Plan::for_input(input.as_fd(), None, hints).unwrap(), None, None);
        assert_eq!(copy.portion_size(), 10_001);
        assert_same(&read(&mut copy, &input, 4000).unwrap(), &pattern(10_000)[..4000], "the first");
        assert_eq!(copy.portion_size(), 6001);
        assert_same(&read(&mut copy, &input, 9000).unwrap(), &pattern(10_000)[4000..], "the second");
        assert_eq!(input.stream_position().unwrap(), 10_000);
        assert_eq!(read(&mut copy, &input, 9000), Ok(Vec::new()));
        assert_eq!(read(&mut copy, &input, 0), Ok(Vec::new()));
    }
}

#[test]
fn what_was_read_of_a_file_can_be_sought_back_over() {
    let mut input = file(pattern(10_000));
    let mut copy = reading(&input, None);
    read(&mut copy, &input, 4000).unwrap();
    assert!(copy.seek_back(Some(input.as_fd()), 1000));
    assert_eq!(input.stream_position().unwrap(), 3000);
}

#[test]
fn from_an_offset_the_position_stays() {
    let mut input = file(pattern(10_000));
    let mut copy = reading(&input, Some(5000));
    assert_same(&read(&mut copy, &input, 3000).unwrap(), &pattern(10_000)[5000..8000], "the first");
    assert_same(&read(&mut copy, &input, 3000).unwrap(), &pattern(10_000)[8000..], "the second");
    assert!(copy.seek_back(Some(input.as_fd()), 1000));
    assert_eq!(input.stream_position().unwrap(), 0);
}

#[test]
fn what_has_no_position_has_no_offset_and_nothing_is_sought_back_over() {
    let pipe = pipe_in(Blocking::No).holding(b"bytes");
    assert_eq!(Plan::for_input(pipe.reader.as_fd(), Some(1), Hints::default()).err(), Some(Errno::SPIPE));
    let mut copy = reading(&pipe.reader, None);
    assert_eq!(read(&mut copy, &pipe.reader, 3), Ok(b"byt".to_vec()));
    assert!(!copy.seek_back(Some(pipe.reader.as_fd()), 3));
    assert!(!copy.seek_back(None, 3));
}

#[test]
fn what_has_nothing_yet_is_waited_for() {
    for mode in [Blocking::No, Blocking::Yes] {
        let Pipe { reader, mut writer } = pipe_in(mode);
        let mut copy = reading(&reader, None);
        assert_eq!(read(&mut copy, &reader, 100), Err(Pause::Wait));
        writer.write_all(b"bytes").unwrap();
        assert_eq!(read(&mut copy, &reader, 100), Ok(b"bytes".to_vec()));
        drop(writer);
        assert_eq!(read(&mut copy, &reader, 100), Ok(Vec::new()));
    }
}

#[test]
fn an_interrupt_and_a_timeout_end_the_wait() {
    let Pipe { reader, writer: _writer } = pipe_in(Blocking::No);
    let mut copy = reading(&reader, None);
    let mut host = MadeUp::new(|_: &mut [_], _| Waited::Interrupted, || false);
    assert_eq!(copy.read_portion(reader.as_fd(), &mut [0; 9], &mut host), Err(Pause::Interrupted));
    let timeout = Some(Duration::from_millis(1));
    copy.set_timeouts(Timeouts { input: timeout, output: None });
    assert_eq!(
        copy.read_portion(reader.as_fd(), &mut [0; 9], &mut Patient::new()),
        Err(Pause::TimedOut(Side::Input))
    );
}

/// The bytes are there, so they are told of before the interrupt.
#[test]
fn an_interrupt_does_not_hide_what_was_read() {
    let pipe = pipe_in(Blocking::No).holding(b"bytes");
    let mut copy = reading(&pipe.reader, None);
    let mut host = MadeUp::new(|_: &mut [_], _| Waited::Interrupted, || true);
    let mut buffer = [0; 9];
    assert_eq!(copy.read_portion(pipe.reader.as_fd(), &mut buffer, &mut host), Ok(5));
    assert_eq!(&buffer[..5], b"bytes");
}

#[test]
fn what_cannot_be_read_or_written_is_an_error() {
    let Pipe { reader, writer } = pipe_in(Blocking::No);
    let mut copy = reading(&writer, None);
    assert_eq!(read(&mut copy, &writer, 9), Err(Pause::Failed(Errno::BADF)));
    let mut bytes = &b"bytes"[..];
    assert_eq!(write(&mut writing(&reader), &reader, &mut bytes), Pause::Failed(Errno::BADF));
    drop(reader);
    assert_eq!(write(&mut writing(&writer), &writer, &mut bytes), Pause::Failed(Errno::PIPE));
    assert_eq!(bytes, b"bytes");
}

#[test]
fn what_does_not_fit_is_written_when_there_is_room() {
    for mode in [Blocking::No, Blocking::Yes] {
        let pipe = pipe_in(mode);
        let mut copy = writing(&pipe.writer);
        copy.never_block();
        let mut rest = pattern(MIB);
        let mut arrived = Vec::new();
        loop {
            let pause = write(&mut copy, &pipe.writer, &mut rest);
            assert_eq!(copy.delivered() as usize + rest.len(), MIB);
            arrived.extend(pipe.content());
            match pause {
                Pause::Done => break,
                pause => assert_eq!(pause, Pause::Wait),
            }
        }
        assert!(rest.is_empty());
        assert_same(&arrived, pattern(MIB), "all");
        assert_eq!(write(&mut copy, &pipe.writer, &mut rest), Pause::Done);
    }
}

#[test]
fn as_much_is_written_as_the_output_accepts_at_once() {
    for mode in [Blocking::No, Blocking::Yes] {
        let pipe = pipe_in(mode);
        let mut copy = writing(&pipe.writer);
        let mut rest = pattern(MIB);
        copy.write_now(pipe.writer.as_fd(), &mut rest);
        let arrived = pipe.content();
        assert!(!arrived.is_empty() && !rest.is_empty(), "it is not in the middle");
        assert_same(&[&arrived, rest].concat(), pattern(MIB), "what has arrived and the rest");
    }
}

#[test]
fn to_a_file_all_is_written_at_its_position() {
    for likely_file_out in [false, true] {
        let output = TempFile::new(b"before");
        let mut writer = output.writer();
        writer.seek(std::io::SeekFrom::Start(6)).unwrap();
        let hints = Hints { likely_file_out, ..Hints::default() };
        let plan = Plan::for_output(writer.as_fd(), hints).unwrap();
        let mut rest = &b" behind"[..];
        assert_eq!(write(&mut CopyStream::new(plan, None, None), &writer, &mut rest), Pause::Done);
        assert_eq!(output.content(), b"before behind");
    }
}
