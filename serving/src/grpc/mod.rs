//! The gRPC side.
use crate::infer::App;
use std::sync::Arc;
/// x
pub fn service(app: Arc<App>) -> axum::Router {
    crate::http::app(app)
}
