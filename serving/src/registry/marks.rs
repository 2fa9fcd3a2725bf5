//! The newest alias entries that were ever accepted here, so that taking entries away again is noticed
//! (`registry/FORMAT.md`, section 14). Shared with `ocad`: `CACHE/seen/KEY/NUMBER` holds the digest of an entry.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::cache::make_folder;
use super::digest::sha256;
use super::fields::is_digest;

/// An accepted entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub number: u64,
    /// The sha256 of its bytes.
    pub digest: String,
}

/// The marks of one registry.
#[derive(Debug, Clone)]
pub struct Marks {
    root: PathBuf,
    place: String,
}

impl Marks {
    /// The marks in the folder `cache` of the registry at `place`, a real path or a URL.
    #[must_use]
    pub fn new(cache: &Path, place: &str) -> Self {
        Self { root: cache.join("seen"), place: place.to_owned() }
    }

    /// Where the marks of an alias lie.
    #[must_use]
    pub fn folder(&self, model: &str, alias: &str) -> PathBuf {
        self.root.join(sha256(format!("{}\n{model}@{alias}\n", self.place).as_bytes()))
    }

    /// The highest mark of an alias.
    pub fn read(&self, model: &str, alias: &str) -> io::Result<Option<Mark>> {
        let folder = self.folder(model, alias);
        let Some(number) = numbers(&folder)?.into_iter().max() else { return Ok(None) };
        let digest = fs::read_to_string(folder.join(number.to_string()))?;
        if is_digest(&digest) {
            return Ok(Some(Mark { number, digest }));
        }
        Err(io::Error::other(format!("`{}` holds no digest", folder.join(number.to_string()).display())))
    }

    /// Takes note of an entry that was accepted.
    pub fn keep(&self, model: &str, alias: &str, mark: &Mark) -> io::Result<()> {
        let folder = self.folder(model, alias);
        make_folder(&folder)?;
        let part = folder.join(format!(".{}.part", std::process::id()));
        fs::write(&part, &mark.digest)?;
        fs::rename(&part, folder.join(mark.number.to_string()))?;
        for number in numbers(&folder)?.into_iter().filter(|number| *number < mark.number) {
            // another reader may have removed it; the highest counts in any case
            let _ = fs::remove_file(folder.join(number.to_string()));
        }
        Ok(())
    }
}

fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().parse().ok()));
    Ok(names.collect::<io::Result<Vec<Option<u64>>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::{Mark, Marks};

    #[test]
    fn the_highest_mark_of_an_alias_stays() {
        let root = tempfile::tempdir().unwrap();
        let marks = Marks::new(root.path(), "/models");
        assert_eq!(marks.read("m", "a").unwrap(), None);
        let mark = |number: u64| Mark { number, digest: format!("{number:064x}") };
        for number in [9, 10, 2] {
            marks.keep("m", "a", &mark(number)).unwrap();
        }
        assert_eq!(marks.read("m", "a").unwrap(), Some(mark(10)));
        assert_eq!(marks.read("m", "b").unwrap(), None);
        assert_eq!(Marks::new(root.path(), "/other").read("m", "a").unwrap(), None);
    }
}
