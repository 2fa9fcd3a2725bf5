//! What a request is told of the connection that it came by.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::budget::{Budget, Client, Ticket};
use crate::error::Result;

/// The connection of a request.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Connection>);

#[derive(Debug)]
struct Connection {
    client: Arc<Client>,
    /// Answers that are not sent yet, by number, and when the client last took a part of each.
    answers: Mutex<BTreeMap<u64, Instant>>,
    count: AtomicU64,
}

/// An answer that is not sent yet.
#[derive(Debug)]
pub struct Sending {
    peer: Peer,
    number: u64,
}

impl Peer {
    /// A connection of `client`.
    #[must_use]
    pub fn new(client: Arc<Client>) -> Self {
        Self(Arc::new(Connection { client, answers: Mutex::default(), count: AtomicU64::new(0) }))
    }

    /// The connection of a request with these `extensions`; one that came without a socket has one of its own.
    #[must_use]
    pub fn of(extensions: &http::Extensions, budget: &Arc<Budget>) -> Self {
        let known = extensions.get::<Self>().cloned();
        known.unwrap_or_else(|| Self::new(budget.client(IpAddr::V4(Ipv4Addr::UNSPECIFIED))))
    }

    /// The ticket of a request with this head.
    pub fn ticket(&self, path: &str, headers: &HeaderMap) -> Result<Arc<Ticket>> {
        let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum();
        self.0.client.ticket(path.len() + fields).map(Arc::new)
    }

    /// Notes that an answer begins to be sent.
    #[must_use]
    pub fn sending(&self) -> Sending {
        let number = self.0.count.fetch_add(1, Ordering::Relaxed);
        self.answers().insert(number, Instant::now());
        Sending { peer: self.clone(), number }
    }

    fn answers(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.0.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once the client has left an answer lying for longer than `patience`. A socket alone cannot tell: over
    /// HTTP/2 a client can stop single answers.
    pub async fn stalls(&self, patience: Duration) {
        loop {
            tokio::time::sleep(patience / 4).await;
            let oldest = self.answers().values().min().copied();
            if oldest.is_some_and(|taken| taken.elapsed() > patience) {
                return;
            }
        }
    }
}

impl Sending {
    /// Notes that the client has taken a part.
    pub fn moved(&self) {
        self.peer.answers().insert(self.number, Instant::now());
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.peer.answers().remove(&self.number);
    }
}
