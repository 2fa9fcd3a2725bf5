//! The bounded queue between the requests and the threads of one model.
//!
//! A free thread takes whatever has queued, so a batch is as large as the load makes it and an idle server adds no
//! wait. The first thread serves everything that it can keep up with; the others wake only for a backlog worth a batch
//! of its own, because splitting small batches over threads costs more than it gains.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::tensor::Tensor;
use crate::error::{Error, Result};

/// What a job is answered with: the selected outputs, in the order they were asked for.
pub type Answer = Result<Vec<Tensor>>;

/// The work of one request.
#[derive(Debug)]
pub struct Job {
    /// The inputs, in the graph's order, checked.
    pub inputs: Vec<Tensor>,
    /// The rows of each input.
    pub rows: usize,
    /// The outputs to answer with.
    pub outputs: Vec<usize>,
    /// When it was queued.
    pub queued: Instant,
    /// When its client stops waiting.
    pub deadline: Instant,
    /// Where the answer goes; closed when the client has gone.
    pub reply: oneshot::Sender<Answer>,
}

impl Job {
    /// Whether the rows of `other` may stand in one batch with these.
    fn joins(&self, other: &Self) -> bool {
        self.inputs.iter().zip(&other.inputs).all(|(a, b)| a.shape[1..] == b.shape[1..])
    }
}

/// The limits of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most jobs that wait.
    pub jobs: usize,
    /// The most rows of one batch; a larger single request runs alone.
    pub rows: usize,
    /// How long an idle thread waits for a batch to fill.
    pub wait: Duration,
    /// Whether rows of several requests may run together.
    pub batchable: bool,
    /// How long the first thread stays awake for the next request when requests come one by one: waking a sleeping
    /// thread takes as long as a small model.
    pub spin: Duration,
}

/// A backlog worth a second thread: this many rows, or this much estimated work.
const SPILL_ROWS: usize = 64;
const SPILL_WORK: Duration = Duration::from_micros(500);

/// Requests that come one by one before it is worth to stay awake, and a yield so long that it is not.
const LONE: u8 = 8;
const CONTENDED: Duration = Duration::from_micros(50);

/// A backlog that would answer too late: a wait of this long, by estimate, behind more than this many requests.
const OVERDUE_WAIT: Duration = Duration::from_millis(15);
const OVERDUE_JOBS: usize = 16;

/// What a row is taken to cost before any ran. An estimate rises by an eighth in a run at most, so that a thread that
/// had to wait for its processor a few times does not make an ordinary backlog look overdue.
const FIRST_ROW_COST: Duration = Duration::from_micros(50);
const LEAST_ROW_COST: Duration = Duration::from_micros(1);

#[derive(Debug)]
struct State {
    jobs: VecDeque<Job>,
    rows: usize,
    idle: Vec<bool>,
    running: usize,
    row_cost: Duration,
    /// How many batches in a row, up to `LONE`, were one request that came soon after the answer to the one before.
    lone: u8,
    closed: bool,
}

impl State {
    /// The estimated work of `rows` rows.
    fn cost(&self, rows: usize) -> Duration {
        self.row_cost.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX))
    }

    /// Whether a thread other than the first should help.
    fn spills(&self) -> bool {
        let backlog = self.rows >= SPILL_ROWS || self.cost(self.rows) >= SPILL_WORK;
        !self.jobs.is_empty() && (backlog || self.cost(self.running) >= SPILL_WORK)
    }

    /// The thread to wake: the first if it is idle, else another one if the backlog is worth it. It counts as awake then.
    fn helper(&mut self) -> Option<usize> {
        let spills = self.spills();
        let helper = self.idle.iter().position(|idle| *idle).filter(|index| *index == 0 || spills)?;
        self.idle[helper] = false;
        Some(helper)
    }

    /// Whether one more job would wait too long, so that it is better sent elsewhere.
    fn overdue(&self) -> bool {
        let threads = u32::try_from(self.idle.len().max(1)).unwrap_or(u32::MAX);
        self.jobs.len() >= OVERDUE_JOBS && self.cost(self.rows + self.running) / threads >= OVERDUE_WAIT
    }
}

/// The queue of one model.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    wake: Vec<Condvar>,
    /// The jobs in `state`, and whether one more would be refused, to be looked at without its lock.
    pending: AtomicUsize,
    full: AtomicBool,
    model: String,
    limits: Limits,
}

impl Queue {
    /// An empty queue for `threads` threads of the model of that name.
    #[must_use]
    pub fn new(model: &str, limits: Limits, threads: usize) -> Self {
        let state = State {
            jobs: VecDeque::new(),
            rows: 0,
            idle: vec![false; threads],
            running: 0,
            row_cost: FIRST_ROW_COST,
            lone: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            wake: (0..threads).map(|_| Condvar::new()).collect(),
            pending: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            model: model.to_owned(),
            limits,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The jobs that wait now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// An error when the queue is full, before a request's body is read at all.
    pub fn admit(&self) -> Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(self.refusal()) } else { Ok(()) }
    }

