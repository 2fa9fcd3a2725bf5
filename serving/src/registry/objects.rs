//! A registry in an object store: listed as a whole at each look, its documents read once for each `ETag`, its payload
//! through the local read cache.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::{Builder, Runtime};

use super::cache::Cache;
use super::digest::Verdicts;
use super::index::Record;
use super::manifest::{DOCUMENT_LIMIT, FileEntry, METADATA_LIMIT};
use super::names;
use super::refusal::{Kind as Verdict, Read, Refusal};
use super::remote::{Place, explained};
use super::store::{Documents, Kind, Listed, Payload, Store, confirm_size, oversized};
use crate::error::{Error, Result};

/// A file is fetched in pieces of this size, so that a cut connection costs one of them.
const CHUNK: u64 = 8 << 20;
/// How often a piece is asked for whose transfer was cut.
const ATTEMPTS: u32 = 3;
/// Requests under way at a time.
const REQUESTS: usize = 32;

/// What lay in the store when it was looked at.
#[derive(Default)]
struct View {
    folders: HashMap<String, Vec<Listed>>,
    tags: HashMap<String, String>,
}

/// A registry in an object store.
pub struct Objects {
    place: Place,
    cache: Cache,
    /// Whether signatures are required: they are listed then, and the cache must be this user's alone.
    signed: bool,
    runtime: Option<Runtime>,
    view: RwLock<Arc<View>>,
    /// Documents with the tag that they had, by path.
    documents: Mutex<HashMap<String, (String, Vec<u8>)>>,
    /// Objects that are not what was published, with the tag that they had: they are not fetched at each look.
    damaged: Mutex<HashMap<String, (Option<String>, Refusal)>>,
}

