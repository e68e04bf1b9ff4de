use std::collections::{BTreeSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::{Errno, Result, read};

use super::lingering::Lingering;
use super::pool::{Pool, Task};
use super::transfer::{ASK_ANEW, End, INPUT, OUTPUT, Pace, Progress, REGISTERED, Sides, Transfer};
use super::{Center, Ended, Outcome, locked, new_eventfd, notify, thread};
use crate::private_fd::{PrivateFd, generation};

/// How long a disk may take until a transfer that is to end is reported without it.
const GRACE: Duration = Duration::from_millis(200);
/// How long to wait for a thread when there is none to be had.
const RETRY: Duration = Duration::from_millis(100);
/// How long a file rests that says that it is not ready.
const FILE_REST: Duration = Duration::from_millis(10);
/// How many events are taken at once.
const EVENTS: usize = 256;
/// What is no transfer: there are messages.
const WAKE: u64 = u64::MAX;

/// The part of an event loop that everybody may use.
#[derive(Debug)]
pub(super) struct EventLoop {
    /// Its thread's, which closes it at its end.
    epoll: Weak<PrivateFd>,
    inbox: Mutex<Inbox>,
    /// That of its process.
    generation: u32,
    /// How many transfers it has.
    load: AtomicUsize,
    bytes: AtomicU64,
    epoch: Instant,
}

#[derive(Debug)]
struct Inbox {
    messages: Vec<Message>,
    /// Readable when there are messages. `None`: the thread has ended.
    wake: Option<Arc<PrivateFd>>,
}

/// What the thread of an event loop waits with.
pub(super) struct Descriptors {
    epoll: Arc<PrivateFd>,
    wake: Arc<PrivateFd>,
}

/// What the thread of an event loop is told by others.
#[derive(Debug)]
pub(super) enum Message {
    /// Take this over.
    Begin(Box<Transfer>),
    /// End this.
    Cancel(Arc<Progress>),
    /// A thread of a pool has run this as far as it goes, and it waits.
    Waits(Box<Transfer>),
    /// A thread of a pool has ended this.
    Ended(Arc<Progress>, Box<(Ended, Vec<Lingering>)>),
    /// End with the last of them.
    Drain,
    /// End all.
    Stop,
}

impl EventLoop {
    /// One without a thread, and what its thread is to have.
    pub fn new() -> Result<(Arc<Self>, Descriptors)> {
        let epoll = Arc::new(PrivateFd::make(|| epoll::create(CreateFlags::CLOEXEC).map(PrivateFd::new))?);
        let wake = Arc::new(new_eventfd()?);
        epoll::add(&epoll, &wake, EventData::new_u64(WAKE), EventFlags::IN)?;
        let event_loop = Self {
            epoll: Arc::downgrade(&epoll),
            inbox: Mutex::new(Inbox { messages: Vec::new(), wake: Some(wake.clone()) }),
            generation: generation(),
            load: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            epoch: Instant::now(),
        };
        Ok((Arc::new(event_loop), Descriptors { epoll, wake }))
    }

    /// Tells its thread, unless that has ended: then the message comes back.
    pub fn send(&self, message: Message) -> std::result::Result<(), Message> {
        let mut inbox = locked(&self.inbox);
        let Some(wake) = inbox.wake.clone() else { return Err(message) };
        if matches!(message, Message::Begin(_)) {
            self.load.fetch_add(1, Relaxed);
        }
        inbox.messages.push(message);
        if inbox.messages.len() == 1 {
            notify(&wake);
        }
        Ok(())
    }

    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub fn count(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A time in a word, and back.
    pub fn clock(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos().try_into().unwrap_or(u64::MAX)
    }

    pub fn instant(&self, clock: u64) -> Instant {
        self.epoch + Duration::from_nanos(clock)
    }

    pub fn is_of_this_process(&self) -> bool {
        self.generation == generation()
    }

    /// Watches an end no more, which is about to be closed.
    pub fn forget(&self, fd: BorrowedFd<'_>) {
        if let Some(epoll) = self.epoll.upgrade() {
            let _ = epoll::delete(&epoll, fd);
        }
    }
}

impl Descriptors {
    /// Asks about an end as far as it has not been asked, or its edges cannot be trusted.
    fn watch(&self, end: &End, key: u64) -> Result<()> {
        let (wanted, watched) = (end.awaited.get(), end.watched.get());
        // No call may have found an output full; then no edge comes. And on some sockets one comes whenever the peer reads,
        // so an output is watched no longer than need be.
        let is_new = wanted & !watched != 0 || (wanted | watched) & OUTPUT != 0;
        let Some(fd) = end.fd().filter(|_| is_new || wanted != 0 && watched & ASK_ANEW != 0) else {
            return Ok(());
        };
        // What is ready is an event each time that it is asked for.
        let data = EventData::new_u64(key);
        let flags = flags(wanted | watched & ASK_ANEW);
        let asked = match watched & REGISTERED {
            0 => epoll::add(&self.epoll, fd, data, flags),
            _ => epoll::modify(&self.epoll, fd, data, flags),
        };
        match asked {
            // Files, and devices like files: it is always ready.
            Err(Errno::PERM) => end.ready.set(wanted),
            asked => {
                asked?;
                end.watched.set(wanted | REGISTERED | watched & ASK_ANEW);
            }
        }
        Ok(())
    }
}

fn flags(sides: Sides) -> EventFlags {
    let mut flags = EventFlags::ET;
    if sides & INPUT != 0 {
        flags |= EventFlags::IN;
        // Asked for anew, an urgent byte that nobody takes would be an event each time.
        if sides & ASK_ANEW == 0 {
            flags |= EventFlags::PRI;
        }
    }
    if sides & OUTPUT != 0 {
        flags |= EventFlags::OUT;
    }
    flags
}

/// Which sides are ready; what is broken is, on both.
fn sides(flags: EventFlags) -> Sides {
    let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
    let input = if broken || flags.intersects(EventFlags::IN | EventFlags::PRI) { INPUT } else { 0 };
    let output = if broken || flags.contains(EventFlags::OUT) { OUTPUT } else { 0 };
    input | output
}

/// What an event tells: which end of which transfer. The generation is that of the transfer's slot.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    slot: usize,
    generation: u32,
    end: usize,
}

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;

impl Key {
    fn pack(self) -> u64 {
        let generation = u64::from(self.generation) << SLOT_BITS;
        self.slot as u64 | generation | (self.end as u64) << (SLOT_BITS + GENERATION_BITS)
    }

    fn unpack(key: u64) -> Self {
        let part = |from: u32, bits: u32| key >> from & ((1 << bits) - 1);
        Self {
            slot: part(0, SLOT_BITS) as usize,
            generation: part(SLOT_BITS, GENERATION_BITS) as u32,
            end: part(SLOT_BITS + GENERATION_BITS, 16) as usize,
        }
    }
}

/// A place for a transfer.
struct Slot {
    generation: u32,
    /// When its timer fires.
    armed: Option<Instant>,
    place: Place,
}

/// Where a transfer is.
enum Place {
    /// There is none.
    Free,
    /// With the event loop.
    Here(Box<Transfer>),
    /// With a pool of threads.
    Away(Box<Away>),
    /// It has ended, and what is there is a connection of its own.
    Lingers(Box<Lingering>),
}

struct Away {
    progress: Arc<Progress>,
    /// How it is to end, when it has come back or at the latest then.
    ending: Option<(Outcome, Instant)>,
}

/// The thread's own part.
struct Runner {
    event_loop: Arc<EventLoop>,
    descriptors: Descriptors,
    center: Arc<Center>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// One for each slot at most, by the clock of the event loop.
    timers: BTreeSet<(u64, u32)>,
    /// What has become ready.
    ready: VecDeque<usize>,
    /// What could go on after its turn.
    unfinished: VecDeque<usize>,
    /// What there was no thread for.
    unplaced: Vec<(Arc<Pool>, Task)>,
    /// What has ended since the last turn of all: it is told together, since each time a thread is woken.
    ended: Vec<Ended>,
    /// How many connections linger.
    lingering: usize,
    draining: bool,
    stopping: bool,
}

/// Starts the thread of an event loop.
pub(super) fn start(
    event_loop: &Arc<EventLoop>,
    descriptors: Descriptors,
    center: &Arc<Center>,
) -> Result<()> {
    let runner = Runner {
        event_loop: event_loop.clone(),
        descriptors,
        center: center.clone(),
        slots: Vec::new(),
        free: Vec::new(),
        timers: BTreeSet::new(),
        ready: VecDeque::new(),
        unfinished: VecDeque::new(),
        unplaced: Vec::new(),
        ended: Vec::new(),
        lingering: 0,
        draining: false,
        stopping: false,
    };
    thread::spawn(move || runner.run())
}

impl Runner {
    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while self.event_loop.is_of_this_process() && !self.is_over() {
            self.wait(&mut events);
            let mut woken = false;
            for Event { flags, data } in events.drain(..) {
                match data.u64() {
                    WAKE => woken = true,
                    key => self.event(Key::unpack(key), flags),
                }
            }
            if woken {
                self.read_inbox();
            }
            self.place();
            self.fire(Instant::now());
            for _ in 0..self.ready.len() {
                let next = self.ready.pop_front();
                next.into_iter().for_each(|slot| self.turn(slot));
            }
            let next = self.unfinished.pop_front();
            next.into_iter().for_each(|slot| self.turn(slot));
            self.center.report(&mut self.ended);
        }
        self.close_inbox();
        self.center.report(&mut self.ended);
        self.center.retire();
    }

    /// Whether nothing is left to be done. Connections that linger are not waited for when all is to end at once.
    fn is_over(&self) -> bool {
        let is_idle = self.event_loop.load() == 0;
        is_idle && (self.stopping || self.draining && self.lingering == 0)
    }

    fn wait(&self, events: &mut Vec<Event>) {
        let now = Instant::now();
        let timer =
            self.timers.first().map(|(at, _)| self.event_loop.instant(*at).saturating_duration_since(now));
        let retry = (!self.unplaced.is_empty()).then_some(RETRY);
        let goes_on = !self.ready.is_empty() || !self.unfinished.is_empty();
        let timeout = if goes_on { Some(Duration::ZERO) } else { timer.into_iter().chain(retry).min() };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // An error would be EINTR, and no signal comes here.
        let _ =
            epoll::wait(&self.descriptors.epoll, rustix::buffer::spare_capacity(events), timeout.as_ref());
    }

    fn event(&mut self, key: Key, flags: EventFlags) {
        let Some(Slot { generation, place: Place::Here(transfer), .. }) = self.slots.get(key.slot) else {
            return;
        };
        let Some(end) = transfer.ends.get(key.end).filter(|_| *generation == key.generation) else { return };
        if flags.contains(EventFlags::PRI) {
            // At an urgent byte splice(2) says that nothing is there, and no edge comes for what is.
            end.watched.set(end.watched.get() | ASK_ANEW);
        }
        let sides = sides(flags);
        end.ready.set(end.ready.get() | sides);
        if end.awaited.get() & sides != 0 {
            self.make_ready(key.slot);
        }
    }

    fn make_ready(&mut self, slot: usize) {
        let Place::Here(transfer) = &mut self.slots[slot].place else { return };
        if !std::mem::replace(&mut transfer.is_queued, true) {
            self.ready.push_back(slot);
        }
    }

    fn read_inbox(&mut self) {
        let _ = read(&self.descriptors.wake, &mut [0; 8]);
        let messages = std::mem::take(&mut locked(&self.event_loop.inbox).messages);
        for message in messages {
            match message {
                Message::Begin(transfer) => self.begin(transfer),
                Message::Cancel(progress) => self.cancel(&progress, Outcome::Cancelled),
                Message::Waits(transfer) => self.come_back(transfer),
                Message::Ended(progress, over) => self.ended(&progress, *over),
                Message::Drain => self.draining = true,
                Message::Stop => self.stop(),
            }
        }
    }

    /// Where a transfer is, unless it was reported as ended.
    fn slot_of(&self, progress: &Progress) -> Option<usize> {
        let key = Key::unpack(progress.key.load(Relaxed));
        self.slots.get(key.slot).filter(|slot| slot.generation == key.generation).map(|_| key.slot)
    }

    fn free_slot(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, armed: None, place: Place::Free });
            self.slots.len() - 1
        })
    }

    fn begin(&mut self, transfer: Box<Transfer>) {
        let slot = self.free_slot();
        let key = Key { slot, generation: self.slots[slot].generation, end: 0 };
        transfer.progress.key.store(key.pack(), Relaxed);
        self.slots[slot].place = Place::Here(transfer);
        if self.stopping {
            return self.end(slot, Outcome::Cancelled);
        }
        self.arm(slot);
        self.make_ready(slot);
    }

    /// Lets a transfer run that is here, or has it run.
    fn turn(&mut self, slot: usize) {
        let Place::Here(transfer) = &mut self.slots[slot].place else { return };
        if !std::mem::take(&mut transfer.is_queued) {
            return;
        }
        if transfer.pool.is_some() {
            return self.send_away(slot);
        }
        match transfer.turn() {
            Pace::Waits => self.watch(slot),
            Pace::Again => {
                transfer.is_queued = true;
                self.unfinished.push_back(slot);
            }
            Pace::Over(outcome, why) => self.end_because(slot, outcome, why),
        }
    }

    /// Waits for what a transfer waits for.
    fn watch(&mut self, slot: usize) {
        let Slot { generation, place: Place::Here(transfer), .. } = &mut self.slots[slot] else { return };
        let (mut is_one_ready, mut is_file_awaited) = (false, false);
        for (index, end) in transfer.ends.iter().enumerate() {
            let awaited = end.awaited.get();
            if end.is_file {
                end.ready.set(awaited);
                is_file_awaited |= awaited != 0;
                continue;
            }
            let key = Key { slot, generation: *generation, end: index };
            if let Err(errno) = self.descriptors.watch(end, key.pack()) {
                return self.end(slot, Outcome::Failed(errno));
            }
            is_one_ready |= end.ready.get() & awaited != 0;
        }
        if is_file_awaited {
            // It is looked at again soon.
            let soon = Instant::now() + FILE_REST;
            transfer.resume_at = transfer.resume_at.into_iter().chain([soon]).min();
        }
        if is_one_ready {
            self.make_ready(slot);
        }
        self.arm(slot);
    }

    fn send_away(&mut self, slot: usize) {
        let Some((transfer, pool)) = self.take(slot, None) else { return };
        let center = self.center.clone();
        self.hand(pool, Box::new(move || run_away(transfer, &center)));
        // Its timer may have been the one that has just fired.
        self.arm(slot);
    }

    /// Takes a transfer out of its slot for a pool.
    fn take(
        &mut self,
        slot: usize,
        ending: Option<(Outcome, Instant)>,
    ) -> Option<(Box<Transfer>, Arc<Pool>)> {
        let place = &mut self.slots[slot].place;
        let Place::Here(transfer) = std::mem::replace(place, Place::Free) else { return None };
        *place = Place::Away(Box::new(Away { progress: transfer.progress.clone(), ending }));
        let pool = transfer.pool.clone().unwrap_or_else(|| self.center.pools.of(Vec::new()));
        Some((transfer, pool))
    }

    fn hand(&mut self, pool: Arc<Pool>, task: Task) {
        if let Err(task) = pool.run(task) {
            self.unplaced.push((pool, task));
        }
    }

    /// Tries once more what there was no thread for.
    fn place(&mut self) {
        for (pool, task) in std::mem::take(&mut self.unplaced) {
            self.hand(pool, task);
        }
    }

    fn come_back(&mut self, transfer: Box<Transfer>) {
        let Some(slot) = self.slot_of(&transfer.progress) else {
            // It was given up a moment ago.
            if let Some(pool) = transfer.pool.clone() {
                self.hand(pool, Box::new(move || drop(transfer.end(Outcome::Cancelled, None))));
            }
            return;
        };
        let place = &mut self.slots[slot].place;
        let Place::Away(away) = std::mem::replace(place, Place::Here(transfer)) else { return };
        match away.ending {
            Some((outcome, _)) => self.end(slot, outcome),
            None => self.watch(slot),
        }
    }

    fn cancel(&mut self, progress: &Arc<Progress>, outcome: Outcome) {
        let Some(slot) = self.slot_of(progress) else { return };
        match &mut self.slots[slot].place {
            Place::Free | Place::Lingers(_) => {}
            Place::Here(_) => self.end(slot, outcome),
            Place::Away(away) => {
                away.progress.is_cancelled.store(true, SeqCst);
                away.ending.get_or_insert_with(|| (outcome, Instant::now() + GRACE));
                self.arm(slot);
            }
        }
    }

    fn stop(&mut self) {
        self.stopping = true;
        let all = self.slots.iter().filter_map(|slot| match &slot.place {
            Place::Free | Place::Lingers(_) => None,
            Place::Here(transfer) => Some(transfer.progress.clone()),
            Place::Away(away) => Some(away.progress.clone()),
        });
        for progress in all.collect::<Vec<_>>() {
            self.cancel(&progress, Outcome::Cancelled);
        }
    }

    fn end(&mut self, slot: usize, outcome: Outcome) {
        self.end_because(slot, outcome, None);
    }

    /// Ends a transfer that is here.
    fn end_because(&mut self, slot: usize, outcome: Outcome, why: Option<&'static str>) {
        let Place::Here(transfer) = &self.slots[slot].place else { return };
        if !transfer.may_block_at_end() {
            let Place::Here(transfer) = self.vacate(slot) else { return };
            return self.over(transfer.end(outcome, why));
        }
        let by_itself = !matches!(outcome, Outcome::Cancelled | Outcome::Idle);
        let ending = (!by_itself).then(|| (outcome, Instant::now() + GRACE));
        let Some((transfer, pool)) = self.take(slot, ending) else { return };
        self.hand(pool, Box::new(move || end_away(transfer, outcome, why)));
        self.arm(slot);
    }

    fn ended(&mut self, progress: &Progress, over: (Ended, Vec<Lingering>)) {
        if let Some(slot) = self.slot_of(progress) {
            self.vacate(slot);
            self.over(over);
        }
    }

    fn over(&mut self, (ended, lingering): (Ended, Vec<Lingering>)) {
        self.ended.push(ended);
        self.linger(lingering);
    }

    fn linger(&mut self, connections: impl IntoIterator<Item = Lingering>) {
        for connection in connections {
            let slot = self.free_slot();
            self.slots[slot].place = Place::Lingers(Box::new(connection));
            self.lingering += 1;
            self.arm(slot);
        }
    }

    fn look_at(&mut self, slot: usize, now: Instant) {
        let Place::Lingers(connection) = self.release(slot) else { return };
        self.lingering -= 1;
        self.linger(connection.look(now));
    }

    /// Takes a transfer out of its slot, which is free for another then.
    fn vacate(&mut self, slot: usize) -> Place {
        self.event_loop.load.fetch_sub(1, Relaxed);
        self.release(slot)
    }

    fn release(&mut self, slot: usize) -> Place {
        self.disarm(slot);
        let free = &mut self.slots[slot];
        free.generation = (free.generation + 1) % (1 << GENERATION_BITS);
        self.free.push(slot);
        std::mem::replace(&mut free.place, Place::Free)
    }

    /// Sees to it that the timer of a slot does not fire too late. If it fires too early, that is found then.
    fn arm(&mut self, slot: usize) {
        let due = match &self.slots[slot].place {
            Place::Free => None,
            Place::Here(transfer) => transfer.resume_at.into_iter().chain(transfer.progress.idle_at()).min(),
            Place::Away(away) => away.ending.map_or_else(|| away.progress.idle_at(), |(_, at)| Some(at)),
            Place::Lingers(connection) => Some(connection.look_at),
        };
        let Some(due) = due else { return };
        if self.slots[slot].armed.is_none_or(|armed| due < armed) {
            self.disarm(slot);
            self.slots[slot].armed = Some(due);
            self.timers.insert(self.timer(due, slot));
        }
    }

    fn timer(&self, at: Instant, slot: usize) -> (u64, u32) {
        // A slot has SLOT_BITS.
        (self.event_loop.clock(at), slot as u32)
    }

    fn disarm(&mut self, slot: usize) {
        if let Some(armed) = self.slots[slot].armed.take() {
            self.timers.remove(&self.timer(armed, slot));
        }
    }

    /// Fires the timers that are due.
    fn fire(&mut self, now: Instant) {
        let clock = self.event_loop.clock(now);
        while let Some((_, slot)) = self.timers.first().copied().filter(|(at, _)| *at <= clock) {
            self.timers.pop_first();
            let slot = slot as usize;
            self.slots[slot].armed = None;
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            match &self.slots[slot].place {
                Place::Free => {}
                Place::Here(transfer) => {
                    // What has its turn to come waits for this thread, and not for its ends.
                    if transfer.is_throttled() || transfer.is_queued {
                        transfer.progress.touch();
                    }
                    let (resumes, is_idle) =
                        (is_due(transfer.resume_at), is_due(transfer.progress.idle_at()));
                    if is_idle {
                        self.end(slot, Outcome::Idle);
                    } else if resumes {
                        self.make_ready(slot);
                    } else {
                        self.arm(slot);
                    }
                }
                Place::Away(away) => {
                    let progress = away.progress.clone();
                    match away.ending {
                        Some((outcome, at)) if at <= now => self.abandon(slot, &progress, outcome),
                        None if is_due(progress.idle_at()) => self.cancel(&progress, Outcome::Idle),
                        _ => self.arm(slot),
                    }
                }
                Place::Lingers(_) => self.look_at(slot, now),
            }
        }
    }

    /// Reports a transfer as ended that a thread still has.
    fn abandon(&mut self, slot: usize, progress: &Progress, outcome: Outcome) {
        progress.is_abandoned.store(true, SeqCst);
        self.vacate(slot);
        let (token, delivered) = (progress.token, progress.bytes().to_vec());
        let unread = Default::default();
        self.ended.push(Ended { token, outcome, why: None, delivered, unread, stuck: true });
    }

    /// Nobody reads it any more.
    fn close_inbox(&mut self) {
        let messages = {
            let mut inbox = locked(&self.event_loop.inbox);
            inbox.wake = None;
            std::mem::take(&mut inbox.messages)
        };
        for message in messages {
            match message {
                Message::Begin(transfer) => self.ended.push(transfer.end(Outcome::Cancelled, None).0),
                Message::Waits(transfer) => self.come_back(transfer),
                Message::Cancel(_) | Message::Ended(..) | Message::Drain | Message::Stop => {}
            }
        }
    }
}

