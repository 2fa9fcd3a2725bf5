//! Connections: heads that never end, bodies that stop, too many of them, and the end of the server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ocad_server::infer::App;
use ocad_server::server::{Limits, Speaks, bind, serve};
use support::{Draft, Registry, rows};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn start(app: &Arc<App>, connections: usize, read: Duration) -> Running {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let limits = Limits { connections, read, drain: Duration::from_secs(20) };
    let open = app.metrics.http_connections.clone();
    let task =
        tokio::spawn(serve(listener, ocad_server::http::app(Arc::clone(app)), Speaks::Http1, limits, open, stopped));
    Running { address, stop, task }
}

fn request(length: usize, body: &str) -> String {
    format!("POST /v2/models/scaled/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// Everything until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes))
        .await
        .expect("the connection stays open")
        .unwrap();
    String::from_utf8(bytes).unwrap()
}

fn registry() -> Registry {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    registry
}

#[tokio::test]
async fn slow_clients_are_cut_off() {
    let registry = registry();
    let app = registry.serve(&["--read-timeout", "0.2"]);
    let server = start(&app, 8, Duration::from_millis(200));
    let mut head = TcpStream::connect(server.address).await.unwrap();
    head.write_all(b"POST /v2/models/scaled/infer HTTP/1.1\r\nho").await.unwrap();
    assert!(!rest(&mut head).await.contains("200 OK"), "a head that never ends");
    let mut body = TcpStream::connect(server.address).await.unwrap();
    body.write_all(request(1000, "{\"inputs\"").as_bytes()).await.unwrap();
    assert!(rest(&mut body).await.starts_with("HTTP/1.1 408"), "a body that stops");
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let registry = registry();
    let app = registry.serve(&[]);
    let server = start(&app, 8, Duration::from_secs(20));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("GET /v2 HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    // closing a socket with unread bytes resets it, which may overtake the answer
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer))
        .await
        .expect("the connection stays open");
    assert!(read.is_err() || &answer == b"HTTP/1.1 431", "{answer:?}");
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let registry = registry();
    let app = registry.serve(&[]);
    let server = start(&app, 2, Duration::from_secs(20));
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut start = [0; 15];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        kept.push(stream);
    }
    let answer = rest(&mut TcpStream::connect(server.address).await.unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
}

#[tokio::test]
async fn a_server_told_to_stop_answers_what_it_has() {
    let registry = registry();
    let app = registry.serve(&[]);
    let server = start(&app, 8, Duration::from_secs(20));
    let body = rows(&[1.0, 2.0, 3.0]).to_string();
    let (first, second) = body.split_at(20);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(request(body.len(), first).as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut seen = [0; 15];
    idle.read_exact(&mut seen).await.unwrap();
    server.stop.send(true).unwrap();
    assert!(!rest(&mut idle).await.is_empty(), "an idle connection is closed at once");
    stream.write_all(second.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.contains("[2.0,4.0,6.0]"), "a request under way is answered");
    server.task.await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}
