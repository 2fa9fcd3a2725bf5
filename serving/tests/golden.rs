//! The registry's golden vectors, read as the Python reader reads them (`registry/FORMAT.md`, section 11).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use ocad_server::registry::digest::Verdicts;
use ocad_server::registry::index::{self, Index, Listed};
use ocad_server::registry::names;
use ocad_server::registry::refusal::{Kind, Read, Refusal};
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
    Index::read(store, name, None)
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

fn check(case: &Path) {
    let name = case.file_name().unwrap().to_string_lossy();
    let expected: Value = serde_json::from_slice(&fs::read(case.join("expected.json")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("registry");
    copy(&case.join("registry"), &root);
    expected["setup"].as_array().unwrap().iter().for_each(|step| set_up(&root, step));
    let store = Folder::new(root);
    let opened = index::open(&store).err().map_or(Value::Null, |refusal| refusal.kind.name().into());
    assert_eq!(opened, expected["open"], "{name}: open");
    if !opened.is_null() {
        return;
    }
    for (reference, wanted) in expected["resolve"].as_object().unwrap() {
        assert_eq!(resolve(&store, reference, false), *wanted, "{name}: resolve {reference}");
    }
    for (reference, wanted) in expected["aliases"].as_object().unwrap() {
        assert_eq!(resolve(&store, reference, true), *wanted, "{name}: alias {reference}");
    }
    let lines = list(&store);
    let shown: Vec<Value> = lines.iter().map(|line| line.shown.clone()).collect();
    assert_eq!(Value::from(shown), expected["list"], "{name}: list");
    for line in lines {
        let reference = format!("{}@{}", line.name, line.version);
        assert_eq!(read(&store, &line.name, &line.version), expected["read"][&reference], "{name}: read {reference}");
    }
}

#[test]
fn golden_vectors() {
    let mut cases: Vec<PathBuf> = fs::read_dir(vectors()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|case| case.join("expected.json").is_file());
    cases.sort();
    assert!(cases.len() >= 20, "only {} golden cases were found", cases.len());
    for case in &cases {
        check(case);
    }
}
