//! Keeps the catalog as the registry is: reads it again after each change and loads before it switches.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use semver::Version;

use super::catalog::{Catalog, Entry, locked};
use super::served::Model;
use crate::error::{Error, Result};
use crate::registry::index::{self, Index, Listed, Reader, Target};
use crate::registry::names;
use crate::registry::refusal::{Kind as Verdict, Read, Refusal};
use crate::registry::signatures::Keys;
use crate::registry::store::Kind;
use crate::registry::watch::{Wake, Watch};
use crate::text::shown;

/// How long the follower waits for loads before it goes on with other models; it is woken when they end.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state of the server as a load balancer asks for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// What keeps it from being ready, or is not as the registry wants it, by model.
    pub problems: BTreeMap<String, String>,
}

/// Which version is to answer the plain name.
enum Choice {
    /// This one; and why it is not the wanted one.
    Made(Option<Arc<Model>>, Option<String>),
    /// This one, until the wanted one is loaded.
    Awaited(Option<Arc<Model>>),
}

impl Catalog {
    /// Follows the registry until the watch is told to stop.
    pub fn follow(&self, mut watch: Watch) {
        self.loads.tell(watch.alarm());
        loop {
            watch.follow(self.folders());
            self.refresh_within(PATIENCE);
            // a folder that appeared meanwhile may hold changes from before it was watched
            if watch.follow(self.folders()) {
                continue;
            }
            if watch.wait() == Wake::Stop {
                return;
            }
        }
    }

    /// The folders in which a change matters.
    fn folders(&self) -> HashSet<PathBuf> {
        // what cannot be read is watched anew once it is back: it may be another folder of the same name
        let readable = locked(&self.refused).is_none();
        let Some(root) = self.store.watchable().filter(|_| readable) else { return HashSet::new() };
        let mut folders = HashSet::from([root.to_owned()]);
        for name in self.names().unwrap_or_default() {
            let model = root.join(&name);
            let aliases = self.store.list(&format!("{name}/aliases")).unwrap_or_default();
            folders.extend(
                aliases
                    .into_iter()
                    .filter(|alias| alias.kind == Kind::Folder)
                    .map(|alias| model.join("aliases").join(alias.name)),
            );
            folders.extend([model.join("aliases"), model.join("deleted")].into_iter().filter(|folder| folder.is_dir()));
            folders.insert(model);
        }
        folders
    }

    fn names(&self) -> Read<Vec<String>> {
        let models = self.store.list("")?.into_iter();
        let models = models.filter(|entry| entry.kind == Kind::Folder && names::is_model(&entry.name));
        Ok(models.map(|entry| entry.name).collect())
    }

    /// Looks at the registry and names its models; an error when it cannot be read, or when what was there is gone.
    ///
    /// Nothing that follows the format takes `registry.json` or the last model away: where they are missing, a disk was
    /// unmounted, a folder moved or emptied by accident.
    fn survey(&self) -> Read<Vec<String>> {
        self.store.look()?;
        let founded = index::open(&*self.store)?;
        let names = self.names()?;
        if !founded && self.founded.load(Ordering::Relaxed) {
            return Err(Refusal::new(Verdict::Gone, "it was there and is gone: mount or restore the registry"));
        }
        if names.is_empty() && !self.snapshot().models.is_empty() {
            return Err(Refusal::new(Verdict::Gone, "no model is left where there were some: mount or restore them"));
        }
        self.founded.fetch_or(founded, Ordering::Relaxed);
        Ok(names)
    }

    fn reader<'a>(&'a self, keys: Option<&'a Keys>) -> Reader<'a> {
        let marks = self.trust.as_ref().and_then(|trust| trust.marks.as_ref());
        Reader { store: &*self.store, keys, marks }
    }

    /// The keys that are trusted now; what cannot be read leaves them as they were.
    fn keys(&self) -> Option<Arc<Keys>> {
        let trust = self.trust.as_ref()?;
        *locked(&self.untold) = trust.look().err().map(|cause| cause.to_string());
        Some(trust.keys())
    }

