//! Answers over HTTP: JSON, binary tensors behind it, and errors.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue};

use super::request::Wanted;
use crate::error::Error;
use crate::infer::Answer;
use crate::model::json::{write_array, write_text};

/// Where the JSON of a body with binary tensors ends.
pub const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// The body of an answer, and where its JSON ends if binary tensors follow.
#[must_use]
pub fn encode(answer: &Answer, id: Option<&str>, wanted: Option<&[Wanted]>, binary: bool) -> (Vec<u8>, Option<usize>) {
    let values: usize = answer.outputs.iter().map(|(_, tensor)| tensor.data.len()).sum();
    let mut json = Vec::with_capacity(320 + 12 * values);
    let mut tail = Vec::new();
    head(answer, id, &mut json);
    json.extend_from_slice(b",\"outputs\":[");
    for (position, (name, tensor)) in answer.outputs.iter().enumerate() {
        if position > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        write_text(name, &mut json);
        json.extend_from_slice(b",\"datatype\":\"");
        json.extend_from_slice(tensor.data.datatype().name().as_bytes());
        json.extend_from_slice(b"\",\"shape\":");
        write_array(&tensor.shape, &mut json);
        if wanted.and_then(|wanted| wanted.get(position)).and_then(|wanted| wanted.binary).unwrap_or(binary) {
            let before = tail.len();
            tensor.data.write_bytes(&mut tail);
            json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            json.extend_from_slice(itoa::Buffer::new().format(tail.len() - before).as_bytes());
            json.extend_from_slice(b"}}");
        } else {
            json.extend_from_slice(b",\"data\":");
            tensor.data.write_json(&mut json);
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    if tail.is_empty() {
        return (json, None);
    }
    let length = json.len();
    json.append(&mut tail);
    (json, Some(length))
}

/// The names and parameters that trace an answer to its evidence.
fn head(answer: &Answer, id: Option<&str>, json: &mut Vec<u8>) {
    let source = &answer.source;
    json.extend_from_slice(b"{\"model_name\":");
    write_text(source.name(), json);
    json.extend_from_slice(b",\"model_version\":");
    write_text(source.version(), json);
    if let Some(id) = id {
        json.extend_from_slice(b",\"id\":");
        write_text(id, json);
    }
    json.extend_from_slice(b",\"parameters\":{\"version\":");
    write_text(source.version(), json);
    if let Some(digest) = source.digest() {
        json.extend_from_slice(b",\"metadata_sha256\":");
        write_text(digest, json);
    }
    if source.is_default() {
        json.extend_from_slice(b",\"default\":true");
    }
    json.push(b'}');
}

/// The response of an encoded answer.
#[must_use]
pub fn answered(body: Vec<u8>, header: Option<usize>) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    match header {
        None => {
            headers.insert(CONTENT_TYPE, JSON);
        }
        Some(length) => {
            headers.insert(CONTENT_TYPE, BINARY);
            headers.insert(HEADER_LENGTH, HeaderValue::from(length));
        }
    }
    response
}

/// `value` as a JSON response.
pub fn json(value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => answered(body, None),
        Err(cause) => Error::Internal(cause.to_string()).into_response(),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = answered(serde_json::json!({"error": self.line()}).to_string().into_bytes(), None);
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        match &self {
            Self::Overloaded(_) => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}
