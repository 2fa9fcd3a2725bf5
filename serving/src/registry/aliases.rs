//! Alias entries, plain and signed (`registry/FORMAT.md`, sections 4 and 14).

use super::digest::sha256;
use super::fields::{boolean, digest, integer, is_digest, nullable, object, one_of, text};
use super::index::Target;
use super::manifest::DOCUMENT_LIMIT;
use super::marks::{Mark, Marks};
use super::names;
use super::refusal::{Kind, Read, Refusal};
use super::signatures::Keys;
use super::store::Store;
use super::strict::{self, Json, Object};

/// The target of an entry; `None` for `unset`.
pub fn target(entry: &Object) -> Result<Option<Target>, String> {
    for name in ["version", "metadata_sha256"] {
        entry.get(name).ok_or_else(|| format!("`{name}` is missing"))?;
    }
    let kind = one_of(entry, "kind", &["promote", "rollback", "unset"])?;
    let (version, digest) = (nullable(entry, "version", text)?, nullable(entry, "metadata_sha256", text)?);
    text(entry, "moved_at").and(text(entry, "by")).and(text(entry, "reason"))?;
    boolean(entry, "forced")?;
    match (kind, version, digest) {
        ("unset", None, None) => Ok(None),
        ("promote" | "rollback", Some(version), Some(digest)) if is_digest(digest) => {
            let version = names::version(version).ok_or("`version` is no version")?;
            Ok(Some(Target { version, pinned: Some(digest.to_owned()), signer: None }))
        }
        _ => Err("kind, version and digest do not fit together".into()),
    }
}

/// What a row of entries is checked against.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The trusted keys.
    pub keys: &'a Keys,
    /// The entries accepted before.
    pub marks: &'a Marks,
}

/// A row of entries, ascending: numbers and file names.
struct Row<'a> {
    store: &'a dyn Store,
    folder: String,
    entries: Vec<(u64, String)>,
}

impl Row<'_> {
    /// The bytes of the entry at `place`.
    fn read(&self, place: usize) -> Read<Vec<u8>> {
        let (number, file) = &self.entries[place];
        self.store.read(&format!("{}/{file}", self.folder), DOCUMENT_LIMIT).map_err(|refusal| match refusal.kind {
            Kind::Unreachable => refusal,
            _ => unreadable(*number, &refusal.detail),
        })
    }

    /// The digest of the entry below the one at `place`; `None` where it is the lowest.
    fn below(&self, place: usize) -> Read<Option<String>> {
        place.checked_sub(1).map(|place| self.read(place).map(|bytes| sha256(&bytes))).transpose()
    }
}

/// The refusal of an entry that cannot be read.
#[must_use]
pub fn unreadable(number: u64, cause: &str) -> Refusal {
    Refusal::new(Kind::BadAliasEntry, format!("entry {number} cannot be read: {cause}"))
}

