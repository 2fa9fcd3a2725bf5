//! Requests over HTTP that ask for too much, or send what must not be repeated.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;

use axum::body::Body;
use http::{Request, StatusCode};
use ocad_server::infer::App;
use serde_json::{Value, json};
use support::{Draft, Registry, get, post, rows, send};

const INFER: &str = "/v2/models/scaled/infer";

fn scaled(flags: &[&str]) -> (Registry, Arc<App>) {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.serve(flags);
    (registry, app)
}

#[tokio::test]
async fn text_of_clients_is_cut_and_escaped() {
    let (_registry, app) = scaled(&[]);
    let long = "\u{1b}]0;x".repeat(100_000);
    let with = |field: &str, value: Value| {
        let mut body = rows(&[1.0, 2.0, 3.0]);
        body["inputs"][0][field] = value;
        body
    };
    let output = |outputs: Value| {
        let mut body = rows(&[1.0, 2.0, 3.0]);
        body["outputs"] = outputs;
        body
    };
    let bodies = [
        with("name", json!(long)),
        with("datatype", json!(long)),
        with("shape", json!(vec![1; 1_000_000])),
        with("shape", json!(long)),
        with("data", json!(long)),
        with("data", json!([1.0, long])),
        with("parameters", json!({"binary_data_size": long})),
        output(json!([{"name": long}])),
        output(json!([{"name": long, "parameters": {"classification": 1}}])),
        json!(long),
    ];
    for (number, body) in bodies.into_iter().enumerate() {
        let answer = post(&app, INFER, body.to_string()).await;
        let error = answer.error();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{number}: {error}");
        assert!(answer.body.len() < 2500 && !error.contains('\u{1b}'), "{number}: {} bytes", answer.body.len());
    }
    let name = "n".repeat(20_000);
    for path in
        [format!("/v2/models/{name}/infer"), format!("/v2/models/scaled/versions/{name}/infer"), format!("/{name}")]
    {
        let answer = post(&app, &path, rows(&[1.0, 2.0, 3.0]).to_string()).await;
        assert!(answer.status == StatusCode::NOT_FOUND && answer.body.len() < 1000, "{}", answer.error());
    }
    let index = post(&app, "/v2/repository/index", json!({"ready": "x".repeat(10_000)}).to_string()).await;
    assert!(index.status == StatusCode::BAD_REQUEST && index.body.len() < 1000, "{}", index.error());
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn an_id_is_repeated_so_far() {
    let (_registry, app) = scaled(&[]);
    let request = Request::get("/v2").header("x-request-id", "i".repeat(20_000)).body(Body::empty()).unwrap();
    assert_eq!(send(&app, request).await.headers["x-request-id"].len(), 256);
    let request = Request::get("/v2").header("x-request-id", "seven").body(Body::empty()).unwrap();
    assert_eq!(send(&app, request).await.headers["x-request-id"], "seven");
}

#[tokio::test]
async fn shapes_and_lists_are_short() {
    let (_registry, app) = scaled(&[]);
    let mut body = rows(&[1.0, 2.0, 3.0]);
    body["inputs"][0]["shape"] = json!(vec![1; 17]);
    let answer = post(&app, INFER, body.to_string()).await;
    assert!(answer.error().contains("at most 16"), "{}", answer.error());
    for field in ["inputs", "outputs"] {
        let element =
            if field == "inputs" { rows(&[1.0, 2.0, 3.0])["inputs"][0].clone() } else { json!({"name": "y"}) };
        let mut body = rows(&[1.0, 2.0, 3.0]);
        body[field] = json!(vec![element; 1025]);
        let answer = post(&app, INFER, body.to_string()).await;
        assert!(answer.error().contains("at most 1024"), "{field}: {}", answer.error());
    }
}

#[tokio::test]
async fn values_that_grow_when_read_are_within_the_budget() {
    let (_registry, app) = scaled(&["--memory-mb", "4"]);
    // two bytes each as text, four or eight in memory; three bytes each, and 24 in memory
    for (datatype, value) in [("FP64", "1,"), ("BYTES", "\"\",")] {
        let values = value.repeat(1_000_000);
        let body = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[1000000],"data":[{}]}}]}}"#,
            values.trim_end_matches(',')
        );
        let answer = post(&app, INFER, body).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{datatype}: {}", answer.error());
        assert!(answer.error().contains("memory"), "{}", answer.error());
    }
    let head = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":1000000}}]}"#;
    let body = [head.as_bytes(), &vec![0; 1_000_000]].concat();
    let request = Request::post(INFER).header("inference-header-content-length", head.len());
    let answer = send(&app, request.body(Body::from(body)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.error());
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn a_full_client_is_told_to_come_back() {
    let (_registry, app) = scaled(&["--client-memory-mb", "1"]);
    let held = app.budget.client([0, 0, 0, 0].into()).ticket(1_044_000).unwrap();
    for path in ["/v2/models/scaled", "/v2", "/metrics"] {
        let answer = get(&app, path).await;
        assert_eq!(
            (answer.status, &answer.headers["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &"1".parse().unwrap())
        );
    }
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(get(&app, path).await.status, StatusCode::OK, "health always answers");
    }
    drop(held);
    assert_eq!(get(&app, "/v2/models/scaled").await.status, StatusCode::OK);
}

#[tokio::test]
async fn large_bodies_are_answered_as_small_ones() {
    let (_registry, app) = scaled(&[]);
    let values: Vec<f32> = (0_u16..60_000).map(f32::from).collect();
    let body = rows(&values).to_string();
    assert!(body.len() > ocad_server::work::LARGE);
    let doubled: Vec<f32> = values.iter().map(|value| value * 2.0).collect();
    let answer = post(&app, INFER, body.clone()).await;
    assert_eq!(answer.json()["outputs"][0]["data"], json!(doubled));
    let packed = zstd::encode_all(body.as_bytes(), 1).unwrap();
    let request = Request::post(INFER).header("content-encoding", "zstd").header("accept-encoding", "gzip");
    let answer = send(&app, request.body(Body::from(packed)).unwrap()).await;
    assert_eq!((answer.status, &answer.headers["content-encoding"]), (StatusCode::OK, &"gzip".parse().unwrap()));
    let broken = post(&app, INFER, body + "x").await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn a_constant_answers_so_many_numbers() {
    let (_registry, app) = scaled(&["--default", "cold=0.5"]);
    let ask = |rows: usize, outputs: Vec<String>| {
        let outputs: Vec<Value> = outputs.iter().map(|name| json!({"name": name})).collect();
        let input = json!({"name": "x", "datatype": "BOOL", "shape": [rows], "data": vec![true; rows]});
        let (app, body) = (Arc::clone(&app), json!({"inputs": [input], "outputs": outputs}).to_string());
        async move { post(&app, "/v2/models/cold/infer", body).await }
    };
    let named = |count: usize| (0..count).map(|number| format!("o{number}")).collect::<Vec<_>>();
    assert_eq!(ask(10_000, named(3)).await.json()["outputs"][2]["data"], json!(vec![0.5; 10_000]));
    assert_eq!(ask(1_000_000, named(200)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let twice = ask(2, vec!["o".into(); 2]).await;
    assert!(twice.status == StatusCode::BAD_REQUEST && twice.error().contains("twice"), "{}", twice.error());
    assert_eq!(ask(1_000_000, Vec::new()).await.status, StatusCode::OK);
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn odd_heads_get_json() {
    let (_registry, app) = scaled(&["--max-body-mb", "1"]);
    for path in ["/v2/models/%ff", "/v2/models/%ff/infer", "/v2/models/scaled/versions/%c3%28/ready", "/%ff"] {
        let answer = post(&app, path, "").await;
        assert!(answer.status == StatusCode::BAD_REQUEST && answer.error().contains("UTF-8"), "{path}");
    }
    let fine = get(&app, "/v2/models/%73caled").await;
    assert_eq!(fine.status, StatusCode::OK, "{}", fine.error());
    for path in ["/v2/repository/index", INFER] {
        let answer = post(&app, path, vec![b' '; 2 << 20]).await;
        assert!(answer.status == StatusCode::PAYLOAD_TOO_LARGE && answer.error().contains("bytes"), "{path}");
    }
    let request = Request::get("/v2").header("host", "a").header("host", "b").body(Body::empty()).unwrap();
    let answer = send(&app, request).await;
    assert!(answer.status == StatusCode::BAD_REQUEST && answer.error().contains("`Host`"));
}

#[tokio::test]
async fn a_scheme_is_written_in_any_case() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let (_registry, app) = scaled(&["--token-file", token.to_str().unwrap()]);
    for (sent, status) in
        [("bearer s3cret", 200), ("BeArEr  s3cret", 200), ("Basic s3cret", 401), ("s3cret", 401), ("Bearer", 401)]
    {
        let request = Request::get("/v2").header("authorization", sent).body(Body::empty()).unwrap();
        assert_eq!(send(&app, request).await.status, status, "{sent}");
    }
}
