//! `metadata.json`, checked as `registry/FORMAT.md` (sections 5 and 7) says, whether serving needs a field or not.

use super::fields::Checked;
use super::fields::{
    as_number, boolean, count, digest, integer, list, nullable, number, object, objects, one_of, optional, text, words,
};
use super::names;
use super::refusal::{Kind, Read, Refusal};
use super::strict::{self, Json, Object};
use crate::model::tensor::DataType;

/// The newest format that this reader knows.
pub const FORMAT: i128 = 1;
/// The most bytes of a `metadata.json`.
pub const METADATA_LIMIT: u64 = 4 << 20;
/// The most bytes of any other document.
pub const DOCUMENT_LIMIT: u64 = 64 << 10;

/// The role of the graph that is served.
const ONNX: &str = "onnx";

/// What serving needs of a `metadata.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The model's name.
    pub name: String,
    /// The version.
    pub version: String,
    /// When it was made.
    pub created_at: String,
    /// What the model is for.
    pub task: String,
    /// What it takes and gives.
    pub signature: Option<Ports>,
    /// The files of the version.
    pub files: Vec<FileEntry>,
    /// Whether its gates and parity passed.
    pub passed: bool,
}

/// The signature's two lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports {
    /// Inputs.
    pub inputs: Vec<PortEntry>,
    /// Outputs.
    pub outputs: Vec<PortEntry>,
    /// Whether the rows of a batch are proven not to depend on one another.
    pub batchable: bool,
}

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortEntry {
    /// Its name.
    pub name: String,
    /// Its element type.
    pub datatype: DataType,
    /// Its dimensions; -1 is free.
    pub shape: Vec<i64>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Its path inside the version's folder.
    pub path: String,
    /// What it is for.
    pub role: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its sha256.
    pub sha256: String,
}

impl FileEntry {
    /// Whether it is the served graph.
    #[must_use]
    pub fn is_onnx(&self) -> bool {
        self.role == ONNX
    }
}

impl Manifest {
    /// Reads `bytes` as the metadata that lies in `name/version`.
    pub fn read(bytes: &[u8], name: &str, version: &str) -> Read<Self> {
        let document = strict::parse(bytes)?;
        if let Some(Json::Integer(format)) = document.get("format")
            && *format > FORMAT
        {
            return Err(Refusal::new(
                Kind::NewerFormat,
                format!("its format {format} is newer than {FORMAT}: update the server"),
            ));
        }
        let (manifest, decided) = fields(&document).map_err(|cause| Refusal::new(Kind::BadManifest, cause))?;
        manifest.check(name, version, decided)?;
        Ok(manifest)
    }

    /// The rules that hold between fields.
    fn check(&self, name: &str, version: &str, decided: bool) -> Read<()> {
        if self.name != name || self.version != version {
            return Err(Refusal::new(Kind::Misplaced, format!("it says that it is `{}@{}`", self.name, self.version)));
        }
        if let Some(file) = self.files.iter().find(|file| !names::is_path(&file.path)) {
            return Err(Refusal::new(Kind::BadPath, format!("it lists the illegal path {:?}", file.path)));
        }
        let bad = |detail: &str| Err(Refusal::new(Kind::BadManifest, detail));
        let mut paths: Vec<&str> = self.files.iter().map(|file| file.path.as_str()).collect();
        paths.sort_unstable();
        if paths.windows(2).any(|pair| pair[0] == pair[1]) {
            return bad("it lists a path twice");
        }
        if self.files.iter().filter(|file| file.is_onnx()).count() > 1 {
            return bad("it lists more than one `onnx` file");
        }
        if self.passed != decided {
            return bad("`passed` is not what its gates and parity say");
        }
        Ok(())
    }

    /// The served graph, if there is one.
    #[must_use]
    pub fn onnx(&self) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.is_onnx())
    }
}

