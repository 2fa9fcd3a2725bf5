//! What a registry holds: the versions and aliases of each model, and how references resolve.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use semver::Version;

use super::digest::sha256;
use super::fields::{boolean, is_digest, nullable, one_of, text};
use super::manifest::{DOCUMENT_LIMIT, FORMAT, METADATA_LIMIT, Manifest};
use super::names::{self, Selector};
use super::refusal::{Kind, Read, Refusal};
use super::store::{Kind as FileKind, Store};
use super::strict::{self, Json, Object};

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
    pub metadata: Manifest,
    /// The sha256 of `metadata.json`.
    pub digest: String,
    /// Its folder, relative to the registry.
    pub folder: String,
}

/// A live version.
#[derive(Debug, Clone)]
pub enum Listed {
    /// It can be read.
    Readable(Arc<Record>),
    /// It cannot, and why.
    Broken(Refusal),
}

/// Where an alias or a reference leads: a version, and the digest that an alias entry holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The version.
    pub version: Version,
    /// The sha256 that its `metadata.json` must have.
    pub pinned: Option<String>,
}

/// One model.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Its live versions.
    pub versions: BTreeMap<Version, Listed>,
    /// Its aliases that are set, or cannot be read.
    pub aliases: BTreeMap<String, Read<Target>>,
    /// Whether its folder is a symbolic link, which is not followed.
    pub linked: bool,
}

/// Refuses a registry of a newer format, or of none, before anything in it is believed.
pub fn open(store: &dyn Store) -> Read<()> {
    if store.kind("registry.json")?.is_none() {
        return Ok(());
    }
    let document = strict::parse(&store.read("registry.json", DOCUMENT_LIMIT)?)?;
    match document.get("format") {
        Some(Json::Integer(found)) if *found > FORMAT => Err(Refusal::new(
            Kind::NewerFormat,
            format!("the registry's format {found} is newer than {FORMAT}: update the server"),
        )),
        Some(Json::Integer(FORMAT)) => Ok(()),
        _ => Err(Refusal::new(Kind::BadRegistry, "`registry.json` names no format")),
    }
}

impl Index {
    /// Reads model `name` from `store`. Versions that were read before are taken from `before`: they never change.
    pub fn read(store: &dyn Store, name: &str, before: Option<&Self>) -> Read<Self> {
        let listed = store.list(name)?;
        let deleted: HashSet<String> = store
            .list(&format!("{name}/deleted"))?
            .into_iter()
            .filter_map(|entry| Some(entry.name.strip_suffix(".json")?.to_owned()))
            .collect();
        let mut index = Self { linked: store.kind(name)? == Some(FileKind::Link), ..Self::default() };
        for entry in listed {
            let Some(version) = names::version(&entry.name).filter(|_| !deleted.contains(&entry.name)) else {
                continue;
            };
            let known = before.and_then(|before| before.versions.get(&version));
            let found = match (known, entry.kind) {
                (Some(Listed::Readable(record)), FileKind::Folder) => Some(Listed::Readable(Arc::clone(record))),
                (_, FileKind::Folder) => read_version(store, name, &version),
                (_, FileKind::Link) => Some(Listed::Broken(Refusal::new(Kind::Symlink, "the version is a symlink"))),
                _ => None,
            };
            index.versions.extend(found.map(|found| (version, found)));
        }
        for entry in store.list(&format!("{name}/aliases"))? {
            if entry.kind == FileKind::Folder && names::is_alias(&entry.name) {
                let target = read_alias(store, &format!("{name}/aliases/{}", entry.name), &deleted).transpose();
                index.aliases.extend(target.map(|target| (entry.name, target)));
            }
        }
        Ok(index)
    }

    /// Where `selector` leads, or the plain name where there is none.
    pub fn resolve(&self, selector: Option<&Selector>) -> Read<Target> {
        let target = match selector {
            Some(Selector::Version(version)) => Target { version: version.clone(), pinned: None },
            Some(Selector::Alias(alias)) => self.aliases.get(alias).cloned().ok_or_else(|| self.missing(alias))??,
            None => match self.aliases.get(PRODUCTION) {
                Some(target) => target.clone()?,
                None => return self.highest(),
            },
        };
        match self.versions.get(&target.version) {
            None if self.linked => Err(Refusal::new(Kind::Symlink, "the model is a symlink")),
            None => Err(self.missing(&target.version.to_string())),
            Some(Listed::Broken(refusal)) if refusal.kind == Kind::Symlink => Err(refusal.clone()),
            Some(_) => Ok(target),
        }
    }

    /// The highest release that passed.
    fn highest(&self) -> Read<Target> {
        let passed = self.versions.iter().rev().find(|(version, listed)| {
            version.pre.is_empty() && matches!(listed, Listed::Readable(record) if record.metadata.passed)
        });
        let target = passed.map(|(version, _)| Target { version: version.clone(), pinned: None });
        target.ok_or_else(|| {
            Refusal::new(
                Kind::NotFound,
                "no release of it passed its gates: promote a version, or ask for one by number",
            )
        })
    }

