//! What the catalog tells about itself.

use serde::Serialize;

use super::catalog::{Catalog, Entry};
use crate::registry::index::Listed;

/// A line of the repository's index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// `READY` when it answers, `UNAVAILABLE` when it cannot.
    pub state: &'static str,
    /// Why it is unavailable, or that its first request loads it.
    pub reason: String,
}

impl Catalog {
    /// Every version with a graph to serve, and the broken ones; only those that answer now if `ready`.
    #[must_use]
    pub fn listing(&self, ready: bool) -> Vec<Line> {
        let snapshot = self.snapshot();
        let mut names: Vec<&String> = snapshot.models.keys().collect();
        names.sort_unstable();
        let lines = names.into_iter().flat_map(|name| self.lines(name, &snapshot.models[name]));
        lines.filter(|line| !ready || line.state == "READY").collect()
    }

    fn lines(&self, name: &str, entry: &Entry) -> Vec<Line> {
        let line = |version: String, (state, reason)| Line { name: name.to_owned(), version, state, reason };
        let servable = entry.index.versions.iter().rev().filter_map(|(version, listed)| match listed {
            Listed::Readable(record) if record.metadata.onnx().is_none() => None,
            Listed::Readable(record) => {
                let current = entry.current.as_ref().is_some_and(|model| model.version == *version);
                let failure = entry
                    .failure
                    .as_ref()
                    .filter(|_| entry.wanted.as_ref().is_ok_and(|target| target.version == *version));
                let state = match (entry.unloaded, failure) {
                    (true, _) => ("UNAVAILABLE", "unloaded".to_owned()),
                    (_, Some(failure)) => ("UNAVAILABLE", failure.clone()),
                    _ if current || self.loaded(record).is_some() => ("READY", String::new()),
                    _ => ("READY", "loaded by its first request".to_owned()),
                };
                Some(line(version.to_string(), state))
            }
            Listed::Broken(refusal) => Some(line(version.to_string(), ("UNAVAILABLE", refusal.to_string()))),
        });
        servable.collect()
    }

    /// The versions of model `name` that can be asked for, the newest first.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<String> {
        let snapshot = self.snapshot();
        let Some(entry) = snapshot.models.get(name) else { return Vec::new() };
        let servable = |listed: &Listed| matches!(listed, Listed::Readable(record) if record.metadata.onnx().is_some());
        entry
            .index
            .versions
            .iter()
            .rev()
            .filter(|(_, listed)| servable(listed))
            .map(|(version, _)| version.to_string())
            .collect()
    }

    /// Sets the gauges of the queues.
    pub fn publish_depths(&self) {
        for (name, entry) in &self.snapshot().models {
            if let Some(model) = &entry.current {
                #[allow(clippy::cast_precision_loss)]
                self.factory.metrics.set("ocad_server_queue_depth", &[("model", name)], model.depth() as f64);
            }
        }
    }
}
