//! What was in the registry and is gone from it without a tombstone: an unmounted disk, a folder moved away, an accident.
//! Nothing that follows the format takes versions, tombstones or entries of aliases away, so what they meant stays.

use super::catalog::Catalog;
use crate::registry::index::{Index, Listed};

impl Catalog {
    /// Puts back into `index`, just read of model `name`, what `before` had and nothing deleted, as far as it is in use;
    /// answers what that is, in one line.
    pub(super) fn restore(&self, name: &str, before: &Index, index: &mut Index) -> Option<String> {
        let mut gone = Vec::new();
        for version in before.deleted.difference(&index.deleted) {
            gone.push(format!("the tombstone of `{version}`"));
        }
        let untombed = !gone.is_empty();
        index.deleted.extend(before.deleted.iter().cloned());
        let deleted = &index.deleted;
        index.versions.retain(|version, _| !deleted.contains(&version.to_string()));
        for model in self.resident(Some(name)) {
            let known = before.versions.get(&model.version);
            if let Some(listed @ Listed::Readable(record)) = known
                && record.digest == model.digest
                && !index.deleted.contains(&model.version_text)
                && !index.versions.contains_key(&model.version)
                && self.trusts(record.signer.as_ref())
            {
                index.versions.insert(model.version.clone(), listed.clone());
                gone.push(format!("version `{}`", model.version));
            }
        }
        // signed aliases have a memory of their own, and a key may be trusted no more
        for (alias, height) in before.heights.iter().filter(|_| !index.signed) {
            let stands = index.heights.get(alias).is_some_and(|now| now >= height);
            if matches!(index.aliases.get(alias), Some(Err(_))) {
                index.heights.entry(alias.clone()).or_insert(*height);
                continue;
            }
            if stands && !untombed {
                continue;
            }
            match before.aliases.get(alias) {
                Some(target) => drop(index.aliases.insert(alias.clone(), target.clone())),
                None => drop(index.aliases.remove(alias)),
            }
            if !stands {
                index.heights.insert(alias.clone(), *height);
                gone.push(format!("alias `{alias}`"));
            }
        }
        (!gone.is_empty()).then(|| {
            format!(
                "gone: {}, though nothing deleted it, so all of it stays as it was: mount or restore it",
                gone.join(", ")
            )
        })
    }
}
