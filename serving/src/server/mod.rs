//! Sockets: accepting, limiting and draining connections.

pub mod bodies;
mod io;
pub mod peer;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metrics::Gauge;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;

use self::bodies::{Received, lend};
use self::io::{Guarded, linger};
use self::peer::Peer;
use crate::budget::{Budget, Seat};
use crate::error::{Error, Result};

/// The most bytes of a request's head.
const HEAD_LIMIT: usize = 32 << 10;
/// The most fields of a request's head.
const FIELD_LIMIT: usize = 64;
/// Requests that one gRPC connection may have open at a time.
const STREAM_LIMIT: u32 = 256;
/// Connections that wait to be accepted; of a burst beyond it, each further one tries again only after a second.
const BACKLOG: u32 = 4096;
/// What a client of HTTP/2 sends first.
const PREFACE: usize = 24;
/// Connections over a limit that are told so at a time; further ones are closed at once.
const REFUSALS: usize = 256;

/// The version of HTTP that a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, for the JSON side.
    Http1,
    /// HTTP/2 without TLS, for gRPC.
    Http2,
}

/// The limits of a socket.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most open connections.
    pub connections: usize,
    /// How long a client may take to greet, to send a head and to take its answer, or may stay silent between requests.
    pub read: Duration,
    /// How long running requests have once the server is told to stop.
    pub drain: Duration,
    /// What the clients' connections and requests may take.
    pub budget: Arc<Budget>,
}

/// What an open connection holds until its socket is closed.
#[derive(Debug)]
struct Held {
    open: Gauge,
    _permit: OwnedSemaphorePermit,
    _seat: Seat,
}

impl Held {
    fn new(open: Gauge, permit: OwnedSemaphorePermit, seat: Seat) -> Self {
        open.increment(1.0);
        Self { open, _permit: permit, _seat: seat }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

/// Opens `address`. Needs a tokio runtime.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // a restarted server must not wait for the connections of the one before
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|cause: std::io::Error| {
        Error::Unavailable(format!("`{address}` cannot be listened on ({cause}): choose another address"))
    })
}

/// Serves `service` on `listener` until `stop` turns true; then lets running requests finish.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    speaks: Speaks,
    limits: Limits,
    open: Gauge,
    mut stop: watch::Receiver<bool>,
) where
    S: Service<Request<Received>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(limits.connections));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(cause) => {
                // out of descriptors: those in use must be given back first
                tracing::warn!(%cause, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let client = limits.budget.client(address.ip());
        let seat = client.seat(usize::from(speaks == Speaks::Http2));
        let Some((permit, seat)) = Arc::clone(&permits).try_acquire_owned().ok().zip(seat) else {
            if let Ok(permit) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(refuse(stream, speaks, permit));
            }
            continue;
        };
        let held = Held::new(open.clone(), permit, seat);
        tokio::spawn(connection((stream, held), service.clone(), speaks, &limits, Peer::new(client), &graceful));
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running when the time to drain was over");
    }
}

/// One connection, to be driven until it ends.
fn connection<S, B>(
    (stream, held): (TcpStream, Held),
    service: S,
    speaks: Speaks,
    limits: &Limits,
    peer: Peer,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<Received>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // small answers must not wait for more; a failure costs only that
    let _ = stream.set_nodelay(true);
    let patience = limits.read;
    let greeting = if speaks == Speaks::Http2 { PREFACE } else { 0 };
    let io = TokioIo::new(Guarded::new(stream, held, patience, greeting));
    let (told, is_first) = (peer.clone(), speaks == Speaks::Http1);
    let service = service_fn(move |request| answer(service.clone(), request, told.clone(), is_first));
    let (first, second) = match speaks {
        Speaks::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(patience)
                .max_buf_size(HEAD_LIMIT)
                .max_headers(FIELD_LIMIT);
            (Some(graceful.watch(builder.serve_connection(io, service))), None)
        }
        Speaks::Http2 => {
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(STREAM_LIMIT)
                .max_header_list_size(u32::try_from(HEAD_LIMIT).unwrap_or(u32::MAX))
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .keep_alive_interval(patience)
                .keep_alive_timeout(patience);
            (None, Some(graceful.watch(builder.serve_connection(io, service))))
        }
    };
    async move {
        let ended = match (first, second) {
            (Some(connection), _) => connection.await,
            (_, Some(connection)) => tokio::select! {
                ended = connection => ended,
                () = pin!(peer.stalls(patience)) => return tracing::debug!("a client does not take its answers"),
            },
            (None, None) => Ok(()),
        };
        if let Err(cause) = ended {
            tracing::debug!(%cause, "a connection ended early");
        }
    }
}

/// The answer of `service`, which is told of the connection.
async fn answer<S, B>(
    mut service: S,
    mut request: Request<Incoming>,
    peer: Peer,
    is_first: bool,
) -> Result<Response<B>, Infallible>
where
    S: Service<Request<Received>, Response = Response<B>, Error = Infallible>,
{
    request.extensions_mut().insert(peer);
    let (request, loan) = if is_first { lend(request) } else { (request.map(Received::Own), None) };
    std::future::poll_fn(|context| service.poll_ready(context)).await?;
    let mut response = service.call(request).await?;
    if let Some(loan) = loan {
        loan.settle(&mut response).await;
    }
    Ok(response)
}

/// Says that there are too many connections, where the protocol has words for it.
async fn refuse(mut stream: TcpStream, speaks: Speaks, permit: OwnedSemaphorePermit) {
    if speaks == Speaks::Http1 {
        let answer: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 59\r\n\r\n{\"error\":\"too many connections are open: try again later.\"}";
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer)).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), linger(stream, permit)).await;
    }
}
