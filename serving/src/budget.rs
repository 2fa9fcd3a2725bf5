//! The bytes of all requests in flight, of the process and of each client, and the connections of each client.
//!
//! A request's ticket counts what it holds from its head to the last byte of its answer: received, decompressed,
//! decoded, queued, being sent. What does not fit is refused instead of allocated.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::{Error, Result};

/// What a request takes besides its texts and values: its task, its head's table, its place in the queue.
const BASE: usize = 4096;

/// The most of everything.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The bytes of all requests in flight.
    pub total: usize,
    /// Those of one client's.
    pub client: usize,
    /// The open connections of one client, each of HTTP and gRPC.
    pub connections: usize,
}

/// What all requests hold together.
#[derive(Debug)]
pub struct Budget {
    bounds: Bounds,
    used: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, Weak<Client>>>,
}

/// A client address and what its requests hold.
#[derive(Debug)]
pub struct Client {
    address: IpAddr,
    budget: Arc<Budget>,
    used: AtomicUsize,
    connections: [AtomicUsize; 2],
}

/// One open connection of a client.
#[derive(Debug)]
pub struct Seat(Arc<Client>, usize);

/// What one request holds; given back when the last copy of it is dropped.
#[derive(Debug)]
pub struct Ticket {
    client: Arc<Client>,
    held: AtomicUsize,
}

impl Budget {
    /// Nothing in flight.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, used: AtomicUsize::new(0), clients: Mutex::default() })
    }

    /// The bytes in flight.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The client at `address`; an IPv6 client has a whole network of them.
    #[must_use]
    pub fn client(self: &Arc<Self>, address: IpAddr) -> Arc<Client> {
        let address = match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            address @ IpAddr::V4(_) => address,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&address).and_then(Weak::upgrade) {
            return client;
        }
        let client = Arc::new(Client {
            address,
            budget: Arc::clone(self),
            used: AtomicUsize::new(0),
            connections: [AtomicUsize::new(0), AtomicUsize::new(0)],
        });
        clients.insert(address, Arc::downgrade(&client));
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut clients = self.budget.clients.lock().unwrap_or_else(PoisonError::into_inner);
        // the same client may have come back meanwhile
        if clients.get(&self.address).is_some_and(|client| client.strong_count() == 0) {
            clients.remove(&self.address);
        }
    }
}

impl Client {
    /// A further connection to the socket of that number; `None` when it has too many.
    #[must_use]
    pub fn seat(self: &Arc<Self>, socket: usize) -> Option<Seat> {
        let open = self.connections.get(socket)?;
        add(open, 1, self.budget.bounds.connections).then(|| Seat(Arc::clone(self), socket))
    }

    /// The ticket of a request whose head has `head` bytes.
    pub fn ticket(self: &Arc<Self>, head: usize) -> Result<Ticket> {
        let ticket = Ticket { client: Arc::clone(self), held: AtomicUsize::new(0) };
        ticket.take(BASE + head)?;
        Ok(ticket)
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let bounds = &self.budget.bounds;
        if !add(&self.used, bytes, bounds.client) {
            return Err(Error::Overloaded(format!(
                "the requests of this client hold {} of {} bytes already: try again later",
                self.used.load(Ordering::Relaxed),
                bounds.client
            )));
        }
        if !add(&self.budget.used, bytes, bounds.total) {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::Overloaded(format!(
                "the requests in flight hold {} of {} bytes already: try again later",
                self.budget.used(),
                bounds.total
            )));
        }
        Ok(())
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Adds `more` to `count`, unless that exceeds `most`.
fn add(count: &AtomicUsize, more: usize, most: usize) -> bool {
    let fits = count.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= most;
    if !fits {
        count.fetch_sub(more, Ordering::Relaxed);
    }
    fits
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(open) = self.0.connections.get(self.1) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Ticket {
    /// Counts `bytes` more, before they are allocated.
    pub fn take(&self, bytes: usize) -> Result<()> {
        let (bounds, wanted) = (&self.client.budget.bounds, self.held().saturating_add(bytes));
        let most = bounds.client.min(bounds.total);
        if wanted > most {
            return Err(Error::TooLarge(format!(
                "this request takes {wanted} bytes of memory, and at most {most} are given: send fewer rows a request"
            )));
        }
        self.client.take(bytes)?;
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// The bytes counted now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Gives back `bytes` that are freed.
    pub fn give(&self, bytes: usize) {
        let before = self.held.load(Ordering::Relaxed);
        let bytes = bytes.min(before);
        self.held.store(before - bytes, Ordering::Relaxed);
        self.client.give(bytes);
    }

    /// Counts an answer of `bytes` bytes, which is all that is left of the request.
    pub fn answer(&self, bytes: usize) -> Result<()> {
        let (held, wanted) = (self.held.load(Ordering::Relaxed), BASE + bytes);
        if wanted <= held {
            self.give(held - wanted);
            return Ok(());
        }
        self.take(wanted - held)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.client.give(*self.held.get_mut());
    }
}
