//! Loading of versions, on threads of their own and with a deadline, so that no version keeps the others waiting.
//!
//! A model loads one version at a time. What failed in the runtime is remembered by its digest, which is that of all its
//! files, and tried again later and later. A load that the runtime does not end when it is told to is given up: its
//! thread is counted, and with too many of them nothing is loaded any more.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::catalog::locked;
use super::leash::Watched;
use super::served::{Factory, Model};
use crate::error::{Error, Result};
use crate::registry::digest::Verdicts;
use crate::registry::index::Record;
use crate::registry::store::Store;
use crate::registry::verify::verify;
use crate::registry::watch::{Alarm, Wake};

/// The most loads at a time, but for those that take longer than `SLOW`; and the most with them.
const THREADS: usize = 4;
const SLOW: Duration = Duration::from_secs(5);
const MOST_THREADS: usize = 16;
/// The most threads that are given up.
const MOST_STUCK: usize = 4;
/// How long the runtime may take to end what it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// What failed in the runtime is tried again after the first of these, then after twice as long, up to the second.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_hours(1);
/// A refusal that took long to find stands for as long, up to this.
const LONGEST_REFUSAL: Duration = Duration::from_secs(5);

/// What a load ends with.
pub type Outcome = Result<Arc<Model>>;

/// A version, by its model and the digest of its metadata.
type Key = (String, String);

/// A load that is under way, or has ended and was not taken over yet.
pub struct Flight {
    record: Arc<Record>,
    progress: Mutex<Progress>,
    ended: Condvar,
    told: Notify,
}

#[derive(Default)]
struct Progress {
    /// When a thread began with it.
    begun: Option<Instant>,
    /// When the runtime must be done.
    until: Option<Instant>,
    outcome: Option<Outcome>,
    /// Somebody has stopped to wait for it.
    left: bool,
}

impl Flight {
    fn new(record: Arc<Record>) -> Self {
        Self { record, progress: Mutex::default(), ended: Condvar::new(), told: Notify::new() }
    }

    fn key(&self) -> Key {
        (self.record.name.clone(), self.record.digest.clone())
    }

    /// The outcome, where there is one.
    pub fn outcome(&self) -> Option<Outcome> {
        locked(&self.progress).outcome.clone()
    }

    /// Waits for the outcome on this thread; `None` when it has not come until `until`.
    pub fn wait(&self, until: Instant) -> Option<Outcome> {
        let mut progress = locked(&self.progress);
        while progress.outcome.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                progress.left = true;
                return None;
            }
            progress = self.ended.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        progress.outcome.clone()
    }

    /// Waits for the outcome without a thread.
    pub async fn done(&self) -> Outcome {
        loop {
            let mut told = std::pin::pin!(self.told.notified());
            told.as_mut().enable();
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            told.await;
        }
    }

    /// Notes the first outcome; whether it is, and whether somebody has stopped to wait for it.
    fn end(&self, outcome: Outcome) -> Option<bool> {
        let mut progress = locked(&self.progress);
        if progress.outcome.is_some() {
            return None;
        }
        progress.outcome = Some(outcome);
        self.ended.notify_all();
        self.told.notify_waiters();
        Some(progress.left)
    }
}

/// Where a load stands that was asked for.
pub enum Started {
    /// It is loaded.
    Loaded(Arc<Model>),
    /// It is under way.
    Flying(Arc<Flight>),
}

/// Why a version is not loaded again yet.
struct Failure {
    cause: Error,
    pause: Duration,
    until: Instant,
}

#[derive(Default)]
struct State {
    flights: HashMap<Key, Arc<Flight>>,
    waiting: VecDeque<Arc<Flight>>,
    /// The flights that have a thread, by model.
    active: HashMap<String, Arc<Flight>>,
    threads: usize,
    stuck: HashSet<Key>,
    failures: HashMap<Key, Failure>,
}

impl State {
    /// The next flight, of a model that loads nothing else.
    fn next(&mut self) -> Option<Arc<Flight>> {
        let place = self.waiting.iter().position(|flight| !self.active.contains_key(&flight.record.name))?;
        let flight = self.waiting.remove(place)?;
        self.active.insert(flight.record.name.clone(), Arc::clone(&flight));
        Some(flight)
    }

    /// Whether a thread is worth to be started: something waits that it may load.
    fn is_short(&self) -> bool {
        let may = |flight: &Arc<Flight>| !self.active.contains_key(&flight.record.name);
        let begun = |flight: &Arc<Flight>| locked(&flight.progress).begun;
        let is_slow = |flight: &&Arc<Flight>| begun(flight).is_some_and(|begun| begun.elapsed() > SLOW);
        self.waiting.iter().any(may)
            && self.threads + self.stuck.len() < MOST_THREADS
            && self.threads < THREADS + self.active.values().filter(is_slow).count()
    }

