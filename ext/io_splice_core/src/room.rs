#![expect(unsafe_code, reason = "ioctl(2)")]

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, Result};
use rustix::ioctl::{Getter, Opcode, ioctl};
use rustix::net::sockopt::socket_send_buffer_size;

/// TIOCOUTQ, which is SIOCOUTQ, as most architectures have it. The others refuse it.
const SIOCOUTQ: Opcode = 0x5411;

/// How many bytes a socket takes at once, as far as that can be known. 0: poll(2) does not call it writable. `None` of what
/// is not a socket.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/tcp.7.html
pub(crate) fn room(output: BorrowedFd<'_>) -> Option<usize> {
    let size = match socket_send_buffer_size(output) {
        Err(Errno::NOTSOCK) => return None,
        size => size.unwrap_or_default(),
    };
    let Ok(unsent) = unsent(output) else { return Some(1) };
    let room = size.saturating_sub(unsent);
    // A TCP socket is writable with half as much room as is in use, others with more.
    Some(if room < unsent / 2 { 0 } else { room.max(1) })
}

/// How many bytes a socket holds that its peer has not got: TCP's has not acknowledged them.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://man7.org/linux/man-pages/man7/tcp.7.html
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> Result<usize> {
    // SAFETY: of a socket it writes one int.
    let unsent = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) };
    unsent.map(|unsent| unsent as usize)
}