/// Reads every field of section 5; answers besides what `passed` must be.
fn fields(document: &Object) -> Checked<(Manifest, bool)> {
    if document.get("format") != Some(&Json::Integer(FORMAT)) {
        return Err("`format` is not 1".into());
    }
    let manifest = Manifest {
        name: text(document, "name")?.to_owned(),
        version: text(document, "version")?.to_owned(),
        created_at: time(document, "created_at")?.to_owned(),
        task: words(document, "task")?.to_owned(),
        signature: nullable(document, "signature", |document, name| signature(object(document, name)?))?,
        files: objects(document, "files", file)?,
        passed: boolean(document, "passed")?,
    };
    let plugin = object(document, "plugin")?;
    words(plugin, "name")
        .and(text(plugin, "version"))
        .and(text(plugin, "package"))
        .map_err(|cause| format!("`plugin`: {cause}"))?;
    for (name, value) in object(document, "metrics")? {
        as_number(value).ok_or_else(|| format!("metric `{name}` is not a number"))?;
    }
    let gates = objects(document, "gates", gate)?;
    let parity = nullable(document, "parity", |document, name| parity(object(document, name)?))?;
    evidence(document)?;
    let needs_parity = manifest.onnx().is_some();
    let decided = !gates.is_empty() && gates.iter().all(|passed| *passed) && (!needs_parity || parity == Some(true));
    Ok((manifest, decided))
}

/// The fields that serving does not use; they must be right all the same.
fn evidence(document: &Object) -> Checked<()> {
    nullable(document, "metric", text)?;
    optional(document, "params", object)?;
    optional(document, "environment", object)?;
    nullable(document, "git_commit", text)?;
    optional(document, "description", text)?;
    let tags = optional(document, "tags", object)?;
    for name in tags.into_iter().flat_map(Object::keys) {
        text(object(document, "tags")?, name).map_err(|cause| format!("`tags`: {cause}"))?;
    }
    nullable(document, "data", |document, name| data(object(document, name)?))?;
    optional(document, "parents", |document, name| {
        objects(document, name, |parent| text(parent, "ref").and(digest(parent, "metadata_sha256")).map(drop))
    })?;
    Ok(())
}

fn data(data: &Object) -> Checked<()> {
    text(data, "name")?;
    text(data, "fingerprint")?;
    count(data, "rows")?;
    let splits = optional(data, "splits", object)?;
    for (name, rows) in splits.into_iter().flatten() {
        integer(rows, name, 0)?;
    }
    Ok(())
}

fn time<'a>(object: &'a Object, name: &str) -> Checked<&'a str> {
    let found = text(object, name)?;
    let pattern = b"0000-00-00T00:00:00.000000Z";
    let fits = found.len() == pattern.len()
        && found
            .bytes()
            .zip(pattern)
            .all(|(byte, wanted)| if *wanted == b'0' { byte.is_ascii_digit() } else { byte == *wanted });
    if fits { Ok(found) } else { Err(format!("`{name}` is not a time as `2026-01-31T12:00:00.000000Z`")) }
}

fn signature(signature: &Object) -> Checked<Ports> {
    Ok(Ports {
        inputs: objects(signature, "inputs", port)?,
        outputs: objects(signature, "outputs", port)?,
        batchable: nullable(signature, "batchable", boolean)?.unwrap_or(false),
    })
}

fn port(port: &Object) -> Checked<PortEntry> {
    nullable(port, "unit", text)?;
    if nullable(port, "scale", number)?.is_some_and(|scale| scale <= 0.0) {
        return Err("`scale` is not above 0".into());
    }
    let datatype = text(port, "dtype")?;
    Ok(PortEntry {
        name: words(port, "name")?.to_owned(),
        datatype: DataType::parse(datatype).map_err(|cause| cause.to_string())?,
        shape: list(port, "shape")?.iter().map(|dimension| integer(dimension, "shape", -1)).collect::<Checked<_>>()?,
    })
}

fn file(file: &Object) -> Checked<FileEntry> {
    text(file, "media_type")?;
    let role = text(file, "role")?;
    if !names::is_alias(role) {
        return Err(format!("`{role}` is not a role"));
    }
    Ok(FileEntry {
        path: text(file, "path")?.to_owned(),
        role: role.to_owned(),
        size: count(file, "size")?,
        sha256: digest(file, "sha256")?.to_owned(),
    })
}

/// Whether a gate passed.
fn gate(gate: &Object) -> Checked<bool> {
    words(gate, "name")?;
    words(gate, "metric")?;
    one_of(gate, "op", &["<", "<=", ">", ">=", "=", "!="])?;
    number(gate, "threshold")?;
    if !gate.contains_key("observed") {
        return Err("`observed` is missing".into());
    }
    nullable(gate, "observed", number)?;
    boolean(gate, "passed")
}

/// Whether parity passed.
fn parity(parity: &Object) -> Checked<bool> {
    text(parity, "reference")?;
    count(parity, "samples")?;
    number(parity, "max_scaled_diff")?;
    number(parity, "tolerance")?;
    boolean(parity, "passed")
}
