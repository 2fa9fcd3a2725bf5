//! The verification of a version's files, which comes before anything of it is loaded.

use std::fs::File;
use std::path::PathBuf;

use super::digest::Verdicts;
use super::index::Record;
use super::manifest::FileEntry;
use super::names;
use super::onnx::References;
use super::refusal::{Kind, Read, Refusal};
use super::store::Store;

/// A version whose files are what its metadata says.
#[derive(Debug, Default)]
pub struct Verified {
    /// The local path of the served graph; `None` where the version has none.
    pub onnx: Option<PathBuf>,
    /// The bytes of the graph and of its external data.
    pub size: u64,
    /// Whether the graph computes something over the whole batch.
    pub batch_dependent: bool,
    /// Keeps the files where they are, while anything may open them again.
    pub hold: Option<File>,
}

/// Verifies every file of `record`, and what its graph refers to (steps 10 and 11 of section 7).
pub fn verify(store: &dyn Store, verdicts: &Verdicts, record: &Record) -> Read<Verified> {
    let hold = store.hold(record)?;
    let mut graph = None;
    for file in &record.metadata.files {
        let payload = store.payload(record, file, hold.is_some(), verdicts)?;
        if let Some(references) = payload.facts.references {
            graph = Some((file, payload.path, references));
        }
    }
    let Some((file, onnx, references)) = graph else { return Ok(Verified::default()) };
    let references = references.map_err(|cause| Refusal::new(Kind::BadOnnx, format!("`{}`: {cause}", file.path)))?;
    let size = file.size + external(record, file, &references)?;
    Ok(Verified { onnx: Some(onnx), size, batch_dependent: references.batch_dependent, hold })
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
