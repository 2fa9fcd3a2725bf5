//! The registry's golden vectors, read as the Python reader reads them (`registry/FORMAT.md`, section 11).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use ocad_server::registry::cache::Cache;
use ocad_server::registry::digest::Verdicts;
use ocad_server::registry::index::{self, Index, Listed, Reader};
use ocad_server::registry::marks::{Mark, Marks};
use ocad_server::registry::names;
use ocad_server::registry::objects::Objects;
use ocad_server::registry::refusal::{Kind, Read, Refusal};
use ocad_server::registry::remote::Place;
use ocad_server::registry::signatures::Keys;
use ocad_server::registry::store::{Folder, Kind as FileKind, Store};
use ocad_server::registry::verify::verify;
use serde_json::{Value, json};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/registry")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Does what git cannot carry.
fn set_up(root: &Path, step: &Value) {
    let at = |name: &str| step[name].as_str().map(|path| root.join(path));
    let text = |name: &str| step[name].as_str().unwrap().to_owned();
    let prepare = |path: &Path| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
    };
    let repeated = || text("repeat").repeat(usize::try_from(step["times"].as_u64().unwrap()).unwrap());
    if let Some(path) = at("generate") {
        prepare(&path);
        fs::write(path, repeated()).unwrap();
    } else if let Some(path) = at("append") {
        let mut content = fs::read(&path).unwrap();
        content.extend(repeated().bytes());
        // golden files may be read-only
        fs::remove_file(&path).unwrap();
        fs::write(path, content).unwrap();
    } else if let Some(path) = at("symlink") {
        prepare(&path);
        std::os::unix::fs::symlink(text("target"), path).unwrap();
    } else {
        panic!("unknown setup step {step}");
    }
}

fn model(store: &dyn Store, name: &str) -> Read<Index> {
    Index::read(Reader { store, keys: None, marks: None }, name, None)
}

/// The version that `reference` leads to, and whether it can be read through it.
fn resolve(store: &dyn Store, reference: &str, read: bool) -> Value {
    let resolved = || -> Read<String> {
        let (name, rest) = reference.split_once('@').map_or((reference, None), |(name, rest)| (name, Some(rest)));
        let invalid = || Refusal::new(Kind::InvalidName, "no reference");
        if !names::is_model(name) {
            return Err(invalid());
        }
        let selector = rest.map(|rest| names::selector(rest).ok_or_else(invalid)).transpose()?;
        let index = model(store, name)?;
        let target = index.resolve(selector.as_ref())?;
        if read {
            index.record(&target)?;
        }
        Ok(target.version.to_string())
    };
    resolved().map_or_else(|refusal| json!({"error": refusal.kind.name()}), Value::from)
}

/// A line of the list, with what it is sorted by.
struct Line {
    created_at: String,
    name: String,
    version: semver::Version,
    shown: Value,
}

fn list(store: &dyn Store) -> Vec<Line> {
    let models = store
        .list("")
        .unwrap()
        .into_iter()
        .filter(|entry| entry.kind == FileKind::Folder && names::is_model(&entry.name));
    let mut lines = Vec::new();
    for entry in models {
        let index = model(store, &entry.name).unwrap();
        for (version, listed) in &index.versions {
            let points = |target: &Read<index::Target>| target.as_ref().is_ok_and(|target| target.version == *version);
            let aliases: Vec<&String> =
                index.aliases.iter().filter(|(_, target)| points(target)).map(|(alias, _)| alias).collect();
            let reference = format!("{}@{version}", entry.name);
            let (created_at, shown) = match listed {
                Listed::Readable(record) => (
                    record.metadata.created_at.clone(),
                    json!({"ref": reference, "aliases": aliases, "passed": record.metadata.passed}),
                ),
                Listed::Broken(refusal) => {
                    (String::new(), json!({"ref": reference, "aliases": aliases, "broken": refusal.kind.name()}))
                }
            };
            lines.push(Line { created_at, name: entry.name.clone(), version: version.clone(), shown });
        }
    }
    lines.sort_by(|a, b| {
        b.created_at.cmp(&a.created_at).then_with(|| a.name.cmp(&b.name)).then_with(|| b.version.cmp(&a.version))
    });
    lines
}

/// The verdict on the whole of a version.
fn read(store: &dyn Store, name: &str, version: &semver::Version) -> Value {
    let verdicts = Verdicts::open(None);
    let index = model(store, name).unwrap();
    let verdict = match &index.versions[version] {
        Listed::Readable(record) => verify(store, &verdicts, record).err(),
        Listed::Broken(refusal) => Some(refusal.clone()),
    };
    verdict.map_or(Value::Null, |refusal| refusal.kind.name().into())
}

/// A case on a copy of its registry, set up as it says.
struct Case {
    name: String,
    expected: Value,
    folder: tempfile::TempDir,
}

