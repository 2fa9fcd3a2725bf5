//! What a registry holds: the versions and aliases of each model, and how references resolve.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use semver::Version;

use super::aliases::{self, Signed};
use super::digest::{digest_line, sha256};
use super::manifest::{DOCUMENT_LIMIT, FORMAT, Manifest};
use super::marks::Marks;
use super::names::{self, Selector};
use super::refusal::{Kind, Read, Refusal};
use super::signatures::Keys;
use super::store::{Kind as FileKind, Store};
use super::strict::{self, Json};
use super::workers;

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
    /// The key that signed it, where that is required.
    pub signer: Option<String>,
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
    /// The key that signed the alias entry, where that is required.
    pub signer: Option<String>,
}

/// One model.
#[derive(Debug, Clone, Default)]
pub struct Index {
    /// Its live versions.
    pub versions: BTreeMap<Version, Listed>,
    /// Its aliases that are set, or cannot be read.
    pub aliases: BTreeMap<String, Read<Target>>,
    /// The numbers of the highest entries of its aliases that can be read, also where the alias is not set.
    pub heights: BTreeMap<String, u64>,
    /// The versions that have a tombstone.
    pub deleted: HashSet<String>,
    /// Whether its folder is a symbolic link, which is not followed.
    pub linked: bool,
    /// Whether aliases must be signed: then the plain name means `production` and nothing else.
    pub signed: bool,
}

/// Refuses a registry of a newer format, or of none, before anything in it is believed; whether it names its format.
pub fn open(store: &dyn Store) -> Read<bool> {
    if store.kind("registry.json")?.is_none() {
        return Ok(false);
    }
    let document = strict::parse(&store.read("registry.json", DOCUMENT_LIMIT)?)?;
    match document.get("format") {
        Some(Json::Integer(found)) if *found > FORMAT => Err(Refusal::new(
            Kind::NewerFormat,
            format!("the registry's format {found} is newer than {FORMAT}: update the server"),
        )),
        Some(Json::Integer(FORMAT)) => Ok(true),
        _ => Err(Refusal::new(Kind::BadRegistry, "`registry.json` names no format")),
    }
}

/// Reads registries: from a store, believing only what one of the keys has signed where there are any.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    /// Where the registry lies.
    pub store: &'a dyn Store,
    /// The trusted keys; `None` where signatures are not asked for.
    pub keys: Option<&'a Keys>,
    /// The alias entries seen before, where they must be signed too.
    pub marks: Option<&'a Marks>,
}

/// A model of which the unknown versions are not read yet.
struct Draft {
    name: String,
    index: Index,
    unread: Vec<Version>,
}

