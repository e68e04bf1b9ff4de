use std::os::fd::BorrowedFd;

use io_splice_core::copy::{Hints, TeeStream, TeeStreamPause};
use io_splice_core::{Errno, Side, copied};
use magnus::block::Proc;
use magnus::value::ReprValue;
use magnus::{Error, IntoValue, RArray, RString, Ruby, TryConvert, Value};

use crate::copy::empty_opened;
use crate::end::{End, descriptor_of, descriptors_for_copy};
use crate::object::new_string;
use crate::park::park;
use crate::reentry::once;
use crate::wait::timed_out;
use crate::without_gvl::{GvlFreeHost, Scheduler, cleanup_without_gvl, inspect_without_gvl, without_gvl};
use crate::{error, gvl, number};

pub const NAME: &str = "tee_stream";

/// `tee_between(src, len, hand_over, taken, *dsts) { |bytes_so_far| }`: a copy from one descriptor to several, to the end of
/// the input or `len` bytes; the count may be less. A `src` that is a String is what there is to copy. A `dst` that is nil
/// is handed its bytes: `hand_over.(index, bytes)` adds to `taken[index]` how many it took, and says false if it takes no
/// more. Then `hand_over.(index, nil)` is to raise the reason when the others have caught up. What the others took is added
/// in the end.
pub fn tee_between(ruby: &Ruby, args: &[Value]) -> Result<Value, Error> {
    let bytes = RString::from_value(args[0]);
    let input = if bytes.is_some() { None } else { Some(End::new(ruby, args[0], Side::Input)?) };
    let len = if args[1].is_nil() { None } else { Some(number::length(ruby, "length", args[1])? as u64) };
    let hand_over = Proc::try_convert(args[2])?;
    let taken = RArray::try_convert(args[3])?;
    let progress = if ruby.block_given() { Some(ruby.block_proc()?) } else { None };
    let end = |dst: &Value| {
        if dst.is_nil() { Ok(None) } else { End::new(ruby, *dst, Side::Output).map(Some) }
    };
    // They are IOs and numbers, and stay where they are as long as they are arguments.
    let outputs = args[4..].iter().map(end).collect::<Result<Vec<_>, Error>>()?;

    sync_buffers(input.as_ref(), &outputs)?;
    let nothing = vec![0; outputs.len()];
    let not_begun = |error| error::partial_tee(ruby, error, (), &nothing);
    let mut copy = plan(input, &outputs, len).map_err(not_begun)?.map_err(|errno| {
        let why = (errno == Errno::INVAL).then_some("an output is the pipe that is the input");
        error::errno(errno, NAME, why)
    })?;
    if bytes.is_none_or(|bytes| !bytes.is_empty()) {
        empty_opened(ruby, NAME, input.as_ref(), &args[4..]).map_err(not_begun)?;
    }
    let timeout = |end: &Option<End>| end.map_or(Ok(None), End::timeout);
    let timeouts = outputs.iter().map(timeout).collect::<Result<Vec<_>, Error>>()?;
    copy.set_timeouts(timeout(&input)?, timeouts);
    if progress.is_some() {
        copy.report();
    }
    if let Some(bytes) = bytes {
        // SAFETY: it is copied before Ruby runs again.
        let bytes = copied(unsafe { bytes.as_slice() }).map_err(|errno| error::no_memory(ruby, errno))?;
        copy.prepend(bytes);
    }

    let mut work =
        Work { copy, input, len, outputs, hand_over, taken, progress, failed: None, more_ahead: false };
    let mut ended = work.run(ruby);
    if ended.is_err() {
        ended = work.abort_copy().and(ended);
    }
    std::hint::black_box((&work.input, args));
    let delivered: Vec<u64> = work.copy.delivered().collect();
    // Here no interrupt can come in between, as it can on the way back.
    for (index, delivered) in delivered.iter().enumerate().filter(|(index, _)| work.outputs[*index].is_some())
    {
        let before: u64 = taken.entry(index as isize)?;
        taken.store(index as isize, before + delivered)?;
    }
    match ended {
        Ok(()) => Ok(work.copy.copied().into_value_with(ruby)),
        Err(error) => Err(error::partial_tee(ruby, error, work.failed, &delivered)),
    }
}

/// The kernel has refused to take from the input, or to bring to this output.
pub fn failure(output: Option<usize>, errno: Errno, why: Option<&str>) -> Error {
    let end = output.map_or("the input".to_owned(), |output| format!("output {output}"));
    error::errno_of(errno, NAME, &end, why)
}

/// Looks at all ends.
fn plan(
    input: Option<End>,
    outputs: &[Option<End>],
    len: Option<u64>,
) -> Result<io_splice_core::Result<TeeStream>, Error> {
    let ends: Vec<_> = outputs.iter().copied().chain([input]).flatten().collect();
    inspect_without_gvl(NAME, &ends, |fds| {
        let (fd_in, fds_out) = of_outputs(outputs, fds);
        Ok(TeeStream::new(fd_in, &fds_out, len, Hints::default()))
    })
}

/// The descriptor of the input, and of each output, of those of all ends, of which the input comes last.
fn of_outputs<'fd>(outputs: &[Option<End>], fds: &[BorrowedFd<'fd>]) -> Descriptors<'fd> {
    let mut fds = fds.iter().copied();
    let fds_out = outputs.iter().map(|end| end.and_then(|_| fds.next())).collect();
    (fds.next(), fds_out)
}

