//! What the loaded versions have done, as Triton's statistics extension words it.

use std::sync::Arc;

use axum::extract::{RawPathParams, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::respond;
use crate::error::Result;
use crate::infer::App;
use crate::model::served::Model;
use crate::model::statistics::Span;

/// `GET /v2/models/stats`
pub async fn all(State(app): State<Arc<App>>) -> Response {
    respond::json(&describe(&app.catalog.resident(None)))
}

/// `GET /v2/models/{name}[/versions/{version}]/stats`
pub async fn model(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    let part = |wanted| path.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value);
    match app.counted(part("name").unwrap_or_default(), part("version")).await {
        Ok(models) => respond::json(&describe(&models)),
        Err(error) => error.into_response(),
    }
}

impl App {
    /// The versions whose statistics are asked for: the one that `selector` leads to, else all that are loaded of model
    /// `name`, of every model where it is empty.
    pub async fn counted(&self, name: &str, selector: Option<&str>) -> Result<Vec<Arc<Model>>> {
        if name.is_empty() {
            return Ok(self.catalog.resident(None));
        }
        let model = self.catalog.get(name, selector).await?;
        Ok(if selector.is_some() { vec![model] } else { self.catalog.resident(Some(name)) })
    }
}

fn describe(models: &[Arc<Model>]) -> Value {
    json!({"model_stats": models.iter().map(|model| statistics(model)).collect::<Vec<_>>()})
}

fn statistics(model: &Model) -> Value {
    let figures = model.statistics.figures();
    let (none, requests) = (Span::default(), figures.requests);
    let batches = figures.batches.iter().map(|(rows, computed)| {
        json!({
            "batch_size": rows,
            "compute_input": computed.compute_input,
            "compute_infer": computed.compute_infer,
            "compute_output": computed.compute_output,
        })
    });
    json!({
        "name": model.name,
        "version": model.version_text,
        "last_inference": figures.last_inference,
        "inference_count": figures.inferences,
        "execution_count": figures.executions,
        "inference_stats": {
            "success": figures.success,
            "fail": figures.fail,
            "queue": figures.queue,
            "compute_input": requests.compute_input,
            "compute_infer": requests.compute_infer,
            "compute_output": requests.compute_output,
            "cache_hit": none,
            "cache_miss": none,
        },
        "response_stats": {},
        "batch_stats": batches.collect::<Vec<_>>(),
        "memory_usage": [],
    })
}
