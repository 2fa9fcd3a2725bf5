//! Where a registry's files are: a small trait, for a folder here and for an object store (`objects.rs`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::cache::Cache;
use super::digest::{Facts, Verdicts};
use super::index::Record;
use super::manifest::{DOCUMENT_LIMIT, FileEntry, METADATA_LIMIT};
use super::private;
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

/// The two documents of a version, as they were read.
#[derive(Debug)]
pub struct Documents {
    /// `metadata.json`; `missing-file` where the folder is no version.
    pub metadata: Read<Vec<u8>>,
    /// `metadata.sha256`.
    pub stated: Read<Vec<u8>>,
}

/// A payload file on this machine.
#[derive(Debug)]
pub struct Payload {
    /// Where it can be opened; its neighbours lie beside it as in the version.
    pub path: PathBuf,
    /// What is known of its content.
    pub facts: Facts,
}

/// Reads a registry. Paths are relative, with `/` between their parts.
pub trait Store: Send + Sync {
    /// Brings what is listed up to date, where that is not looked up each time; an error leaves it as it was.
    fn look(&self) -> Read<()> {
        Ok(())
    }

    /// The names in `folder`, sorted; none when it does not exist or lies behind a link.
    ///
    /// Of the root, the models, and their `aliases`, `aliases/ALIAS` and `deleted` folders only.
    fn list(&self, folder: &str) -> Read<Vec<Listed>>;

    /// What `path` is, of what `list` lists; [`Kind::Link`] when it or a folder on the way is one, `None` when nothing is there.
    fn kind(&self, path: &str) -> io::Result<Option<Kind>>;

    /// The whole of a regular file of at most `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Read<Vec<u8>>;

    /// The documents of the version in `folder`, which was listed as a plain folder.
    fn documents(&self, folder: &str) -> Documents;

    /// How many threads shorten the reading of `count` versions.
    fn readers(&self, count: usize) -> usize;

    /// Keeps the copies of the files of `record` from being removed, as long as it is held; `None` where its files are
    /// read in place.
    fn hold(&self, record: &Record) -> Read<Option<File>>;

    /// The payload `file` of `record`, of the size and sha256 that it lists; `copied` first where its copies are held.
    fn payload(&self, record: &Record, file: &FileEntry, copied: bool, verdicts: &Verdicts) -> Read<Payload>;

    /// The folder to watch for changes, where the operating system can.
    fn watchable(&self) -> Option<&Path>;
}

/// Refuses a file of `size` bytes unless it is as large as `file` says.
pub fn confirm_size(file: &FileEntry, size: u64) -> Read<()> {
    if size != file.size {
        let detail = format!("`{}` has {size} bytes, not {}", file.path, file.size);
        return Err(Refusal::new(Verdict::Size, detail));
    }
    Ok(())
}

/// Refuses a file of these `facts` unless it is the one that `file` lists.
pub fn confirm(file: &FileEntry, facts: &Facts) -> Read<()> {
    confirm_size(file, facts.size)?;
    if facts.sha256 != file.sha256 {
        let detail = format!("`{}` is not what was published (sha256 differs)", file.path);
        return Err(Refusal::new(Verdict::Digest, detail));
    }
    Ok(())
}

/// Where private copies of a folder's files are kept, which nobody can change between their verification and their use.
#[derive(Debug, Clone)]
pub struct Copies {
    /// The read cache.
    pub cache: Cache,
    /// Whether every version is copied, as where signatures are required; else only what others can write.
    pub always: bool,
}

/// A registry in a folder of this machine.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
    copies: Option<Copies>,
}

impl Folder {
    /// The registry at `root`, of which what others can write is opened as `copies`.
    #[must_use]
    pub fn new(root: PathBuf, copies: Option<Copies>) -> Self {
        Self { root, copies }
    }

