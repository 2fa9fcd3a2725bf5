//! The OpenAPI document.

use axum::response::Response;

use super::respond::answered;

/// `GET /openapi.json`
pub async fn document() -> Response {
    answered(include_bytes!("openapi.json").to_vec(), None)
}