impl Reader<'_> {
    /// Reads models `names`. Versions that were read before are taken from what `before` has of the model: they never
    /// change. A model is an error as a whole where the store gave no answer about it.
    pub fn models<'b>(
        &self,
        names: &[String],
        before: impl Fn(&str) -> Option<&'b Index> + Sync,
    ) -> Vec<(String, Read<Index>)> {
        let threads = self.store.readers(names.len());
        let drafts = workers::map(threads, names, |name| (name.clone(), self.draft(name, before(name))));
        let listed = drafts.iter().filter_map(|(_, draft)| draft.as_ref().ok());
        let unread: Vec<(&str, &Version)> =
            listed.flat_map(|draft| draft.unread.iter().map(|version| (draft.name.as_str(), version))).collect();
        let read = |(name, version): &(&str, &Version)| self.version(name, version);
        let mut found = workers::map(self.store.readers(unread.len()), &unread, read).into_iter();
        let complete = |(name, draft): (String, Read<Draft>)| {
            let index = draft.and_then(|mut draft| {
                let found: Vec<_> = found.by_ref().take(draft.unread.len()).collect();
                for (version, found) in draft.unread.into_iter().zip(found) {
                    draft.index.versions.extend(found?.map(|found| (version, found)));
                }
                Ok(draft.index)
            });
            (name, index)
        };
        drafts.into_iter().map(complete).collect()
    }

    /// Lists model `name` and reads its aliases.
    ///
    /// In the order opposite to that of writers, who publish, promote, and delete what no alias points at any more: an
    /// alias that is seen leads to a version that is seen, and a tombstone that is seen to no alias that is out of date.
    fn draft(&self, name: &str, before: Option<&Index>) -> Read<Draft> {
        let deleted = self.store.list(&format!("{name}/deleted"))?.into_iter();
        let deleted: HashSet<String> =
            deleted.filter_map(|entry| Some(entry.name.strip_suffix(".json")?.to_owned())).collect();
        let mut index = Index {
            linked: self.store.kind(name)? == Some(FileKind::Link),
            signed: self.marks.is_some(),
            ..Index::default()
        };
        for entry in self.store.list(&format!("{name}/aliases"))? {
            if entry.kind == FileKind::Folder && names::is_alias(&entry.name) {
                let (height, target) = self.alias(name, &entry.name, &deleted)?;
                index.heights.extend(height.map(|height| (entry.name.clone(), height)));
                index.aliases.extend(target.transpose().map(|target| (entry.name, target)));
            }
        }
        if self.marks.is_some() {
            // whose whole folder is gone must be missed as well
            let before = before.into_iter().flat_map(|before| before.aliases.keys().map(String::as_str));
            for alias in before.chain([PRODUCTION]) {
                if !index.aliases.contains_key(alias)
                    && let Some(target) = self.alias(name, alias, &deleted)?.1.transpose()
                {
                    index.aliases.insert(alias.to_owned(), target);
                }
            }
        }
        let mut unread = Vec::new();
        for entry in self.store.list(name)? {
            let Some(version) = names::version(&entry.name).filter(|_| !deleted.contains(&entry.name)) else {
                continue;
            };
            let known = before.and_then(|before| before.versions.get(&version));
            match (known, entry.kind) {
                (Some(Listed::Readable(record)), FileKind::Folder) => {
                    let listed = self.still_signed(record)?;
                    index.versions.insert(version, listed);
                }
                (_, FileKind::Folder) => unread.push(version),
                (_, FileKind::Link) => {
                    let refusal = Refusal::new(Kind::Symlink, "the version is a symlink");
                    index.versions.insert(version, Listed::Broken(refusal));
                }
                _ => {}
            }
        }
        index.deleted = deleted;
        Ok(Draft { name: name.to_owned(), index, unread })
    }

    /// A version that was read before: a key may have been revoked since, or a signature removed.
    fn still_signed(&self, record: &Arc<Record>) -> Read<Listed> {
        let checked = self.keys.map(|keys| keys.check(self.store, &record.folder, &record.digest)).transpose();
        match checked {
            Ok(_) => Ok(Listed::Readable(Arc::clone(record))),
            Err(refusal) if refusal.kind == Kind::Unreachable => Err(refusal),
            Err(refusal) => Ok(Listed::Broken(refusal)),
        }
    }

    /// What lies in a version's folder; `None` when it is no version, which is when `metadata.json` is missing.
    fn version(&self, name: &str, version: &Version) -> Read<Option<Listed>> {
        match self.record(name, version) {
            Ok(record) => Ok(Some(Listed::Readable(Arc::new(record)))),
            Err(refusal) => match refusal.kind {
                Kind::MissingFile => Ok(None),
                Kind::Unreachable => Err(refusal),
                _ => Ok(Some(Listed::Broken(refusal))),
            },
        }
    }

    /// Reads a version by steps 1 to 9 of section 7; `missing-file` when there is no `metadata.json`.
    fn record(&self, name: &str, version: &Version) -> Read<Record> {
        let in_metadata = |refusal: Refusal| Refusal::new(refusal.kind, format!("`metadata.json`: {}", refusal.detail));
        let folder = format!("{name}/{version}");
        let documents = self.store.documents(&folder);
        let bytes = documents.metadata.map_err(in_metadata)?;
        let stated = match documents.stated {
            Err(refusal) if refusal.kind == Kind::Unreachable => return Err(refusal),
            // absent, a symlink, too large: whatever is wrong with it, it does not state the digest
            stated => stated.unwrap_or_default(),
        };
        let digest = sha256(&bytes);
        if stated != digest_line(&digest).as_bytes() {
            return Err(Refusal::new(
                Kind::MetadataDigest,
                "`metadata.json` does not have the digest in `metadata.sha256`",
            ));
        }
        let metadata = Manifest::read(&bytes, name, &folder[name.len() + 1..]).map_err(in_metadata)?;
        let signer = self.keys.map(|keys| keys.check(self.store, &folder, &digest)).transpose()?;
        Ok(Record { name: name.to_owned(), version: version.clone(), metadata, digest, folder, signer })
    }

    /// The number of an alias' highest entry that can be read, and where it points: the highest entry that names no deleted version
    /// decides; `None` when it is not set.
    ///
    /// The outer error is that of a store that gave no answer.
    #[allow(clippy::type_complexity)] // named once, here
    fn alias(&self, name: &str, alias: &str, deleted: &HashSet<String>) -> Read<(Option<u64>, Read<Option<Target>>)> {
        if let (Some(keys), Some(marks)) = (self.keys, self.marks) {
            return match (Signed { keys, marks }).current(self.store, name, alias) {
                Err(refusal) if refusal.kind == Kind::Unreachable => Err(refusal),
                // what was there before is remembered by the marks
                current => Ok((None, current)),
            };
        }
        let folder = &format!("{name}/aliases/{alias}");
        let listed = match self.store.list(folder) {
            Err(refusal) if refusal.kind == Kind::Unreadable => {
                let detail = format!("its entries cannot be listed: {}", refusal.detail);
                return Ok((None, Err(Refusal::new(Kind::BadAliasEntry, detail))));
            }
            listed => listed?,
        };
        let entries = names::entries(listed.into_iter().map(|entry| entry.name));
        let mut height = None;
        for (number, file) in entries.into_iter().rev() {
            let read = self.store.read(&format!("{folder}/{file}"), DOCUMENT_LIMIT);
            if let Err(refusal) = &read
                && refusal.kind == Kind::Unreachable
            {
                return Err(refusal.clone());
            }
            let document = read.and_then(|bytes| strict::parse(&bytes));
            let entry = document.map_err(|refusal| refusal.detail).and_then(|document| aliases::target(&document));
            match entry {
                Err(cause) => {
                    return Ok((height, Err(aliases::unreadable(number, &cause))));
                }
                Ok(Some(target)) if deleted.contains(&target.version.to_string()) => height = height.or(Some(number)),
                Ok(target) => return Ok((height.or(Some(number)), Ok(target))),
            }
        }
        Ok((height, Ok(None)))
    }
}

