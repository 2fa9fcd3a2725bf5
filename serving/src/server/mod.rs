//! Sockets: accepting, limiting and draining connections.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::Gauge;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::Service;

use crate::error::{Error, Result};

/// The most bytes of a request's head.
const HEAD_LIMIT: usize = 32 << 10;
/// The most fields of a request's head.
const FIELD_LIMIT: usize = 64;
/// Requests that one gRPC connection may have open at a time.
const STREAM_LIMIT: u32 = 1024;
/// Connections that wait to be accepted; of a burst beyond it, each further one tries again only after a second.
const BACKLOG: u32 = 4096;

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
    /// How long a client may take to send a head, or may stay silent between requests.
    pub read: Duration,
    /// How long running requests have once the server is told to stop.
    pub drain: Duration,
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
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let permits = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(cause) => {
                // out of descriptors: those in use must be given back first
                tracing::warn!(%cause, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            tokio::spawn(refuse(stream, speaks));
            continue;
        };
        let connection = connection(stream, service.clone(), speaks, &limits, &graceful);
        let open = open.clone();
        tokio::spawn(async move {
            open.increment(1.0);
            connection.await;
            open.decrement(1.0);
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still running when the time to drain was over");
    }
}

/// One connection, to be driven until it ends.
fn connection<S, B>(
    stream: TcpStream,
    service: S,
    speaks: Speaks,
    limits: &Limits,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // small answers must not wait for more; a failure costs only that
    let _ = stream.set_nodelay(true);
    let (io, service) = (TokioIo::new(stream), TowerToHyperService::new(service));
    let (first, second) = match speaks {
        Speaks::Http1 => {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limits.read)
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
                .keep_alive_interval(limits.read)
                .keep_alive_timeout(limits.read);
            (None, Some(graceful.watch(builder.serve_connection(io, service))))
        }
    };
    async move {
        let ended = match (first, second) {
            (Some(connection), _) => connection.await,
            (_, Some(connection)) => connection.await,
            (None, None) => Ok(()),
        };
        if let Err(cause) = ended {
            tracing::debug!(%cause, "a connection ended early");
        }
    }
}

/// Says that there are too many connections, where the protocol has words for it.
async fn refuse(mut stream: TcpStream, speaks: Speaks) {
    if speaks == Speaks::Http1 {
        let answer: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 59\r\n\r\n{\"error\":\"too many connections are open: try again later.\"}";
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer)).await;
        let _ = stream.shutdown().await;
    }
}
