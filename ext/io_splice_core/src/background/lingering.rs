use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::ipproto;
use rustix::net::sockopt::{socket_linger, socket_protocol};

use crate::private_fd::PrivateFd;
use crate::ready::events;
use crate::room::unsent;
use crate::tls::{kernel_tls, send_close_notify};

/// How long a peer may take nothing before the kernel is left alone with the rest.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first and the longest time until the next look.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];

/// A TCP connection that a transfer has written to and is to close, until its peer has acknowledged everything. If a peer
/// sends anything to a connection that is closed, or has sent what nobody has read, the kernel resets it, and what was not
/// delivered by then is lost.
///
/// It is not shut down meanwhile, and nothing is read: others may have descriptors of the same connection. Where the kernel
/// encrypts, the peer is told by a close_notify that it has everything, as soon as there is room for that.
///
/// # References
///  - [RFC 2525, 2.17]
///
/// [RFC 2525, 2.17]: https://datatracker.ietf.org/doc/html/rfc2525#section-2.17
#[derive(Debug)]
pub(super) struct Lingering {
    connection: PrivateFd,
    /// A close_notify is still to be sent.
    is_to_notify: bool,
    unsent: usize,
    began: Instant,
    moved_at: Instant,
    /// When to look again.
    pub look_at: Instant,
}

impl Lingering {
    /// `None`: it can be closed at once, and is. So is one that has `SO_LINGER`, which says what is wanted.
    pub fn new(connection: PrivateFd) -> Option<Self> {
        let [_, is_to_notify] = kernel_tls(connection.as_fd());
        Self::begin(connection, is_to_notify)
    }

    /// The same of a connection whose peer was told that this is all.
    pub fn of_notified(connection: PrivateFd) -> Option<Self> {
        Self::begin(connection, false)
    }

    fn begin(connection: PrivateFd, is_to_notify: bool) -> Option<Self> {
        let is_tcp = socket_protocol(&connection) == Ok(Some(ipproto::TCP));
        if !is_tcp || socket_linger(&connection) != Ok(None) {
            return None;
        }
        let now = Instant::now();
        let new =
            Self { connection, is_to_notify, unsent: usize::MAX, began: now, moved_at: now, look_at: now };
        new.look(now)
    }

    /// `None`: it is over.
    pub fn look(mut self, now: Instant) -> Option<Self> {
        let fd = self.connection.as_fd();
        self.is_to_notify = self.is_to_notify && send_close_notify(fd) == Err(Errno::AGAIN);
        let unsent = unsent(fd).ok().filter(|unsent| *unsent > 0)?;
        if events(fd, PollFlags::empty()) != Ok(PollFlags::empty()) {
            return None;
        }
        if unsent < self.unsent {
            self.moved_at = now;
        }
        self.unsent = unsent;
        self.look_at = now + ((now - self.began) / 8).clamp(LOOKS[0], LOOKS[1]);
        (now - self.moved_at < PATIENCE).then_some(self)
    }
}