impl Signed<'_> {
    /// Where `model@alias` points: its newest entry decides alone, is signed, and follows the one accepted last.
    pub fn current(self, store: &dyn Store, model: &str, alias: &str) -> Read<Option<Target>> {
        let folder = format!("{model}/aliases/{alias}");
        let listed = store.list(&folder)?.into_iter().map(|entry| entry.name);
        let row = Row { store, folder, entries: names::entries(listed) };
        let failed = |cause: std::io::Error| {
            Refusal::new(Kind::Unreadable, format!("the alias entries seen before cannot be kept: {cause}"))
        };
        let mark = self.marks.read(model, alias).map_err(failed)?;
        let top = row.entries.last().map_or(0, |(number, _)| *number);
        if mark.as_ref().is_some_and(|mark| mark.number > top) {
            let number = mark.map_or(0, |mark| mark.number);
            return Err(stale(&format!("entry {number} was there before and is gone")));
        }
        let Some(place) = row.entries.len().checked_sub(1) else { return Ok(None) };
        let bytes = row.read(place)?;
        let document = strict::parse(&bytes).map_err(|refusal| unreadable(top, &refusal.detail))?;
        let target = target(&document).map_err(|cause| unreadable(top, &cause))?;
        let signer = self.check(&document, model, alias, top, row.below(place)?.as_deref())?;
        let now = Mark { number: top, digest: sha256(&bytes) };
        if let Some(mark) = &mark {
            follows(&row, place, &now, mark)?;
        }
        if mark.as_ref() != Some(&now) {
            self.marks.keep(model, alias, &now).map_err(failed)?;
        }
        Ok(target.map(|target| Target { signer: Some(signer), ..target }))
    }

    /// The id of the trusted key that signed the entry; an error where none did, or another entry than this.
    fn check(self, entry: &Object, model: &str, alias: &str, number: u64, below: Option<&str>) -> Read<String> {
        let bad = |cause: &str| Refusal::new(Kind::BadSignature, format!("entry {number} of `{alias}` {cause}"));
        if !entry.contains_key("signature") {
            let cause =
                format!("entry {number} of `{alias}` is not signed: `ocad registry promote --key` signs a new one");
            return Err(Refusal::new(Kind::Unsigned, cause));
        }
        let read = || -> Result<_, String> {
            let proof = object(entry, "signature")?;
            let (algorithm, id) = (text(proof, "algorithm")?, text(proof, "key_id")?);
            Ok((algorithm, id, text(proof, "signature")?, message(entry, model, alias)?))
        };
        let (algorithm, id, signature, message) = read().map_err(|cause| bad(&format!("is signed badly: {cause}")))?;
        if algorithm != "ed25519" {
            return Err(bad("is signed badly: not by ed25519"));
        }
        if !self.keys.contains(id) {
            let id: String = id.chars().take(8).collect();
            return Err(Refusal::new(
                Kind::Unsigned,
                format!("entry {number} of `{alias}` is signed by `{id}…`, whom nobody trusts"),
            ));
        }
        if !self.keys.verifies(id, message.as_bytes(), signature) {
            return Err(bad("is forged, or of another alias"));
        }
        if entry.get("number") != Some(&Json::Integer(i128::from(number))) {
            return Err(bad("was another entry: it is replayed"));
        }
        if nullable(entry, "previous", text).ok().flatten() != below {
            return Err(bad("does not follow the entry below it"));
        }
        Ok(id.to_owned())
    }
}

/// Whether the entries from `place` down, whose highest is `now`, lead to `mark`.
fn follows(row: &Row<'_>, mut place: usize, now: &Mark, mark: &Mark) -> Read<()> {
    let (mut number, mut found) = (now.number, now.digest.clone());
    while number > mark.number && place > 0 {
        let above = strict::parse(&row.read(place)?);
        let previous = above.ok().and_then(|entry| digest(&entry, "previous").ok().map(ToOwned::to_owned));
        place -= 1;
        number = row.entries[place].0;
        found = sha256(&row.read(place)?);
        if previous.as_ref() != Some(&found) {
            return Err(stale(&format!("entry {number} is not the one that the next one follows")));
        }
    }
    if number == mark.number && found == mark.digest {
        return Ok(());
    }
    Err(stale(&format!("entry {} is not the one that was there before", mark.number)))
}

fn stale(cause: &str) -> Refusal {
    Refusal::new(Kind::StaleAlias, format!("{cause}: restore it, or see docs/security.md"))
}

/// What is signed of an entry: eleven lines, each with its line feed.
fn message(entry: &Object, model: &str, alias: &str) -> Result<String, String> {
    let or_none = |name| Ok::<_, String>(nullable(entry, name, text)?.unwrap_or("none").to_owned());
    let number = integer(entry.get("number").ok_or("`number` is missing")?, "number", 1)?;
    let lines = [
        "ocad alias entry".to_owned(),
        format!("{model}@{alias}"),
        number.to_string(),
        nullable(entry, "previous", digest)?.unwrap_or("none").to_owned(),
        text(entry, "kind")?.to_owned(),
        or_none("version")?,
        or_none("metadata_sha256")?,
        sha256(text(entry, "moved_at")?.as_bytes()),
        sha256(text(entry, "by")?.as_bytes()),
        sha256(text(entry, "reason")?.as_bytes()),
        boolean(entry, "forced")?.to_string(),
    ];
    Ok(lines.join("\n") + "\n")
}
