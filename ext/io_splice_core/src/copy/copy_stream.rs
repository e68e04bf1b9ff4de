use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::io::Errno;

use super::host::{Wait, wait};
use super::report::Report;
use super::{Advance, Host, Kernel, Linux, PORTION, Plan, Pump, Side, Timeouts, Waited};

/// Why [`CopyStream::run`] returned. Unless it is `Done` or a failure, call `run` again to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// All was copied, or the input has ended.
    Done,
    /// Bytes were copied, and the caller asked to be told: after each portion, and ten times a second.
    Progress,
    /// The host is to wait for what it was asked for.
    Wait,
    /// An interrupt is pending.
    Interrupted,
    /// This end was not ready in time.
    TimedOut(Side),
    /// The kernel refuses.
    Failed(Errno),
}

/// A copy from one input to one output.
///
/// It owns no end; they are given to each [`run`](CopyStream::run).
#[derive(Debug)]
pub struct CopyStream<K: Kernel = Linux> {
    pump: Pump<K>,
    wait: Wait,
    /// `None` if nobody asked.
    report: Option<Report>,
}

impl Default for CopyStream {
    /// A copy of nothing.
    fn default() -> Self {
        Self::new(Plan::UNKNOWN, Some(0), None)
    }
}

impl CopyStream {
    /// A copy of `len` bytes, or to the end of the input; from `offset`, or from where the input stands.
    pub fn new(plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        Self::with_kernel(Linux, plan, len, offset)
    }
}

impl<K: Kernel> CopyStream<K> {
    /// As [`CopyStream::new`], with a kernel of one's own.
    #[doc(hidden)]
    pub fn with_kernel(kernel: K, plan: Plan, len: Option<u64>, offset: Option<u64>) -> Self {
        let mut wait = Wait::default();
        wait.set_silence(plan.silence);
        Self { pump: Pump::new(kernel, plan, len, offset), wait, report: None }
    }

    /// Asks that the kernel never wait for a peer, not even on a descriptor in blocking mode.
    pub fn never_block(&mut self) {
        self.pump.never_block();
    }

    /// Takes at most so many bytes a second, over any few seconds.
    pub fn set_rate(&mut self, per_second: u64) {
        self.pump.set_rate(per_second);
    }

    /// Whether it waits because of its rate, and for neither end.
    pub fn is_throttled(&self) -> bool {
        self.wait.is_throttled()
    }

    /// Releases the pipe or the memory that nothing is in, unless it is in full use: for one that waits beside many others.
    pub fn release_unless_busy(&mut self) {
        self.pump.in_flight.release_unless_busy();
    }

