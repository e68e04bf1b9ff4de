//! `IO::Splice::Copying::Engine`: transfers that the core runs on threads of its own.

use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use io_splice_core::background::{self, Ended, Handle, Job, Outcome, Work};
use io_splice_core::copy::{
    ControlRecords, CopyStream, Direction, Hints, Pause, Plan, Relay, RelayPause, TeeStream, TeeStreamPause,
};
use io_splice_core::{Errno, PrivateFd, Side, is_regular_file, wait_until_ready};
use magnus::typed_data::Obj;
use magnus::value::ReprValue;
use magnus::{DataTypeFunctions, Error, RArray, RString, Ruby, TryConvert, TypedData, Value};

use crate::copy::{empty_opened, timeouts};
use crate::end::{End, descriptor_of, descriptors_for_copy};
use crate::opened::Opened;
use crate::relay::seconds;
use crate::wait::timed_out;
use crate::without_gvl::inspect_without_gvl;
use crate::{copy, error, gvl, number, relay, tee_stream};

/// An engine of the core.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Engine", free_immediately)]
pub struct Engine(background::Engine);

impl DataTypeFunctions for Engine {}

/// A transfer that the engine has taken over.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Handle", free_immediately)]
pub struct TransferHandle(Handle);

impl DataTypeFunctions for TransferHandle {}

impl TransferHandle {
    /// `bytes`: how many have reached their output, in each direction.
    pub fn bytes(ruby: &Ruby, handle: &Self) -> RArray {
        ruby.ary_from_iter(handle.0.bytes())
    }

    /// `cancel`
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// What is agreed on besides the ends.
struct Terms {
    /// The ends stay the caller's.
    keep: bool,
    idle_timeout: Option<Duration>,
    rate: Option<NonZeroU64>,
}

impl Terms {
    /// Of `[keep, idle_timeout, rate]`.
    fn new(ruby: &Ruby, terms: Value) -> Result<Self, Error> {
        let (keep, idle_timeout, rate) = <(bool, Value, Value)>::try_convert(terms)?;
        let rate = match rate.is_nil() {
            true => None,
            false => match NonZeroU64::new(number::length(ruby, "rate", rate)? as u64) {
                None => return Err(error::argument(ruby, "rate: 0 bytes a second given")),
                rate => rate,
            },
        };
        Ok(Self { keep, idle_timeout: seconds(ruby, idle_timeout)?, rate })
    }

    /// Descriptors of the transfer's own for these ends. Of a file that stays the caller's it is the caller's own: when a
    /// duplicate is closed, the process loses its locks of that file.
    fn own(&self, call: &str, ends: &[End]) -> Result<Vec<PrivateFd>, Error> {
        let own = |end: &End| {
            let lent = self.keep
                && !end.is_opened()
                && inspect_without_gvl(call, &[*end], |fds| is_regular_file(fds[0]))?;
            let fd = descriptor_of(call, end)?;
            let own = if lent {
                // SAFETY: the caller leaves it alone until the transfer has ended, and the Transfer keeps the IO.
                Ok(unsafe { PrivateFd::lend(fd) })
            } else {
                PrivateFd::duplicate(fd)
            };
            own.map_err(|errno| error::errno(errno, call, None))
        };
        ends.iter().map(own).collect()
    }

    /// What the kernel does of TLS. Whoever keeps the connection has still to learn of its end.
    fn hints(&self, input: End, output: End) -> Hints {
        let records = if self.keep { ControlRecords::TakenButTheLast } else { ControlRecords::Taken };
        Hints { tls_in: input.is_tls().then_some(records), tls_out: output.is_tls(), ..Hints::default() }
    }

    fn job(self, work: Work, ends: Vec<PrivateFd>) -> Job {
        Job { work, ends, idle_timeout: self.idle_timeout, rate: self.rate, keep: self.keep }
    }
}

impl Engine {
    /// `Engine.new(threads)`
    pub fn new(ruby: &Ruby, threads: usize) -> Result<Obj<Self>, Error> {
        let engine =
            background::Engine::new(threads).map_err(|errno| error::errno(errno, "background", None))?;
        Ok(ruby.obj_wrap(Self(engine)))
    }