/// Runs a transfer on a thread of its pool, until it waits or has ended.
fn run_away(mut transfer: Box<Transfer>, center: &Arc<Center>) {
    let progress = transfer.progress.clone();
    let pace = transfer.turn();
    if progress.is_abandoned.load(SeqCst) {
        drop(transfer.end(Outcome::Cancelled, None));
        return;
    }
    match pace {
        Pace::Over(outcome, why) => end_away(transfer, outcome, why),
        Pace::Again if !progress.is_cancelled.load(SeqCst) => {
            let (pool, center) = (transfer.pool.clone(), center.clone());
            let task = Box::new(move || run_away(transfer, &center));
            // There is a thread: this one.
            pool.map(|pool| pool.run(task));
        }
        Pace::Again | Pace::Waits => give_back(Message::Waits(transfer)),
    }
}

/// Ends a transfer on a thread of a pool.
fn end_away(transfer: Box<Transfer>, outcome: Outcome, why: Option<&'static str>) {
    let progress = transfer.progress.clone();
    let over = Box::new(transfer.end(outcome, why));
    let event_loop = progress.event_loop.clone();
    let _ = event_loop.send(Message::Ended(progress, over));
}

/// Gives a transfer back to its event loop. One that has ended has given it up.
fn give_back(message: Message) {
    let Message::Waits(transfer) = &message else { return };
    let event_loop = transfer.progress.event_loop.clone();
    if let Err(Message::Waits(transfer)) = event_loop.send(message) {
        drop(transfer.end(Outcome::Cancelled, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::size_of;

    /// All that is allocated for a relay between two sockets that waits, with what malloc(3) adds to each piece, and twice
    /// the place in a vector that grows. With what Ruby adds it is to be about a kilobyte.
    #[test]
    fn a_relay_that_waits_takes_less_than_900_bytes() {
        const MALLOC: usize = 16;
        let pieces = [
            size_of::<Transfer>(),
            2 * size_of::<End>(),
            2 * size_of::<usize>() + size_of::<Progress>(),
            2 * size_of::<Slot>(),
            2 * size_of::<(u64, u32)>(),
        ];
        assert!(pieces.iter().sum::<usize>() + 3 * MALLOC < 900, "{pieces:?}");
    }

    #[test]
    fn a_key_is_what_was_packed() {
        let key = Key { slot: (1 << SLOT_BITS) - 1, generation: (1 << GENERATION_BITS) - 1, end: 65_534 };
        assert!(Key::unpack(key.pack()) == key && key.pack() != WAKE);
        let other = Key { slot: 5, generation: 0, end: 1 };
        assert!(Key::unpack(other.pack()) == other);
    }
}