    /// Sets how long the input and the output may take to become ready.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.wait.set_timeouts(timeouts);
    }

    /// Bytes that were read ahead of the input: they go first, and count.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        self.pump.prepend(bytes);
    }

    /// Whether there is more to be prepended. Then nothing is taken from the input, and it is `Done` when the output has
    /// what there is.
    pub fn set_more_ahead(&mut self, more: bool) {
        self.pump.set_more_ahead(more);
    }

    /// Asks to be told now and then how far the copy is.
    pub fn report(&mut self) {
        self.report = Some(Report::new());
        self.pump.set_max_per_call(PORTION as usize);
    }

    /// How many bytes the output has taken.
    pub fn delivered(&self) -> u64 {
        self.pump.delivered()
    }

    /// Whether the kernel decrypts what comes from the input.
    pub fn is_from_tls(&self) -> bool {
        self.pump.plan().tls_in.is_some()
    }

    /// Whether bytes are missing of those that were asked for: when it is done, the input has ended too soon.
    pub fn is_short(&self) -> bool {
        self.pump.is_short()
    }

    /// How many bytes have left the input and not reached the output.
    pub fn in_flight(&self) -> usize {
        self.pump.in_flight.len()
    }

    /// Whether an end before the copy is done has to be an [`abort`](CopyStream::abort).
    pub fn needs_abort(&self) -> bool {
        self.pump.needs_abort()
    }

    /// The kernel's stand-in, for a test to look at.
    #[doc(hidden)]
    pub fn kernel(&mut self) -> &mut K {
        self.pump.kernel()
    }

    /// Copies until it is done or something stands in the way.
    pub fn run(&mut self, input: BorrowedFd<'_>, output: BorrowedFd<'_>, host: &mut impl Host) -> Pause {
        if self.pump.in_flight.lost_its_pipe() {
            return Pause::Failed(Errno::BADF);
        }
        self.run_by([input, output], host, |pump| pump.advance(input, output))
    }

    /// How much memory the next [`read_portion`](CopyStream::read_portion) is worth.
    pub fn portion_size(&self) -> usize {
        self.pump.portion_size()
    }

    /// Reads the next bytes of the input into memory: as many as come at once, 0 at the end. An error says why there are
    /// none yet. The plan is one [for an input](Plan::for_input); whoever has the bytes sees to their being delivered.
    pub fn read_portion(
        &mut self,
        input: BorrowedFd<'_>,
        buffer: &mut [u8],
        host: &mut impl Host,
    ) -> Result<usize, Pause> {
        let before = self.pump.taken();
        let pause = self.run_by([input; 2], host, |pump| match pump.taken() - before {
            0 => pump.read_into(input, buffer),
            _ => Advance::Done,
        });
        match (pause, (self.pump.taken() - before) as usize) {
            (Pause::Done, read) | (_, read @ 1..) => Ok(read),
            (pause, 0) => Err(pause),
        }
    }

    /// Writes bytes to the output, and moves the slice on over those that it has taken; `Done` when that is all. The plan
    /// is one [for an output](Plan::for_output).
    pub fn write_portion(
        &mut self,
        output: BorrowedFd<'_>,
        bytes: &mut &[u8],
        host: &mut impl Host,
    ) -> Pause {
        self.run_by([output; 2], host, |pump| pump.write_from(output, bytes))
    }

    /// Writes as many of these bytes as the output accepts at once, and moves the slice on over them.
    pub fn write_now(&mut self, output: BorrowedFd<'_>, bytes: &mut &[u8]) {
        self.pump.write_from_now(output, bytes);
    }

    /// Moves the position of the input back by so many bytes, which were read and not delivered; `false` if it has none.
    pub fn seek_back(&mut self, input: Option<BorrowedFd<'_>>, bytes: u64) -> bool {
        self.pump.seek_back(input, bytes)
    }

    /// Goes on until it is done or something stands in the way.
    fn run_by(
        &mut self,
        ends: [BorrowedFd<'_>; 2],
        host: &mut impl Host,
        mut advance: impl FnMut(&mut Pump<K>) -> Advance,
    ) -> Pause {
        loop {
            if self.wait.side().is_some() {
                let now = Instant::now();
                let report_at = self.report.as_ref().and_then(|report| report.at(self.delivered()));
                let until = [self.pump.before_wait(now), report_at].into_iter().flatten().min();
                match wait(host, [(&mut self.wait, ends)], now, until) {
                    Waited::Ready => {}
                    Waited::Interrupted => return Pause::Interrupted,
                    Waited::Yield => return Pause::Wait,
                    Waited::TimedOut => {
                        if let Some(side) = self.wait.overdue(Instant::now()) {
                            return Pause::TimedOut(side);
                        }
                        if self.report_is_due() {
                            return Pause::Progress;
                        }
                        continue;
                    }
                }
            }
            match advance(&mut self.pump) {
                Advance::Progress => {
                    self.wait.progress();
                    if self.report_is_due() {
                        return Pause::Progress;
                    }
                    if host.interrupted() {
                        return Pause::Interrupted;
                    }
                }
                Advance::Done => return Pause::Done,
                Advance::Blocked(side) => self.wait.blocked(side),
                Advance::Stalled(side) => self.wait.stalled(side),
                Advance::Throttled(until) => self.wait.throttled(until),
                Advance::Interrupted => return Pause::Interrupted,
                Advance::Failed(errno) => return Pause::Failed(errno),
            }
        }
    }

    /// Aborts the copy. Delivers what the output accepts at once; the rest goes back: by moving the position of an input
    /// that has one, else it is returned.
    pub fn abort(&mut self, input: Option<BorrowedFd<'_>>, output: Option<BorrowedFd<'_>>) -> Vec<u8> {
        self.pump.abort(input, output)
    }

    fn report_is_due(&mut self) -> bool {
        let delivered = self.delivered();
        self.report.as_mut().is_some_and(|report| report.is_due(delivered, PORTION))
    }
}
