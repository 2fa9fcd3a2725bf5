//! What a registry holds: the versions and aliases of each model, and how names resolve.

use std::collections::BTreeMap;
use std::sync::Arc;

use semver::Version;

use super::digest::sha256;
use super::format::{AliasEntry, JSON_LIMIT, Metadata, Refusal};
use super::names;
use super::store::{Kind, Store};
use crate::error::{Error, Result};

/// The alias that a plain name means, where it is set.
pub const PRODUCTION: &str = "production";

/// A version whose metadata could be read.
#[derive(Debug)]
pub struct Record {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Its metadata.
    pub metadata: Metadata,
    /// The sha256 of `metadata.json`.
    pub digest: String,
    /// Its folder, relative to the registry.
    pub folder: String,
}

/// A listed version.
#[derive(Debug, Clone)]
pub enum Listed {
    /// It can be read.
    Readable(Arc<Record>),
    /// It cannot, and why.
    Broken(Refusal),
}

/// One model.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Its live versions.
    pub versions: BTreeMap<Version, Listed>,
    /// Where its aliases point.
    pub aliases: BTreeMap<String, Version>,
}

impl Index {
    /// Reads model `name` from `store`. Versions that were read before are taken from `before`: they never change.
    pub fn read(store: &dyn Store, name: &str, before: Option<&Self>) -> std::io::Result<Self> {
        let deleted = store.list(&format!("{name}/deleted"))?;
        let is_deleted = |version: &str| deleted.iter().any(|entry| entry.name.strip_suffix(".json") == Some(version));
        let mut index = Self::default();
        for entry in store.list(name)? {
            let Some(version) = names::version(&entry.name).filter(|_| entry.kind == Kind::Folder) else { continue };
            if is_deleted(&entry.name) {
                continue;
            }
            let known = before.and_then(|before| before.versions.get(&version));
            let listed = match known {
                Some(Listed::Readable(record)) => Some(Listed::Readable(Arc::clone(record))),
                _ => read_version(store, name, &version),
            };
            if let Some(listed) = listed {
                index.versions.insert(version, listed);
            }
        }
        for entry in store.list(&format!("{name}/aliases"))? {
            if names::is_alias(&entry.name)
                && let Some(version) = read_alias(store, &format!("{name}/aliases/{}", entry.name), &index)?
            {
                index.aliases.insert(entry.name, version);
            }
        }
        Ok(index)
    }

    /// The version that the plain name means: the alias `production`, else the highest release that passed.
    #[must_use]
    pub fn plain(&self) -> Option<&Version> {
        self.aliases.get(PRODUCTION).or_else(|| {
            self.versions.iter().rev().find_map(|(version, listed)| match listed {
                Listed::Readable(record) if version.pre.is_empty() && record.metadata.passed => Some(version),
                _ => None,
            })
        })
    }

    /// The version that `selector` (a version or an alias) means.
    pub fn select(&self, name: &str, selector: &str) -> Result<Version> {
        let found = match names::requested_version(selector) {
            Some(version) => Some(version).filter(|version| self.versions.contains_key(version)),
            None => self.aliases.get(selector).cloned(),
        };
        found.ok_or_else(|| {
            Error::NotFound(format!("model `{name}` has no version or alias `{selector}`: it has {}", self.known()))
        })
    }

    fn known(&self) -> String {
        let versions = self.versions.keys().rev().take(10).map(|version| format!("`{version}`"));
        let aliases = self.aliases.keys().map(|alias| format!("`{alias}`"));
        let known: Vec<String> = aliases.chain(versions).collect();
        if known.is_empty() { "none".into() } else { known.join(", ") }
    }
}

fn read_version(store: &dyn Store, name: &str, version: &Version) -> Option<Listed> {
    let folder = format!("{name}/{version}");
    match read_record(store, name, version, &folder) {
        Ok(Some(record)) => Some(Listed::Readable(Arc::new(record))),
        Ok(None) => None,
        Err(refusal) => Some(Listed::Broken(refusal)),
    }
}

/// The record of a version; `None` when it is not live, which is when `metadata.json` is missing.
fn read_record(store: &dyn Store, name: &str, version: &Version, folder: &str) -> Result<Option<Record>, Refusal> {
    let path = format!("{folder}/metadata.json");
    if store.kind(&path).map_err(|cause| cause.to_string())?.is_none() {
        return Ok(None);
    }
    let bytes = store.read(&path, JSON_LIMIT).map_err(|cause| format!("`metadata.json` {cause}"))?;
    let digest = sha256(&bytes);
    let stated = store
        .read(&format!("{folder}/metadata.sha256"), 1024)
        .map_err(|cause| format!("`metadata.sha256`: {cause}"))?;
    let stated = String::from_utf8_lossy(&stated);
    if stated.split_whitespace().next() != Some(digest.as_str()) {
        return Err("`metadata.json` does not have the digest in `metadata.sha256`".into());
    }
    let metadata = Metadata::read(&bytes, name, &version.to_string())?;
    Ok(Some(Record { name: name.to_owned(), version: version.clone(), metadata, digest, folder: folder.to_owned() }))
}

/// Where an alias points: the highest number wins, entries of versions that are gone are skipped.
fn read_alias(store: &dyn Store, folder: &str, index: &Index) -> std::io::Result<Option<Version>> {
    let mut numbers: Vec<(u64, String)> = store
        .list(folder)?
        .into_iter()
        .filter_map(|entry| entry.name.strip_suffix(".json")?.parse().ok().map(|number| (number, entry.name.clone())))
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    for (_, file) in numbers {
        let Ok(bytes) = store.read(&format!("{folder}/{file}"), JSON_LIMIT) else { continue };
        let Ok(entry) = serde_json::from_slice::<AliasEntry>(&bytes) else { continue };
        if entry.kind == "unset" {
            return Ok(None);
        }
        let version = entry.version.as_deref().and_then(names::version);
        if let Some(version) = version.filter(|version| index.versions.contains_key(version)) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}
