//! `POST …/infer`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http_body_util::{BodyExt, Limited};

use super::compress::{self, Encoding};
use super::request;
use super::respond::{HEADER_LENGTH, answered, encode};
use crate::error::{Error, Result};
use crate::infer::{App, Protocol};

/// The header by which a client says how many milliseconds it waits.
pub const TIMEOUT_HEADER: &str = "x-request-timeout-ms";

/// An answer smaller than this is sent as it is: compressing it costs more than it saves.
const SMALLEST_COMPRESSED: usize = 1024;

/// How long a body that is too large is read on before its answer.
const LINGER: Duration = Duration::from_secs(1);

/// `POST /v2/models/{name}/infer`
pub async fn plain(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    respond(&app, &name, None, request).await
}

/// `POST /v2/models/{name}/versions/{version}/infer`
pub async fn versioned(
    State(app): State<Arc<App>>,
    Path((name, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    respond(&app, &name, Some(&version), request).await
}

async fn respond(app: &App, name: &str, selector: Option<&str>, request: Request) -> Response {
    match infer(app, name, selector, request).await {
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
    let (head, body) = request.into_parts();
    let waited = header_number(&head.headers, TIMEOUT_HEADER)?;
    let header = header_number(&head.headers, HEADER_LENGTH.as_str())?;
    let body = receive(app, &head.headers, body).await?;
    let parsed = request::read(&body, header)?;
    let patience = [
        waited.map(|milliseconds| Duration::from_millis(milliseconds as u64)),
        parsed.timeout.map(Duration::from_micros),
    ];
    let patience = patience.into_iter().flatten().fold(app.limits.answer, Duration::min);
    let names: Option<Vec<String>> =
        parsed.outputs.as_ref().map(|outputs| outputs.iter().map(|output| output.name.clone()).collect());
    let answer =
        app.infer(source, parsed.inputs, names.as_deref(), arrived + patience, (Protocol::Http, arrived)).await?;
    let (body, header) = encode(&answer, parsed.id.as_deref(), parsed.outputs.as_deref(), parsed.binary);
    compressed(&head.headers, body, header)
}

/// A header that holds a number.
fn header_number(headers: &HeaderMap, name: &str) -> Result<Option<usize>> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Error::Invalid(format!("header `{name}` is no number: send a whole number")))
}

/// The whole body, decompressed, within the limits of size and time.
pub async fn receive(app: &App, headers: &HeaderMap, mut body: Body) -> Result<Bytes> {
    let limit = app.limits.body;
    let too_large = || Error::TooLarge(format!("the body is larger than {limit} bytes: send fewer rows a request"));
    if header_number(headers, CONTENT_LENGTH.as_str())?.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let received = tokio::time::timeout(app.limits.read, Limited::new(&mut body, limit).collect()).await;
    let body = match received.map_err(|_| Error::SlowClient)? {
        Ok(body) => body,
        Err(cause) if cause.is::<http_body_util::LengthLimitError>() => {
            let _ = tokio::time::timeout(LINGER, discard(body, limit)).await;
            return Err(too_large());
        }
        Err(_) => return Err(Error::Invalid("the body ended before its stated length: send all of it".into())),
    };
    match headers.get(CONTENT_ENCODING) {
        None => Ok(body.to_bytes()),
        Some(encoding) => compress::decode(encoding.as_bytes(), &body.to_bytes(), limit),
    }
}

/// Reads up to `most` further bytes, since a client that is still writing would see a reset instead of its answer.
async fn discard(mut body: Body, mut most: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if length > most {
            break;
        }
        most -= length;
    }
}

fn compressed(headers: &HeaderMap, body: Vec<u8>, header: Option<usize>) -> Result<Response> {
    let encoding = headers
        .get(ACCEPT_ENCODING)
        .filter(|_| body.len() >= SMALLEST_COMPRESSED)
        .and_then(|accepted| Encoding::accepted(accepted.as_bytes()));
    let Some(encoding) = encoding else { return Ok(answered(body, header)) };
    let mut response = answered(compress::encode(encoding, &body)?, header);
    response.headers_mut().insert(CONTENT_ENCODING, encoding.name());
    response.headers_mut().insert(VARY, ACCEPT_ENCODING.into());
    Ok(response)
}
