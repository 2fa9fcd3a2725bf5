//! Why something of a registry is refused: the verdict kinds of `registry/FORMAT.md`, section 8.

use std::fmt;

/// A verdict kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Written by a newer format.
    NewerFormat,
    /// `registry.json` names no format.
    BadRegistry,
    /// A document over its limit.
    OversizedJson,
    /// No strict JSON object.
    BadJson,
    /// A symbolic link, which is never followed.
    Symlink,
    /// No regular file.
    NotAFile,
    /// `metadata.json` is not what was published.
    MetadataDigest,
    /// A field is missing or has a wrong type or value.
    BadManifest,
    /// The metadata of another version.
    Misplaced,
    /// A listed path outside the grammar.
    BadPath,
    /// A listed file is absent.
    MissingFile,
    /// A listed file has another length.
    Size,
    /// A listed file has another content.
    Digest,
    /// The graph does not parse.
    BadOnnx,
    /// The graph keeps weights outside the listed files.
    ExternalData,
    /// An alias entry cannot be read.
    BadAliasEntry,
    /// The version is not the one that the alias was given.
    AliasDigest,
    /// Entries of an alias that were accepted before are gone, or others.
    StaleAlias,
    /// None of the trusted keys has signed the version, or the entry of an alias.
    Unsigned,
    /// A signature that is not what it says.
    BadSignature,
    /// There is no such thing.
    NotFound,
    /// The text is no reference.
    InvalidName,
    /// The file system refuses it or fails, which says nothing about anything else.
    Unreadable,
    /// The whole registry was there and is gone; no verdict of the format.
    Gone,
    /// An object store gave no answer, which says nothing about what lies there; no verdict of the format.
    Unreachable,
}

impl Kind {
    /// The kind's name in the format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NewerFormat => "newer-format",
            Self::BadRegistry => "bad-registry",
            Self::OversizedJson => "oversized-json",
            Self::BadJson => "bad-json",
            Self::Symlink => "symlink",
            Self::NotAFile => "not-a-file",
            Self::MetadataDigest => "metadata-digest",
            Self::BadManifest => "bad-manifest",
            Self::Misplaced => "misplaced",
            Self::BadPath => "bad-path",
            Self::MissingFile => "missing-file",
            Self::Size => "size",
            Self::Digest => "digest",
            Self::BadOnnx => "bad-onnx",
            Self::ExternalData => "external-data",
            Self::BadAliasEntry => "bad-alias-entry",
            Self::AliasDigest => "alias-digest",
            Self::StaleAlias => "stale-alias",
            Self::Unsigned => "unsigned",
            Self::BadSignature => "bad-signature",
            Self::NotFound => "not-found",
            Self::InvalidName => "invalid-name",
            Self::Unreadable => "unreadable",
            Self::Gone => "gone",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A verdict and what is wrong, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The verdict.
    pub kind: Kind,
    /// What and where.
    pub detail: String,
}

/// The result of reading something of a registry.
pub type Read<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal of that kind.
    #[must_use]
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.name(), self.detail)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(cause: std::io::Error) -> Self {
        Self::new(Kind::Unreadable, cause.to_string())
    }
}
