//! What surrounds every request: the token, its ids, and the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue};
use tracing::Level;

use crate::error::{Error, Result};
use crate::infer::App;
use crate::server::bodies::Billed;
use crate::server::peer::Peer;
use crate::text::shown;

/// The most bytes of a client's request id that are echoed and logged.
const MOST_ID: usize = 256;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const HEALTH: &str = "/v2/health/";

/// Checks the token, counts what the request takes, echoes the request id (a failed request without one gets one) and
/// logs what failed (everything at level `debug`).
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut id = request.headers().get(REQUEST_ID).map(cut);
    let trace = request.headers().get(TRACE_PARENT).cloned();
    let verbose = tracing::enabled!(Level::DEBUG);
    let line = (request.method().clone(), request.uri().clone());
    let mut response = match permit(&app, &request) {
        // probes are answered whatever else goes on
        Ok(()) if is_probe(request.uri().path()) => next.run(request).await,
        Ok(()) => counted(&app, request, next).await.unwrap_or_else(IntoResponse::into_response),
        Err(error) => error.into_response(),
    };
    let status = response.status();
    if verbose || status.is_client_error() || status.is_server_error() {
        id = id.or_else(fresh_id);
        let error = response.extensions_mut().remove::<Error>();
        log(&line, id.as_ref(), trace.as_ref(), &response, error.as_ref(), started);
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// The answer, counted with the memory that the request takes until it is sent.
async fn counted(app: &App, mut request: Request, next: Next) -> Result<Response> {
    let peer = Peer::of(request.extensions(), &app.budget);
    let ticket = peer.ticket(request.uri().path(), request.headers())?;
    request.extensions_mut().insert(Arc::clone(&ticket));
    let response = next.run(request).await;
    let size = response.body().size_hint().exact().and_then(|size| usize::try_from(size).ok());
    ticket.answer(size.unwrap_or_default())?;
    Ok(response.map(|body| Body::new(Billed { body, ticket })))
}

/// A client's id, short enough to be repeated.
fn cut(id: &HeaderValue) -> HeaderValue {
    let short = id.as_bytes().get(..MOST_ID).and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
    short.unwrap_or_else(|| id.clone())
}

fn is_probe(path: &str) -> bool {
    path.starts_with(HEALTH)
}

/// An id that no other request of this process has, nor one of another process, by its start.
fn fresh_id() -> Option<HeaderValue> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: LazyLock<u128> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos()));
    HeaderValue::try_from(format!("{:x}-{:x}", *START, COUNT.fetch_add(1, Ordering::Relaxed))).ok()
}

/// Whether the request may go on: its path and host mean one thing, and it has the token. Health is open to all, so
/// that probes need no secret.
fn permit(app: &App, request: &Request) -> Result<()> {
    let path = request.uri().path();
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(Error::Invalid("there are two `Host` headers: send one".into()));
    }
    if !is_text(path) {
        return Err(Error::Invalid(format!("the path `{}` is not valid UTF-8 when decoded: send text", shown(path))));
    }
    match &app.token {
        Some(token) if !is_probe(path) => token.check(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes)),
        _ => Ok(()),
    }
}

/// Whether `path` is UTF-8 once its `%xx` are bytes.
fn is_text(path: &str) -> bool {
    if !path.contains('%') {
        return true;
    }
    let (mut decoded, mut rest) = (Vec::with_capacity(path.len()), path.as_bytes());
    while let Some((byte, after)) = rest.split_first() {
        let code = after.first_chunk::<2>().filter(|_| *byte == b'%').and_then(|digits| {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some((digit(digits[0])? << 4) | digit(digits[1])?)
        });
        decoded.push(code.unwrap_or(*byte));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    std::str::from_utf8(&decoded).is_ok()
}

fn log(
    (method, uri): &(http::Method, http::Uri),
    id: Option<&HeaderValue>,
    trace: Option<&HeaderValue>,
    response: &Response,
    error: Option<&Error>,
    started: Instant,
) {
    let text = |value: Option<&HeaderValue>| value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let trace = text(trace);
    let (trace, span) = trace_ids(&trace);
    let (status, seconds, path) = (response.status().as_u16(), started.elapsed().as_secs_f64(), shown(uri.path()));
    let (method, path) = (shown(method.as_str()), &*path);
    let (message, cause) = (error.map(Error::line), error.and_then(Error::cause));
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(
                protocol = "http",
                method = &*method,
                path,
                status,
                seconds,
                request_id = text(id),
                trace_id = trace,
                parent_id = span,
                error = message,
                cause,
                "request"
            )
        };
    }
    match status {
        // a probe that is told to wait is no fault
        _ if is_probe(path) => write!(debug),
        500 => write!(error),
        501.. => write!(warn),
        400.. => write!(info),
        _ => write!(debug),
    }
}

/// The trace and parent ids of a W3C `traceparent`; empty where it is none.
#[must_use]
pub fn trace_ids(header: &str) -> (&str, &str) {
    let mut parts = header.trim().split('-');
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(version), Some(trace), Some(parent), Some(flags))
            if is_hex(version, 2) && is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2) =>
        {
            (trace, parent)
        }
        _ => ("", ""),
    }
}
