//! The local copies of what lies in an object store, or in a folder that others can write, shared with other processes and with `ocad` (`registry/FORMAT.md`,
//! "The read cache").
//!
//! A version's folder is flocked (shared) by those who may open its files, `.lock` in it (exclusive) by who downloads,
//! and `versions/.lock` (exclusive) by who makes room: it removes the folders used longest ago that nobody has flocked.

use std::env;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::digest::{Facts, Verdicts, compute};
use super::manifest::FileEntry;
use super::private;
use super::refusal::{Kind, Read, Refusal};
use super::store::{Payload, confirm};
use crate::error::{Error, Result};

const DEFAULT_SIZE: u64 = 10 << 30;
const LOCK: &str = ".lock";

/// A read cache of at most `limit` bytes.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    limit: u64,
}

impl Cache {
    /// The user's cache: `OCAD_CACHE`, else `XDG_CACHE_HOME/ocad`, else `~/.cache/ocad`; of `OCAD_CACHE_SIZE` bytes.
    pub fn of_user() -> Result<Self> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = || variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
        let root = variable("OCAD_CACHE").or_else(|| base().map(|base| base.join("ocad")));
        let root =
            root.ok_or_else(|| Error::Unavailable("there is no folder for the read cache: set `OCAD_CACHE`".into()))?;
        let limit = match env::var("OCAD_CACHE_SIZE") {
            Ok(text) if !text.is_empty() => size(&text).ok_or_else(|| {
                Error::Invalid(format!("`OCAD_CACHE_SIZE={text}` is no size: give bytes, or such as `500M` or `20G`"))
            })?,
            _ => DEFAULT_SIZE,
        };
        Ok(Self::new(root, limit))
    }

    /// The cache in `root`.
    #[must_use]
    pub fn new(root: PathBuf, limit: u64) -> Self {
        Self { root, limit }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the files of the version lie whose metadata has the sha256 `owner`.
    #[must_use]
    pub fn folder(&self, owner: &str) -> PathBuf {
        self.root.join("versions").join(&owner[..2]).join(owner)
    }

    /// As [`Cache::hold`], in a cache that nobody but this user can write.
    pub fn hold_private(&self, owner: &str) -> Read<File> {
        let held = self.hold(owner).map_err(|cause| self.failed(&cause))?;
        if private::others_write(&self.folder(owner)).map_err(|cause| self.failed(&cause))? {
            let root = self.root.display();
            let detail = format!(
                "the read cache `{root}` can be written by others: `chmod -R go-w` it and the folders above, or set `OCAD_CACHE`"
            );
            return Err(Refusal::new(Kind::Unreadable, detail));
        }
        Ok(held)
    }

    /// The copy of `file`, made by `fetch` where there is none that is whole: what is verified here is what is opened.
    pub fn payload(
        &self,
        owner: &str,
        file: &FileEntry,
        verdicts: &Verdicts,
        fetch: impl FnOnce(&Path) -> Read<()>,
    ) -> Read<Payload> {
        if let Some(payload) = self.copy(owner, file, verdicts) {
            return Ok(payload);
        }
        let _alone = self.downloading(owner).map_err(|cause| self.failed(&cause))?;
        if let Some(payload) = self.copy(owner, file, verdicts) {
            return Ok(payload);
        }
        let facts: Read<Facts> = self
            .add(owner, &file.path, file.size, |part| {
                fetch(part).map_err(Failure::Refused)?;
                let facts = compute(&mut File::open(part)?, file.is_onnx())?;
                confirm(file, &facts).map(|()| facts).map_err(Failure::Refused)
            })
            .map_err(|failure| match failure {
                Failure::Refused(refusal) => refusal,
                Failure::Cache(cause) => self.failed(&cause),
            });
        let facts = facts?;
        let path = self.folder(owner).join(&file.path);
        verdicts.remember(&path, &facts).map_err(|cause| self.failed(&cause))?;
        Ok(Payload { path, facts })
    }

    /// The copy of `file` that is there, if it is whole.
    fn copy(&self, owner: &str, file: &FileEntry, verdicts: &Verdicts) -> Option<Payload> {
        let path = self.folder(owner).join(&file.path);
        let plain = path.symlink_metadata().is_ok_and(|metadata| metadata.is_file());
        let facts = plain.then(|| verdicts.facts(&path, file.is_onnx()).ok()).flatten()?;
        confirm(file, &facts).ok().map(|()| Payload { path, facts })
    }

    /// The refusal of what cannot be kept here.
    #[must_use]
    pub fn failed(&self, cause: &io::Error) -> Refusal {
        let root = self.root.display();
        let detail = format!(
            "the read cache `{root}` failed ({cause}): make room there, or set `OCAD_CACHE` to a folder that can be written"
        );
        Refusal::new(Kind::Unreadable, detail)
    }

    /// Keeps the folder of `owner` from being removed, until the answer is dropped.
    pub fn hold(&self, owner: &str) -> io::Result<File> {
        let folder = self.folder(owner);
        loop {
            make_folder(&folder)?;
            let held = match File::open(&folder) {
                Ok(held) => held,
                // removed meanwhile, to make room
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(cause),
            };
            held.lock_shared()?;
            let (ours, there) = (held.metadata()?, fs::metadata(&folder));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                held.set_modified(SystemTime::now())?;
                return Ok(held);
            }
        }
    }

    /// Lets one process at a time download into the folder of `owner`, until the answer is dropped.
    pub fn downloading(&self, owner: &str) -> io::Result<File> {
        locked(&self.folder(owner).join(LOCK))
    }

    /// Lets `write` make the file `path` of `owner`, of `size` bytes: it appears, read-only, only when that succeeded.
    pub fn add<T, E: From<io::Error>>(
        &self,
        owner: &str,
        path: &str,
        size: u64,
        write: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        self.make_room(size)?;
        let folder = self.folder(owner);
        let (target, part) = (folder.join(path), folder.join(format!(".{}.part", unique())));
        let made = write(&part).and_then(|made| {
            if let Some(parent) = target.parent() {
                make_folder(parent)?;
            }
            fs::set_permissions(&part, Permissions::from_mode(0o444))?;
            fs::rename(&part, &target)?;
            Ok(made)
        });
        if made.is_err() {
            // what is left of it is in nobody's way
            let _ = fs::remove_file(&part);
        }
        made
    }

    /// Removes the versions used longest ago, and by nobody now, until `size` bytes more fit.
    fn make_room(&self, size: u64) -> io::Result<()> {
        let versions = self.root.join("versions");
        let _one_at_a_time = locked(&versions.join(LOCK))?;
        let mut found: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for group in folders(&versions)? {
            for folder in folders(&group)? {
                let used = fs::metadata(&folder).and_then(|metadata| metadata.modified()).unwrap_or(UNIX_EPOCH);
                found.push((used, occupied(&folder), folder));
            }
        }
        found.sort_unstable();
        let mut total = size + found.iter().map(|(_, occupied, _)| occupied).sum::<u64>();
        for (_, occupied, folder) in found {
            if total <= self.limit {
                break;
            }
            if remove_unused(&folder)? {
                total -= occupied;
            }
        }
        Ok(())
    }
}

