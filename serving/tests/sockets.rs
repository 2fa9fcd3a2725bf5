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
    let budget = Arc::clone(&app.budget);
    let limits = Limits { connections, read, drain: Duration::from_secs(20), budget };
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

#[tokio::test]
async fn an_answer_before_the_body_reaches_its_client() {
    let registry = registry();
    let token = registry.0.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let open = registry.serve(&["--max-body-mb", "1"]);
    let locked = registry.serve(&["--token-file", token.to_str().unwrap()]);
    let body = vec![b' '; 10 << 20];
    for (app, path, status) in [
        (&open, "/v2/models/nothing/infer", "404"),
        (&open, "/v2/nowhere", "404"),
        (&open, "/v2/models/scaled/ready", "405"),
        (&open, "/v2/models/scaled/infer", "413"),
        (&open, "/v2/repository/index", "413"),
        (&locked, "/v2/models/scaled/infer", "401"),
    ] {
        let server = start(app, 8, Duration::from_secs(20));
        for _ in 0..5 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&body).await.expect("the server reads on");
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
            assert!(answer.contains("connection: close") && answer.contains("{\"error\":"), "{path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_small_body_that_nobody_reads_keeps_its_connection() {
    let registry = registry();
    let server = start(&registry.serve(&[]), 8, Duration::from_secs(20));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..3 {
        let body = rows(&[1.0, 2.0, 3.0]).to_string();
        let head =
            format!("POST /v2/models/nothing/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("connection: close"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_is_not_asked_in_vain() {
    let registry = registry();
    let server = start(&registry.serve(&[]), 8, Duration::from_secs(20));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v2/models/nothing/infer HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
}