    /// `copy_stream(token, terms, src, dst, len, src_offset)`
    pub fn copy_stream(ruby: &Ruby, engine: &Self, args: &[Value]) -> Result<Obj<TransferHandle>, Error> {
        error::check_arity(ruby, args.len(), 6..=6)?;
        let terms = Terms::new(ruby, args[1])?;
        let ends = [End::new(ruby, args[2], Side::Input)?, End::new(ruby, args[3], Side::Output)?];
        let (len, offset) = copy::numbers(ruby, args[4], args[5])?;
        descriptors_for_copy(copy::NAME, &ends[0], &ends[1])?;
        let tls = terms.hints(ends[0], ends[1]);
        let hints = Hints { tls_in: tls.tls_in, ..copy::hints(ruby, ends[0], ends[1], offset, false) };
        let fds = terms.own(copy::NAME, &ends)?;
        let plan = look(copy::NAME, || Plan::new(fds[0].as_fd(), fds[1].as_fd(), len, offset, hints))?;
        let mut copy = CopyStream::new(plan, len, offset);
        copy.set_timeouts(timeouts(ends[0], ends[1])?);
        empty_opened(ruby, copy::NAME, Some(&ends[0]), &args[3..4])?;
        let most = if offset.is_some() { 0 } else { len.unwrap_or(u64::MAX) };
        copy.prepend(take_read_ahead(ruby, ends[0], most)?);
        engine.submit(ruby, copy::NAME, args, terms.job(Work::CopyStream(copy), fds), &ends[..1])
    }

    /// `relay(token, terms, a, b)`, or `relay(token, terms, a_in, a_out, b_in, b_out)`
    pub fn relay(ruby: &Ruby, engine: &Self, args: &[Value]) -> Result<Obj<TransferHandle>, Error> {
        error::check_arity(ruby, args.len(), 4..=6)?;
        let terms = Terms::new(ruby, args[1])?;
        let [a_in, a_out, b_in, b_out] = match args[2..] {
            [a, b] => [a, a, b, b],
            [a_in, a_out, b_in, b_out] => [a_in, a_out, b_in, b_out],
            _ => return Err(error::argument(ruby, "relay: two ends or four")),
        };
        let [a_in, b_in] = [End::new(ruby, a_in, Side::Input)?, End::new(ruby, b_in, Side::Input)?];
        let [a_out, b_out] = [End::new(ruby, a_out, Side::Output)?, End::new(ruby, b_out, Side::Output)?];
        descriptors_for_copy(relay::NAME, &a_in, &b_out)?;
        descriptors_for_copy(relay::NAME, &b_in, &a_out)?;
        // In the order in which the core takes them.
        let ends = if args.len() == 4 { vec![a_in, b_in] } else { vec![a_in, a_out, b_in, b_out] };
        let fds = terms.own(relay::NAME, &ends)?;
        let hints = [terms.hints(a_in, b_out), terms.hints(b_in, a_out)];
        let plans = look(relay::NAME, || {
            let fd = |end: usize| fds[end % fds.len()].as_fd();
            let ways = if fds.len() == 2 { [[0, 1], [1, 0]] } else { [[0, 3], [2, 1]] };
            let plan = |[from, to]: [usize; 2], hints| Plan::new(fd(from), fd(to), None, None, hints);
            Ok([plan(ways[0], hints[0])?, plan(ways[1], hints[1])?])
        })?;
        let mut relay = Relay::new(plans, [timeouts(a_in, b_out)?, timeouts(b_in, a_out)?], None);
        let there = take_read_ahead(ruby, a_in, u64::MAX)?;
        match take_read_ahead(ruby, b_in, u64::MAX) {
            Ok(back) => relay.prepend(Direction::BToA, back),
            Err(error) => {
                a_in.unread(there);
                return Err(error);
            }
        }
        relay.prepend(Direction::AToB, there);
        engine.submit(ruby, relay::NAME, args, terms.job(Work::Relay(relay), fds), &[a_in, b_in])
    }

