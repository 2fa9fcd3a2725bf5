//! `metadata.json` and its neighbours, as `registry/FORMAT.md` specifies them.

use serde::Deserialize;

use super::names;
use crate::model::tensor::DataType;

/// The newest format that this reader knows.
pub const FORMAT: u64 = 1;
/// The most bytes that any JSON file of a registry may have.
pub const JSON_LIMIT: u64 = 1 << 20;

/// Why a file of the registry is refused.
pub type Refusal = String;

/// `registry.json`.
#[derive(Debug, Deserialize)]
pub struct RegistryFile {
    /// The format's number.
    pub format: u64,
}

/// The part of `metadata.json` that serving needs; unknown fields are kept by those who write.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The format's number.
    pub format: u64,
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// What the model is for.
    pub task: String,
    /// What it takes and gives.
    pub signature: Ports,
    /// The files of the version.
    pub files: Vec<FileEntry>,
    /// Whether its gates and parity passed.
    pub passed: bool,
}

/// The signature's two lists.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ports {
    /// Inputs.
    pub inputs: Vec<PortEntry>,
    /// Outputs.
    pub outputs: Vec<PortEntry>,
}

/// One input or output.
#[derive(Debug, Clone, Deserialize)]
pub struct PortEntry {
    /// Its name.
    pub name: String,
    /// Its element type, by the protocol's name.
    pub dtype: String,
    /// Its dimensions; -1 is free.
    pub shape: Vec<i64>,
}

/// One file.
#[derive(Debug, Clone, Deserialize)]
pub struct FileEntry {
    /// Its path inside the version's folder.
    pub path: String,
    /// What it is for.
    pub role: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its sha256 in lower-case hexadecimal.
    pub sha256: String,
}

/// An entry of an alias.
#[derive(Debug, Deserialize)]
pub struct AliasEntry {
    /// `promote`, `rollback` or `unset`.
    pub kind: String,
    /// The version it points to, where it points to one.
    #[serde(default)]
    pub version: Option<String>,
}

impl Metadata {
    /// Reads and checks `bytes` as the metadata of `name` at `version`.
    pub fn read(bytes: &[u8], name: &str, version: &str) -> Result<Self, Refusal> {
        let metadata: Self =
            serde_json::from_slice(bytes).map_err(|cause| format!("`metadata.json` is not valid: {cause}"))?;
        metadata.check(name, version)?;
        Ok(metadata)
    }

    fn check(&self, name: &str, version: &str) -> Result<(), Refusal> {
        if self.format > FORMAT {
            return Err(format!(
                "format {} is newer than {FORMAT}, the newest known here: update the server",
                self.format
            ));
        }
        if self.name != name || self.version != version {
            return Err(format!("`metadata.json` is of `{}@{}`, not of `{name}@{version}`", self.name, self.version));
        }
        for port in self.signature.inputs.iter().chain(&self.signature.outputs) {
            DataType::parse(&port.dtype).map_err(|cause| format!("signature of `{}`: {cause}", port.name))?;
        }
        for (index, file) in self.files.iter().enumerate() {
            if !names::is_inside(&file.path) {
                return Err(format!("file `{}` leaves the version's folder", file.path));
            }
            if self.files[..index].iter().any(|other| other.path == file.path) {
                return Err(format!("file `{}` is listed twice", file.path));
            }
        }
        if self.files.iter().filter(|file| file.role == "onnx").count() > 1 {
            return Err("more than one file has the role `onnx`".into());
        }
        Ok(())
    }

    /// The served graph, if there is one.
    #[must_use]
    pub fn onnx(&self) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.role == "onnx")
    }
}