struct Work {
    copy: TeeStream,
    input: Option<End>,
    len: Option<u64>,
    outputs: Vec<Option<End>>,
    hand_over: Proc,
    /// What outputs without a descriptor say that they have taken.
    taken: RArray,
    progress: Option<Proc>,
    /// The output whose error this is.
    failed: Option<usize>,
    /// Whether Ruby has read ahead more than what is being copied.
    more_ahead: bool,
}

impl Work {
    fn run(&mut self, ruby: &Ruby) -> Result<(), Error> {
        let ends: Vec<_> = self.outputs.iter().copied().chain([self.input]).flatten().collect();
        self.read_ahead(ruby)?;
        let mut scheduler = Scheduler::default();
        loop {
            sync_buffers(self.input.as_ref(), &self.outputs)?;
            let mut host = GvlFreeHost::new();
            let mut pause = TeeStreamPause::Interrupted;
            without_gvl(NAME, &ends, &mut |fds| {
                let (fd_in, fds_out) = of_outputs(&self.outputs, fds);
                pause = self.copy.run(fd_in, &fds_out, &mut host);
            })?;
            match pause {
                TeeStreamPause::Done if self.more_ahead => self.read_ahead(ruby)?,
                TeeStreamPause::Done => return self.tell(ruby),
                TeeStreamPause::Progress => self.tell(ruby)?,
                TeeStreamPause::HandOver(output) => self.hand_over(ruby, output)?,
                TeeStreamPause::Wait => {
                    park(ruby, &mut self.copy, || scheduler.wait(ruby, NAME, &host, &ends))?
                }
                TeeStreamPause::Interrupted => gvl::check_interrupts()?,
                TeeStreamPause::TimedOut(output) => {
                    self.failed = output;
                    return Err(timed_out(ruby, output.map_or(Side::Input, |_| Side::Output)));
                }
                TeeStreamPause::InputFailed(errno) => {
                    return Err(failure(None, errno, None));
                }
                TeeStreamPause::OutputFailed(output, errno) => {
                    self.failed = Some(output);
                    return Err(match errno {
                        Some(errno) => failure(Some(output), errno, None),
                        // What it raised was kept.
                        None => {
                            once(ruby, || self.hand_over.call::<_, Value>((output, ()))).err().unwrap_or_else(
                                || error::io(ruby, format!("{NAME}: output {output} stopped accepting data")),
                            )
                        }
                    });
                }
            }
        }
    }

    /// The next portion of what Ruby has read ahead, if there is one.
    fn read_ahead(&mut self, ruby: &Ruby) -> Result<(), Error> {
        let Some(input) = self.input else { return Ok(()) };
        let rest = self.len.unwrap_or(u64::MAX) - self.copy.copied();
        let bytes = input.take_read_ahead(ruby, rest)?;
        self.more_ahead = rest > bytes.len() as u64 && input.has_read_ahead();
        self.copy.set_more_ahead(self.more_ahead);
        self.copy.prepend(bytes);
        Ok(())
    }

    fn tell(&mut self, ruby: &Ruby) -> Result<(), Error> {
        let Some(progress) = self.progress else { return Ok(()) };
        let taken = self.copy.taken_by_all();
        park(ruby, &mut self.copy, || progress.call::<_, Value>((taken,))).map(drop)
    }

    fn hand_over(&mut self, ruby: &Ruby, output: usize) -> Result<(), Error> {
        let bytes = self.copy.bytes_for(output).map_err(|errno| error::errno(errno, NAME, None))?;
        let bytes = new_string(bytes)?;
        let handed = bytes.len();
        let before: u64 = self.taken.entry(output as isize)?;
        let hand_over = self.hand_over;
        let takes_more = park(ruby, &mut self.copy, || hand_over.call::<_, bool>((output, bytes)));
        // What was taken counts, also when an interrupt has come since.
        match self.taken.entry::<u64>(output as isize) {
            Ok(taken) => {
                let taken = taken.saturating_sub(before) as usize;
                self.copy.handed_over(output, taken.min(handed));
            }
            Err(error) => {
                self.failed = Some(output);
                return Err(error);
            }
        }
        if !takes_more? {
            self.copy.fail(output, None);
        }
        Ok(())
    }

    /// After an exception: every output gets what it takes at once of what another one has, and what none has
    /// goes back. An error takes the place of that exception.
    fn abort_copy(&mut self) -> Result<(), Error> {
        let ends: Vec<_> = std::iter::once(self.input.and_then(End::to_seek_back))
            .chain(self.outputs.iter().copied())
            .collect();
        let mut bytes = Vec::new();
        let interrupted = cleanup_without_gvl(&ends, &mut |fds| bytes = self.copy.abort(fds[0], &fds[1..]));
        if let (Some(input), false) = (self.input, bytes.is_empty()) {
            input.unread(bytes);
        }
        interrupted
    }
}

/// Prepares all ends: what Ruby has still to write is written first.
fn sync_buffers(input: Option<&End>, outputs: &[Option<End>]) -> Result<(), Error> {
    for output in outputs.iter().flatten() {
        // Without an input the output stands in for it, of which nothing is asked then.
        descriptors_for_copy(NAME, input.unwrap_or(output), output)?;
    }
    match input {
        Some(input) if outputs.iter().all(Option::is_none) => descriptor_of(NAME, input).map(drop),
        _ => Ok(()),
    }
}

type Descriptors<'end> = (Option<BorrowedFd<'end>>, Vec<Option<BorrowedFd<'end>>>);