/// A number that no other download has: of the process, of its start, and of this one.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    format!("{:x}-{now:x}-{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Why a copy was not made: what was fetched is refused, or the cache failed.
enum Failure {
    Refused(Refusal),
    Cache(io::Error),
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Self {
        Self::Cache(cause)
    }
}

/// Makes `folder` and what is missing above it, writable for this user alone whatever the umask.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(folder)
}

/// The exclusive flock of the file `path`, which is made where it is missing.
fn locked(path: &Path) -> io::Result<File> {
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    file.lock()?;
    Ok(file)
}

fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The bytes of all files below `folder`; what disappears meanwhile has none.
fn occupied(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => occupied(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Removes `folder` unless somebody has it flocked; whether it is gone.
fn remove_unused(folder: &Path) -> io::Result<bool> {
    let held = match File::open(folder) {
        Ok(held) => held,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(cause) => return Err(cause),
    };
    match held.try_lock() {
        Ok(()) => fs::remove_dir_all(folder).map(|()| true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(cause)) => Err(cause),
    }
}

/// `1048576`, `500M`, `1.5 GiB`: bytes, with units of 1024.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let exponent = ["", "k", "m", "g", "t"].iter().position(|known| *known == unit)?;
    let whole = number.split('.').all(|digits| !digits.is_empty()) && number.matches('.').count() <= 1;
    let bytes = number.parse::<f64>().ok().filter(|_| whole)? * 1024_f64.powi(i32::try_from(exponent).ok()?);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some(bytes as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, File};
    use std::io;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::{Cache, size};

    fn add(cache: &Cache, owner: &str, bytes: usize) {
        let _held = cache.hold(owner).unwrap();
        let write = |part: &Path| fs::write(part, vec![0; bytes]);
        cache.add(owner, "folder/file", bytes as u64, write).unwrap();
    }

    #[test]
    fn sizes_are_read_as_python_reads_them() {
        for (text, bytes) in [("100", 100), ("1.5k", 1536), ("2 MiB", 2 << 20), ("20G", 20 << 30), (" 1tb ", 1 << 40)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "x", "1.", ".5", "1.2.3", "-1", "1  k", "1ki", "k"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn room_is_made_by_removing_what_was_used_longest_ago_and_by_nobody_now() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path().to_owned(), 250);
        let owners: Vec<String> = ["a", "b", "c"].iter().map(|letter| letter.repeat(64)).collect();
        for (age, owner) in [(30, &owners[0]), (20, &owners[1])] {
            add(&cache, owner, 100);
            let used = SystemTime::now() - Duration::from_secs(age);
            File::open(cache.folder(owner)).unwrap().set_modified(used).unwrap();
        }
        let held = cache.hold(&owners[0]).unwrap();
        File::open(cache.folder(&owners[0])).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        add(&cache, &owners[2], 100);
        assert!(cache.folder(&owners[0]).exists(), "it is held");
        assert!(!cache.folder(&owners[1]).exists());
        drop(held);
        add(&cache, &owners[1], 100);
        assert!(!cache.folder(&owners[0]).exists());
    }

    #[test]
    fn what_failed_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path().to_owned(), 1000);
        let owner = "d".repeat(64);
        let _held = cache.hold(&owner).unwrap();
        let cut = |part: &Path| {
            fs::write(part, "half")?;
            Err::<(), _>(io::Error::other("cut"))
        };
        cache.add(&owner, "model.onnx", 10, cut).unwrap_err();
        assert_eq!(fs::read_dir(cache.folder(&owner)).unwrap().count(), 0);
    }
}
