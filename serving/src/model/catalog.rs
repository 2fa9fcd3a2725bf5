//! Which version answers a name: a snapshot that requests read without a lock, and the loaded versions behind it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use semver::Version;

use super::loads::{Flight, Loads, Outcome, Started};
use super::served::{Factory, Model};
use crate::error::{Error, Result};
use crate::registry::digest::Verdicts;
use crate::registry::index::{Index, Record, Target};
use crate::registry::names::{self, Selector};
use crate::registry::refusal::{Kind, Read, Refusal};
use crate::registry::signatures::Trust;
use crate::registry::store::Store;
use crate::text::shown;

/// What is added to a version's files for its sessions and threads, when memory is counted.
const SESSION_BYTES: u64 = 4 << 20;

/// One model as it is served now.
pub struct Entry {
    /// What the registry holds of it.
    pub index: Index,
    /// What the plain name means in the registry.
    pub wanted: Read<Target>,
    /// The version that answers the plain name.
    pub current: Option<Arc<Model>>,
    /// Why `current` is not `wanted`.
    pub failure: Option<String>,
    /// Whether that is because it is still being loaded.
    pub pending: bool,
    /// What was in the registry and is gone from it, though nothing deleted it.
    pub gone: Option<String>,
    /// Where aliases lead: as in the registry, but never to a version that failed while another was in use.
    pub aliases: BTreeMap<String, Target>,
    /// The key that signed the alias entry by which `current` was chosen, where that is required.
    pub signer: Option<String>,
    /// Whether an operator has unloaded it.
    pub unloaded: bool,
}

/// All models as they are served now.
#[derive(Default)]
pub struct Snapshot {
    /// By name.
    pub models: HashMap<String, Arc<Entry>>,
}

/// What a lookup found.
enum Found {
    Loaded(Arc<Model>),
    Listed(Arc<Record>),
}

