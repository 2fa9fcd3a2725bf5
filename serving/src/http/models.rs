//! Health and metadata of the server and of its models, and the metrics.

use std::sync::Arc;

use axum::extract::{RawPathParams, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::respond;
use crate::error::Result;
use crate::infer::{App, Source};
use crate::model::served::Model;
use crate::model::signature::Port;

/// The extensions of the protocol that are served.
pub const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics"];
/// The platform of every model, in the protocol's words.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// `GET /v2`
pub async fn server() -> Response {
    respond::json(&json!({"name": "ocad-server", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

/// `GET /v2/health/live`
pub async fn live() -> Response {
    respond::json(&json!({"live": true}))
}

/// `GET /v2/health/ready`
pub async fn server_ready(State(app): State<Arc<App>>) -> Response {
    let readiness = app.catalog.readiness();
    let mut response = respond::json(&readiness);
    if !readiness.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
}

/// `GET /metrics`
pub async fn metrics(State(app): State<Arc<App>>) -> Response {
    app.catalog.publish_gauges();
    app.catalog.publish_depths();
    #[allow(clippy::cast_precision_loss)]
    app.metrics.set("ocad_server_inflight_bytes", &[], app.budget.used() as f64);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render()).into_response()
}

/// `GET /v2/models/{name}[/versions/{version}]/ready`
pub async fn ready(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    match source(&app, &path).await {
        Ok(source) => respond::json(&json!({"name": source.name(), "version": source.version(), "ready": true})),
        Err(error) => error.into_response(),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]`
pub async fn metadata(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    match source(&app, &path).await {
        Ok(Source::Model(model, _)) => respond::json(&describe(&app, &model)),
        Ok(Source::Constant(_, name)) => respond::json(&json!({
            "name": name, "versions": [], "platform": "constant", "inputs": [],
            "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1]}], "parameters": {"default": true},
        })),
        Err(error) => error.into_response(),
    }
}

/// `GET /v2/models/{name}[/versions/{version}]/config`
pub async fn config(State(app): State<Arc<App>>, path: RawPathParams) -> Response {
    match source(&app, &path).await {
        Ok(Source::Model(model, _)) => respond::json(&configuration(&model)),
        Ok(Source::Constant(_, name)) => respond::json(
            &json!({"name": name, "platform": "constant", "max_batch_size": 0, "input": [], "output": []}),
        ),
        Err(error) => error.into_response(),
    }
}

async fn source(app: &App, path: &RawPathParams) -> Result<Source> {
    let part = |wanted| path.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value);
    app.source(part("name").unwrap_or_default(), part("version")).await
}

fn describe(app: &App, model: &Model) -> Value {
    let ports = |ports: &[Port]| -> Vec<Value> {
        ports
            .iter()
            .map(|port| json!({"name": port.name, "datatype": port.datatype.name(), "shape": port.shape}))
            .collect()
    };
    json!({
        "name": model.name,
        "versions": app.catalog.versions(&model.name),
        "platform": PLATFORM,
        "inputs": ports(&model.signature.inputs),
        "outputs": ports(&model.signature.outputs),
        "parameters": {"version": model.version_text, "metadata_sha256": model.digest},
    })
}

fn configuration(model: &Model) -> Value {
    let skip = usize::from(model.batchable);
    let ports = |ports: &[Port]| -> Vec<Value> {
        ports
            .iter()
            .map(|port| json!({"name": port.name, "data_type": format!("TYPE_{}", triton_type(port)), "dims": port.shape[skip..]}))
            .collect()
    };
    let mut config = json!({
        "name": model.name,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": if model.batchable { model.batch_rows } else { 0 },
        "input": ports(&model.signature.inputs),
        "output": ports(&model.signature.outputs),
    });
    if model.batchable {
        config["dynamic_batching"] = json!({});
    }
    config
}

/// The configuration's name of a type, which differs from the protocol's for strings alone.
fn triton_type(port: &Port) -> &'static str {
    match port.datatype.name() {
        "BYTES" => "STRING",
        name => name,
    }
}
