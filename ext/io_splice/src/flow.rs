//! `IO::Splice::Copying::Flow`: a copy between two descriptors that leaves each wait to its caller, for a relay whose
//! other direction is done in Ruby.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use io_splice_core::copy::{CopyStream, Host, Pause, Plan};
use io_splice_core::{Awaited, Side, Step, Waited, kernel_tls};
use magnus::typed_data::Obj;
use magnus::value::ReprValue;
use magnus::{DataTypeFunctions, Error, IntoValue, RArray, RString, Ruby, TryConvert, TypedData, Value};

use crate::copy::{abort_copy, hints};
use crate::end::{End, descriptor_of, descriptors_for_copy, keep_alive};
use crate::relay::NAME;
use crate::without_gvl::{GvlFreeHost, Scheduler, inspect_without_gvl, without_gvl};
use crate::{error, gvl};

/// A copy to the end of the input.
#[derive(TypedData)]
#[magnus(class = "IO::Splice::Copying::Flow", free_immediately)]
pub struct Flow(Mutex<CopyStream>);

impl DataTypeFunctions for Flow {}

impl Flow {
    /// `Flow.new(src, dst)`
    pub fn new(ruby: &Ruby, src: Value, dst: Value) -> Result<Obj<Self>, Error> {
        let [input, output] = ends(ruby, src, dst)?;
        descriptors_for_copy(NAME, &input, &output)?;
        let hints = hints(ruby, input, output, None, false);
        let plan =
            inspect_without_gvl(NAME, &[input, output], |fds| Plan::new(fds[0], fds[1], None, None, hints))?;
        let mut copy = CopyStream::new(plan, None, None);
        copy.never_block();
        // Bounds each call, so that the other direction has its turn.
        copy.report();
        read_ahead(ruby, input, &mut copy)?;
        Ok(ruby.obj_wrap(Self(Mutex::new(copy))))
    }

    /// `run(src, dst)`: nil when the input has ended; false when the other direction is to have its turn; else whether it
    /// waits for the input, whether for the output, and for how many seconds at most.
    pub fn run(ruby: &Ruby, flow: &Self, src: Value, dst: Value) -> Result<Value, Error> {
        let [input, output] = ends(ruby, src, dst)?;
        descriptors_for_copy(NAME, &input, &output)?;
        let mut host = GvlFreeHost::never_waiting();
        let mut pause = Pause::Interrupted;
        without_gvl(NAME, &[input, output], &mut |fds| {
            flow.with(|copy| {
                pause = copy.run(fds[0], fds[1], &mut host);
                if pause == Pause::Wait {
                    copy.release_unless_busy();
                }
            });
        })?;
        keep_alive(&input);
        keep_alive(&output);
        match pause {
            Pause::Done if input.has_read_ahead() => {
                let mut copy = flow.with(std::mem::take);
                let taken = read_ahead(ruby, input, &mut copy);
                flow.with(|place| *place = copy);
                taken.map(|()| false.into_value_with(ruby))
            }
            Pause::Done => Ok(ruby.qnil().into_value_with(ruby)),
            Pause::Progress | Pause::Interrupted => Ok(false.into_value_with(ruby)),
            Pause::Wait => {
                let ([for_input, for_output], timeout) = host.awaited();
                let timeout = timeout.map(|timeout| timeout.as_secs_f64());
                Ok((for_input, for_output, timeout).into_value_with(ruby))
            }
            Pause::TimedOut(side) => Err(crate::wait::timed_out(ruby, side)),
            Pause::Failed(errno) => Err(error::errno(errno, NAME, None)),
        }
    }

    /// `abort(src, dst)`: delivers what goes at once, unless `dst` is nil; the rest goes back.
    pub fn abort(ruby: &Ruby, flow: &Self, src: Value, dst: Value) -> Result<(), Error> {
        let input = End::new(ruby, src, Side::Input)?;
        let output = if dst.is_nil() { None } else { Some(End::new(ruby, dst, Side::Output)?) };
        let mut copy = flow.with(std::mem::take);
        let interrupted = abort_copy(input, output, |fd_in, fd_out| copy.abort(fd_in, fd_out));
        flow.with(|place| *place = copy);
        interrupted
    }

    /// `bytes`: how many have reached the output.
    pub fn bytes(&self) -> u64 {
        self.with(|copy| copy.delivered())
    }