impl Index {
    /// Reads model `name` of `reader`'s registry.
    pub fn read(reader: Reader<'_>, name: &str, before: Option<&Self>) -> Read<Self> {
        let mut found = reader.models(&[name.to_owned()], |_| before);
        found.pop().map_or_else(|| Ok(Self::default()), |(_, index)| index)
    }

    /// Where `selector` leads, or the plain name where there is none.
    pub fn resolve(&self, selector: Option<&Selector>) -> Read<Target> {
        let target = match selector {
            Some(Selector::Version(version)) => Target { version: version.clone(), pinned: None, signer: None },
            Some(Selector::Alias(alias)) => self.aliases.get(alias).cloned().ok_or_else(|| self.missing(alias))??,
            None => match self.aliases.get(PRODUCTION) {
                Some(target) => target.clone()?,
                None if self.signed => {
                    let detail = format!("it has no signed alias `{PRODUCTION}`: promote a version with `--key`");
                    return Err(Refusal::new(Kind::NotFound, detail));
                }
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
        let target = passed.map(|(version, _)| Target { version: version.clone(), pinned: None, signer: None });
        target.ok_or_else(|| {
            Refusal::new(
                Kind::NotFound,
                "no release of it passed its gates: promote a version, or ask for one by number",
            )
        })
    }

    /// Whether the version that `target` names has not come yet: it is not here, and no tombstone has hidden the entry.
    #[must_use]
    pub fn awaits(&self, target: &Target) -> bool {
        !self.versions.contains_key(&target.version)
    }

    /// Whether `version` may go on answering once it is loaded: it is there, and no signature that it needs is missing.
    #[must_use]
    pub fn allows(&self, version: &Version) -> bool {
        self.versions.get(version).is_some_and(|listed| match listed {
            Listed::Broken(refusal) => !matches!(refusal.kind, Kind::Unsigned | Kind::BadSignature),
            Listed::Readable(_) => true,
        })
    }

    /// Why the highest version is not allowed, where that is for its signature.
    #[must_use]
    pub fn withheld(&self) -> Option<&Refusal> {
        self.versions.iter().next_back().and_then(|(version, listed)| match listed {
            Listed::Broken(refusal) if !self.allows(version) => Some(refusal),
            _ => None,
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
