#![expect(unsafe_code, reason = "ioctl(2)")]

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt::socket_send_buffer_size;

/// TIOCOUTQ, which is SIOCOUTQ, as most architectures have it. The others refuse it.
const SIOCOUTQ: Opcode = 0x5411;

/// How many bytes a socket has room for, as far as that can be known; `None` of what is not a socket.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/tcp.7.html
pub(crate) fn room(output: BorrowedFd<'_>) -> Option<usize> {
    let size = match socket_send_buffer_size(output) {
        Err(Errno::NOTSOCK) => return None,
        size => size.unwrap_or(0),
    };
    // SAFETY: of a socket it writes one int.
    let unsent = unsafe { ioctl(output, Getter::<SIOCOUTQ, c_int>::new()) };
    Some(size.saturating_sub(unsent.map_or(size, |unsent| unsent as usize)))
}
