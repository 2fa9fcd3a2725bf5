//! The HTTP side: the Open Inference Protocol, its repository extension, metrics and the OpenAPI document.

pub mod compress;
pub mod infer;
pub mod models;
pub mod observe;
pub mod openapi;
pub mod repository;
pub mod request;
pub mod respond;
pub mod statistics;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::{Method, Uri};

use crate::error::Error;
use crate::infer::App;
use crate::text::shown;

/// All routes over `state`, to be asked with or without a socket.
pub fn app(state: Arc<App>) -> Router {
    let models = Router::new()
        .route("/stats", get(statistics::all))
        .route("/{name}", get(models::metadata))
        .route("/{name}/ready", get(models::ready))
        .route("/{name}/config", get(models::config))
        .route("/{name}/stats", get(statistics::model))
        .route("/{name}/infer", post(infer::respond))
        .route("/{name}/versions/{version}", get(models::metadata))
        .route("/{name}/versions/{version}/ready", get(models::ready))
        .route("/{name}/versions/{version}/config", get(models::config))
        .route("/{name}/versions/{version}/stats", get(statistics::model))
        .route("/{name}/versions/{version}/infer", post(infer::respond));
    Router::new()
        .nest("/v2/models", models)
        .route("/v2", get(models::server))
        .route("/v2/", get(models::server))
        .route("/v2/health/live", get(models::live))
        .route("/v2/health/ready", get(models::server_ready))
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{name}/load", post(repository::load))
        .route("/v2/repository/models/{name}/unload", post(repository::unload))
        .route("/metrics", get(models::metrics))
        .route("/openapi.json", get(openapi::document))
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn_with_state(Arc::clone(&state), observe::observe))
        .with_state(state)
}

async fn no_path(uri: Uri) -> Error {
    Error::NotFound(format!("there is no path `{}`: see `/openapi.json`", shown(uri.path())))
}

async fn no_method(method: Method, uri: Uri) -> Error {
    Error::Method(format!("`{}` does not take {}: see `/openapi.json`", shown(uri.path()), shown(method.as_str())))
}
