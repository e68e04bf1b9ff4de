#![expect(unsafe_code, reason = "getsockopt(2), sendmsg(2) and recvmsg(2) with what only TLS has")]

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use crate::memory::zeroed;

/// See linux/tls.h.
const SOL_TLS: c_int = 282;
const TLS_TX: c_int = 1;
const TLS_RX: c_int = 2;
const TLS_SET_RECORD_TYPE: c_int = 1;
const TLS_GET_RECORD_TYPE: c_int = 2;

/// The types of records, and what is in one that tells of the end: see RFC 8446, 4, 5.1 and 6.
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
const NEW_SESSION_TICKET: u8 = 4;
const MAX_RECORD: usize = 1 << 14;

/// The connection has ended without a close_notify.
pub(crate) const TRUNCATED: Errno = Errno::PROTO;
/// The peer has sent an alert that is not a close_notify.
const ALERTED: Errno = Errno::CONNABORTED;
/// A record is not data, and only the library that has made the connection could answer it.
const UNKNOWN_RECORD: Errno = Errno::OPNOTSUPP;

/// What an error tells of an input for which the kernel decrypts.
pub(crate) fn reason(errno: Errno) -> Option<&'static str> {
    match errno {
        TRUNCATED => Some("the TLS connection has ended without a close_notify"),
        ALERTED => Some("the TLS peer has sent an alert"),
        UNKNOWN_RECORD => Some("the TLS peer wants what only OpenSSL can do"),
        Errno::BADMSG => Some("a TLS record does not decrypt"),
        _ => None,
    }
}

/// As everywhere but on MIPS and SPARC.
const MSG_PEEK: c_int = 0x2;
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;

unsafe extern "C" {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut u32) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
    fn recvmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize;
}

/// What C calls `struct msghdr`.
#[repr(C)]
struct Message {
    name: *mut c_void,
    name_len: u32,
    parts: *mut Part,
    parts_len: usize,
    control: *mut Control,
    control_len: usize,
    flags: c_int,
}

/// What C calls `struct iovec`.
#[repr(C)]
struct Part {
    base: *mut u8,
    len: usize,
}

/// What C calls `struct cmsghdr`, with one byte of data.
#[repr(C)]
struct Control {
    len: usize,
    level: c_int,
    kind: c_int,
    data: [u8; size_of::<usize>()],
}

impl Message {
    fn new(part: &mut Part, control: &mut Control) -> Self {
        Self {
            name: std::ptr::null_mut(),
            name_len: 0,
            parts: part,
            parts_len: 1,
            control,
            control_len: size_of::<Control>(),
            flags: 0,
        }
    }
}

impl Control {
    const LEN: usize = size_of::<Self>() - size_of::<usize>() + 1;

    fn new(record: u8) -> Self {
        let mut data = [0; size_of::<usize>()];
        data[0] = record;
        Self { len: Self::LEN, level: SOL_TLS, kind: TLS_SET_RECORD_TYPE, data }
    }
}

