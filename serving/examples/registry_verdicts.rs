//! What the server's reader says of registries: for each folder named on a line of standard input one JSON line, with the
//! verdict on every version, and where the alias `production` of every model leads. `scripts/fuzz` compares them.

use std::io::{BufRead as _, Error, Write as _, stdin, stdout};
use std::path::PathBuf;

use ocad_server::registry::digest::Verdicts;
use ocad_server::registry::index::{self, Index, Listed, PRODUCTION, Reader};
use ocad_server::registry::refusal::Read;
use ocad_server::registry::store::{Folder, Kind, Store};
use ocad_server::registry::verify::verify;
use serde_json::{Map, Value};

fn verdict<T>(found: Read<T>, said: impl FnOnce(T) -> Value) -> Value {
    found.map_or_else(|refusal| Value::from(refusal.kind.name()), said)
}

fn look(store: &dyn Store) -> Read<Map<String, Value>> {
    store.look()?;
    index::open(store)?;
    let mut found = Map::new();
    for entry in store.list("")?.into_iter().filter(|entry| entry.kind == Kind::Folder && entry.name != ".staging") {
        let index = Index::read(Reader { store, keys: None, marks: None }, &entry.name, None)?;
        for (version, listed) in &index.versions {
            let read = match listed {
                Listed::Readable(record) => verify(store, &Verdicts::open(None), record).map(drop),
                Listed::Broken(refusal) => Err(refusal.clone()),
            };
            found.insert(format!("{}@{version}", entry.name), verdict(read, |()| Value::Null));
        }
        if let Some(target) = index.aliases.get(PRODUCTION) {
            let read = target.clone().and_then(|target| index.record(&target));
            found.insert(
                format!("{}@{PRODUCTION}", entry.name),
                verdict(read, |record| record.version.to_string().into()),
            );
        }
    }
    Ok(found)
}

fn main() -> Result<(), Error> {
    for root in stdin().lock().lines() {
        let found = verdict(look(&Folder::new(PathBuf::from(root?), None)), Value::Object);
        writeln!(stdout(), "{found}")?;
        stdout().flush()?;
    }
    Ok(())
}