    /// Whether the key that signed what led to a version is still trusted.
    pub(super) fn trusts(&self, signer: Option<&String>) -> bool {
        signer.is_none_or(|id| self.trust.as_ref().is_none_or(|trust| trust.keys().contains(id)))
    }

    /// Reads the whole registry again and brings every model up to it, however long that takes.
    pub fn refresh(&self) {
        self.refresh_within(self.factory.load_timeout * 2);
    }

    /// Reads the whole registry again and brings every model up to it, but for versions that take longer to load than
    /// `patience`: those are taken over by a later look.
    fn refresh_within(&self, patience: Duration) {
        let started = Instant::now();
        self.loads.ended().iter().for_each(|flight| self.land(flight));
        let before = self.snapshot();
        let keys = self.keys();
        let read = self.survey().and_then(|names| {
            let read =
                self.reader(keys.as_deref()).models(&names, |name| before.models.get(name).map(|entry| &entry.index));
            // a folder that vanished meanwhile was read as an empty one
            if self.store.watchable().is_some() {
                self.survey()?;
            }
            Ok((names, read))
        });
        let (names, mut read) = match read {
            Ok(found) => found,
            Err(refusal) => {
                self.refuse(refusal);
                return self.publish_gauges();
            }
        };
        let mut failed = read.iter().filter_map(|(_, index)| index.as_ref().err());
        let unanswered = failed.find(|refusal| refusal.kind == Verdict::Unreachable).cloned();
        let known: HashSet<&String> = names.iter().collect();
        for (name, entry) in before.models.iter().filter(|(name, _)| !known.contains(name)) {
            if entry.index.heights.is_empty() && self.resident(Some(name)).is_empty() {
                self.forget(name);
            } else {
                // no model goes as a whole: its tombstones stay for ever
                read.push((name.clone(), Ok(Index::default())));
            }
        }
        drop(before);
        let first = locked(&self.required).is_none();
        if first {
            let versions: usize = read.iter().flat_map(|(_, index)| index).map(|index| index.versions.len()).sum();
            tracing::info!(models = names.len(), versions, seconds = started.elapsed().as_secs_f64(), "registry read");
        }
        self.settle(read, Instant::now() + patience);
        match unanswered {
            Some(refusal) => self.refuse(refusal),
            None => self.accept(names),
        }
        self.save_verdicts();
        self.publish_gauges();
    }

    /// Takes note that the registry cannot be read.
    fn refuse(&self, refusal: Refusal) {
        let mut refused = locked(&self.refused);
        if refused.as_ref().is_none_or(|before| before.kind != refusal.kind) {
            tracing::error!(%refusal, "the registry cannot be read, so everything stays as it was");
        }
        *refused = Some(refusal);
    }

    /// Takes note that the registry was read, with its models `names`.
    fn accept(&self, names: Vec<String>) {
        if locked(&self.refused).take().is_some() {
            tracing::info!("the registry can be read again");
        }
        locked(&self.required).get_or_insert_with(|| names.into_iter().collect());
    }

    /// Takes model `name` out of service, of which nothing is in use.
    fn forget(&self, name: &str) {
        tracing::info!(model = name, "the model is gone from the registry");
        let _writer = locked(&self.refreshing);
        if let Some(entry) = self.snapshot().models.get(name) {
            self.forget_gauges(name, entry);
        }
        self.replace(vec![(name.to_owned(), None)]);
    }

