//! Work on large bodies, kept off the event loop, where it would keep everybody waiting.

use std::sync::{Arc, LazyLock};
use std::thread;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// What is read or written in less than about a millisecond: the way to another thread costs more than it saves.
pub const LARGE: usize = 256 << 10;

/// As many at a time as there are processors: more would only take memory.
static GATE: LazyLock<Arc<Semaphore>> =
    LazyLock::new(|| Arc::new(Semaphore::new(thread::available_parallelism().map_or(1, std::num::NonZero::get))));

/// Does `work`, which is about `size` bytes, here where it is small, else on a thread of its own.
pub async fn run<T: Send + 'static>(size: usize, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    if size < LARGE {
        return work();
    }
    let permit = Arc::clone(&GATE).acquire_owned().await.map_err(|cause| Error::Internal(cause.to_string()))?;
    let done = tokio::task::spawn_blocking(move || {
        // also where the client leaves meanwhile: the thread goes on
        let _permit = permit;
        work()
    });
    done.await.map_err(|cause| Error::Internal(format!("the work on a large body ended early: {cause}")))?
}
