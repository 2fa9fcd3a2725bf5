//! `POST …/infer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http_body_util::BodyExt;

use super::compress::{self, Encoding};
use super::request::{self, Wanted};
use super::respond::{HEADER_LENGTH, answered, encode};
use crate::budget::Ticket;
use crate::error::{Error, Result};
use crate::infer::{App, Plan, Protocol, Source};
use crate::work;

/// The header by which a client says how many milliseconds it waits.
pub const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// An answer smaller than this is sent as it is: compressing it costs more than it saves.
const SMALLEST_COMPRESSED: usize = 1024;

/// Room made for a body before it comes: what a client claims must not cost memory by itself.
const MOST_ROOM: usize = 1 << 20;
/// A value as JSON takes about so many bytes.
const JSON_VALUE: usize = 12;

/// What a request asks for besides its plan.
struct Told {
    id: Option<String>,
    outputs: Option<Vec<Wanted>>,
    binary: bool,
    timeout: Option<Duration>,
}

/// `POST /v2/models/{name}[/versions/{version}]/infer`
pub async fn respond(State(app): State<Arc<App>>, path: RawPathParams, request: Request) -> Response {
    let part = |wanted| path.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value);
    let name = part("name").unwrap_or_default();
    match infer(&app, name, part("version"), request).await {
        Ok(response) => response,
        Err(error) => {
            app.failed(Protocol::Http, name, &error);
            error.into_response()
        }
    }
}

async fn infer(app: &App, name: &str, selector: Option<&str>, request: Request) -> Result<Response> {
    let arrived = Instant::now();
    let source = app.source(name, selector).await?;
    source.admit()?;
    let ticket = ticket(&request)?;
    let (head, body) = request.into_parts();
    let waited = header_number(&head.headers, TIMEOUT_HEADER)?;
    let header = header_number(&head.headers, HEADER_LENGTH.as_str())?;
    let body = receive(&ticket, &head.headers, body, app.limits.body, app.limits.read).await?;
    let counted = Arc::clone(&ticket);
    let (source, plan, told) = work::run(body.len(), move || read(source, body, header, &counted)).await?;
    let patience = [waited.map(|milliseconds| Duration::from_millis(milliseconds as u64)), told.timeout];
    let patience = patience.into_iter().flatten().fold(app.limits.answer, Duration::min);
    let answer = app.infer(source, plan, arrived + patience, (Protocol::Http, arrived)).await?;
    let values: usize = answer.outputs.iter().map(|(_, tensor)| tensor.data.len()).sum();
    ticket.answer(values * JSON_VALUE)?;
    let accepted = head.headers.get(ACCEPT_ENCODING).and_then(|accepted| Encoding::accepted(accepted.as_bytes()));
    let written = move || {
        let (body, header) = encode(&answer, told.id.as_deref(), told.outputs.as_deref(), told.binary);
        compressed(accepted, body, header)
    };
    work::run(values * JSON_VALUE, written).await
}

/// What the surrounding layer counts this request by.
pub fn ticket(request: &Request) -> Result<Arc<Ticket>> {
    let ticket = request.extensions().get::<Arc<Ticket>>().cloned();
    ticket.ok_or_else(|| Error::Internal("a request has no ticket".into()))
}

/// Reads `body` into what `source` is to do; the body is gone then.
fn read(source: Source, body: Bytes, header: Option<usize>, ticket: &Ticket) -> Result<(Source, Result<Plan>, Told)> {
    let (json, binary) = request::split(&body, header)?;
    ticket.take(request::weight(json))?;
    let draft = request::parse(json, binary)?;
    ticket.take(draft.weight())?;
    let asked = draft.finish()?;
    let names: Option<Vec<String>> =
        asked.outputs.as_ref().map(|outputs| outputs.iter().map(|output| output.name.clone()).collect());
    let plan = source.plan(asked.inputs, names.as_deref());
    let timeout = asked.timeout.map(Duration::from_micros);
    let told = Told { id: asked.id, outputs: asked.outputs, binary: asked.binary, timeout };
    let freed = body.len();
    drop(body);
    ticket.give(freed);
    Ok((source, plan, told))
}

/// A header that holds a number.
fn header_number(headers: &HeaderMap, name: &str) -> Result<Option<usize>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Error::Invalid(format!("header `{name}` is no number: send a whole number")))
}

/// The whole body, decompressed, within `limit` bytes and `patience`, counted by `ticket`.
pub async fn receive(
    ticket: &Arc<Ticket>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    patience: Duration,
) -> Result<Bytes> {
    let length = header_number(headers, CONTENT_LENGTH.as_str())?;
    if length.is_some_and(|length| length > limit) {
        return Err(too_large(limit));
    }
    let collected = collect(ticket, body, limit, length.unwrap_or_default());
    let body = tokio::time::timeout(patience, collected).await.map_err(|_| Error::SlowClient)??;
    match headers.get(CONTENT_ENCODING) {
        None => Ok(body),
        Some(encoding) => compress::expand(encoding.as_bytes(), body, limit, ticket).await,
    }
}

fn too_large(limit: usize) -> Error {
    Error::TooLarge(format!("the body is larger than {limit} bytes: send fewer rows a request"))
}

/// The frames of `body` in one piece; one of a single frame is not copied.
async fn collect(ticket: &Ticket, mut body: Body, limit: usize, length: usize) -> Result<Bytes> {
    let cut = |_| Error::Invalid("the body ended before its stated length: send all of it".into());
    let (mut first, mut whole) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(cut)?.into_data() else { continue };
        if first.len() + whole.len() + data.len() > limit {
            return Err(too_large(limit));
        }
        ticket.take(data.len())?;
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        if whole.is_empty() {
            whole.reserve(length.clamp(first.len() + data.len(), MOST_ROOM.max(first.len() + data.len())));
            whole.extend_from_slice(&std::mem::take(&mut first));
        }
        whole.extend_from_slice(&data);
    }
    Ok(if whole.is_empty() { first } else { whole.freeze() })
}

fn compressed(accepted: Option<Encoding>, body: Vec<u8>, header: Option<usize>) -> Result<Response> {
    let Some(encoding) = accepted.filter(|_| body.len() >= SMALLEST_COMPRESSED) else {
        return Ok(answered(body, header));
    };
    let mut response = answered(compress::encode(encoding, &body)?, header);
    response.headers_mut().insert(CONTENT_ENCODING, encoding.name());
    response.headers_mut().insert(VARY, ACCEPT_ENCODING.into());
    Ok(response)
}