    /// Whether anybody but this user can change a file of `record`.
    fn others_write(&self, record: &Record) -> Read<bool> {
        for file in &record.metadata.files {
            let path = self.root.join(&record.folder).join(&file.path);
            // what is absent has a verdict of its own
            if absent_is_none(private::others_write(&path))?.unwrap_or(false) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the file at `path` to `part`, every byte of it read from one descriptor.
    fn copy_out(&self, path: &str, file: &FileEntry, part: &Path, cache: &Cache) -> Read<()> {
        let named = |refusal: Refusal| Refusal::new(refusal.kind, format!("`{}`: {}", file.path, refusal.detail));
        let source = self.open(path).map_err(named)?;
        confirm_size(file, source.metadata()?.len())?;
        // one that grows meanwhile is found out by its digest
        let copied = File::create(part).and_then(|mut part| io::copy(&mut source.take(file.size + 1), &mut part));
        copied.map(drop).map_err(|cause| cache.failed(&cause))
    }

    /// The regular file at `path`, in a folder that is known to be plain.
    fn open(&self, path: &str) -> Read<File> {
        let opened = File::options()
            .read(true)
            // neither through a link nor waiting for the writer of a pipe
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.root.join(path));
        let file = match opened {
            Ok(file) => file,
            Err(cause) if cause.raw_os_error() == Some(libc::ELOOP) => return Err(linked()),
            Err(cause) if is_absent(&cause) => return Err(Refusal::new(Verdict::MissingFile, "it is missing")),
            Err(cause) if cause.raw_os_error() == Some(libc::ENXIO) => return Err(irregular()),
            Err(cause) => return Err(cause.into()),
        };
        if file.metadata()?.is_file() { Ok(file) } else { Err(irregular()) }
    }

    /// The whole of the file `path`, in a folder that is known to be plain.
    fn read_here(&self, path: &str, limit: u64) -> Read<Vec<u8>> {
        let file = self.open(path)?;
        let size = file.metadata()?.len();
        if size > limit {
            return Err(oversized(limit));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit { Err(oversized(limit)) } else { Ok(bytes) }
    }
}

fn linked() -> Refusal {
    Refusal::new(Verdict::Symlink, "it is, or lies behind, a symlink")
}

fn irregular() -> Refusal {
    Refusal::new(Verdict::NotAFile, "it is no regular file")
}

/// The refusal of a document above `limit` bytes.
#[must_use]
pub fn oversized(limit: u64) -> Refusal {
    Refusal::new(Verdict::OversizedJson, format!("it is larger than {limit} bytes"))
}

fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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
        Err(cause) if is_absent(&cause) => Ok(None),
        Err(cause) => Err(cause),
    }
}

impl Store for Folder {
    fn look(&self) -> Read<()> {
        match fs::metadata(&self.root) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Refusal::new(Verdict::Gone, "its root is no folder any more: mount or restore it")),
            Err(cause) => Err(Refusal::new(Verdict::Gone, format!("its root cannot be reached ({cause})"))),
        }
    }

    fn list(&self, folder: &str) -> Read<Vec<Listed>> {
        if !folder.is_empty() && self.kind(folder)? != Some(Kind::Folder) {
            return Ok(Vec::new());
        }
        let Some(entries) = absent_is_none(fs::read_dir(self.root.join(folder)))? else { return Ok(Vec::new()) };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry?;
            // a name that is not UTF-8 is no name of the format
            if let Ok(name) = entry.file_name().into_string() {
                listed.push(Listed { name, kind: kind_of(entry.file_type()?) });
            }
        }
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    fn kind(&self, path: &str) -> io::Result<Option<Kind>> {
        let (mut reached, mut kind) = (self.root.clone(), Kind::Folder);
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

    fn read(&self, path: &str, limit: u64) -> Read<Vec<u8>> {
        if let Some((folder, _)) = path.rsplit_once('/')
            && self.kind(folder)? == Some(Kind::Link)
        {
            return Err(linked());
        }
        self.read_here(path, limit)
    }

    fn documents(&self, folder: &str) -> Documents {
        Documents {
            metadata: self.read_here(&format!("{folder}/metadata.json"), METADATA_LIMIT),
            stated: self.read_here(&format!("{folder}/metadata.sha256"), DOCUMENT_LIMIT),
        }
    }

    fn readers(&self, count: usize) -> usize {
        // a version takes less time than starting a thread for it
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        cores.min(8).min(count / 64)
    }

    fn hold(&self, record: &Record) -> Read<Option<File>> {
        let Some(copies) = &self.copies else { return Ok(None) };
        if !copies.always && !self.others_write(record)? {
            return Ok(None);
        }
        match copies.cache.hold_private(&record.digest) {
            Err(refusal) if !copies.always => {
                tracing::warn!(model = record.name, version = %record.version, %refusal, "others can write this version, and it is read in place");
                Ok(None)
            }
            held => held.map(Some),
        }
    }

    fn payload(&self, record: &Record, file: &FileEntry, copied: bool, verdicts: &Verdicts) -> Read<Payload> {
        let path = format!("{}/{}", record.folder, file.path);
        let refuse = |kind, what: &str| Err(Refusal::new(kind, format!("`{}` {what}", file.path)));
        match self.kind(&path)? {
            Some(Kind::File) => {}
            Some(Kind::Link) => return refuse(Verdict::Symlink, "is, or lies behind, a symlink"),
            Some(_) => return refuse(Verdict::NotAFile, "is no regular file"),
            None => return refuse(Verdict::MissingFile, "is missing"),
        }
        if let Some(copies) = self.copies.as_ref().filter(|_| copied) {
            let cache = &copies.cache;
            return cache.payload(&record.digest, file, verdicts, |part| self.copy_out(&path, file, part, cache));
        }
        let path = self.root.join(path);
        let facts = verdicts.facts(&path, file.is_onnx())?;
        confirm(file, &facts)?;
        Ok(Payload { path, facts })
    }

    fn watchable(&self) -> Option<&Path> {
        Some(&self.root)
    }
}