    /// Takes note that the load of `key` failed; `pause` is that before it is tried again, else the next longer one.
    fn remember(&mut self, key: Key, cause: Error, pause: Option<Duration>) {
        let before = self.failures.get(&key).map(|failure| failure.pause * 2);
        let pause =
            pause.unwrap_or_else(|| before.map_or(FIRST_PAUSE, |pause| pause.clamp(FIRST_PAUSE, LONGEST_PAUSE)));
        self.failures.insert(key, Failure { cause, pause, until: Instant::now() + pause });
    }

    /// Ends `flight`: its failure is remembered before anybody is told of it. Answers as [`Flight::end`] does.
    fn end(&mut self, flight: &Flight, outcome: Outcome, pause: Option<Duration>) -> Option<bool> {
        let failed = outcome.as_ref().err().cloned();
        let left = flight.end(outcome)?;
        match failed {
            Some(cause) => self.remember(flight.key(), cause, pause),
            None => drop(self.failures.remove(&flight.key())),
        }
        Some(left)
    }
}

fn full() -> Error {
    Error::Unavailable(format!(
        "{MOST_STUCK} loads of other versions have not ended, so nothing more is loaded: delete those versions and restart the server"
    ))
}

/// The loads of a server.
pub struct Loads {
    store: Arc<dyn Store>,
    verdicts: Verdicts,
    factory: Factory,
    state: Mutex<State>,
    alarm: Mutex<Option<Alarm>>,
    /// This, for its threads.
    own: Weak<Self>,
}