impl Objects {
    /// The registry at `place`, whose payload is kept in `cache`, and whose signatures are looked at where it is to be
    /// `signed`. Nothing is requested yet.
    pub fn new(place: Place, cache: Cache, signed: bool) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build();
        let runtime = runtime.map_err(|cause| Error::Internal(format!("a thread cannot be started: {cause}")))?;
        let (view, documents, damaged) = (RwLock::default(), Mutex::default(), Mutex::default());
        Ok(Self { place, cache, signed, runtime: Some(runtime), view, documents, damaged })
    }

    /// Waits for `future` on this thread.
    fn wait<T>(&self, future: impl Future<Output = T>) -> Read<T> {
        let runtime = self.runtime.as_ref();
        let runtime = runtime.ok_or_else(|| Refusal::new(Verdict::Unreachable, "the server is stopping"))?;
        Ok(runtime.block_on(future))
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn key(&self, path: &str) -> Key {
        path.split('/').filter(|part| !part.is_empty()).fold(self.place.root.clone(), Key::join)
    }

    /// Lists the root, the models, their aliases and tombstones.
    async fn all(&self) -> object_store::Result<View> {
        let mut view = View::default();
        let root = self.children("", &mut view).await?;
        let models = root.iter().filter(|entry| entry.kind == Kind::Folder && names::is_model(&entry.name));
        let listed = models.map(|entry| self.model(&entry.name));
        let listed: Vec<View> = stream::iter(listed).buffer_unordered(REQUESTS).try_collect().await?;
        for model in listed {
            view.folders.extend(model.folders);
            view.tags.extend(model.tags);
        }
        Ok(view)
    }

    /// Lists a model, in the order in which it must be seen: tombstones, aliases, versions.
    async fn model(&self, name: &str) -> object_store::Result<View> {
        let mut view = View::default();
        self.children(&format!("{name}/deleted"), &mut view).await?;
        let aliases = format!("{name}/aliases");
        for entry in self.children(&aliases, &mut view).await? {
            if entry.kind == Kind::Folder && names::is_alias(&entry.name) {
                self.children(&format!("{aliases}/{}", entry.name), &mut view).await?;
            }
        }
        self.children(name, &mut view).await?;
        if self.signed {
            let signatures = self.place.store.list(Some(&self.key(&format!("{name}/signatures"))));
            for object in signatures.try_collect::<Vec<_>>().await? {
                let path = object.location.prefix_match(&self.place.root);
                let path = path.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
                view.tags.extend(path.zip(object.e_tag));
            }
        }
        Ok(view)
    }

    /// Lists what lies directly in `folder` and adds it to `view`.
    async fn children(&self, folder: &str, view: &mut View) -> object_store::Result<Vec<Listed>> {
        let place = self.key(folder);
        let found = self.place.store.list_with_delimiter(Some(&place)).await?;
        let name = |key: &Key| key.prefix_match(&place)?.next().map(|part| part.as_ref().to_owned());
        let listed = |kind: Kind| move |name: String| (name, kind);
        let folders = found.common_prefixes.iter().filter_map(name).map(listed(Kind::Folder));
        let files = found.objects.iter().filter_map(|object| name(&object.location)).map(listed(Kind::File));
        // where a name is both, it is a file, as it is for the Python side
        let kinds: BTreeMap<String, Kind> = folders.chain(files).collect();
        let listed: Vec<Listed> = kinds.into_iter().map(|(name, kind)| Listed { name, kind }).collect();
        for object in &found.objects {
            if let (Some(name), Some(tag)) = (name(&object.location), object.e_tag.clone()) {
                view.tags.insert(joined(folder, &name), tag);
            }
        }
        view.folders.insert(folder.to_owned(), listed.clone());
        Ok(listed)
    }

    /// The whole of the object at `path`, if it has at most `limit` bytes.
    async fn document(&self, path: &str, limit: u64) -> Read<Vec<u8>> {
        let found = self.place.store.get(&self.key(path)).await.map_err(|cause| self.refusal(&cause))?;
        if found.meta.size > limit {
            return Err(oversized(limit));
        }
        Ok(found.bytes().await.map_err(|cause| self.refusal(&cause))?.into())
    }

    /// What a failed request means: only of an absent object something is known.
    fn refusal(&self, cause: &object_store::Error) -> Refusal {
        match cause {
            object_store::Error::NotFound { .. } => Refusal::new(Verdict::MissingFile, "it is missing"),
            _ => self.unreachable(cause),
        }
    }

    fn unreachable(&self, cause: &object_store::Error) -> Refusal {
        Refusal::new(Verdict::Unreachable, format!("`{}`: {}", self.place.url, explained(cause)))
    }

    /// Writes the object at `path` to `part`, if it has the size that `file` lists; answers its tag.
    fn download(&self, path: &str, file: &FileEntry, part: &Path) -> Read<Option<String>> {
        let key = self.key(path);
        let kept = |cause: io::Error| self.cache.failed(&cause);
        let mut stream = File::create(part).map_err(kept)?;
        let mut start = 0;
        loop {
            let (chunk, object) = self.piece(&key, start, file)?;
            confirm_size(file, object.size)?;
            stream.write_all(&chunk).map_err(kept)?;
            start += CHUNK;
            if start >= file.size {
                return Ok(object.e_tag);
            }
        }
    }

    /// The bytes of the object from `start` on, at most a chunk, and what is known of the whole; no bytes if its size
    /// is not the listed one.
    fn piece(&self, key: &Key, start: u64, file: &FileEntry) -> Read<(Bytes, ObjectMeta)> {
        // a small object is asked for as a whole: an empty one has no range
        let range = (file.size > CHUNK).then(|| GetRange::Bounded(start..(start + CHUNK).min(file.size)));
        let ask = || async {
            let found = self.place.store.get_opts(key, GetOptions { range: range.clone(), ..GetOptions::default() });
            let found = found.await?;
            let object = found.meta.clone();
            let chunk = if object.size == file.size { found.bytes().await? } else { Bytes::new() };
            Ok((chunk, object))
        };
        let piece = self.wait(async {
            for attempt in 1..ATTEMPTS {
                match ask().await {
                    Err(object_store::Error::Generic { .. }) => {
                        tokio::time::sleep(Duration::from_millis(100) * 2_u32.pow(attempt)).await;
                    }
                    other => return other,
                }
            }
            ask().await
        })?;
        piece.map_err(|cause| match self.refusal(&cause) {
            Refusal { kind: Verdict::MissingFile, .. } => {
                Refusal::new(Verdict::MissingFile, format!("`{}` is missing", file.path))
            }
            refusal => refusal,
        })
    }

    /// Refuses the object at `path` if it was found damaged before and has not changed.
    fn known_damage(&self, path: &str) -> Read<()> {
        let Some((tag, refusal)) = locked(&self.damaged).get(path).cloned() else { return Ok(()) };
        let key = self.key(path);
        let found = self.wait(self.place.store.head(&key))?.map_err(|cause| self.refusal(&cause))?;
        if found.e_tag == tag { Err(refusal) } else { Ok(()) }
    }
}

