//! The verification of a version's files, which comes before anything of it is loaded.

use std::path::PathBuf;

use super::digest::{Facts, Verdicts};
use super::index::Record;
use super::manifest::FileEntry;
use super::names;
use super::onnx::References;
use super::refusal::{Kind, Read, Refusal};
use super::store::{Kind as FileKind, Store};

/// A version whose files are what its metadata says.
#[derive(Debug, Default)]
pub struct Verified {
    /// The local path of the served graph; `None` where the version has none.
    pub onnx: Option<PathBuf>,
    /// The bytes of the graph and of its external data.
    pub size: u64,
    /// Whether the graph computes something over the whole batch.
    pub batch_dependent: bool,
}

/// Verifies every file of `record`, and what its graph refers to (steps 10 and 11 of section 7).
pub fn verify(store: &dyn Store, verdicts: &Verdicts, record: &Record) -> Read<Verified> {
    let mut graph = None;
    for file in &record.metadata.files {
        let facts = check(store, verdicts, record, file)?;
        if let Some(references) = facts.references {
            graph = Some((file, references));
        }
    }
    let Some((file, references)) = graph else { return Ok(Verified::default()) };
    let references = references.map_err(|cause| Refusal::new(Kind::BadOnnx, format!("`{}`: {cause}", file.path)))?;
    let size = file.size + external(record, file, &references)?;
    let onnx = store.local(&format!("{}/{}", record.folder, file.path))?;
    Ok(Verified { onnx: Some(onnx), size, batch_dependent: references.batch_dependent })
}

/// Step 10: a regular file of the recorded length and digest.
fn check(store: &dyn Store, verdicts: &Verdicts, record: &Record, file: &FileEntry) -> Read<Facts> {
    let path = format!("{}/{}", record.folder, file.path);
    let refuse = |kind, what: &str| Err(Refusal::new(kind, format!("`{}` {what}", file.path)));
    match store.kind(&path)? {
        Some(FileKind::File) => {}
        Some(FileKind::Link) => return refuse(Kind::Symlink, "is, or lies behind, a symlink"),
        Some(_) => return refuse(Kind::NotAFile, "is no regular file"),
        None => return refuse(Kind::MissingFile, "is missing"),
    }
    let facts = verdicts.facts(&store.local(&path)?, file.role == "onnx")?;
    if facts.size != file.size {
        return refuse(Kind::Size, &format!("has {} bytes, not {}", facts.size, file.size));
    }
    if facts.sha256 != file.sha256 {
        return refuse(Kind::Digest, "is not what was published (sha256 differs)");
    }
    Ok(facts)
}

/// Step 11: every external location is a listed file; answers the bytes of those files.
fn external(record: &Record, file: &FileEntry, references: &References) -> Read<u64> {
    let folder = file.path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut size = 0;
    for location in &references.locations {
        let target = format!("{folder}{location}");
        let listed =
            record.metadata.files.iter().find(|other| other.path == target).filter(|_| names::is_path(&target));
        let outside = || {
            Refusal::new(
                Kind::ExternalData,
                format!("`{}` keeps weights in {location:?}, which is not among its files", file.path),
            )
        };
        size += listed.ok_or_else(outside)?.size;
    }
    Ok(size)
}