    fn refusal(&self) -> Error {
        let (depth, model) = (self.depth(), &self.model);
        Error::Overloaded(format!("{depth} requests wait for model `{model}` already: try again later"))
    }

    /// Publishes what is looked at without the lock.
    fn publish(&self, state: &State) {
        self.full.store(state.jobs.len() >= self.limits.jobs || state.overdue(), Ordering::Relaxed);
        self.pending.store(state.jobs.len(), Ordering::Release);
    }

    /// Queues `job` and wakes a thread for it; an error when the queue is full or the model is being dropped.
    pub fn push(&self, job: Job) -> Result<()> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Unavailable("this version is being unloaded: ask again".into()));
        }
        self.admit()?;
        state.rows += job.rows;
        state.jobs.push_back(job);
        self.publish(&state);
        let helper = state.helper();
        drop(state);
        self.wake(helper);
        Ok(())
    }

    /// Wakes thread `helper`; without the lock, which it would run into at once.
    fn wake(&self, helper: Option<usize>) {
        if let Some(wake) = helper.and_then(|index| self.wake.get(index)) {
            wake.notify_one();
        }
    }

    /// Waits for work for thread `index` and takes a batch into `batch`; false when the queue is closed and empty.
    pub fn take(&self, index: usize, batch: &mut Vec<Job>) -> bool {
        batch.clear();
        let mut state = self.lock();
        let (idle_since, idle, mut spun) = (Instant::now(), state.jobs.is_empty(), false);
        loop {
            if state.closed && state.jobs.is_empty() {
                return false;
            }
            let mine = if index == 0 || state.closed { !state.jobs.is_empty() } else { state.spills() };
            if mine {
                if index == 0 {
                    state = self.fill(state);
                }
                self.collect(&mut state, batch);
                if !batch.is_empty() {
                    let lone = idle && batch.len() == 1 && idle_since.elapsed() < self.limits.spin;
                    state.lone = if lone { LONE.min(state.lone + 1) } else { 0 };
                    let helper = state.helper();
                    drop(state);
                    self.wake(helper);
                    return true;
                }
                continue;
            }
            if index == 0 && state.lone == LONE && !spun {
                drop(state);
                let undisturbed = self.spin();
                spun = true;
                state = self.lock();
                if !undisturbed {
                    state.lone = 0;
                }
                continue;
            }
            state.idle[index] = true;
            state = self.wake[index].wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle[index] = false;
        }
    }

    /// Stays awake for the next job, as long as it is worth; false when others needed this processor.
    fn spin(&self) -> bool {
        let started = Instant::now();
        let mut now = started;
        while self.pending.load(Ordering::Acquire) == 0 && now - started < self.limits.spin {
            let before = now;
            std::thread::yield_now();
            now = Instant::now();
            if now - before > CONTENDED {
                return false;
            }
        }
        true
    }

    /// Waits, where a wait is configured, until the batch is full or its oldest job has waited long enough.
    fn fill<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(oldest) = state.jobs.front().map(|job| job.queued) {
            let left = self.limits.wait.saturating_sub(oldest.elapsed());
            if left.is_zero() || state.rows >= self.limits.rows || state.closed {
                break;
            }
            state.idle[0] = true;
            state = self.wake[0].wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            state.idle[0] = false;
        }
        state
    }

    /// Moves jobs that may run together into `batch`, in order; those whose client has gone are dropped.
    fn collect(&self, state: &mut State, batch: &mut Vec<Job>) {
        let mut rows = 0;
        while let Some(job) = state.jobs.pop_front() {
            if job.reply.is_closed() {
                state.rows -= job.rows;
                continue;
            }
            let joins = batch.first().is_none_or(|first: &Job| {
                self.limits.batchable && rows + job.rows <= self.limits.rows && first.joins(&job)
            });
            if !joins {
                state.jobs.push_front(job);
                break;
            }
            state.rows -= job.rows;
            rows += job.rows;
            batch.push(job);
        }
        state.running += rows;
        self.publish(state);
    }

    /// Notes that `rows` rows ran for `elapsed`, for the estimate of a backlog's cost.
    pub fn ran(&self, rows: usize, elapsed: Duration) {
        let cost = elapsed / u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
        let mut state = self.lock();
        state.running = state.running.saturating_sub(rows);
        state.row_cost = (state.row_cost * 7 + cost.clamp(LEAST_ROW_COST, state.row_cost * 2)) / 8;
        self.publish(&state);
    }

    /// Lets the threads finish what has queued and end.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        drop(state);
        for wake in &self.wake {
            wake.notify_all();
        }
    }
}
