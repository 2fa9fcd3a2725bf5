//! Digests of files, and the cache of verdicts that makes a restart fast.
//!
//! A verdict is remembered by the file's identity: device, inode, size, and both of its times. Where
//! others can write, only private copies (`cache.rs`) are told apart by that: docs/security.md.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::onnx::{self, References};

/// The identity of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is known of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The size in bytes.
    pub size: u64,
    /// The sha256, in lower-case hexadecimal.
    pub sha256: String,
    /// What an ONNX file refers to, or why it does not parse; `None` for other files.
    pub references: Option<Result<References, String>>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    identity: Option<Identity>,
    facts: Option<Facts>,
}

/// The facts of files, remembered between runs of the server.
#[derive(Debug)]
pub struct Verdicts {
    path: Option<PathBuf>,
    known: Mutex<HashMap<PathBuf, Remembered>>,
}

impl Verdicts {
    /// The verdicts kept in `path`; none when it is absent or unreadable, and none are written without a path.
    #[must_use]
    pub fn open(path: Option<PathBuf>) -> Self {
        let known = path
            .as_deref()
            .and_then(|path| fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { path, known: Mutex::new(known) }
    }

    /// The facts of the file at `path`, computed only when it is not the file that was seen before.
    pub fn facts(&self, path: &Path, is_onnx: bool) -> io::Result<Facts> {
        let mut file = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
        let identity = Identity::of(&file.metadata()?);
        if let Some(facts) = self.recall(path, &identity)
            && (!is_onnx || facts.references.is_some())
        {
            return Ok(facts);
        }
        let facts = compute(&mut file, is_onnx)?;
        self.keep(path, identity, &facts);
        Ok(facts)
    }

    /// Takes note of the `facts` of the file at `path`, which nobody else writes to.
    pub fn remember(&self, path: &Path, facts: &Facts) -> io::Result<()> {
        self.keep(path, Identity::of(&fs::metadata(path)?), facts);
        Ok(())
    }

    fn keep(&self, path: &Path, identity: Identity, facts: &Facts) {
        let remembered = Remembered { identity: Some(identity), facts: Some(facts.clone()) };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), remembered);
    }

    fn recall(&self, path: &Path, identity: &Identity) -> Option<Facts> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).filter(|seen| seen.identity.as_ref() == Some(identity)).and_then(|seen| seen.facts.clone())
    }

    /// Writes the verdicts, dropping files that are gone. A failure costs only the next start's time, so it is logged.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|path, _| path.exists());
        if let Err(cause) = write_whole(path, &known) {
            tracing::warn!(path = %path.display(), %cause, "the digest cache cannot be written");
        }
    }
}

fn write_whole(path: &Path, known: &HashMap<PathBuf, Remembered>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    // a name of its own per process: two servers may share the cache
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(known)?)?;
    fs::rename(temporary, path)
}

/// The facts of `file`, every byte of it read.
pub fn compute(file: &mut File, is_onnx: bool) -> io::Result<Facts> {
    if is_onnx {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let references = Some(onnx::references(&bytes).map_err(ToOwned::to_owned));
        return Ok(Facts { size: bytes.len() as u64, sha256: sha256(&bytes), references });
    }
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        size += read as u64;
    }
    Ok(Facts { size, sha256: hex(&hasher.finalize()), references: None })
}

/// The sha256 of `bytes`, in lower-case hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The content of `metadata.sha256`, which is also what is signed.
#[must_use]
pub fn digest_line(sha256: &str) -> String {
    format!("{sha256}  metadata.json\n")
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