impl Case {
    fn open(case: &Path) -> Self {
        let expected: Value = serde_json::from_slice(&fs::read(case.join("expected.json")).unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let case = Self { name: case.file_name().unwrap().to_string_lossy().into_owned(), expected, folder };
        let root = case.root();
        copy(&vectors().join(&case.name).join("registry"), &root);
        case.expected["setup"].as_array().unwrap().iter().for_each(|step| set_up(&root, step));
        case
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("registry")
    }

    /// Whether it has a link, of which there are none in an object store.
    fn has_links(&self) -> bool {
        self.expected["setup"].as_array().unwrap().iter().any(|step| step.get("symlink").is_some())
    }

    fn check(&self, store: &dyn Store) {
        let (name, expected) = (&self.name, &self.expected);
        store.look().unwrap();
        let opened = index::open(store).err().map_or(Value::Null, |refusal| refusal.kind.name().into());
        assert_eq!(opened, expected["open"], "{name}: open");
        if !opened.is_null() {
            return;
        }
        for (reference, wanted) in expected["resolve"].as_object().unwrap() {
            assert_eq!(resolve(store, reference, false), *wanted, "{name}: resolve {reference}");
        }
        for (reference, wanted) in expected["aliases"].as_object().unwrap() {
            assert_eq!(resolve(store, reference, true), *wanted, "{name}: alias {reference}");
        }
        self.check_signed(store);
        self.check_signed_aliases(store);
        let lines = list(store);
        let shown: Vec<Value> = lines.iter().map(|line| line.shown.clone()).collect();
        assert_eq!(Value::from(shown), expected["list"], "{name}: list");
        for line in lines {
            let reference = format!("{}@{}", line.name, line.version);
            let verdict = read(store, &line.name, &line.version);
            assert_eq!(verdict, expected["read"][&reference], "{name}: read {reference}");
        }
    }
}

impl Case {
    /// What is said where a signature by one of the keys beside the registry is required.
    fn check_signed(&self, store: &dyn Store) {
        let Some(signed) = self.expected["signed"].as_object() else { return };
        let keys = Keys::read(&vectors().join(&self.name).join("keys.pem")).unwrap();
        for (reference, wanted) in signed {
            let (name, version) = reference.split_once('@').unwrap();
            let index = Index::read(Reader { store, keys: Some(&keys), marks: None }, name, None).unwrap();
            let verdict = match &index.versions[&names::version(version).unwrap()] {
                Listed::Readable(_) => Value::Null,
                Listed::Broken(refusal) => refusal.kind.name().into(),
            };
            assert_eq!(verdict, *wanted, "{}: signed {reference}", self.name);
        }
    }
}

impl Case {
    /// Where aliases lead whose entries must be signed, after what was seen of them before; twice, as looks go on.
    fn check_signed_aliases(&self, store: &dyn Store) {
        let Some(led) = self.expected["signed_aliases"].as_object() else { return };
        let keys = Keys::read(&vectors().join(&self.name).join("keys.pem")).unwrap();
        let seen = tempfile::tempdir().unwrap();
        let marks = Marks::new(seen.path(), "here");
        for (reference, mark) in self.expected["seen"].as_object().unwrap() {
            let (name, alias) = reference.split_once('@').unwrap();
            let digest = mark["sha256"].as_str().unwrap().to_owned();
            marks.keep(name, alias, &Mark { number: mark["number"].as_u64().unwrap(), digest }).unwrap();
        }
        let reader = Reader { store, keys: Some(&keys), marks: Some(&marks) };
        let look = |name: &str, before: Option<&Index>| Index::read(reader, name, before).unwrap();
        for (reference, wanted) in led {
            let (name, alias) = reference.split_once('@').map_or((reference.as_str(), None), |(n, a)| (n, Some(a)));
            let selector = alias.map(|alias| names::selector(alias).unwrap());
            let first = look(name, None);
            for index in [look(name, Some(&first)), first] {
                let found = index.resolve(selector.as_ref()).map(|target| target.version.to_string());
                let found = found.map_or_else(|refusal| json!({"error": refusal.kind.name()}), Value::from);
                assert_eq!(found, *wanted, "{}: signed {reference}", self.name);
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<PathBuf> = fs::read_dir(vectors()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("expected.json").is_file());
    cases.sort();
    assert!(cases.len() >= 20, "only {} golden cases were found", cases.len());
    cases.iter().map(|case| Case::open(case)).collect()
}

#[test]
fn golden_vectors() {
    for case in cases() {
        case.check(&Folder::new(case.root(), None));
    }
}

#[test]
fn golden_vectors_in_an_object_store() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for case in cases().into_iter().filter(|case| !case.has_links()) {
        let bucket = Arc::new(InMemory::new());
        runtime.block_on(upload(&bucket, &case.root(), &Key::from("team/models")));
        let place = Place { url: "s3://bucket/team/models".into(), store: bucket, root: Key::from("team/models") };
        let cache = Cache::new(case.folder.path().join("cache"), u64::MAX);
        case.check(&Objects::new(place, cache, false).unwrap());
    }
}

/// Puts every file below `folder` under `key`; names that no store takes are left out.
async fn upload(bucket: &InMemory, folder: &Path, key: &Key) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let key = key.clone().join(entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            Box::pin(upload(bucket, &entry.path(), &key)).await;
        } else {
            bucket.put(&key, fs::read(entry.path()).unwrap().into()).await.unwrap();
        }
    }
}
