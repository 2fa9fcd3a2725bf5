//! Keeps the catalog as the registry is: reads it again after each change and loads before it switches.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use semver::Version;

use super::catalog::{Catalog, Entry, locked};
use super::served::Model;
use crate::error::{Error, Result};
use crate::registry::index::{self, Index, Listed, Target};
use crate::registry::names;
use crate::registry::refusal::Kind as Verdict;
use crate::registry::store::Kind;
use crate::registry::watch::{Wake, Watch};

/// The state of the server as a load balancer asks for it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether requests should be sent here.
    pub ready: bool,
    /// What keeps it from being ready, or is not as the registry wants it, by model.
    pub problems: BTreeMap<String, String>,
}

impl Catalog {
    /// Follows the registry until the watch is told to stop.
    pub fn follow(&self, mut watch: Watch) {
        loop {
            watch.follow(self.folders());
            self.refresh();
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
        let Some(root) = self.store.watchable() else { return HashSet::new() };
        let mut folders = HashSet::from([root.to_owned()]);
        for name in self.names() {
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

    fn names(&self) -> Vec<String> {
        let listed = self.store.list("").unwrap_or_else(|cause| {
            tracing::warn!(%cause, "the registry cannot be listed");
            Vec::new()
        });
        listed
            .into_iter()
            .filter(|entry| entry.kind == Kind::Folder && names::is_model(&entry.name))
            .map(|entry| entry.name)
            .collect()
    }

    /// Reads the whole registry again and brings every model up to it.
    pub fn refresh(&self) {
        let opened = index::open(&*self.store);
        locked(&self.refused).clone_from(&opened.as_ref().err().cloned());
        if let Err(refusal) = opened {
            tracing::error!(%refusal, "the registry cannot be read, so everything stays as it was");
            return;
        }
        let names = self.names();
        for gone in self.snapshot().models.keys().filter(|name| !names.contains(name)) {
            tracing::info!(model = gone, "the model is gone from the registry");
            let snapshot = self.snapshot();
            self.forget_gauges(gone, snapshot.models[gone].index.versions.keys());
            self.replace(gone, None);
            self.retain(gone, |_| false);
        }
        for name in &names {
            self.refresh_model(name);
        }
        let mut required = locked(&self.required);
        if required.is_none() {
            *required = Some(names.into_iter().collect());
        }
        drop(required);
        self.save_verdicts();
        self.publish_gauges();
    }

    /// Brings model `name` up to the registry.
    fn refresh_model(&self, name: &str) {
        let _writer = locked(&self.refreshing);
        let before = self.snapshot().models.get(name).cloned().unwrap_or_default();
        match Index::read(&*self.store, name, Some(&before.index)) {
            Ok(index) => {
                let entry = self.update(name, &before, index);
                let live: HashSet<Version> = entry.index.versions.keys().cloned().collect();
                self.forget_gauges(name, before.index.versions.keys().filter(|version| !live.contains(version)));
                self.replace(name, Some(entry));
                self.retain(name, |version| live.contains(version));
            }
            Err(cause) => tracing::warn!(model = name, %cause, "the model cannot be listed, so it stays as it was"),
        }
    }

    fn update(&self, name: &str, before: &Entry, index: Index) -> Entry {
        let wanted = index.resolve(None);
        let mut entry = Entry { wanted, unloaded: before.unloaded, index, ..Entry::default() };
        if entry.unloaded {
            return entry;
        }
        (entry.current, entry.failure) = self.choose(name, before, &entry);
        if entry.failure != before.failure
            && let (Some(failure), Some(current)) = (&entry.failure, &entry.current)
        {
            tracing::error!(model = name, serving = current.version_text, failure, "the version in service stays");
        }
        entry.aliases = self.lead(name, before, &entry);
        entry
    }

    /// The version to answer the plain name by, and why it is not the wanted one.
    fn choose(&self, name: &str, before: &Entry, entry: &Entry) -> (Option<Arc<Model>>, Option<String>) {
        let alive = |model: &Arc<Model>| entry.index.versions.contains_key(&model.version);
        let kept = || before.current.clone().filter(alive);
        let target = match &entry.wanted {
            Ok(target) => target,
            Err(refusal) if refusal.kind == Verdict::NotFound => return (None, None),
            Err(refusal) => return (kept(), Some(refusal.to_string())),
        };
        let record = match entry.record(name, target) {
            Ok(record) => record,
            // no graph to serve: not a failure, and nothing to fall back to
            Err(Error::NotFound(_)) => return (None, None),
            Err(cause) => return (kept(), Some(cause.to_string())),
        };
        if let Some(current) =
            before.current.as_ref().filter(|model| model.version == record.version && model.digest == record.digest)
        {
            return (Some(Arc::clone(current)), None);
        }
        match self.load(&record) {
            Ok(model) => (Some(model), None),
            Err(cause) => (kept(), Some(cause.to_string())),
        }
    }

    /// Where the aliases lead: one whose old target is in use switches only once its new target is loaded.
    fn lead(&self, name: &str, before: &Entry, entry: &Entry) -> BTreeMap<String, Target> {
        let in_use =
            |target: &Target| entry.record(name, target).ok().and_then(|record| self.loaded(&record)).is_some();
        let mut aliases = BTreeMap::new();
        for (alias, target) in &entry.index.aliases {
            let old = before.aliases.get(alias).filter(|old| target.as_ref() != Ok(*old) && in_use(old));
            match (target, old) {
                (Ok(target), None) => drop(aliases.insert(alias.clone(), target.clone())),
                (Err(_), None) => {}
                (target, Some(old)) => {
                    let loaded = target.clone().map_err(|refusal| Error::Unavailable(refusal.to_string()));
                    let loaded = loaded.and_then(|target| self.load(&*entry.record(name, &target)?).map(|_| target));
                    let target = loaded.unwrap_or_else(|cause| {
                        tracing::error!(model = name, alias, serving = %old.version, %cause, "the alias stays where it was");
                        old.clone()
                    });
                    aliases.insert(alias.clone(), target);
                }
            }
        }
        aliases
    }

    /// Loads model `name` again after an unload, or looks for a newer version of it now.
    pub fn load_model(&self, name: &str) -> Result<()> {
        self.set_unloaded(name, false)?;
        self.refresh_model(name);
        self.publish_gauges();
        let snapshot = self.snapshot();
        let entry = snapshot.models.get(name).ok_or_else(|| Error::NotFound(format!("there is no model `{name}`")))?;
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
            return Err(Error::NotFound(format!("there is no model `{name}`")));
        }
        let Some(entry) = snapshot.models.get(name) else {
            // a model that has just been published may not have been noticed yet
            return if unloaded { Err(Error::NotFound(format!("there is no model `{name}`"))) } else { Ok(()) };
        };
        if entry.unloaded != unloaded {
            let entry =
                Entry { index: entry.index.clone(), wanted: entry.wanted.clone(), unloaded, ..Entry::default() };
            self.replace(name, Some(entry));
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
        let mut ready = required.is_some() && !self.draining.load(Ordering::Relaxed);
        for (name, entry) in &self.snapshot().models {
            if let Some(failure) = &entry.failure {
                problems.insert(name.clone(), failure.clone());
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

    /// Sets the gauges of versions that are gone to zero.
    fn forget_gauges<'a>(&self, name: &str, gone: impl Iterator<Item = &'a Version>) {
        for version in gone {
            self.factory.metrics.set(
                "ocad_server_model_version",
                &[("model", name), ("version", &version.to_string())],
                0.0,
            );
        }
        self.factory.metrics.set("ocad_server_model_stale", &[("model", name)], 0.0);
    }

    /// Sets the gauges that follow the catalog.
    pub fn publish_gauges(&self) {
        let metrics = &self.factory.metrics;
        metrics.set("ocad_server_ready", &[], f64::from(u8::from(self.readiness().ready)));
        #[allow(clippy::cast_precision_loss)]
        metrics.set("ocad_server_resident_bytes", &[], self.resident_bytes() as f64);
        for (name, entry) in &self.snapshot().models {
            metrics.set("ocad_server_model_stale", &[("model", name)], f64::from(u8::from(entry.failure.is_some())));
            let current = entry.current.as_ref().map(|model| &model.version);
            for (version, listed) in &entry.index.versions {
                if matches!(listed, Listed::Readable(record) if record.metadata.onnx().is_some()) {
                    let served = f64::from(u8::from(Some(version) == current));
                    metrics.set(
                        "ocad_server_model_version",
                        &[("model", name), ("version", &version.to_string())],
                        served,
                    );
                }
            }
        }
    }
}
