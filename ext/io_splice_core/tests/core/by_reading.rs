//! Copies that no system call makes from end to end, and that take more than one read(2).

use crate::support::*;
use io_splice_core::copy::Pause;

#[test]
fn from_an_offset_to_a_file_in_append_mode() {
    let input = TempFile::new(pattern(200_000));
    let output = TempFile::new(b"");
    let (reader, appender) = (input.reader(), output.appender());
    let mut copy = new_copy(&reader, &appender, None, Some(1000));
    assert_eq!(finish(&mut copy, &reader, &appender), Pause::Done);
    assert_same(&output.content(), &pattern(200_000)[1000..], "from an offset");
}
