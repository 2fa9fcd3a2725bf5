//! Notices that a registry has changed: at once where the operating system tells, by looking now and then in any case.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something changed, or it is time to look anyway.
    Look,
    /// The server stops.
    Stop,
}

/// Ends the wait of a [`Watch`] from another thread.
#[derive(Debug, Clone)]
pub struct Alarm(Sender<Wake>);

impl Alarm {
    /// Wakes the watch; nothing happens when it has ended.
    pub fn ring(&self, wake: Wake) {
        let _ = self.0.send(wake);
    }
}

/// Watches the folders of a registry whose content matters: not the versions, which never change.
pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// By path, which folder it was: another one may have taken its place.
    watched: HashMap<PathBuf, Identity>,
    events: Receiver<Wake>,
    alarm: Alarm,
    poll: Duration,
}

/// Device and inode of a folder.
type Identity = (u64, u64);

fn identity(folder: &Path) -> Option<Identity> {
    folder.metadata().ok().map(|found| (found.dev(), found.ino()))
}

impl Watch {
    /// A watch that also looks every `poll`, and the alarm that ends its wait.
    #[must_use]
    pub fn new(poll: Duration) -> (Self, Alarm) {
        let (sender, events) = channel();
        let changes = sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // reading a file is an event too, and ours would wake us for ever
            if !matches!(event, Ok(notify::Event { kind: notify::EventKind::Access(_), .. })) {
                let _ = changes.send(Wake::Look);
            }
        });
        let watcher = watcher
            .inspect_err(
                |cause| tracing::warn!(%cause, poll_seconds = poll.as_secs_f64(), "changes are found by polling alone"),
            )
            .ok();
        let alarm = Alarm(sender);
        (Self { watcher, watched: HashMap::new(), events, alarm: alarm.clone(), poll }, alarm)
    }

    /// What wakes this watch.
    #[must_use]
    pub fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Watches exactly `folders`; true when one is new, because what happened in it before must be looked for again.
    pub fn follow(&mut self, folders: HashSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let wanted: HashMap<PathBuf, Identity> = folders
            .into_iter()
            .filter_map(|folder| Some((identity(&folder)?, folder)))
            .map(|(id, path)| (path, id))
            .collect();
        self.watched.retain(|folder, known| {
            let stays = wanted.get(folder) == Some(known);
            if !stays {
                // the folder is gone, and its watch with it, or the watch has gone elsewhere with it
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        let mut news = false;
        for (folder, identity) in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    news = true;
                    self.watched.insert(folder, identity);
                }
                Err(cause) => tracing::debug!(folder = %folder.display(), %cause, "a folder is found by polling alone"),
            }
        }
        news
    }

    /// Waits for a change. Events that come together are taken together: the registry is read again, never counted.
    #[must_use]
    pub fn wait(&self) -> Wake {
        match self.events.recv_timeout(self.poll) {
            Ok(Wake::Look) => {
                if self.events.try_iter().any(|wake| wake == Wake::Stop) {
                    Wake::Stop
                } else {
                    Wake::Look
                }
            }
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => Wake::Stop,
            Err(RecvTimeoutError::Timeout) => Wake::Look,
        }
    }
}
