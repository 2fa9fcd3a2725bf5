//! What surrounds every request: the token, its ids, and the log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};
use tracing::Level;

use crate::error::{Error, Result};
use crate::infer::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const HEALTH: &str = "/v2/health/";

/// Checks the token, echoes the request id (a failed request without one gets one) and logs what failed (everything at level `debug`).
pub async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let mut id = request.headers().get(REQUEST_ID).cloned();
    let trace = request.headers().get(TRACE_PARENT).cloned();
    let verbose = tracing::enabled!(Level::DEBUG);
    let line = (request.method().clone(), request.uri().clone());
    let mut response = match permit(&app, &request) {
        Ok(()) => next.run(request).await,
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

/// An id that no other request of this process has, nor one of another process, by its start.
fn fresh_id() -> Option<HeaderValue> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static START: LazyLock<u128> =
        LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos()));
    HeaderValue::try_from(format!("{:x}-{:x}", *START, COUNT.fetch_add(1, Ordering::Relaxed))).ok()
}

/// Health is open to all, so that probes need no secret.
fn permit(app: &App, request: &Request) -> Result<()> {
    match &app.token {
        Some(token) if !request.uri().path().starts_with(HEALTH) => {
            token.check(request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes))
        }
        _ => Ok(()),
    }
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
    let (status, seconds, path) = (response.status().as_u16(), started.elapsed().as_secs_f64(), uri.path());
    let (message, cause) = (error.map(ToString::to_string), error.and_then(Error::cause));
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(protocol = "http", %method, path, status, seconds, request_id = text(id), trace_id = trace, parent_id = span, error = message, cause, "request")
        };
    }
    match status {
        // a probe that is told to wait is no fault
        _ if path.starts_with(HEALTH) => write!(debug),
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
