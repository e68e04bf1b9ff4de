use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;

use magnus::error::ErrorType;
use magnus::rb_sys::{AsRawId, AsRawValue, protect, resume_error};
use magnus::value::{Lazy, LazyId, ReprValue};
use magnus::{Error, RHash, Ruby, Value};
use rb_sys::{VALUE, rb_unblock_function_t};

use crate::error;

type Caught<R> = Result<R, Box<dyn Any + Send>>;

struct Job<F, R> {
    work: Option<F>,
    result: Option<Caught<R>>,
}

impl<F: FnOnce() -> R, R> Job<F, R> {
    fn new(work: F) -> Self {
        Self { work: Some(work), result: None }
    }

    /// What Ruby calls: it runs the work and keeps a panic for [`Job::finish`], since none may
    /// unwind through C.
    unsafe extern "C" fn run(job: *mut c_void) -> *mut c_void {
        // SAFETY: every caller below hands over its own, live `Job` and looks at it only afterwards.
        unsafe { &mut *job.cast::<Self>() }.run_once();
        std::ptr::null_mut()
    }

    fn run_once(&mut self) {
        if let Some(work) = self.work.take() {
            self.result = Some(catch_unwind(AssertUnwindSafe(work)));
        }
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (self as *mut Self).cast()
    }