fn checked(count: isize) -> Result<usize> {
    usize::try_from(count)
        .map_err(|_| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Whether the kernel decrypts what comes from a socket, and whether it encrypts what goes to it. Once it does it does so as
/// long as the socket is open, whoever uses it.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://docs.kernel.org/networking/tls.html
pub fn kernel_tls(socket: BorrowedFd<'_>) -> [bool; 2] {
    [TLS_RX, TLS_TX].map(|direction| {
        // The version and the cipher, and no key. Where the kernel does not do it, it answers EBUSY; a socket without TLS
        // ENOPROTOOPT or EOPNOTSUPP.
        let mut info = [0_u16; 2];
        let mut len = size_of_val(&info) as u32;
        // SAFETY: it writes at most `len` bytes to `info`, and then `len`.
        let answer =
            unsafe { getsockopt(socket.as_raw_fd(), SOL_TLS, direction, info.as_mut_ptr().cast(), &mut len) };
        answer == 0 && info[0] != 0
    })
}

/// Tells the peer of a socket for which the kernel encrypts that this is all, without waiting. `EAGAIN`: there is no room.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://docs.kernel.org/networking/tls.html
pub(crate) fn send_close_notify(socket: BorrowedFd<'_>) -> Result<()> {
    let mut bytes = CLOSE_NOTIFY;
    let mut part = Part { base: bytes.as_mut_ptr(), len: bytes.len() };
    let mut control = Control::new(ALERT);
    let message = Message::new(&mut part, &mut control);
    // SAFETY: all that it points to lives until it returns, and is only read.
    checked(unsafe { sendmsg(socket.as_raw_fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) }).map(drop)
}

/// What the next record is of a socket for which the kernel decrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Data, or the end of the connection: read(2) takes it.
    Data,
    /// The peer sends nothing more.
    CloseNotify,
    /// What the peer may be told at the next connection. It was taken.
    Ticket,
}

/// Looks at the next record. One that is not data is taken, so that the next one can be read, but for a close_notify that is
/// to be left to the library that has made the connection. What only that could answer is an error.
///
/// # References
///  - [Linux]
///
/// [Linux]: https://docs.kernel.org/networking/tls.html
pub(crate) fn take_control_record(socket: BorrowedFd<'_>, leave_close_notify: bool) -> Result<Record> {
    let mut start = [0; CLOSE_NOTIFY.len()];
    match receive(socket, &mut start, MSG_PEEK)? {
        (Some(ALERT), 2) if start == CLOSE_NOTIFY && leave_close_notify => return Ok(Record::CloseNotify),
        (None | Some(APPLICATION_DATA), _) => return Ok(Record::Data),
        _ => {}
    }
    let mut record = zeroed(MAX_RECORD)?;
    let (kind, len) = receive(socket, &mut record, 0)?;
    match (kind, &record[..len]) {
        (Some(ALERT), alert) if alert == CLOSE_NOTIFY => Ok(Record::CloseNotify),
        (Some(ALERT), _) => Err(ALERTED),
        (Some(HANDSHAKE), messages) if are_tickets(messages) => Ok(Record::Ticket),
        _ => Err(UNKNOWN_RECORD),
    }
}

/// Receives from one record, and returns its type, if there is one, and how many bytes that was.
fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], flags: c_int) -> Result<(Option<u8>, usize)> {
    let mut part = Part { base: buffer.as_mut_ptr(), len: buffer.len() };
    let mut control = Control::new(0);
    let mut message = Message::new(&mut part, &mut control);
    // SAFETY: all that it points to lives until it returns, and has the lengths that it is told.
    let received =
        checked(unsafe { recvmsg(socket.as_raw_fd(), &mut message, flags | MSG_DONTWAIT | MSG_NOSIGNAL) })?;
    let has_type = message.control_len >= Control::LEN && control.kind == TLS_GET_RECORD_TYPE;
    Ok((has_type.then_some(control.data[0]), received))
}

/// Whether these are messages of a handshake, each whole, that are tickets.
fn are_tickets(mut messages: &[u8]) -> bool {
    while let [NEW_SESSION_TICKET, a, b, c, rest @ ..] = messages {
        let len = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        match rest.get(len..) {
            Some([]) => return true,
            Some(rest) => messages = rest,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_known_and_nothing_else_is_taken_for_one() {
        let ticket = [NEW_SESSION_TICKET, 0, 0, 2, 7, 7];
        let key_update = [24, 0, 0, 1, 0];
        assert!(are_tickets(&ticket));
        assert!(are_tickets(&[ticket, ticket].concat()));
        assert!(!are_tickets(&key_update));
        assert!(!are_tickets(&[&ticket[..], &key_update].concat()));
        assert!(!are_tickets(&ticket[..5]));
        assert!(!are_tickets(&[]));
    }
}
