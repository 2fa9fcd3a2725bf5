//! The names of the format (`registry/FORMAT.md`, section 2).

use semver::Version;

/// The largest number in a version: 15 digits.
const LARGEST: u64 = 999_999_999_999_999;

fn matches(name: &str, most: usize, first: impl Fn(u8) -> bool, rest: impl Fn(u8) -> bool) -> bool {
    let mut bytes = name.bytes();
    name.len() <= most && bytes.next().is_some_and(first) && bytes.all(rest)
}

fn is_small(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Whether `name` may name a model.
#[must_use]
pub fn is_model(name: &str) -> bool {
    matches(name, 128, is_small, |byte| is_small(byte) || b"._-".contains(&byte)) && name != "registry.json"
}

/// Whether `name` may name an alias. (The grammar of roles is the same.)
#[must_use]
pub fn is_alias(name: &str) -> bool {
    matches(name, 64, |byte| byte.is_ascii_lowercase(), |byte| is_small(byte) || byte == b'-')
}

/// Whether `path` may name a payload file.
#[must_use]
pub fn is_path(path: &str) -> bool {
    let segment = |segment: &str| {
        matches(
            segment,
            128,
            |byte| byte.is_ascii_alphanumeric() || byte == b'_',
            |byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte),
        )
    };
    path.len() <= 255 && path.split('/').all(segment) && path != "metadata.json" && path != "metadata.sha256"
}

/// The version that `text` writes: SemVer without build metadata, with numbers of at most 15 digits.
#[must_use]
pub fn version(text: &str) -> Option<Version> {
    let version = Version::parse(text).ok().filter(|version| version.build.is_empty() && text.len() <= 64)?;
    let small = [version.major, version.minor, version.patch].iter().all(|number| *number <= LARGEST);
    let labels =
        version.pre.split('.').all(|label| label.len() <= 15 || !label.bytes().all(|byte| byte.is_ascii_digit()));
    (small && labels).then_some(version)
}

/// The number of an alias entry's file name.
#[must_use]
pub fn entry_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json")?;
    let legal = match digits.len() {
        6 => true,
        7..=15 => !digits.starts_with('0'),
        _ => false,
    };
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
    (legal && number > 0).then_some(number)
}

/// How far the number of an alias entry may lie above the one before it; the format's guard against a number that no
/// writer could follow.
const FURTHEST: u64 = 1_000_000;

/// The files `listed` that are entries of an alias with their numbers, ascending; none from a leap of the numbers on.
#[must_use]
pub fn entries(listed: impl Iterator<Item = String>) -> Vec<(u64, String)> {
    let mut entries: Vec<(u64, String)> = listed.filter_map(|name| Some((entry_number(&name)?, name))).collect();
    entries.sort_unstable();
    let mut before = 0;
    let leap = entries.iter().position(|(number, _)| number - std::mem::replace(&mut before, *number) > FURTHEST);
    entries.truncate(leap.unwrap_or(entries.len()));
    entries
}

/// What a reference asks for within its model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// A version.
    Version(Version),
    /// An alias.
    Alias(String),
}

/// What `text` asks for, the part of a reference behind `@`: a version where it holds a dot, else an alias.
#[must_use]
pub fn selector(text: &str) -> Option<Selector> {
    if text.contains('.') {
        version(text.strip_prefix('v').unwrap_or(text)).map(Selector::Version)
    } else {
        is_alias(text).then(|| Selector::Alias(text.to_owned()))
    }
}
