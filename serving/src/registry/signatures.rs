//! Signatures: ed25519 (RFC 8032) over `metadata.sha256`, by keys in the PEM files of OpenSSL.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::digest::{digest_line, sha256};
use super::fields::text;
use super::manifest::DOCUMENT_LIMIT;
use super::marks::Marks;
use super::refusal::{Kind, Read, Refusal};
use super::store::{Kind as FileKind, Store};
use super::strict;
use crate::error::{Error, Result};

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// A `SubjectPublicKeyInfo` of ed25519 (RFC 8410) before its 32 bytes.
const PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The trusted public keys by key id, the first 32 digits of the sha256 of a key's 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(BTreeMap<String, Vec<u8>>);

impl Keys {
    /// The keys in the PEM file at `path`: at least one, and only public ed25519 ones.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|cause| {
            Error::Invalid(format!("the public keys `{}` cannot be read ({cause}): give another file", path.display()))
        })?;
        Self::parse(&String::from_utf8_lossy(&bytes))
            .map_err(|cause| Error::Invalid(format!("`{}` {cause}", path.display())))
    }

    /// Whether the key with that id is one of them.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    /// Whether `signature`, in base64, is that of `message` by the key `id`.
    #[must_use]
    pub fn verifies(&self, id: &str, message: &[u8], signature: &str) -> bool {
        let (key, signature) = (self.0.get(id), STANDARD.decode(signature));
        key.zip(signature.ok())
            .is_some_and(|(key, signature)| UnparsedPublicKey::new(&ED25519, key).verify(message, &signature).is_ok())
    }

    /// The keys in a PEM file's text; what stands around the blocks is ignored.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let list = "is no list of public keys: give PEM blocks `PUBLIC KEY`, and nothing secret";
        let blocks: Vec<&str> = text.split(BEGIN).skip(1).collect();
        if blocks.is_empty() || text.matches("-----BEGIN ").count() != blocks.len() {
            return Err(list);
        }
        let key = |block: &&str| {
            let (body, _) = block.split_once(END).ok_or(list)?;
            let body: String = body.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
            let data = STANDARD.decode(body).map_err(|_| list)?;
            let key = data.strip_prefix(&PREFIX).filter(|key| key.len() == 32);
            let key = key.ok_or("holds a key that is not ed25519: `ocad registry keygen` makes one")?;
            Ok((key_id(key), key.to_vec()))
        };
        blocks.iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Refuses the version in `folder`, of the metadata with the sha256 `digest`, unless one of the keys has signed it;
    /// answers the id of that key.
    ///
    /// One good signature is enough, whatever lies beside it.
    pub fn check(&self, store: &dyn Store, folder: &str, digest: &str) -> Read<String> {
        let folder = folder.replacen('/', "/signatures/", 1);
        let mut failed = None;
        for (id, key) in &self.0 {
            let refusal = match store.read(&format!("{folder}/{id}.json"), DOCUMENT_LIMIT) {
                Ok(bytes) => match verify(&bytes, id, key, digest) {
                    Ok(()) => return Ok(id.clone()),
                    Err(cause) => Refusal::new(Kind::BadSignature, format!("the signature by key `{id}` {cause}")),
                },
                Err(refusal) => match refusal.kind {
                    Kind::Unreachable => return Err(refusal),
                    Kind::MissingFile => continue,
                    // a linked folder has no signatures in it
                    Kind::Symlink if store.kind(&folder)? == Some(FileKind::Link) => continue,
                    _ => Refusal::new(Kind::BadSignature, format!("the signature by key `{id}`: {}", refusal.detail)),
                },
            };
            failed.get_or_insert(refusal);
        }
        let ids = self.0.keys().map(|id| format!("`{}…`", &id[..8])).collect::<Vec<_>>().join(", ");
        Err(failed.unwrap_or_else(|| {
            Refusal::new(Kind::Unsigned, format!("it is not signed by {ids}: `ocad registry sign` signs it"))
        }))
    }
}

/// What must be signed, and by whom: the file of keys is read again at each look.
#[derive(Debug)]
pub struct Trust {
    path: PathBuf,
    /// The alias entries seen before, where they must be signed too.
    pub marks: Option<Marks>,
    keys: Mutex<Arc<Keys>>,
}

impl Trust {
    /// The trust in the keys of the PEM file at `path`, and in aliases with `marks`.
    pub fn read(path: &Path, marks: Option<Marks>) -> Result<Self> {
        let keys = Mutex::new(Arc::new(Keys::read(path)?));
        Ok(Self { path: path.to_owned(), marks, keys })
    }

    /// The keys as they were read last.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the keys again; an error leaves them as they were.
    pub fn look(&self) -> Result<()> {
        let (found, before) = (Keys::read(&self.path)?, self.keys());
        if found != *before {
            let ids = |keys: &Keys| keys.0.keys().cloned().collect::<Vec<_>>().join(" ");
            tracing::warn!(before = ids(&before), now = ids(&found), "the trusted keys have changed");
            *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(found);
        }
        Ok(())
    }
}

fn key_id(key: &[u8]) -> String {
    let mut id = sha256(key);
    id.truncate(32);
    id
}

/// Whether `bytes` is the signature by `key`, named `id`, of the metadata with the sha256 `digest`; else why not.
fn verify(bytes: &[u8], id: &str, key: &[u8], digest: &str) -> Result<(), String> {
    let document = strict::parse(bytes).map_err(|refusal| format!("is no good: {}", refusal.detail))?;
    let field = |name| text(&document, name).map_err(|cause| format!("is no good: {cause}"));
    let (algorithm, key_id, signed, signature) =
        (field("algorithm")?, field("key_id")?, field("metadata_sha256")?, field("signature")?);
    field("signed_at")?;
    if algorithm != "ed25519" || key_id != id {
        return Err("is no ed25519 signature by that key".into());
    }
    if signed != digest {
        return Err("is of other metadata".into());
    }
    let signature = STANDARD.decode(signature).map_err(|_| "is no good: `signature` is no base64")?;
    UnparsedPublicKey::new(&ED25519, key)
        .verify(digest_line(digest).as_bytes(), &signature)
        .map_err(|_| "is forged, or of other metadata".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Keys;

    const KEY: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_file_of_keys_holds_public_keys_and_nothing_else() {
        assert_eq!(Keys::parse(KEY).map(|keys| keys.0.len()), Ok(1));
        assert_eq!(Keys::parse(&KEY.replace('\n', "\r\n")), Keys::parse(KEY));
        assert_eq!(Keys::parse(&KEY.repeat(2)), Keys::parse(KEY));
        for wrong in ["", "abc", "-----BEGIN PUBLIC KEY-----\nMCow"] {
            assert!(Keys::parse(wrong).unwrap_err().contains("no list"), "{wrong}");
        }
        let secret = format!("{KEY}-----BEGIN PRIVATE KEY-----\n");
        assert!(Keys::parse(&secret).unwrap_err().contains("nothing secret"));
        assert!(Keys::parse(&KEY.replace("MCow", "MCox")).unwrap_err().contains("not ed25519"));
    }
}
