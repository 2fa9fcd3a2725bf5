//! The model repository extension: what there is, and loading and unloading where the operator allows it.

use std::sync::Arc;

use axum::extract::{RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::infer::{receive, ticket};
use super::respond;
use crate::error::{Error, Result};
use crate::infer::App;
use crate::text::cause;

/// The most bytes of an index request.
const LIMIT: usize = 64 << 10;

#[derive(Default, Deserialize)]
struct Filter {
    #[serde(default)]
    ready: bool,
}

/// `POST /v2/repository/index`
pub async fn index(State(app): State<Arc<App>>, request: Request) -> Response {
    match filter(&app, request).await {
        Ok(Filter { ready }) => respond::json(&app.catalog.listing(ready)),
        Err(error) => error.into_response(),
    }
}

async fn filter(app: &App, request: Request) -> Result<Filter> {
    let ticket = ticket(&request)?;
    let (head, body) = request.into_parts();
    let body = receive(&ticket, &head.headers, body, LIMIT.min(app.limits.body), app.limits.read).await?;
    if body.is_empty() {
        return Ok(Filter::default());
    }
    serde_json::from_slice(&body).map_err(|error| {
        let cause = cause(&error);
        Error::Invalid(format!("the body is no index request: {cause}: send `{{\"ready\": true}}` or nothing"))
    })
}

/// `POST /v2/repository/models/{name}/load`
pub async fn load(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    answer(app.control(name(&path), true).await)
}

/// `POST /v2/repository/models/{name}/unload`
pub async fn unload(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    answer(app.control(name(&path), false).await)
}

fn name(path: &RawPathParams) -> &str {
    path.iter().find(|(key, _)| *key == "name").map(|(_, value)| value).unwrap_or_default()
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
