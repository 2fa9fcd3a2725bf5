//! The verification of a version's files, which comes before anything of it is loaded.

use std::path::PathBuf;

use super::digest::{Facts, Verdicts};
use super::format::Refusal;
use super::index::Record;
use super::store::{Kind, Store};

/// A version whose files are what its metadata says.
#[derive(Debug)]
pub struct Verified {
    /// The local path of the served graph.
    pub onnx: PathBuf,
    /// The bytes of the graph and its external data.
    pub size: u64,
    /// Whether the graph computes something over the whole batch.
    pub batch_dependent: bool,
}

/// Verifies the graph of `record` and everything else that it lists.
pub fn verify(store: &dyn Store, verdicts: &Verdicts, record: &Record) -> Result<Verified, Refusal> {
    let mut served = None;
    let mut size = 0;
    for file in &record.metadata.files {
        let is_onnx = file.role == "onnx";
        let facts = facts(store, verdicts, record, &file.path, is_onnx)?;
        if facts.size != file.size {
            return Err(format!("`{}` has {} bytes, but {} are recorded", file.path, facts.size, file.size));
        }
        if facts.sha256 != file.sha256 {
            return Err(format!("`{}` does not have the recorded sha256", file.path));
        }
        if is_onnx {
            let path = store.local(&format!("{}/{}", record.folder, file.path)).map_err(|cause| cause.to_string())?;
            served = Some((path, batch_dependent(record, &file.path, &facts)?));
        }
        if is_onnx || file.role == "onnx-data" {
            size += file.size;
        }
    }
    let (onnx, batch_dependent) = served.ok_or("no file has the role `onnx`")?;
    Ok(Verified { onnx, size, batch_dependent })
}

/// The facts of a listed file, which must be a plain file reached through plain folders.
fn facts(store: &dyn Store, verdicts: &Verdicts, record: &Record, path: &str, is_onnx: bool) -> Result<Facts, Refusal> {
    let mut reached = record.folder.clone();
    let parts: Vec<&str> = path.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        reached = format!("{reached}/{part}");
        let wanted = if index + 1 == parts.len() { Kind::File } else { Kind::Folder };
        match store.kind(&reached).map_err(|cause| format!("`{path}`: {cause}"))? {
            None => return Err(format!("`{path}` is missing")),
            Some(kind) if kind != wanted => return Err(format!("`{path}` is no plain file")),
            Some(_) => {}
        }
    }
    let local = store.local(&reached).map_err(|cause| format!("`{path}`: {cause}"))?;
    verdicts.facts(&local, is_onnx).map_err(|cause| format!("`{path}`: {cause}"))
}

/// Checks that every external-data location is a listed file beside the graph.
fn batch_dependent(record: &Record, path: &str, facts: &Facts) -> Result<bool, Refusal> {
    let (locations, batch_dependent) = facts.references.as_ref().ok_or_else(|| format!("`{path}` is no ONNX model"))?;
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    for location in locations {
        let target = format!("{folder}{location}");
        if !record.metadata.files.iter().any(|file| file.path == target) {
            return Err(format!(
                "`{path}` refers to external data `{location}`, which is not among the version's files"
            ));
        }
    }
    Ok(*batch_dependent)
}
