#![expect(unsafe_code, reason = "getsockopt(2) and sendmsg(2) with what only TLS has")]

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

/// See linux/tls.h.
const SOL_TLS: c_int = 282;
const TLS_TX: c_int = 1;
const TLS_RX: c_int = 2;
const TLS_SET_RECORD_TYPE: c_int = 1;

/// The type of a record, and what is in one that tells of the end: see RFC 8446, 6.
const ALERT: u8 = 21;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// As everywhere but on MIPS and SPARC.
const MSG_DONTWAIT: c_int = 0x40;
const MSG_NOSIGNAL: c_int = 0x4000;

unsafe extern "C" {
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut u32) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
}

/// What C calls `struct msghdr`.
#[repr(C)]
struct Message {
    name: *mut c_void,
    name_len: u32,
    parts: *const Part,
    parts_len: usize,
    control: *const Control,
    control_len: usize,
    flags: c_int,
}

/// What C calls `struct iovec`.
#[repr(C)]
struct Part {
    base: *const u8,
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
    let part = Part { base: CLOSE_NOTIFY.as_ptr(), len: CLOSE_NOTIFY.len() };
    let mut control = Control {
        len: size_of::<Control>() - size_of::<usize>() + 1,
        level: SOL_TLS,
        kind: TLS_SET_RECORD_TYPE,
        data: [0; _],
    };
    control.data[0] = ALERT;
    let message = Message {
        name: std::ptr::null_mut(),
        name_len: 0,
        parts: &part,
        parts_len: 1,
        control: &control,
        control_len: size_of::<Control>(),
        flags: 0,
    };
    // SAFETY: all that it points to lives until it returns, and is only read.
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) };
    if sent < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