    /// `tee_stream(token, terms, len, src, *dsts)`
    pub fn tee_stream(ruby: &Ruby, engine: &Self, args: &[Value]) -> Result<Obj<TransferHandle>, Error> {
        error::check_arity(ruby, args.len(), 5..=usize::MAX)?;
        let terms = Terms::new(ruby, args[1])?;
        let (len, _) = copy::numbers(ruby, args[2], ruby.qnil().as_value())?;
        let input = End::new(ruby, args[3], Side::Input)?;
        let mut ends = vec![input];
        for dst in &args[4..] {
            ends.push(End::new(ruby, *dst, Side::Output)?);
        }
        for output in &ends[1..] {
            descriptors_for_copy(tee_stream::NAME, &input, output)?;
        }
        let fds = terms.own(tee_stream::NAME, &ends)?;
        let hints = terms.hints(input, input);
        let mut tee = look(tee_stream::NAME, || {
            let outputs: Vec<Option<BorrowedFd<'_>>> = fds[1..].iter().map(|fd| Some(fd.as_fd())).collect();
            TeeStream::new(Some(fds[0].as_fd()), &outputs, len, hints)
        })?;
        let outputs = ends[1..].iter().map(|end| end.timeout()).collect::<Result<Vec<_>, Error>>()?;
        tee.set_timeouts(input.timeout()?, outputs);
        empty_opened(ruby, tee_stream::NAME, Some(&input), &args[4..])?;
        tee.prepend(take_read_ahead(ruby, input, len.unwrap_or(u64::MAX))?);
        engine.submit(ruby, tee_stream::NAME, args, terms.job(Work::TeeStream(tee), fds), &ends[..1])
    }

    /// Hands a job over, or gives back to the inputs what Ruby had read ahead of them. The core looks at the ends once more,
    /// for which a file system may take its time.
    fn submit(
        &self,
        ruby: &Ruby,
        call: &str,
        args: &[Value],
        job: Job,
        inputs: &[End],
    ) -> Result<Obj<TransferHandle>, Error> {
        let token = u64::try_convert(args[0])?;
        let mut job = Some(Box::new(job));
        loop {
            let submitted = gvl::without(|| job.take().map(|job| self.0.submit(*job, token)));
            let (refused, error) = match submitted.flatten() {
                Some(Ok(handle)) => {
                    let opened = args.iter().filter_map(|end| Opened::from_value(ruby, *end));
                    opened.for_each(|file| file.hand_over());
                    return Ok(ruby.obj_wrap(TransferHandle(handle)));
                }
                Some(Err((refused, Errno::SHUTDOWN))) => (refused, error::io(ruby, "closed background")),
                Some(Err((refused, errno))) => (refused, error::errno(errno, call, None)),
                None => match (gvl::check_interrupts(), job.take()) {
                    (Err(error), Some(unsent)) => (unsent, error),
                    (_, unsent) => {
                        job = unsent;
                        continue;
                    }
                },
            };
            for (input, bytes) in inputs.iter().zip(unread_of(*refused)) {
                if !bytes.is_empty() {
                    input.unread(bytes);
                }
            }
            return Err(error);
        }
    }

    /// `wait_ended(seconds)`: waits until some have ended, at most for so long, or until no more will. Interrupts are raised.
    pub fn wait_ended(ruby: &Ruby, engine: &Self, timeout: Value) -> Result<(), Error> {
        let timeout = seconds(ruby, timeout)?;
        match engine.0.ended() {
            Some(ended) => gvl::without_or_raise(|| wait_until_ready(Side::Input, ended.as_fd(), timeout)),
            None => Ok(()),
        }
    }

    /// `take_ended`: takes out those that have ended, each as `[token, error, delivered, unread]`.
    pub fn take_ended(ruby: &Ruby, engine: &Self) -> Result<RArray, Error> {
        let ended = ruby.ary_new();
        for one in engine.0.take_ended() {
            let error = exception(ruby, &one).and_then(|error| error.value());
            let delivered = ruby.ary_from_iter(one.delivered.iter().copied());
            let unread = ruby.ary_from_iter(one.unread.iter().map(|bytes| ruby.str_from_slice(bytes)));
            ended.push((one.token, error, delivered, unread))?;
        }
        Ok(ended)
    }

    /// `over?`: whether its threads have ended, and all that has ended was taken.
    pub fn is_over(&self) -> bool {
        self.0.ended().is_none()
    }

    /// `drain`
    pub fn drain(&self) {
        self.0.drain();
    }

    /// `stop`
    pub fn stop(&self) {
        self.0.stop();
    }

    /// `of_this_process?`
    pub fn is_of_this_process(&self) -> bool {
        self.0.is_of_this_process()
    }

