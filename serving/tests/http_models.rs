//! Health, metadata, control, tokens, and the registry's changes as a client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use ocad_server::infer::App;
use ocad_server::registry::watch::{Wake, Watch};
use serde_json::json;
use support::{Draft, Registry, get, post, rows, send};

async fn factor(app: &Arc<App>, path: &str) -> String {
    let answer = post(app, path, rows(&[1.0, 1.0, 1.0]).to_string()).await.json();
    format!("{} {}", answer["model_version"].as_str().unwrap_or("-"), answer["outputs"][0]["data"][0])
}

#[tokio::test]
async fn health_and_metadata() {
    let registry = Registry::new();
    let digest = registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.assemble(&[]);
    assert_eq!(get(&app, "/v2/health/live").await.status, StatusCode::OK);
    assert_eq!(get(&app, "/v2/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE, "nothing is loaded yet");
    app.catalog.refresh();
    assert_eq!(get(&app, "/v2/health/ready").await.json(), json!({"ready": true, "problems": {}}));
    let metadata = get(&app, "/v2/models/scaled").await.json();
    assert_eq!(metadata["inputs"], json!([{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]));
    assert_eq!(metadata["parameters"], json!({"version": "1.0.0", "metadata_sha256": digest}));
    let config = get(&app, "/v2/models/scaled/versions/v1.0.0/config").await.json();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(128), &json!([3])));
    assert_eq!(get(&app, "/v2/models/scaled/versions/1.0.0/ready").await.status, StatusCode::OK);
    assert_eq!(get(&app, "/v2").await.json()["name"], "ocad-server");
    app.catalog.drain();
    assert_eq!(
        get(&app, "/v2/health/ready").await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "a draining server wants no more"
    );
}

#[tokio::test]
async fn the_openapi_document_names_every_path() {
    let app = Registry::new().serve(&[]);
    let document = get(&app, "/openapi.json").await.json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in [
        "/v2/models/{name}/infer",
        "/v2/models/{name}/versions/{version}/infer",
        "/v2/repository/index",
        "/metrics",
        "/v2/health/ready",
    ] {
        assert!(paths.iter().any(|known| *known == path), "{path}");
    }
}

#[tokio::test]
async fn names_resolve_as_the_registry_says() {
    let registry = Registry::new();
    let first = registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    registry.publish("scaled", "1.1.0", &Draft::scaled(11.0));
    registry.publish("scaled", "1.2.0", &Draft { passed: false, ..Draft::scaled(12.0) });
    registry.publish("scaled", "2.0.0-rc.1", &Draft::scaled(20.0));
    let app = registry.serve(&[]);
    assert_eq!(factor(&app, "/v2/models/scaled/infer").await, "1.1.0 11.0", "the highest release that passed");
    registry.promote("scaled", "production", 1, "1.0.0", &first);
    app.catalog.refresh();
    assert_eq!(factor(&app, "/v2/models/scaled/infer").await, "1.0.0 1.0", "the alias `production` if set");
    assert_eq!(factor(&app, "/v2/models/scaled/versions/production/infer").await, "1.0.0 1.0");
    assert_eq!(factor(&app, "/v2/models/scaled/versions/v2.0.0-rc.1/infer").await, "2.0.0-rc.1 20.0");
    assert_eq!(
        factor(&app, "/v2/models/scaled/versions/1.2.0/infer").await,
        "1.2.0 12.0",
        "what failed can be asked for"
    );
}

#[tokio::test]
async fn a_model_without_a_graph_is_absent_and_says_its_task() {
    let registry = Registry::new();
    registry.publish("radar", "1.0.0", &Draft { with_graph: false, task: "detect", ..Draft::scaled(1.0) });
    let app = registry.serve(&[]);
    let answer = post(&app, "/v2/models/radar/infer", rows(&[1.0; 3]).to_string()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.error().contains("its task is `detect`"), "{}", answer.error());
    assert_eq!(post(&app, "/v2/repository/index", Body::empty()).await.json(), json!([]));
    assert_eq!(get(&app, "/v2/health/ready").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_version_that_fails_leaves_the_old_one_serving() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    let app = registry.serve(&[]);
    registry.publish("scaled", "1.1.0", &Draft::scaled(11.0));
    let graph = registry.root().join("scaled/1.1.0/model.onnx");
    let good = fs::read(&graph).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    fs::write(&graph, bad).unwrap();
    app.catalog.refresh();
    assert_eq!(factor(&app, "/v2/models/scaled/infer").await, "1.0.0 1.0");
    let ready = get(&app, "/v2/health/ready").await;
    assert_eq!(ready.status, StatusCode::OK, "an old version serves, so requests may come");
    assert!(
        ready.json()["problems"]["scaled"].as_str().unwrap().contains("digest: `model.onnx` is not what was published")
    );
    let metrics = String::from_utf8(get(&app, "/metrics").await.body).unwrap();
    assert!(metrics.contains("ocad_server_model_stale{model=\"scaled\"} 1"), "{metrics}");
    assert!(metrics.contains("ocad_server_loads_total{model=\"scaled\",outcome=\"failed\"} 1"), "{metrics}");
    fs::write(&graph, good).unwrap();
    app.catalog.refresh();
    assert_eq!(factor(&app, "/v2/models/scaled/infer").await, "1.1.0 11.0", "whole again, it takes over");
    assert_eq!(get(&app, "/v2/health/ready").await.json()["problems"], json!({}));
}

#[tokio::test]
async fn a_broken_version_at_the_start_keeps_the_server_from_being_ready() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    fs::write(registry.root().join("scaled/1.0.0/model.onnx"), b"nothing").unwrap();
    let app = registry.serve(&[]);
    assert_eq!(get(&app, "/v2/health/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        post(&app, "/v2/models/scaled/infer", rows(&[1.0; 3]).to_string()).await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_noticed_without_a_restart() {
    let registry = Registry::new();
    let first = registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    registry.promote("scaled", "production", 1, "1.0.0", &first);
    let app = registry.serve(&[]);
    let (watch, alarm) = Watch::new(Duration::from_hours(1));
    let catalog = Arc::clone(&app.catalog);
    let follower = std::thread::spawn(move || catalog.follow(watch));
    let second = registry.publish("scaled", "2.0.0", &Draft::scaled(2.0));
    registry.promote("scaled", "production", 2, "2.0.0", &second);
    until(&app, "/v2/models/scaled/infer", "2.0.0 2.0").await;
    registry.publish("fresh", "1.0.0", &Draft::scaled(5.0));
    until(&app, "/v2/models/fresh/infer", "1.0.0 5.0").await;
    fs::create_dir_all(registry.root().join("fresh/deleted")).unwrap();
    fs::write(registry.root().join("fresh/deleted/1.0.0.json"), "{}").unwrap();
    until(&app, "/v2/models/fresh/infer", "- null").await;
    alarm.ring(Wake::Stop);
    follower.join().unwrap();
}

async fn until(app: &Arc<App>, path: &str, wanted: &str) {
    let seen = async {
        while factor(app, path).await != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .unwrap_or_else(|_| panic!("{path} never answered {wanted}"));
}

#[tokio::test]
async fn lazily_loaded_versions_keep_to_the_budget() {
    let registry = Registry::new();
    for minor in 0..4_u8 {
        registry.publish("scaled", &format!("1.{minor}.0"), &Draft::scaled(f32::from(minor)));
    }
    let app = registry.serve(&["--lazy-mb", "9"]);
    let full = app.catalog.resident_bytes();
    for minor in 0..3 {
        assert_eq!(
            factor(&app, &format!("/v2/models/scaled/versions/1.{minor}.0/infer")).await,
            format!("1.{minor}.0 {minor}.0")
        );
    }
    let spare = app.catalog.resident_bytes() - full;
    assert!((full..=9 << 20).contains(&spare), "{spare} bytes are loaded on demand");
    assert_eq!(
        factor(&app, "/v2/models/scaled/versions/1.0.0/infer").await,
        "1.0.0 0.0",
        "what was unloaded loads again"
    );
}

#[tokio::test]
async fn clients_load_and_unload_where_they_may() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    let app = registry.serve(&["--allow-control"]);
    let index = post(&app, "/v2/repository/index", r#"{"ready": true}"#).await.json();
    assert_eq!(index, json!([{"name": "scaled", "version": "1.0.0", "state": "READY", "reason": ""}]));
    assert_eq!(post(&app, "/v2/repository/models/scaled/unload", Body::empty()).await.status, StatusCode::OK);
    assert_eq!(get(&app, "/v2/models/scaled/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);
    app.catalog.refresh();
    assert_eq!(get(&app, "/v2/models/scaled/ready").await.status, StatusCode::SERVICE_UNAVAILABLE, "it stays unloaded");
    assert_eq!(post(&app, "/v2/repository/models/scaled/load", "{}").await.status, StatusCode::OK);
    assert_eq!(get(&app, "/v2/models/scaled/ready").await.status, StatusCode::OK);
    assert_eq!(post(&app, "/v2/repository/models/none/load", "{}").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_token_is_asked_for_but_not_by_probes() {
    let registry = Registry::new();
    let file = registry.0.path().join("token");
    fs::write(&file, "secret\n").unwrap();
    let app = registry.serve(&["--token-file", file.to_str().unwrap()]);
    assert_eq!(get(&app, "/v2/health/live").await.status, StatusCode::OK);
    let refused = get(&app, "/v2").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert!(refused.headers.contains_key("x-request-id"), "what failed can be found in the log");
    for (header, status) in [
        ("Bearer secret", StatusCode::OK),
        ("Bearer secreT", StatusCode::UNAUTHORIZED),
        ("secret", StatusCode::UNAUTHORIZED),
    ] {
        let request = Request::get("/v2")
            .header("authorization", header)
            .header("x-request-id", "r-1")
            .body(Body::empty())
            .unwrap();
        let answer = send(&app, request).await;
        assert_eq!(answer.status, status, "{header}");
        assert_eq!(answer.headers["x-request-id"], "r-1");
    }
}

#[tokio::test]
async fn a_registry_of_a_newer_format_is_refused_whole() {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(1.0));
    fs::write(registry.root().join("registry.json"), r#"{"format": 2}"#).unwrap();
    let app = registry.serve(&[]);
    let ready = get(&app, "/v2/health/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(ready.json()["problems"]["registry.json"].as_str().unwrap().starts_with("newer-format"));
}