fn joined(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for Objects {
    fn look(&self) -> Read<()> {
        let view = self.wait(self.all())?.map_err(|cause| self.unreachable(&cause))?;
        let mut documents = locked(&self.documents);
        documents.retain(|path, (tag, _)| view.tags.get(path) == Some(tag));
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
        Ok(())
    }

    fn list(&self, folder: &str) -> Read<Vec<Listed>> {
        Ok(self.view().folders.get(folder).cloned().unwrap_or_default())
    }

    fn kind(&self, path: &str) -> io::Result<Option<Kind>> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let view = self.view();
        let kind = view.folders.get(folder).and_then(|listed| {
            let place = listed.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
            Some(listed[place].kind)
        });
        Ok(kind)
    }

    fn read(&self, path: &str, limit: u64) -> Read<Vec<u8>> {
        let tag = self.view().tags.get(path).cloned();
        let known = || locked(&self.documents);
        if let Some((_, bytes)) = known().get(path).filter(|(seen, _)| Some(seen) == tag.as_ref()) {
            return Ok(bytes.clone());
        }
        let bytes = self.wait(self.document(path, limit))??;
        if let Some(tag) = tag {
            known().insert(path.to_owned(), (tag, bytes.clone()));
        }
        Ok(bytes)
    }

    fn documents(&self, folder: &str) -> Documents {
        let (metadata, stated) = (format!("{folder}/metadata.json"), format!("{folder}/metadata.sha256"));
        let both = async {
            let metadata = self.document(&metadata, METADATA_LIMIT);
            futures_util::future::join(metadata, self.document(&stated, DOCUMENT_LIMIT)).await
        };
        match self.wait(both) {
            Ok((metadata, stated)) => Documents { metadata, stated },
            Err(refusal) => Documents { metadata: Err(refusal.clone()), stated: Err(refusal) },
        }
    }

    fn readers(&self, count: usize) -> usize {
        // they wait, mostly
        count.min(REQUESTS)
    }

    fn hold(&self, record: &Record) -> Read<Option<File>> {
        if self.signed {
            return self.cache.hold_private(&record.digest).map(Some);
        }
        self.cache.hold(&record.digest).map(Some).map_err(|cause| self.cache.failed(&cause))
    }

    fn payload(&self, record: &Record, file: &FileEntry, _copied: bool, verdicts: &Verdicts) -> Read<Payload> {
        let (owner, path) = (&record.digest, &format!("{}/{}", record.folder, file.path));
        let mut tag = None;
        let fetched = self.cache.payload(owner, file, verdicts, |part| {
            self.known_damage(path)?;
            tag = Some(self.download(path, file, part)?);
            Ok(())
        });
        if let (Err(refusal), Some(tag)) = (&fetched, tag)
            && refusal.kind == Verdict::Digest
        {
            locked(&self.damaged).insert(path.to_owned(), (tag, refusal.clone()));
        }
        fetched
    }

    fn watchable(&self) -> Option<&Path> {
        None
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // the last owner may be a task of another runtime, in which one must not wait for this one
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