/// The served models.
pub struct Catalog {
    pub(super) store: Arc<dyn Store>,
    pub(super) trust: Option<Trust>,
    pub(super) factory: Factory,
    pub(super) loads: Arc<Loads>,
    budget: u64,
    snapshot: ArcSwap<Snapshot>,
    resident: Mutex<HashMap<(String, Version), Arc<Model>>>,
    pub(super) refreshing: Mutex<HashSet<String>>,
    pub(super) required: Mutex<Option<HashSet<String>>>,
    pub(super) refused: Mutex<Option<Refusal>>,
    /// Why the trusted keys could not be read again.
    pub(super) untold: Mutex<Option<String>>,
    /// Whether `registry.json` was ever there.
    pub(super) founded: AtomicBool,
    pub(super) draining: AtomicBool,
    clock: AtomicU64,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Catalog {
    /// An empty catalog over `store`, of what is signed as the `trust` asks where there is any; versions that nobody's
    /// plain name means may take `budget` bytes.
    #[must_use]
    pub fn new(store: Box<dyn Store>, trust: Option<Trust>, verdicts: Verdicts, factory: Factory, budget: u64) -> Self {
        let store: Arc<dyn Store> = store.into();
        Self {
            loads: Loads::new(Arc::clone(&store), verdicts, factory.clone()),
            store,
            trust,
            factory,
            budget,
            snapshot: ArcSwap::default(),
            resident: Mutex::default(),
            refreshing: Mutex::default(),
            required: Mutex::default(),
            refused: Mutex::default(),
            untold: Mutex::default(),
            founded: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            clock: AtomicU64::new(0),
        }
    }

    /// The models as they are served now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts each entry in place of the model of its name, or takes the model out.
    pub(super) fn replace(&self, entries: Vec<(String, Option<Entry>)>) {
        if entries.is_empty() {
            return;
        }
        let entries: Vec<_> = entries.into_iter().map(|(name, entry)| (name, entry.map(Arc::new))).collect();
        self.snapshot.rcu(|old| {
            let mut models = old.models.clone();
            for (name, entry) in &entries {
                match entry {
                    Some(entry) => models.insert(name.clone(), Arc::clone(entry)),
                    None => models.remove(name),
                };
            }
            Snapshot { models }
        });
    }

    /// The model that answers `name` and `selector` (a version or an alias), loaded now if it was not.
    pub async fn get(&self, name: &str, selector: Option<&str>) -> Result<Arc<Model>> {
        let model = match self.find(name, selector)? {
            Found::Loaded(model) => model,
            Found::Listed(record) => self.fetch(&record).await?,
        };
        model.touch(self.clock.fetch_add(1, Ordering::Relaxed));
        Ok(model)
    }

    fn find(&self, name: &str, selector: Option<&str>) -> Result<Found> {
        let snapshot = self.snapshot.load();
        let entry = snapshot.models.get(name).ok_or_else(|| unknown(&snapshot, name))?;
        if entry.unloaded {
            return Err(Error::Unavailable(format!(
                "model `{name}` is unloaded: load it with `/v2/repository/models/{name}/load`"
            )));
        }
        let Some(selector) = selector else {
            return entry.current.clone().map(Found::Loaded).ok_or_else(|| entry.absent(name));
        };
        let target = entry.select(selector).map_err(|refusal| explained(name, &refusal))?;
        if let Some(current) = entry.current.as_ref().filter(|current| current.is(&target)) {
            return Ok(Found::Loaded(Arc::clone(current)));
        }
        let record = entry.record(name, &target)?;
        let loaded = self.loaded(&record);
        Ok(loaded.map_or(Found::Listed(record), Found::Loaded))
    }

    /// The loaded versions, those of model `name` or all, by name and version.
    #[must_use]
    pub fn resident(&self, name: Option<&str>) -> Vec<Arc<Model>> {
        let resident = locked(&self.resident);
        let asked = |model: &&Arc<Model>| name.is_none_or(|name| model.name == name);
        let mut found: Vec<Arc<Model>> = resident.values().filter(asked).cloned().collect();
        found.sort_unstable_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        found
    }

    pub(super) fn loaded(&self, record: &Record) -> Option<Arc<Model>> {
        let resident = locked(&self.resident);
        resident
            .get(&(record.name.clone(), record.version.clone()))
            .filter(|model| model.digest == record.digest)
            .cloned()
    }

    /// Verifies and loads `record`, once however many ask for it; `None` when that is not done until `until`.
    pub(super) fn load(&self, record: &Arc<Record>, until: Instant) -> Option<Outcome> {
        match self.loads.start(record, || self.loaded(record)) {
            Err(cause) => Some(Err(cause)),
            Ok(Started::Loaded(model)) => Some(Ok(model)),
            Ok(Started::Flying(flight)) => {
                let outcome = flight.wait(until)?;
                self.land(&flight);
                Some(outcome)
            }
        }
    }

    /// As `load`, for a request, which waits as long as it may take.
    async fn fetch(&self, record: &Arc<Record>) -> Outcome {
        let flight = match self.loads.start(record, || self.loaded(record))? {
            Started::Loaded(model) => return Ok(model),
            Started::Flying(flight) => flight,
        };
        let outcome = tokio::time::timeout(self.factory.patience, flight.done()).await;
        let outcome = outcome.map_err(|_| {
            Error::Unavailable(format!("`{}@{}` is still being loaded: ask again", record.name, record.version))
        })?;
        self.land(&flight);
        outcome
    }

    /// Takes over what `flight` has loaded.
    pub(super) fn land(&self, flight: &Arc<Flight>) {
        self.loads.land(flight, |model| {
            locked(&self.resident).insert((model.name.clone(), model.version.clone()), Arc::clone(model));
            self.evict(model);
        });
    }

    /// Unloads the versions used longest ago until those that no plain name means fit the budget; `kept` stays.
    fn evict(&self, kept: &Arc<Model>) {
        let snapshot = self.snapshot.load();
        let is_current = |model: &Arc<Model>| {
            let entry = snapshot.models.get(&model.name);
            entry.and_then(|entry| entry.current.as_ref()).is_some_and(|current| Arc::ptr_eq(current, model))
        };
        let mut resident = locked(&self.resident);
        let mut spare: Vec<Arc<Model>> = resident.values().filter(|model| !is_current(model)).cloned().collect();
        // the one just loaded has not been used yet, but it is about to be
        spare.sort_unstable_by_key(|model| std::cmp::Reverse((Arc::ptr_eq(model, kept), model.used())));
        let mut total = 0;
        for model in spare {
            total += model.size + SESSION_BYTES;
            if total > self.budget && !Arc::ptr_eq(&model, kept) {
                resident.remove(&(model.name.clone(), model.version.clone()));
            }
        }
    }

    /// Drops what is loaded of model `name` but for the versions that `keep` approves.
    pub(super) fn retain(&self, name: &str, keep: impl Fn(&Version) -> bool) {
        locked(&self.resident).retain(|(model, version), _| model != name || keep(version));
    }

    /// Writes the digest verdicts down, for the next start.
    pub fn save_verdicts(&self) {
        self.loads.verdicts().save();
    }

    /// The estimated bytes of all loaded versions.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        locked(&self.resident).values().map(|model| model.size + SESSION_BYTES).sum()
    }
}