    /// `stats`: under way, begun, done, cancelled, failed, bytes
    pub fn stats(ruby: &Ruby, engine: &Self) -> RArray {
        let stats = engine.0.stats();
        ruby.ary_from_iter([
            stats.under_way,
            stats.begun,
            stats.done,
            stats.cancelled,
            stats.failed,
            stats.bytes,
        ])
    }
}

/// What Ruby had read ahead of the inputs of a job that has not begun.
fn unread_of(job: Job) -> [Vec<u8>; 2] {
    match job.work {
        Work::CopyStream(mut copy) => [copy.abort(None, None), Vec::new()],
        Work::Relay(mut relay) => Direction::BOTH.map(|direction| relay.abort(direction, None, None)),
        Work::TeeStream(mut tee) => [tee.abort(None, &vec![None; job.ends.len() - 1]), Vec::new()],
    }
}

/// `check_terms([keep, idle_timeout, rate])`: raises what a call of the engine would raise because of them.
pub fn check_terms(ruby: &Ruby, terms: Value) -> Result<(), Error> {
    Terms::new(ruby, terms).map(drop)
}

/// `unread(io, bytes)`: puts bytes back in front of those that an IO has still to give.
pub fn unread(ruby: &Ruby, io: Value, bytes: RString) -> Result<(), Error> {
    let input = End::new(ruby, io, Side::Input)?;
    // SAFETY: they are copied before Ruby runs again.
    input.unread(unsafe { bytes.as_slice() }.to_vec());
    Ok(())
}

/// Looks at descriptors without the GVL: a network or FUSE may take its time to say.
fn look<R>(call: &str, mut look: impl FnMut() -> io_splice_core::Result<R>) -> Result<R, Error> {
    loop {
        match gvl::without(&mut look) {
            Some(found) => return found.map_err(|errno| error::errno(errno, call, None)),
            None => gvl::check_interrupts()?,
        }
    }
}

/// All that Ruby has read ahead, up to `most` bytes.
fn take_read_ahead(ruby: &Ruby, input: End, most: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = input.take_read_ahead(ruby, most)?;
    while input.has_read_ahead() && (bytes.len() as u64) < most {
        match input.take_read_ahead(ruby, most - bytes.len() as u64) {
            Ok(more) => bytes.extend(more),
            Err(error) => {
                input.unread(bytes);
                return Err(error);
            }
        }
    }
    Ok(bytes)
}

/// What the foreground call would have raised.
fn exception(ruby: &Ruby, ended: &Ended) -> Option<Error> {
    let delivered = &ended.delivered;
    let relayed = || [0, 1].map(|way| delivered.get(way).copied().unwrap_or(0));
    let error = match ended.outcome {
        // Of what is short the Transfer knows how much was asked for.
        Outcome::Done | Outcome::Short => return None,
        Outcome::Cancelled => error::cancelled(ruby),
        Outcome::Idle => error::timeout(ruby, "Timed out: no byte for too long"),
        Outcome::CopyStream(Pause::TimedOut(side)) => timed_out(ruby, side),
        Outcome::CopyStream(Pause::Failed(errno)) => error::errno(errno, copy::NAME, ended.why),
        Outcome::Relay(RelayPause::TimedOut(_, side)) => timed_out(ruby, side),
        Outcome::Relay(RelayPause::Failed(direction, errno)) => relay::failure(direction, errno, ended.why),
        Outcome::TeeStream(TeeStreamPause::TimedOut(output)) => {
            timed_out(ruby, output.map_or(Side::Input, |_| Side::Output))
        }
        Outcome::TeeStream(TeeStreamPause::InputFailed(errno)) => tee_stream::failure(None, errno, ended.why),
        Outcome::TeeStream(TeeStreamPause::OutputFailed(output, Some(errno))) => {
            tee_stream::failure(Some(output), errno, None)
        }
        Outcome::Failed(errno) => error::errno(errno, "background", None),
        Outcome::NotClosed(errno) => error::errno(errno, "close", None),
        Outcome::CopyStream(_) | Outcome::Relay(_) | Outcome::TeeStream(_) | Outcome::Panicked => {
            error::runtime(ruby, "this is a bug in io_splice: a transfer has ended in an unknown way")
        }
    };
    Some(match ended.outcome {
        Outcome::Relay(_) => error::relayed(ruby, error, relayed()),
        Outcome::TeeStream(TeeStreamPause::OutputFailed(output, _)) => {
            error::partial_tee(ruby, error, Some(output), delivered)
        }
        Outcome::TeeStream(_) => error::partial_tee(ruby, error, (), delivered),
        _ => error,
    })
}