    fn with<R>(&self, work: impl FnOnce(&mut CopyStream) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn ends(ruby: &Ruby, src: Value, dst: Value) -> Result<[End; 2], Error> {
    Ok([End::new(ruby, src, Side::Input)?, End::new(ruby, dst, Side::Output)?])
}

fn read_ahead(ruby: &Ruby, input: End, copy: &mut CopyStream) -> Result<(), Error> {
    copy.prepend(input.take_read_ahead(ruby, u64::MAX)?);
    copy.set_more_ahead(input.has_read_ahead());
    Ok(())
}

/// `read_ahead(io)`: takes out of Ruby's read buffer what is there, or a part of it.
pub fn take_read_ahead(ruby: &Ruby, io: Value) -> Result<RString, Error> {
    let bytes = End::new(ruby, io, Side::Input)?.take_read_ahead(ruby, u64::MAX)?;
    Ok(ruby.str_from_slice(&bytes))
}

/// `read_now(io, most)`: what the descriptor has, nil at its end, `:wait_readable` if it would block. Its mode stays as it is.
pub fn read_now(ruby: &Ruby, io: Value, most: usize) -> Result<Value, Error> {
    let end = End::new(ruby, io, Side::Input)?;
    let fd = descriptor_of(NAME, &end)?;
    let mut buffer = vec![0; most];
    match io_splice_core::read_now(fd, &mut buffer) {
        Ok(Step::Moved(bytes)) => Ok(ruby.str_from_slice(&buffer[..bytes]).as_value()),
        Ok(Step::WouldBlock) => Ok(ruby.to_symbol("wait_readable").as_value()),
        Ok(Step::Ended) => Ok(ruby.qnil().as_value()),
        Err(errno) => Err(error::errno(errno, NAME, None)),
    }
}

/// `write_now(io, bytes)`: how many it has taken, nil if it would block. Its mode stays as it is.
pub fn write_now(ruby: &Ruby, io: Value, bytes: RString) -> Result<Option<usize>, Error> {
    let end = End::new(ruby, io, Side::Output)?;
    let fd = descriptor_of(NAME, &end)?;
    // SAFETY: no Ruby code runs while they are borrowed.
    match io_splice_core::write_now(fd, unsafe { bytes.as_slice() }) {
        Ok(Step::Moved(bytes)) => Ok(Some(bytes)),
        Ok(Step::WouldBlock) => Ok(None),
        Ok(Step::Ended) => Ok(Some(0)),
        Err(errno) => Err(error::errno(errno, NAME, None)),
    }
}

/// `kernel_tls(io)`: whether the kernel decrypts what comes from a socket, and whether it encrypts what goes to it.
pub fn kernel_tls_of(ruby: &Ruby, io: Value) -> Result<(bool, bool), Error> {
    let end = End::new(ruby, io, Side::Input)?;
    let [input, output] = kernel_tls(descriptor_of("ktls", &end)?);
    Ok((input, output))
}

/// `wait_for_any(ends, timeout)`: until one of the ends may be ready, each an IO and whether it is to be written to, or as many
/// seconds have gone by. Returns those that are ready, nil if that is not known.
pub fn wait_for_any(ruby: &Ruby, awaited: RArray, timeout: Option<f64>) -> Result<Option<RArray>, Error> {
    let mut ends = Vec::with_capacity(awaited.len());
    for one in awaited {
        let (io, is_output) = <(Value, bool)>::try_convert(one)?;
        ends.push(End::new(ruby, io, if is_output { Side::Output } else { Side::Input })?);
    }
    let timeout = timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let mut host = GvlFreeHost::new();
    let mut waits = false;
    let mut ready = Vec::with_capacity(ends.len());
    without_gvl(NAME, &ends, &mut |fds| {
        let mut all: Vec<_> = ends
            .iter()
            .zip(fds)
            .map(|(end, fd)| Awaited { side: end.side(), fd: *fd, ready: false })
            .collect();
        waits = host.wait(&mut all, timeout) == Waited::Yield;
        ready.clear();
        ready.extend(all.iter().map(|one| one.ready));
    })?;
    if waits {
        Scheduler::default().wait(ruby, NAME, &host, &ends)?;
    }
    ends.iter().for_each(keep_alive);
    gvl::check_interrupts()?;
    if waits {
        return Ok(None);
    }
    let found = ruby.ary_new();
    for (one, _) in awaited.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready) {
        found.push(one)?;
    }
    Ok(Some(found))
}
