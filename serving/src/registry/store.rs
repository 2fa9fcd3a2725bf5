//! Where a registry's files are: a small trait, so that an object store can stand beside the folder.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::refusal::{Kind as Verdict, Read, Refusal};

/// What a listed name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder (a common prefix, on an object store).
    Folder,
    /// A plain file.
    File,
    /// A symbolic link, or something behind one; links are never followed.
    Link,
    /// Anything else, such as a socket.
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name, without its folder.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// Reads a registry. Paths are relative, with `/` between their parts.
pub trait Store: Send + Sync {
    /// The names in `folder`, sorted; none when it does not exist or lies behind a link.
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>>;

    /// The whole of a regular file of at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Read<Vec<u8>>;

    /// What `path` is; [`Kind::Link`] when it or a folder on the way is one, `None` when nothing is there.
    fn kind(&self, path: &str) -> io::Result<Option<Kind>>;

    /// A local path of `path`'s content, fetched first where the store is remote.
    fn local(&self, path: &str) -> io::Result<PathBuf>;

    /// The folder to watch for changes, where the operating system can.
    fn watchable(&self) -> Option<&Path>;
}

/// A registry in a folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The registry at `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self(root)
    }
}

fn kind_of(file_type: fs::FileType) -> Kind {
    if file_type.is_dir() {
        Kind::Folder
    } else if file_type.is_file() {
        Kind::File
    } else if file_type.is_symlink() {
        Kind::Link
    } else {
        Kind::Other
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(cause) => Err(cause),
    }
}

impl Store for Folder {
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>> {
        if !folder.is_empty() && self.kind(folder)? != Some(Kind::Folder) {
            return Ok(Vec::new());
        }
        let Some(entries) = absent_is_none(fs::read_dir(self.0.join(folder)))? else { return Ok(Vec::new()) };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry?;
            // a name that is not UTF-8 is no name of the format
            if let Ok(name) = entry.file_name().into_string() {
                listed.push(Listed { name, kind: kind_of(entry.file_type()?) });
            }
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn read(&self, path: &str, limit: u64) -> Read<Vec<u8>> {
        match self.kind(path)? {
            Some(Kind::File) => {}
            None => return Err(Refusal::new(Verdict::MissingFile, "it is missing")),
            Some(Kind::Link) => return Err(Refusal::new(Verdict::Symlink, "it is, or lies behind, a symlink")),
            Some(_) => return Err(Refusal::new(Verdict::NotAFile, "it is no regular file")),
        }
        let mut bytes = Vec::new();
        fs::File::open(self.0.join(path))?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(Refusal::new(Verdict::OversizedJson, format!("it is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn kind(&self, path: &str) -> io::Result<Option<Kind>> {
        let (mut reached, mut kind) = (self.0.clone(), Kind::Folder);
        for part in path.split('/') {
            reached.push(part);
            match absent_is_none(fs::symlink_metadata(&reached))? {
                None => return Ok(None),
                Some(metadata) => kind = kind_of(metadata.file_type()),
            }
            if kind == Kind::Link {
                break;
            }
        }
        Ok(Some(kind))
    }

    fn local(&self, path: &str) -> io::Result<PathBuf> {
        Ok(self.0.join(path))
    }

    fn watchable(&self) -> Option<&Path> {
        Some(&self.0)
    }
}
