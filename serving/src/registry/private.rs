//! Whether a file or folder is this user's alone to change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Whether anybody but this user and root can change `path`, or put something else in its place.
pub fn others_write(path: &Path) -> io::Result<bool> {
    let real = path.canonicalize()?;
    // the owner of this process, without a call into C
    let user = fs::metadata("/proc/self")?.uid();
    for place in real.ancestors() {
        let found = fs::symlink_metadata(place)?;
        // in a sticky folder others can add, but not rename what is not theirs
        let shared = found.mode() & OTHERS != 0 && !(found.is_dir() && found.mode() & STICKY != 0);
        if shared || (found.uid() != user && found.uid() != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::others_write;

    #[test]
    fn what_a_group_or_all_may_write_on_the_way_is_not_private() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("a"), root.path().join("a/b"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "x").unwrap();
        for (place, mode, shared) in [
            (&folder, 0o755, false),
            (&folder, 0o775, true),
            (&folder, 0o757, true),
            (&folder, 0o1777, false),
            (&file, 0o444, false),
            (&file, 0o664, true),
            (&file, 0o646, true),
        ] {
            fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
            assert_eq!(others_write(&file).unwrap(), shared, "{} {mode:o}", place.display());
        }
        others_write(&root.path().join("absent")).unwrap_err();
    }
}
