use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Result;

use super::{locked, thread};

/// How many threads may be stuck with one disk.
const MAX_THREADS: usize = 8;

/// How long a thread stays that has nothing to do.
const LINGER: Duration = Duration::from_secs(5);

/// What may block, for whatever time.
pub(super) type Task = Box<dyn FnOnce() + Send>;

/// A few threads for what may block for the same reason.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    threads: usize,
    /// How many of them have a task.
    busy: usize,
    stopped: bool,
}

impl Pool {
    /// Makes sure that there is a thread.
    pub fn ensure_thread(self: &Arc<Self>) -> Result<()> {
        let mut state = locked(&self.state);
        if state.threads > 0 { Ok(()) } else { self.add_thread(&mut state) }
    }

    /// Runs a task on a thread, as soon as there is one. Without any the task comes back.
    pub fn run(self: &Arc<Self>, task: Task) -> std::result::Result<(), Task> {
        let mut state = locked(&self.state);
        state.tasks.push_back(task);
        if state.tasks.len() > state.threads - state.busy && state.threads < MAX_THREADS {
            let added = self.add_thread(&mut state);
            if added.is_err() && state.threads == 0 {
                return state.tasks.pop_back().map_or(Ok(()), Err);
            }
        }
        self.changed.notify_one();
        Ok(())
    }

    fn add_thread(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let pool = Arc::clone(self);
        thread::spawn(move || pool.work())?;
        state.threads += 1;
        Ok(())
    }

    fn work(&self) {
        while let Some(task) = self.next() {
            task();
            locked(&self.state).busy -= 1;
        }
    }

    /// The next task; `None` when none has come for a while.
    fn next(&self) -> Option<Task> {
        let mut state = locked(&self.state);
        let mut waited = false;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                state.busy += 1;
                return Some(task);
            }
            if waited || state.stopped {
                state.threads -= 1;
                return None;
            }
            let woken = self.changed.wait_timeout(state, LINGER);
            let (guard, timeout) = woken.unwrap_or_else(PoisonError::into_inner);
            (state, waited) = (guard, timeout.timed_out());
        }
    }

    fn stop(&self) {
        locked(&self.state).stopped = true;
        self.changed.notify_all();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("tasks", &self.tasks.len()).field("threads", &self.threads).finish()
    }
}

/// The devices of a transfer: what waits for one of them waits for all of them.
pub(super) type Devices = Vec<u64>;

/// A pool for each set of devices, and one, for no device, where connections are closed that linger.
#[derive(Debug, Default)]
pub(super) struct Pools(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    pools: HashMap<Devices, Weak<Pool>>,
    stopped: bool,
}

impl Pools {
    /// The pool for these devices.
    pub fn of(&self, devices: Devices) -> Arc<Pool> {
        let mut known = locked(&self.0);
        if let Some(pool) = known.pools.get(&devices).and_then(Weak::upgrade) {
            return pool;
        }
        known.pools.retain(|_, pool| pool.strong_count() > 0);
        let pool = Arc::<Pool>::default();
        locked(&pool.state).stopped = known.stopped;
        known.pools.insert(devices, Arc::downgrade(&pool));
        pool
    }

    /// Threads with nothing to do end at once.
    pub fn stop(&self) {
        let mut known = locked(&self.0);
        known.stopped = true;
        known.pools.values().filter_map(Weak::upgrade).for_each(|pool| pool.stop());
    }
}
