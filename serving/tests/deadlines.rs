//! Clients that keep a connection and do nothing with it, on both ports: each is cut off, and what it held is free.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use ocad_server::infer::App;
use ocad_server::server::{Limits, Speaks, bind, serve};
use support::{Draft, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;

/// What the servers of these tests have patience for.
const PATIENCE: Duration = Duration::from_millis(300);
/// What the tests wait at most.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    address: SocketAddr,
    app: Arc<App>,
    _registry: Registry,
    _stop: watch::Sender<bool>,
}

fn start(speaks: Speaks) -> Running {
    start_with(speaks, PATIENCE, &[])
}

fn start_with(speaks: Speaks, patience: Duration, flags: &[&str]) -> Running {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let seconds = patience.as_secs_f64().to_string();
    let app = registry.serve(&[&["--read-timeout", &seconds], flags].concat());
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    let budget = Arc::clone(&app.budget);
    let limits = Limits { connections: 64, read: patience, drain: LONG, budget };
    let (shared, open) = (Arc::clone(&app), app.metrics.http_connections.clone());
    match speaks {
        Speaks::Http1 => tokio::spawn(serve(listener, ocad_server::http::app(shared), speaks, limits, open, stopped)),
        Speaks::Http2 => {
            tokio::spawn(serve(listener, ocad_server::grpc::service(shared), speaks, limits, open, stopped))
        }
    };
    Running { address, app, _registry: registry, _stop: stop }
}

/// Reads until the server closes the connection, and answers how much came.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> usize {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await;
    // a reset is an end too
    let _ = read.expect("the connection stays open");
    bytes.len()
}

#[tokio::test]
async fn a_client_that_does_not_greet_is_cut_off() {
    let server = start(Speaks::Http2);
    for sent in [&b""[..], b"PRI * HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        closed(&mut stream).await;
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // settings, and a head that never ends
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82")
        .await
        .unwrap();
    closed(&mut stream).await;
}

/// Waits until nothing is held.
async fn free(app: &App) {
    let freed = async {
        while app.budget.used() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, freed).await.expect("something is kept");
}

/// A connection of HTTP/2; `window` is how much of an answer may come unasked.
async fn connect(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn call(method: &str) -> Request<()> {
    let uri = format!("http://a/inference.GRPCInferenceService/{method}");
    Request::post(uri).header("content-type", "application/grpc").body(()).unwrap()
}

fn code<T>(response: &Response<T>) -> &str {
    response.headers().get("grpc-status").map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_message_that_never_ends_is_given_up() {
    let server = start(Speaks::Http2);
    let mut client = connect(server.address, 65_535).await;
    let mut calls = Vec::new();
    for _ in 0..48 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(call("ModelInfer"), false).unwrap();
        body.send_data(Bytes::from_static(&[0, 0, 0xff, 0, 0, 1, 2, 3]), false).unwrap();
        calls.push((answer, body));
    }
    for (answer, _body) in calls {
        let answer = tokio::time::timeout(LONG, answer).await.expect("the call stays open").unwrap();
        assert_eq!(code(&answer), "4", "DEADLINE_EXCEEDED");
    }
    assert_eq!(server.app.budget.used(), 0);
}

#[tokio::test]
async fn unfinished_messages_stay_within_the_budget() {
    let server = start_with(Speaks::Http2, LONG, &["--client-memory-mb", "8"]);
    let mut client = connect(server.address, 65_535).await;
    let mut calls = Vec::new();
    let part = [&[0, 0, 0x40, 0, 0][..], &vec![0; 2 << 20]].concat();
    for _ in 0..12 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(call("ModelInfer"), false).unwrap();
        // 4 MiB are promised, 2 come
        body.send_data(part.clone().into(), false).unwrap();
        calls.push((answer, body));
    }
    let refused = futures_util::future::select_all(calls.iter_mut().map(|(answer, _)| answer));
    let (answer, ..) = tokio::time::timeout(LONG, refused).await.expect("all of it is kept");
    assert_eq!(code(&answer.unwrap()), "8", "RESOURCE_EXHAUSTED");
    assert!(server.app.budget.used() <= 8 << 20);
    drop(calls);
    free(&server.app).await;
}

#[tokio::test]
async fn a_client_that_stops_its_answers_is_cut_off() {
    let server = start(Speaks::Http2);
    let mut client = connect(server.address, 0).await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(call("RepositoryIndex"), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        answers.push(tokio::time::timeout(LONG, answer).await.unwrap().unwrap());
    }
    assert!(server.app.budget.used() > 0, "answers wait to be sent");
    // it answers pings all the while
    let last = tokio::time::timeout(LONG, answers.remove(0).into_body().data()).await.expect("it is kept");
    assert!(last.is_none_or(|data| data.is_err()), "the connection ends");
    free(&server.app).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut_off() {
    let server = start(Speaks::Http1);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    let asked = "GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
    let asking = tokio::time::timeout(LONG, async {
        // it asks on until the server has had enough
        while stream.write_all(asked.as_bytes()).await.is_ok() {}
    });
    asking.await.expect("the server goes on for ever");
    free(&server.app).await;
}

#[tokio::test]
async fn every_body_has_a_deadline() {
    let server = start(Speaks::Http1);
    for path in ["/v2/repository/index", "/v2/models/scaled/infer", "/v2/models/scaled/versions/1.0.0/infer"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{{");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await.expect("it stays open").unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("connection: close"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_client_has_so_many_connections() {
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let server = start_with(speaks, LONG, &["--client-connections", "3"]);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(TcpStream::connect(server.address).await.unwrap());
        }
        let mut fourth = TcpStream::connect(server.address).await.unwrap();
        let told = closed(&mut fourth).await;
        assert_eq!(told > 0, speaks == Speaks::Http1, "HTTP/1 has words for it");
        let other = TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(server.address).await.unwrap();
        let asked: &[u8] = match speaks {
            Speaks::Http1 => b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n",
            Speaks::Http2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        };
        other.write_all(asked).await.unwrap();
        let mut answer = [0; 9];
        tokio::time::timeout(LONG, other.read_exact(&mut answer)).await.unwrap().expect("another client is served");
    }
}