    /// Brings models up to what was `read` of them. They appear together, but for a load, which may take its time:
    /// until `until`, all together.
    fn settle(&self, read: Vec<(String, Read<Index>)>, until: Instant) {
        let (mut writer, mut settled) = (None, Vec::new());
        for (name, index) in read {
            let index = match index {
                Ok(index) => index,
                Err(cause) => {
                    tracing::warn!(model = name, %cause, "the model cannot be listed, so it stays as it was");
                    if cause.kind != Verdict::Unreachable {
                        writer.get_or_insert_with(|| locked(&self.refreshing));
                        settled.push((name.clone(), Some(self.unlisted(&name, cause))));
                    }
                    continue;
                }
            };
            writer.get_or_insert_with(|| locked(&self.refreshing));
            let before = self.snapshot().models.get(&name).cloned().unwrap_or_default();
            let entry = self.update(&name, &before, index, until);
            let live = entry.index.versions.keys().filter(|version| entry.index.allows(version));
            let live: HashSet<Version> = live.cloned().collect();
            let records = entry.index.versions.values().filter_map(|listed| match listed {
                Listed::Readable(record) => Some(record.digest.clone()),
                Listed::Broken(_) => None,
            });
            let digests: HashSet<String> = records.collect();
            let stays = same(before.current.as_ref(), entry.current.as_ref());
            settled.push((name.clone(), Some(entry)));
            if !stays {
                self.forget_gauges(&name, &before);
                self.replace(std::mem::take(&mut settled));
                writer = None;
            }
            self.retain(&name, |version| live.contains(version));
            self.loads.forgive(&name, |digest| digests.contains(digest));
        }
        self.replace(settled);
    }

    /// Model `name` as it was, with the `cause` why it cannot be listed now.
    fn unlisted(&self, name: &str, cause: Refusal) -> Entry {
        let before = self.snapshot().models.get(name).cloned().unwrap_or_default();
        let failure = Some(format!("it cannot be listed: {cause}"));
        let wanted = if before.current.is_some() { before.wanted.clone() } else { Err(cause) };
        Entry {
            index: before.index.clone(),
            wanted,
            current: before.current.clone(),
            failure,
            pending: false,
            gone: before.gone.clone(),
            aliases: before.aliases.clone(),
            signer: before.signer.clone(),
            unloaded: before.unloaded,
        }
    }

    /// Brings model `name` up to the registry.
    fn refresh_model(&self, name: &str) -> Read<()> {
        self.survey()?;
        let before = self.snapshot();
        let before = before.models.get(name).map(|entry| &entry.index);
        self.settle(
            self.reader(self.keys().as_deref()).models(&[name.to_owned()], |_| before),
            Instant::now() + PATIENCE,
        );
        Ok(())
    }

    fn update(&self, name: &str, before: &Entry, mut index: Index, until: Instant) -> Entry {
        let gone = self.restore(name, &before.index, &mut index);
        if gone != before.gone
            && let Some(gone) = &gone
        {
            tracing::error!(model = name, gone, "part of the model has vanished");
        }
        let wanted = index.resolve(None);
        let mut entry = Entry { wanted, gone, unloaded: before.unloaded, index, ..Entry::default() };
        if entry.unloaded {
            return entry;
        }
        (entry.current, entry.failure, entry.pending) = match self.choose(name, before, &entry, until) {
            Choice::Made(current, failure) => (current, failure, false),
            Choice::Awaited(current) => (current, Some("it is still being loaded".to_owned()), true),
        };
        let chosen = entry.wanted.as_ref().ok().filter(|_| entry.failure.is_none());
        entry.signer = chosen.map_or_else(|| before.signer.clone(), |target| target.signer.clone());
        if let (Some(failure), Some(stopped), None) = (&entry.failure, &before.current, &entry.current) {
            tracing::error!(
                model = name,
                version = stopped.version_text,
                failure,
                "the version is not served any more"
            );
        }
        if !entry.pending
            && entry.failure != before.failure
            && let (Some(failure), Some(current)) = (&entry.failure, &entry.current)
        {
            tracing::error!(model = name, serving = current.version_text, failure, "the version in service stays");
        }
        entry.aliases = self.lead(name, before, &entry, until);
        entry
    }

