//! Deadlines for what the runtime does: building a session and running it are told to end once theirs has passed.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use ort::session::RunOptions;
use ort::session::builder::LoadCanceler;

use super::catalog::locked;
use crate::error::{Error, Result};

/// How often deadlines are looked at. Clients are told at theirs; this is how much longer a thread may be busy.
const TICK: Duration = Duration::from_millis(50);

/// What has deadlines.
pub trait Watched: Send + Sync {
    /// Ends what should have ended before `now`.
    fn look(&self, now: Instant);
}

type Flock = Mutex<Vec<Weak<dyn Watched>>>;

/// The thread that looks at deadlines; it ends with the last clone of the handle.
#[derive(Clone)]
pub struct Watchdog(Arc<Flock>);

impl Watchdog {
    /// Starts the thread.
    pub fn start() -> Result<Self> {
        let flock = Arc::new(Flock::default());
        let weak = Arc::downgrade(&flock);
        let body = move || {
            while let Some(flock) = weak.upgrade() {
                let watched: Vec<_> = locked(&flock).iter().filter_map(Weak::upgrade).collect();
                let now = Instant::now();
                for watched in &watched {
                    watched.look(now);
                }
                drop(watched);
                locked(&flock).retain(|watched| watched.strong_count() > 0);
                drop(flock);
                thread::sleep(TICK);
            }
        };
        let started = thread::Builder::new().name("deadlines".into()).spawn(body);
        started.map_err(|cause| Error::Internal(format!("a thread cannot be started: {cause}")))?;
        Ok(Self(flock))
    }

    /// Looks at `watched` from now on, as long as it lives.
    pub fn watch(&self, watched: Weak<dyn Watched>) {
        locked(&self.0).push(watched);
    }
}

/// What one session is held by while it works.
pub struct Leash {
    options: RunOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    until: Option<Instant>,
    building: Option<LoadCanceler>,
    cut: bool,
}

impl Leash {
    /// A leash that `watchdog` cuts.
    pub fn new(watchdog: &Watchdog) -> Result<Arc<Self>> {
        let options = RunOptions::new().map_err(|cause| Error::Internal(cause.to_string()))?;
        let leash = Arc::new(Self { options, state: Mutex::default() });
        let weak: Weak<Self> = Arc::downgrade(&leash);
        watchdog.watch(weak);
        Ok(leash)
    }

    /// What a run must be given so that it can be cut.
    pub fn options(&self) -> &RunOptions {
        &self.options
    }

    /// Work begins that may take until `until`; `building` cancels it where it is no run.
    pub fn hold(&self, until: Instant, building: Option<LoadCanceler>) {
        let mut state = locked(&self.state);
        (state.until, state.building) = (Some(until), building);
    }

    /// The work has ended; whether it was cut.
    pub fn free(&self) -> bool {
        let State { cut, .. } = std::mem::take(&mut *locked(&self.state));
        if cut && let Err(cause) = self.options.unterminate() {
            tracing::error!(%cause, "a session cannot be used again");
        }
        cut
    }
}

impl Watched for Leash {
    fn look(&self, now: Instant) {
        let mut state = locked(&self.state);
        if state.cut || state.until.is_none_or(|until| now < until) {
            return;
        }
        state.cut = true;
        let told = state.building.as_ref().map_or_else(|| self.options.terminate(), LoadCanceler::cancel);
        if let Err(cause) = told {
            tracing::error!(%cause, "the runtime cannot be told to end what takes too long");
        }
    }
}