    fn missing(&self, wanted: &str) -> Refusal {
        let aliases = self.aliases.keys().map(|alias| format!("`{alias}`"));
        let versions = self.versions.keys().rev().take(10).map(|version| format!("`{version}`"));
        let known: Vec<String> = aliases.chain(versions).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Refusal::new(Kind::NotFound, format!("it has no version or alias `{wanted}`: it has {known}"))
    }

    /// The record that `target` leads to; an error when it cannot be read or is not the one that the alias was given.
    pub fn record(&self, target: &Target) -> Read<Arc<Record>> {
        match self.versions.get(&target.version) {
            Some(Listed::Readable(record)) if target.pinned.as_ref().is_none_or(|pinned| *pinned == record.digest) => {
                Ok(Arc::clone(record))
            }
            Some(Listed::Readable(_)) => {
                Err(Refusal::new(Kind::AliasDigest, "the version is not the one that the alias was given"))
            }
            Some(Listed::Broken(refusal)) => Err(refusal.clone()),
            None => Err(self.missing(&target.version.to_string())),
        }
    }
}

/// What lies in a version's folder; `None` when it is no version, which is when `metadata.json` is missing.
fn read_version(store: &dyn Store, name: &str, version: &Version) -> Option<Listed> {
    let folder = format!("{name}/{version}");
    match read_record(store, name, version, folder) {
        Ok(record) => Some(Listed::Readable(Arc::new(record))),
        Err(refusal) if refusal.kind == Kind::MissingFile => None,
        Err(refusal) => Some(Listed::Broken(refusal)),
    }
}

/// Reads a version by steps 1 to 9 of section 7; `missing-file` when there is no `metadata.json`.
fn read_record(store: &dyn Store, name: &str, version: &Version, folder: String) -> Read<Record> {
    let in_metadata = |refusal: Refusal| Refusal::new(refusal.kind, format!("`metadata.json`: {}", refusal.detail));
    let bytes = store.read(&format!("{folder}/metadata.json"), METADATA_LIMIT).map_err(in_metadata)?;
    // absent, a symlink, too large: whatever is wrong with it, it does not state the digest
    let stated = store.read(&format!("{folder}/metadata.sha256"), DOCUMENT_LIMIT).unwrap_or_default();
    let digest = sha256(&bytes);
    if stated != format!("{digest}  metadata.json\n").as_bytes() {
        return Err(Refusal::new(
            Kind::MetadataDigest,
            "`metadata.json` does not have the digest in `metadata.sha256`",
        ));
    }
    let metadata = Manifest::read(&bytes, name, &version.to_string()).map_err(in_metadata)?;
    Ok(Record { name: name.to_owned(), version: version.clone(), metadata, digest, folder })
}

/// Where an alias points: the highest entry that names no deleted version decides; `None` when it is not set.
fn read_alias(store: &dyn Store, folder: &str, deleted: &HashSet<String>) -> Read<Option<Target>> {
    let mut entries: Vec<(u64, String)> = store
        .list(folder)?
        .into_iter()
        .filter_map(|entry| Some((names::entry_number(&entry.name)?, entry.name)))
        .collect();
    entries.sort_unstable_by(|a, b| b.cmp(a));
    for (number, file) in entries {
        let document = store.read(&format!("{folder}/{file}"), DOCUMENT_LIMIT).and_then(|bytes| strict::parse(&bytes));
        let entry = document.map_err(|refusal| refusal.detail).and_then(|document| alias_entry(&document));
        match entry {
            Err(cause) => {
                return Err(Refusal::new(Kind::BadAliasEntry, format!("entry {number} cannot be read: {cause}")));
            }
            Ok(None) => return Ok(None),
            Ok(Some(target)) if deleted.contains(&target.version.to_string()) => {}
            Ok(target) => return Ok(target),
        }
    }
    Ok(None)
}

/// The target of an entry; `None` for `unset`.
fn alias_entry(entry: &Object) -> Result<Option<Target>, String> {
    for name in ["version", "metadata_sha256"] {
        entry.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
    }
    let kind = one_of(entry, "kind", &["promote", "rollback", "unset"])?;
    let (version, digest) = (nullable(entry, "version", text)?, nullable(entry, "metadata_sha256", text)?);
    text(entry, "moved_at").and(text(entry, "by")).and(text(entry, "reason"))?;
    boolean(entry, "forced")?;
    match (kind, version, digest) {
        ("unset", None, None) => Ok(None),
        ("promote" | "rollback", Some(version), Some(digest)) if is_digest(digest) => {
            let version = names::version(version).ok_or("`version` is no version")?;
            Ok(Some(Target { version, pinned: Some(digest.to_owned()) }))
        }
        _ => Err("kind, version and digest do not fit together".into()),
    }
}
