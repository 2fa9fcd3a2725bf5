//! The names of the format: models, versions, aliases, files.

use semver::Version;

/// Whether `name` may name a model.
#[must_use]
pub fn is_model(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
        && name.len() <= 128
        && name != "registry.json"
}

/// Whether `name` may name an alias.
#[must_use]
pub fn is_alias(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.len() <= 64
}

/// The version that `text` writes: SemVer without build metadata.
#[must_use]
pub fn version(text: &str) -> Option<Version> {
    Version::parse(text).ok().filter(|version| version.build.is_empty())
}

/// The version that `text` asks for: as [`version`], and a leading `v` is taken off.
#[must_use]
pub fn requested_version(text: &str) -> Option<Version> {
    version(text.strip_prefix('v').unwrap_or(text))
}

/// Whether `path` stays inside its folder: relative, `/` between plain parts.
#[must_use]
pub fn is_inside(path: &str) -> bool {
    !path.is_empty()
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !path.contains(['\\', '\0', ':'])
}