fn unknown(snapshot: &Snapshot, name: &str) -> Error {
    let mut known: Vec<&str> = snapshot.models.keys().map(String::as_str).collect();
    known.sort_unstable();
    known.truncate(10);
    Error::NotFound(format!(
        "there is no model `{}`: see `/v2/repository/index`; some that there are: {}",
        shown(name),
        known.join(", ")
    ))
}

/// What a refusal means for a request.
fn explained(name: &str, refusal: &Refusal) -> Error {
    match refusal.kind {
        Kind::NotFound | Kind::InvalidName => Error::NotFound(format!("model `{name}`: {}", refusal.detail)),
        _ => Error::Unavailable(format!("model `{name}` cannot be served: {refusal}")),
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            index: Index::default(),
            wanted: Err(Refusal::new(Kind::NotFound, "it has no version")),
            current: None,
            failure: None,
            pending: false,
            gone: None,
            aliases: BTreeMap::new(),
            signer: None,
            unloaded: false,
        }
    }
}

impl Entry {
    /// Where `text`, a version or an alias, leads as it is served.
    fn select(&self, text: &str) -> Read<Target> {
        let selector = names::selector(text)
            .ok_or_else(|| Refusal::new(Kind::InvalidName, format!("`{}` is no version and no alias", shown(text))))?;
        match &selector {
            Selector::Alias(alias) => match self.aliases.get(alias) {
                Some(target) => Ok(target.clone()),
                None => self.index.resolve(Some(&selector)),
            },
            Selector::Version(_) => self.index.resolve(Some(&selector)),
        }
    }

    /// The record that `target` leads to, if it can be read and has a graph to serve.
    pub fn record(&self, name: &str, target: &Target) -> Result<Arc<Record>> {
        let record = self.index.record(target).map_err(|refusal| explained(name, &refusal))?;
        if record.metadata.onnx().is_none() {
            return Err(Error::NotFound(format!(
                "`{name}@{}` has no ONNX graph to serve: its task is `{}`, which `ocad` runs itself",
                record.version, record.metadata.task
            )));
        }
        Ok(record)
    }

    /// Why the plain name has no answer.
    fn absent(&self, name: &str) -> Error {
        let reason = match (&self.failure, &self.wanted) {
            (_, Err(refusal)) if refusal.kind == Kind::NotFound => return explained(name, refusal),
            (Some(failure), _) => return Error::Unavailable(format!("model `{name}` cannot be served: {failure}")),
            (None, Err(refusal)) => return explained(name, refusal),
            (None, Ok(target)) => self.record(name, target),
        };
        reason.err().unwrap_or_else(|| Error::Unavailable(format!("model `{name}` is being loaded: ask again")))
    }
}
