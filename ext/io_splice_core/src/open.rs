use std::ffi::CStr;

use rustix::fs::{Mode, OFlags};

use crate::PrivateFd;

/// `open(path, flags, 0666)`
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man2/open.2.html
pub fn open(path: &CStr, flags: i32) -> rustix::io::Result<PrivateFd> {
    let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o666)).map(PrivateFd::new)
}
