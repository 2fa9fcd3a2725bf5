//! The model repository extension: what there is, and loading and unloading where the operator allows it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::respond;
use crate::error::{Error, Result};
use crate::infer::App;

#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default)]
    ready: bool,
}

/// `POST /v2/repository/index`
pub async fn index(State(app): State<Arc<App>>, body: Bytes) -> Response {
    let filter = if body.is_empty() { Ok(Filter::default()) } else { serde_json::from_slice(&body) };
    match filter {
        Ok(Filter { ready }) => respond::json(&app.catalog.listing(ready)),
        Err(cause) => {
            Error::Invalid(format!("the body is no index request: {cause}: send `{{\"ready\": true}}` or nothing"))
                .into_response()
        }
    }
}

/// `POST /v2/repository/models/{name}/load`
pub async fn load(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    answer(app.control(&name, true).await)
}

/// `POST /v2/repository/models/{name}/unload`
pub async fn unload(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    answer(app.control(&name, false).await)
}

fn answer(result: Result<()>) -> Response {
    match result {
        Ok(()) => respond::json(&json!({})),
        Err(error) => error.into_response(),
    }
}

impl App {
    /// Loads or unloads model `name`, where the operator allows it.
    pub async fn control(&self, name: &str, load: bool) -> Result<()> {
        if !self.allow_control {
            return Err(Error::Forbidden(
                "loading and unloading is switched off: start the server with `--allow-control`".into(),
            ));
        }
        let (catalog, name) = (Arc::clone(&self.catalog), name.to_owned());
        tokio::task::spawn_blocking(move || if load { catalog.load_model(&name) } else { catalog.unload_model(&name) })
            .await
            .map_err(|cause| Error::Internal(cause.to_string()))?
    }
}