impl Loads {
    /// Loads from `store` by `factory`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, verdicts: Verdicts, factory: Factory) -> Arc<Self> {
        Arc::new_cyclic(|own: &Weak<Self>| {
            factory.watchdog.watch(own.clone());
            let (state, alarm) = (Mutex::default(), Mutex::default());
            Self { store, verdicts, factory, state, alarm, own: own.clone() }
        })
    }

    /// The digest verdicts.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Rings `alarm` when a load ends that nobody waits for any more.
    pub fn tell(&self, alarm: Alarm) {
        *locked(&self.alarm) = Some(alarm);
    }

    /// Loads `record` unless `loaded` has it; an error where it failed before and is not to be tried again yet.
    pub fn start(&self, record: &Arc<Record>, loaded: impl FnOnce() -> Option<Arc<Model>>) -> Result<Started> {
        let mut state = locked(&self.state);
        if let Some(model) = loaded() {
            return Ok(Started::Loaded(model));
        }
        let flight = Arc::new(Flight::new(Arc::clone(record)));
        let key = flight.key();
        if let Some(flight) = state.flights.get(&key) {
            return Ok(Started::Flying(Arc::clone(flight)));
        }
        if let Some(failure) = state.failures.get(&key)
            && (failure.until > Instant::now() || state.stuck.contains(&key))
        {
            return Err(failure.cause.clone());
        }
        if state.stuck.len() >= MOST_STUCK {
            return Err(full());
        }
        state.waiting.push_back(Arc::clone(&flight));
        state.flights.insert(key, Arc::clone(&flight));
        self.staff(&mut state);
        Ok(Started::Flying(flight))
    }

    /// Starts a thread where one has something to do.
    fn staff(&self, state: &mut State) {
        if !state.is_short() {
            return;
        }
        let Some(loads) = self.own.upgrade() else { return };
        state.threads += 1;
        if let Err(cause) = thread::Builder::new().name("load".into()).spawn(move || loads.work()) {
            state.threads -= 1;
            // without any thread nobody else will come for them
            for flight in state.waiting.drain(..) {
                state.flights.remove(&flight.key());
                flight.end(Err(Error::Internal(format!("a thread cannot be started: {cause}"))));
            }
        }
    }

    fn work(&self) {
        loop {
            let next = {
                let mut state = locked(&self.state);
                let next = state.next();
                if next.is_none() {
                    state.threads -= 1;
                }
                next
            };
            let Some(flight) = next else { return };
            let mine = self.carry_out(&flight);
            let mut state = locked(&self.state);
            if !mine {
                // given up meanwhile, and others have taken this thread's place
                state.stuck.remove(&flight.key());
                tracing::info!(model = flight.record.name, version = %flight.record.version, "a load that was given up has ended");
                return;
            }
            state.active.remove(&flight.record.name);
        }
    }

    /// Loads what `flight` is for; false where it was given up meanwhile.
    fn carry_out(&self, flight: &Flight) -> bool {
        let (started, record) = (Instant::now(), &*flight.record);
        locked(&flight.progress).begun = Some(started);
        let refused = |cause| Error::Unavailable(format!("`{}@{}` is refused: {cause}", record.name, record.version));
        let verified = verify(&*self.store, &self.verdicts, record).map_err(refused);
        let sound = verified.is_ok();
        let loaded = verified.and_then(|verified| {
            let until = Instant::now() + self.factory.load_timeout;
            locked(&flight.progress).until = Some(until);
            let load = || Model::load(record, verified, &self.factory, until);
            catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(Error::Internal("a load panicked".into())))
        });
        let loaded = loaded.map_err(|cause| if let Error::Deadline = cause { self.late(record) } else { cause });
        let took = started.elapsed();
        let pause = if sound { None } else { Some(took.min(LONGEST_REFUSAL)) };
        if let Ok(model) = &loaded {
            tracing::info!(model = record.name, version = %record.version, seconds = took.as_secs_f64(), batched = model.batchable, "loaded");
        }
        let ended = locked(&self.state).end(flight, loaded.map(Arc::new), pause);
        self.announce(flight, ended, took)
    }

    fn late(&self, record: &Record) -> Error {
        let seconds = self.factory.load_timeout.as_secs_f64();
        Error::Unavailable(format!(
            "`{}@{}` did not load and run once within {seconds} s (`--load-timeout`)",
            record.name, record.version
        ))
    }

    /// Logs and counts the end of `flight`; false where it had ended before.
    fn announce(&self, flight: &Flight, ended: Option<bool>, took: Duration) -> bool {
        let (Some(left), record) = (ended, &*flight.record) else { return false };
        let failed = flight.outcome().and_then(Result::err);
        self.factory.metrics.reloaded(&record.name, if failed.is_some() { "failed" } else { "ok" }, took);
        if let Some(cause) = failed {
            tracing::error!(model = record.name, version = %record.version, %cause, detail = cause.cause(), "a version cannot be loaded");
        }
        if left {
            self.ring();
        }
        true
    }

    fn ring(&self) {
        if let Some(alarm) = &*locked(&self.alarm) {
            alarm.ring(Wake::Look);
        }
    }

    /// Takes the ended `flight` off the list, with `take` of what was loaded before anybody can ask for it again.
    pub fn land(&self, flight: &Arc<Flight>, take: impl FnOnce(&Arc<Model>)) {
        let mut state = locked(&self.state);
        let key = flight.key();
        if state.flights.get(&key).is_some_and(|known| Arc::ptr_eq(known, flight)) {
            if let Some(Ok(model)) = flight.outcome() {
                take(&model);
            }
            state.flights.remove(&key);
        }
    }

    /// The loads that have ended and that nobody has taken over.
    pub fn ended(&self) -> Vec<Arc<Flight>> {
        let state = locked(&self.state);
        state.flights.values().filter(|flight| flight.outcome().is_some()).cloned().collect()
    }

    /// The load of a version of model `name` that is under way, if any.
    pub fn of(&self, name: &str) -> Option<Arc<Flight>> {
        let state = locked(&self.state);
        state.flights.values().find(|flight| flight.record.name == name && flight.outcome().is_none()).cloned()
    }

    /// Forgets the failures of model `name`, but for those of versions whose digest is to be kept.
    pub fn forgive(&self, name: &str, keep: impl Fn(&str) -> bool) {
        locked(&self.state).failures.retain(|(model, digest), _| model != name || keep(digest));
    }

    /// Gives up `flight`, which the runtime does not end.
    fn give_up(&self, flight: &Flight) {
        let cause = Error::Unavailable(format!(
            "{}, and the runtime does not end it: delete it and restart the server",
            self.late(&flight.record)
        ));
        let mut state = locked(&self.state);
        let ended = state.end(flight, Err(cause), None);
        let mut ring = false;
        if ended.is_some() {
            state.stuck.insert(flight.key());
            state.active.remove(&flight.record.name);
            state.threads -= 1;
            if state.stuck.len() >= MOST_STUCK {
                ring = state.waiting.drain(..).filter_map(|flight| flight.end(Err(full()))).fold(false, |a, b| a | b);
            }
            self.staff(&mut state);
        }
        drop(state);
        if ring {
            self.ring();
        }
        self.announce(flight, ended, self.factory.load_timeout);
    }
}

impl Watched for Loads {
    fn look(&self, now: Instant) {
        let active: Vec<_> = {
            let mut state = locked(&self.state);
            self.staff(&mut state);
            state.active.values().cloned().collect()
        };
        for flight in active {
            let until = locked(&flight.progress).until;
            if until.is_some_and(|until| until + GRACE < now) {
                self.give_up(&flight);
            }
        }
    }
}