    fn finish(self) -> Option<R> {
        match self.result? {
            Ok(result) => Some(result),
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Runs `work` without the GVL. `None` when an interrupt is pending: then `work` did not run.
///
/// No exception is raised here, before or after, so what `work` did is never lost to the caller.
/// `work` must not touch anything of Ruby's.
pub fn without<R>(work: impl FnOnce() -> R) -> Option<R> {
    let mut job = Job::new(work);
    call_without(&mut job, rb_sys::RB_NOGVL_INTR_FAIL as _);
    job.finish()
}

/// As [`without`], but pending interrupts are raised before or after `work`, as in any blocking call of Ruby. An
/// error says that an exception is due; whether `work` ran before, only `work` knows.
pub fn without_or_raise<R>(work: impl FnOnce() -> R) -> Result<(), Error> {
    let mut job = Job::new(work);
    let interrupted = protect(|| {
        call_without(&mut job, 0);
        rb_sys::Qnil as _
    });
    job.finish();
    interrupted.map(drop)
}

/// Runs `work` while an exception or a `throw` is on its way, which it does not disturb. The error is what `work` says.
pub fn ensure(work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    unsafe extern "C" fn nothing(_: VALUE) -> VALUE {
        rb_sys::Qnil as _
    }
    unsafe extern "C" fn run<F: FnOnce() -> Result<(), Error>>(job: VALUE) -> VALUE {
        // SAFETY: `ensure` hands over its own, live job.
        let job = unsafe { &mut *(job as *mut Job<F, Result<(), Error>>) };
        job.run_once();
        let is_jump = |error: &Error| matches!(error.error_type(), ErrorType::Jump(_));
        if let Some(Ok(Err(error))) =
            job.result.take_if(|result| matches!(result, Ok(Err(error)) if is_jump(error)))
        {
            // SAFETY: it is the last thing here, and `protect` is around it.
            unsafe { resume_error(error) }
        }
        rb_sys::Qnil as _
    }
    fn run_of<F: FnOnce() -> Result<(), Error>>(
        _: &Job<F, Result<(), Error>>,
    ) -> unsafe extern "C" fn(VALUE) -> VALUE {
        run::<F>
    }
    let mut job = Job::new(work);
    let run = run_of(&job);
    let data = job.as_ptr() as VALUE;
    // Ruby keeps what is on its way (`ec->errinfo`) aside for `ensure`, and in no other place that one could get at.
    // SAFETY: both functions match their arguments, and `job` outlives the call. Only a jump is raised, since for an exception
    // `protect` would want to put back what is on its way.
    protect(|| unsafe { rb_sys::rb_ensure(Some(nothing), 0, Some(run), data) })?;
    job.finish().unwrap_or(Ok(()))
}

/// What `Thread.handle_interrupt` is given by [`deferring_interrupts`].
static ON_BLOCKING: Lazy<RHash> = Lazy::new(|ruby| {
    let mask = ruby.hash_new();
    let made = mask.aset(ruby.class_object(), ruby.sym_new("on_blocking"));
    made.and_then(|()| mask.funcall::<_, _, Value>("compare_by_identity", ())).expect("it is a new Hash");
    mask.freeze();
    mask
});
static HANDLE_INTERRUPT: LazyId = LazyId::new("handle_interrupt");

/// Makes what [`deferring_interrupts`] needs.
pub fn init(ruby: &Ruby) {
    Lazy::force(&ON_BLOCKING, ruby);
    LazyId::force(&HANDLE_INTERRUPT, ruby);
}

/// Runs `work` while other threads can raise something in this one only where it blocks: `Thread.handle_interrupt`. An error
/// that comes from outside takes the place of the one that `work` ends with.
pub fn deferring_interrupts<R>(ruby: &Ruby, work: impl FnOnce() -> Result<R, Error>) -> Result<R, Error> {
    unsafe extern "C" fn run<F: FnOnce() -> Result<R, Error>, R>(
        _: VALUE,
        job: VALUE,
        _: c_int,
        _: *const VALUE,
        _: VALUE,
    ) -> VALUE {
        // SAFETY: the job is that of the call below, and live.
        let job = unsafe { &mut *(job as *mut Job<F, Result<R, Error>>) };
        job.run_once();
        if let Some(Ok(Err(error))) = job.result.take_if(|result| matches!(result, Ok(Err(_)))) {
            // SAFETY: it is the last thing here, and `protect` is around it.
            unsafe { resume_error(error) }
        }
        rb_sys::Qnil as _
    }
    fn run_of<F: FnOnce() -> Result<R, Error>, R>(
        _: &Job<F, Result<R, Error>>,
    ) -> rb_sys::rb_block_call_func_t {
        Some(run::<F, R>)
    }
    if alone() {
        // A signal does not ask.
        return work();
    }
    let mut job = Job::new(work);
    let run = run_of(&job);
    let mask = ruby.get_inner(&ON_BLOCKING).as_raw();
    let name = LazyId::get_inner_with(&HANDLE_INTERRUPT, ruby).as_raw();
    let data = job.as_ptr() as VALUE;
    // SAFETY: the function matches its argument, and the job outlives the call. What is raised is the error.
    protect(|| unsafe { rb_sys::rb_block_call(rb_sys::rb_cThread, name, 1, &mask, run, data) })?;
    job.finish()
        .unwrap_or_else(|| Err(error::runtime(ruby, "Thread.handle_interrupt has not called its block")))
}

/// With INTR_FAIL Ruby neither raises nor runs other Ruby code on this thread; without, this must be under `protect`.
fn call_without<F: FnOnce() -> R, R>(job: &mut Job<F, R>, flags: i32) {
    call_region(Job::<F, R>::run, job.as_ptr(), flags);
}

/// The same for a region with its own, live job.
fn call_region(region: Region, data: *mut c_void, flags: i32) {
    // SAFETY: RUBY_UBF_IO is the pointer -1, which Ruby compares and never calls.
    let ubf: rb_unblock_function_t = unsafe { std::mem::transmute(-1_isize) };
    // SAFETY: the region matches its argument, and the job outlives the call.
    unsafe {
        rb_sys::rb_nogvl(Some(region), data, ubf, std::ptr::null_mut(), flags);
    }
}

/// Whether this is the only living thread of its Ractor, so that nobody can close what it uses.
pub fn alone() -> bool {
    // SAFETY: it only reads a counter.
    unsafe { rb_sys::rb_thread_alone() != 0 }
}

/// Whether this is a fiber that a scheduler runs.
pub fn scheduled() -> bool {
    // SAFETY: it only looks at the current thread and fiber.
    unsafe { rb_sys::rb_fiber_scheduler_current() != rb_sys::Qnil as rb_sys::VALUE }
}

/// Lets pending signals, `Thread#raise`, `Thread#kill` and other threads have their turn. Also delivers interrupts
/// deferred with `:on_blocking`.
pub fn check_interrupts() -> Result<(), Error> {
    // SAFETY: it may raise, which `protect` turns into the error.
    protect(|| unsafe {
        rb_sys::rb_thread_check_ints();
        rb_sys::Qnil as _
    })
    .map(drop)
}

/// Runs `work` with the GVL while Ruby knows that this thread uses `fd`: when another thread closes that
/// descriptor, `work` is interrupted with `IOError`, and the close waits for its end.
///
/// It lets go of the GVL and takes it again, so other threads may run before `work` does.
pub fn while_using(
    file: *mut rb_sys::rb_io_t,
    fd: i32,
    work: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    unsafe extern "C" fn with_gvl<F: FnOnce() -> R, R>(job: *mut c_void) -> *mut c_void {
        // SAFETY: Ruby calls this on the thread, and from within the region, that let go of the GVL.
        unsafe { rb_sys::rb_thread_call_with_gvl(Some(Job::<F, R>::run), job) }
    }
    // The type of a closure has no name: it is taken from the job.
    fn region_of<F: FnOnce() -> R, R>(_: &Job<F, R>) -> Region {
        with_gvl::<F, R>
    }
    let mut job = Job::new(work);
    let region = region_of(&job);
    let interrupted = enter(region, job.as_ptr(), file, fd);
    // Work that did not run is no harm: the caller looks again at what it waits for.
    let result = job.finish().unwrap_or(Ok(()));
    interrupted.and(result)
}

/// As [`while_using`], and without the GVL: `work` must not touch anything of Ruby's. An error says that an
/// exception is due; whether `work` ran before, only `work` knows.
pub fn without_while_using<R>(
    file: *mut rb_sys::rb_io_t,
    fd: i32,
    work: impl FnOnce() -> R,
) -> Result<(), Error> {
    fn region_of<F: FnOnce() -> R, R>(_: &Job<F, R>) -> Region {
        Job::<F, R>::run
    }
    let mut job = Job::new(work);
    let region = region_of(&job);
    let interrupted = enter(region, job.as_ptr(), file, fd);
    job.finish();
    interrupted
}

fn enter(region: Region, data: *mut c_void, _file: *mut rb_sys::rb_io_t, _fd: i32) -> Result<(), Error> {
    protect(|| {
        match io_blocking_region() {
            None => call_region(region, data, 0),
            // SAFETY: both callers hand over a region with its own, live job. What Ruby raises at the end,
            // `protect` turns into the error.
            Some(io_blocking_region) => unsafe {
                #[cfg(not(ruby_gte_4_0))]
                io_blocking_region(Some(region), data, _fd);
                #[cfg(ruby_gte_4_0)]
                io_blocking_region(_file, Some(region), data);
            },
        }
        rb_sys::Qnil as _
    })
    .map(drop)
}

/// The current thread, to ask from outside of the GVL whether it is wanted.
///
/// Ruby looks through its Thread object for that, and while another thread compacts the heap, reading an object without the
/// GVL is a segmentation fault. So here is a copy of what it reads: the object with its pointer to the thread.
pub struct CurrentThread(rb_sys::stable::RTypedData);

impl CurrentThread {
    /// The thread that calls this, with the GVL.
    pub fn new() -> Self {
        // SAFETY: it only looks up what runs; its object is typed data.
        Self(unsafe { std::ptr::read(rb_sys::rb_thread_current() as *const rb_sys::stable::RTypedData) })
    }

    /// Whether a signal, `Thread#raise`, `Thread#kill` or a close waits for this thread.
    pub fn interrupted(&self) -> bool {
        // SAFETY: Ruby made this to be asked without the GVL. It looks at the type of the object and follows the pointer, to a
        // thread that is alive, since it is the one that asks.
        unsafe { rb_sys::rb_thread_interrupted(&raw const self.0 as VALUE) != 0 }
    }
}

type Region = unsafe extern "C" fn(*mut c_void) -> *mut c_void;

#[cfg(not(ruby_gte_4_0))]
type IoBlockingRegion = unsafe extern "C" fn(Option<Region>, *mut c_void, i32) -> VALUE;
#[cfg(ruby_gte_4_0)]
type IoBlockingRegion = unsafe extern "C" fn(*mut rb_sys::rb_io_t, Option<Region>, *mut c_void) -> VALUE;

/// `rb_thread_io_blocking_region`, which Ruby exports for its own extensions (socket, io-console) and documents nowhere.
/// Nothing documented registers a descriptor as being in use. In a later Ruby it may be gone: then the close of an IO does not
/// end a call that uses it.
pub fn io_blocking_region() -> Option<IoBlockingRegion> {
    static FOUND: OnceLock<Option<IoBlockingRegion>> = OnceLock::new();
    // SAFETY: the name ends in NUL, and null is RTLD_DEFAULT: wherever it is. A function of that name is of that type.
    *FOUND.get_or_init(|| unsafe {
        std::mem::transmute(dlsym(std::ptr::null_mut(), c"rb_thread_io_blocking_region".as_ptr()))
    })
}

unsafe extern "C" {
    /// [dlsym(3)](https://man7.org/linux/man-pages/man3/dlsym.3.html)
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}