    /// The version to answer the plain name by, and why it is not the wanted one.
    fn choose(&self, name: &str, before: &Entry, entry: &Entry, until: Instant) -> Choice {
        let alive = |model: &Arc<Model>| entry.index.allows(&model.version) && self.trusts(before.signer.as_ref());
        let kept = || before.current.clone().filter(alive);
        let target = match &entry.wanted {
            Ok(target) => target,
            Err(refusal) if refusal.kind == Verdict::NotFound => {
                let awaited = matches!(entry.index.aliases.get(index::PRODUCTION), Some(Ok(target)) if entry.index.awaits(target));
                // an alias may be seen before the version that it names, as where a registry is being copied
                return if awaited {
                    Choice::Made(kept(), Some(format!("`{}` is not there yet: {refusal}", index::PRODUCTION)))
                } else {
                    // what was served and may not be any more has its reason; what never was, nobody misses
                    let served = before.current.is_some() || before.failure.is_some();
                    Choice::Made(None, entry.index.withheld().filter(|_| served).map(ToString::to_string))
                };
            }
            Err(refusal) => return Choice::Made(kept(), Some(refusal.to_string())),
        };
        let record = match entry.record(name, target) {
            Ok(record) => record,
            // no graph to serve: not a failure, and nothing to fall back to
            Err(Error::NotFound(_)) => return Choice::Made(None, None),
            Err(cause) => return Choice::Made(kept(), Some(cause.to_string())),
        };
        if let Some(current) =
            before.current.as_ref().filter(|model| model.version == record.version && model.digest == record.digest)
        {
            return Choice::Made(Some(Arc::clone(current)), None);
        }
        match self.load(&record, until) {
            Some(Ok(model)) => Choice::Made(Some(model), None),
            Some(Err(cause)) => Choice::Made(kept(), Some(cause.to_string())),
            None => Choice::Awaited(kept()),
        }
    }

    /// Where the aliases lead: one whose old target is in use switches only once its new target is loaded.
    fn lead(&self, name: &str, before: &Entry, entry: &Entry, until: Instant) -> BTreeMap<String, Target> {
        let in_use = |target: &Target| {
            let record = entry.record(name, target).ok().filter(|_| self.trusts(target.signer.as_ref()));
            record.and_then(|record| self.loaded(&record)).is_some()
        };
        let mut aliases = BTreeMap::new();
        for (alias, target) in &entry.index.aliases {
            let awaited = target.as_ref().is_ok_and(|target| entry.index.awaits(target));
            let old = before.aliases.get(alias).filter(|old| target.as_ref() != Ok(*old));
            let old = old.filter(|old| if awaited { !entry.index.awaits(old) } else { in_use(old) });
            match (target, old) {
                (Ok(target), None) => drop(aliases.insert(alias.clone(), target.clone())),
                (Err(_), None) => {}
                (target, Some(old)) => {
                    let loaded = target.clone().map_err(|refusal| Error::Unavailable(refusal.to_string()));
                    let loaded = loaded.and_then(|target| {
                        let loaded = self.load(&entry.record(name, &target)?, until);
                        loaded.transpose().map(|loaded| loaded.map(|_| target))
                    });
                    let target = loaded.unwrap_or_else(|cause| {
                        tracing::error!(model = name, alias, serving = %old.version, %cause, "the alias stays where it was");
                        None
                    });
                    aliases.insert(alias.clone(), target.unwrap_or_else(|| old.clone()));
                }
            }
        }
        aliases
    }

    /// Loads model `name` again after an unload, or looks for a newer version of it now.
    pub fn load_model(&self, name: &str) -> Result<()> {
        self.set_unloaded(name, false)?;
        self.loads.forgive(name, |_| false);
        let until = Instant::now() + self.factory.load_timeout * 2;
        loop {
            self.refresh_model(name).map_err(|refusal| Error::Unavailable(refusal.to_string()))?;
            // waited for here, where it keeps nobody else from following
            let Some(flight) = self.loads.of(name) else { break };
            if flight.wait(until).is_none() {
                break;
            }
        }
        self.publish_gauges();
        let snapshot = self.snapshot();
        let entry =
            snapshot.models.get(name).ok_or_else(|| Error::NotFound(format!("there is no model `{}`", shown(name))))?;
        match (&entry.current, &entry.failure) {
            (_, Some(failure)) => Err(Error::Unavailable(failure.clone())),
            (None, None) => Err(Error::NotFound(format!("model `{name}` has no version to serve"))),
            _ => Ok(()),
        }
    }

    /// Takes model `name` out of service until it is loaded again.
    pub fn unload_model(&self, name: &str) -> Result<()> {
        self.set_unloaded(name, true)?;
        self.retain(name, |_| false);
        self.publish_gauges();
        Ok(())
    }

    fn set_unloaded(&self, name: &str, unloaded: bool) -> Result<()> {
        let _writer = locked(&self.refreshing);
        let snapshot = self.snapshot();
        if !names::is_model(name) {
            return Err(Error::NotFound(format!("there is no model `{}`", shown(name))));
        }
        let Some(entry) = snapshot.models.get(name) else {
            // a model that has just been published may not have been noticed yet
            return if unloaded {
                Err(Error::NotFound(format!("there is no model `{}`", shown(name))))
            } else {
                Ok(())
            };
        };
        if entry.unloaded != unloaded {
            let entry =
                Entry { index: entry.index.clone(), wanted: entry.wanted.clone(), unloaded, ..Entry::default() };
            self.replace(vec![(name.to_owned(), Some(entry))]);
        }
        Ok(())
    }

    /// Whether the server is ready, and what is not as it should be.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let required = locked(&self.required).clone();
        let mut problems = BTreeMap::new();
        problems
            .extend(locked(&self.refused).as_ref().map(|refusal| ("registry.json".to_owned(), refusal.to_string())));
        problems.extend(locked(&self.untold).clone().map(|problem| ("--keys".to_owned(), problem)));
        let mut ready = required.is_some() && !self.draining.load(Ordering::Relaxed);
        for (name, entry) in &self.snapshot().models {
            if let Some(problem) = entry.failure.as_ref().or(entry.gone.as_ref()) {
                problems.insert(name.clone(), problem.clone());
            }
            if entry.failure.is_some() {
                let needed = required.as_ref().is_none_or(|required| required.contains(name));
                ready &= entry.current.is_some() || entry.unloaded || !needed;
            }
        }
        Readiness { ready, problems }
    }

    /// Says that no further requests should be sent here.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Sets the gauges of a model to zero that is gone, or about to be served by another version.
    fn forget_gauges(&self, name: &str, entry: &Entry) {
        let metrics = &self.factory.metrics;
        if let Some(model) = &entry.current {
            metrics.set("ocad_server_model_version", &[("model", name), ("version", &model.version_text)], 0.0);
        }
        metrics.set("ocad_server_model_stale", &[("model", name)], 0.0);
    }

    /// Sets the gauges that follow the catalog.
    pub fn publish_gauges(&self) {
        let metrics = &self.factory.metrics;
        metrics.set("ocad_server_ready", &[], f64::from(u8::from(self.readiness().ready)));
        metrics.set("ocad_server_registry_up", &[], f64::from(u8::from(locked(&self.refused).is_none())));
        #[allow(clippy::cast_precision_loss)]
        metrics.set("ocad_server_resident_bytes", &[], self.resident_bytes() as f64);
        for (name, entry) in &self.snapshot().models {
            metrics.set("ocad_server_model_stale", &[("model", name)], f64::from(u8::from(entry.failure.is_some())));
            if let Some(model) = &entry.current {
                let labels = [("model", name.as_str()), ("version", model.version_text.as_str())];
                metrics.set("ocad_server_model_version", &labels, 1.0);
            }
        }
    }
}

fn same(before: Option<&Arc<Model>>, after: Option<&Arc<Model>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        (before, after) => before.is_none() && after.is_none(),
    }
}
