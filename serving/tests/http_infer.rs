//! Inference over HTTP, asked without a socket: answers, encodings, and an error table.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::Write;

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Draft, Registry, TYPES, get, post, rows, send};

const INFER: &str = "/v2/models/scaled/infer";

fn one_model() -> Registry {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    registry
}

#[tokio::test]
async fn an_answer_names_its_evidence() {
    let registry = Registry::new();
    let digest = registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.serve(&[]);
    let mut request = rows(&[1.0, 2.0, 3.0]);
    request["id"] = "seven".into();
    let answer = post(&app, INFER, request.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let expected = json!({
        "model_name": "scaled", "model_version": "1.0.0", "id": "seven",
        "parameters": {"version": "1.0.0", "metadata_sha256": digest},
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]}],
    });
    assert_eq!(answer.json(), expected);
}

/// Two rows of each type, as JSON.
fn samples(datatype: &str) -> Value {
    match datatype {
        "BOOL" => json!([[true, false], [false, true]]),
        "BYTES" => json!([["a", ""], ["ü\n\"", "d"]]),
        name if name.starts_with('U') => json!([[0, 255], [7, 1]]),
        name if name.starts_with('I') => json!([[-128, 127], [0, 1]]),
        _ => json!([[0.5, -2.0], [1024.0, 0.0]]),
    }
}

#[tokio::test]
async fn every_type_passes_as_json_and_as_binary() {
    let registry = Registry::new();
    registry.publish("types", "1.0.0", &Draft::every_type());
    let app = registry.serve(&[]);
    let inputs: Vec<Value> = TYPES
        .iter()
        .map(
            |(name, _)| json!({"name": format!("in_{name}"), "datatype": name, "shape": [2, 2], "data": samples(name)}),
        )
        .collect();
    let plain = post(&app, "/v2/models/types/infer", json!({"inputs": inputs}).to_string()).await;
    assert_eq!(plain.status, StatusCode::OK, "{}", plain.error());
    let binary = post(
        &app,
        "/v2/models/types/infer",
        json!({"inputs": inputs, "parameters": {"binary_data_output": true}}).to_string(),
    )
    .await;
    let (mut sent, mut tail) = (Vec::new(), Vec::new());
    let mut offset = header_length(&binary);
    let outputs: Value = serde_json::from_slice(&binary.body[..offset]).unwrap();
    for (index, (name, _)) in TYPES.iter().enumerate() {
        let flat: Vec<Value> =
            samples(name).as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap().clone()).collect();
        assert_eq!(plain.json()["outputs"][index]["data"], Value::from(flat), "{name} as JSON");
        let size =
            usize::try_from(outputs["outputs"][index]["parameters"]["binary_data_size"].as_u64().unwrap()).unwrap();
        tail.extend_from_slice(&binary.body[offset..offset + size]);
        offset += size;
        sent.push(json!({"name": format!("in_{name}"), "datatype": name, "shape": [2, 2], "parameters": {"binary_data_size": size}}));
    }
    assert_eq!(offset, binary.body.len());
    let head = json!({"inputs": sent}).to_string();
    let request = Request::post("/v2/models/types/infer").header("Inference-Header-Content-Length", head.len());
    let again = send(&app, request.body(Body::from([head.as_bytes(), &tail].concat())).unwrap()).await;
    assert_eq!(again.json()["outputs"], plain.json()["outputs"], "what came out as binary goes in as binary");
}

fn header_length(answer: &Answer) -> usize {
    answer.headers["inference-header-content-length"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn fields_may_come_in_any_order() {
    let app = one_model().serve(&[]);
    let body =
        r#"{"inputs":[{"data":[[1,2,3]],"shape":[1,3],"unknown":{"a":[1]},"name":"x","datatype":"FP32"}],"more":1}"#;
    assert_eq!(post(&app, INFER, body).await.json()["outputs"][0]["data"], json!([2.0, 4.0, 6.0]));
}

#[tokio::test]
async fn null_is_nan_both_ways() {
    let app = one_model().serve(&[]);
    let body = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[null,1,3e38]}]}"#;
    assert_eq!(post(&app, INFER, body).await.json()["outputs"][0]["data"], json!([null, 2.0, null]));
}

#[tokio::test]
async fn bodies_may_be_compressed() {
    let app = one_model().serve(&[]);
    let plain = rows(&[1.0, 2.0, 3.0].repeat(200)).to_string();
    let gzip = {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(plain.as_bytes()).unwrap();
        writer.finish().unwrap()
    };
    let zstd = zstd::encode_all(plain.as_bytes(), 1).unwrap();
    for (encoding, body) in [("gzip", gzip), ("zstd", zstd), ("identity", plain.clone().into_bytes())] {
        let request =
            Request::post(INFER).header("content-encoding", encoding).header("accept-encoding", "gzip;q=0, zstd");
        let answer = send(&app, request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::OK, "{encoding}");
        assert_eq!(answer.headers["content-encoding"], "zstd");
        let decoded: Value = serde_json::from_slice(&zstd::decode_all(&*answer.body).unwrap()).unwrap();
        assert_eq!(decoded["outputs"][0]["shape"], json!([200, 3]));
    }
    let request = Request::post(INFER).header("content-encoding", "br").body(Body::from(plain)).unwrap();
    assert_eq!(send(&app, request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_small_body_that_grows_is_refused() {
    let app = one_model().serve(&["--max-body-mb", "1"]);
    let bomb = zstd::encode_all(&vec![b' '; 4 << 20][..], 1).unwrap();
    assert!(bomb.len() < 10_000);
    let request = Request::post(INFER).header("content-encoding", "zstd").body(Body::from(bomb)).unwrap();
    assert_eq!(send(&app, request).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(post(&app, INFER, vec![b' '; 2 << 20]).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// A request of one input with these fields.
fn input(name: &str, datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
}

/// A path, a body, and the status and words that answer it.
type Wrong = (&'static str, String, u16, &'static str);

fn wrong_requests() -> Vec<Wrong> {
    let lookup = "/v2/models/lookup/infer";
    let twice = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]},{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}"#;
    let output = |name: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}}],"outputs":[{{"name":"{name}"}}]}}"#
        )
    };
    vec![
        ("/v2/models/nothing/infer", rows(&[1.0, 2.0, 3.0]).to_string(), 404, "there is no model `nothing`"),
        (
            "/v2/models/scaled/versions/9.0.0/infer",
            rows(&[1.0, 2.0, 3.0]).to_string(),
            404,
            "no version or alias `9.0.0`",
        ),
        (
            "/v2/models/scaled/versions/stage/infer",
            rows(&[1.0, 2.0, 3.0]).to_string(),
            404,
            "no version or alias `stage`",
        ),
        (
            "/v2/models/scaled/versions/1.x/infer",
            rows(&[1.0, 2.0, 3.0]).to_string(),
            404,
            "`1.x` is no version and no alias",
        ),
        (INFER, input("z", "FP32", "[1,3]", "[1,2,3]"), 400, "input `x` is missing"),
        (INFER, r#"{"inputs":[]}"#.into(), 400, "input `x` is missing"),
        (INFER, twice.into(), 400, "sent twice"),
        (INFER, twice.replacen("\"x\"", "\"extra\"", 1), 400, "`extra` is no input"),
        (INFER, input("x", "FP64", "[1,3]", "[1,2,3]"), 400, "is FP32, but FP64 was sent"),
        (INFER, input("x", "float", "[1,3]", "[1,2,3]"), 400, "`float` is no datatype"),
        (INFER, input("x", "FP32", "[1,4]", "[1,2,3,4]"), 400, "has shape [-1, 3], but [1, 4] was sent"),
        (INFER, input("x", "FP32", "[3]", "[1,2,3]"), 400, "has shape [-1, 3]"),
        (INFER, input("x", "FP32", "[2,3]", "[1,2,3]"), 400, "needs 6 values, but 3 were sent"),
        (INFER, input("x", "FP32", "[0,3]", "[]"), 400, "holds no rows"),
        (INFER, input("x", "FP32", "[-1,3]", "[1,2,3]"), 400, "is not possible"),
        (INFER, input("x", "FP32", "[9223372036854775807,3]", "[1]"), 400, "is not possible"),
        (INFER, input("x", "FP32", "[1,3]", "[1,2,\"3\"]"), 400, "is no FP32"),
        (INFER, input("x", "FP32", "[1,3]", "[1,2,1e300]"), 400, "is no FP32"),
        (INFER, input("x", "FP32", "[1,3]", "[1,2,NaN]"), 400, "no inference request"),
        (INFER, input("x", "FP32", "[1,3]", "7"), 400, "an array of FP32 values"),
        (INFER, r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3]}]}"#.into(), 400, "has no values"),
        (INFER, r#"{"inputs":[{"name":"x","shape":[1,3],"data":[1,2,3]}]}"#.into(), 400, "missing field `datatype`"),
        (INFER, output("z"), 400, "`z` is no output"),
        (INFER, "{".into(), 400, "no inference request"),
        (INFER, String::new(), 400, "no inference request"),
        (INFER, rows(&[1.0, 2.0, 3.0]).to_string() + "x", 400, "trailing characters"),
        (lookup, input("ids", "INT64", "[1]", "[null]"), 400, "input `ids`: element 0 is `null`, which is no INT64"),
        (lookup, input("ids", "INT64", "[1]", "[1.5]"), 400, "which is no INT64"),
        (lookup, input("ids", "INT64", "[1]", "[9223372036854775808]"), 400, "which is no INT64"),
        (lookup, input("ids", "INT64", "[1]", "[5]"), 400, "check that ids are within the vocabulary"),
        ("/v2/nothing", String::new(), 404, "there is no path"),
        ("/v2/health/live", String::new(), 405, "does not take POST"),
        ("/v2/repository/models/scaled/load", String::new(), 403, "--allow-control"),
    ]
}

#[tokio::test]
async fn wrong_requests_get_clear_answers() {
    let registry = one_model();
    registry.publish("lookup", "1.0.0", &Draft::lookup());
    let app = registry.serve(&[]);
    for (path, body, status, words) in wrong_requests() {
        let answer = post(&app, path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}: {}", answer.error());
        assert!(answer.error().contains(words), "{path} {body}: {}", answer.error());
    }
    let fine = post(&app, INFER, rows(&[1.0, 2.0, 3.0]).to_string()).await;
    assert_eq!(fine.status, StatusCode::OK, "the server goes on");
}

#[tokio::test]
async fn wrong_bytes_get_clear_answers() {
    let registry = Registry::new();
    registry.publish("types", "1.0.0", &Draft::every_type());
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.serve(&[]);
    let head = |size: usize| {
        format!(
            r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,3],"parameters":{{"binary_data_size":{size}}}}}]}}"#
        )
    };
    let text = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}"#;
    let table: Vec<(String, Vec<u8>, isize, &str)> = vec![
        (head(12), vec![0; 8], 0, "claims 12 binary bytes, but only 8 are left"),
        (head(12), vec![0; 16], 0, "4 bytes follow the last binary input"),
        (head(11), vec![0; 11], 0, "11 bytes are no whole number of FP32 elements"),
        (head(12), vec![0; 12], 100, "but the body has"),
        (head(12), vec![0; 12], -5, "no inference request"),
        (text.into(), vec![9, 0, 0, 0, b'a', b'b'], 0, "ends in the middle of an element"),
        (text.into(), vec![2, 0, 0, 0, 0xc3, 0x28], 0, "not valid UTF-8"),
        ("{\"inputs\":[{\"name\":\"\u{e9}".into(), vec![0xff], 1, "no inference request"),
    ];
    for (head, tail, error, words) in table {
        let length = head.len().checked_add_signed(error).unwrap();
        let request = Request::post(INFER).header("inference-header-content-length", length);
        let answer = send(&app, request.body(Body::from([head.as_bytes(), &tail].concat())).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{head}");
        assert!(answer.error().contains(words), "{head}: {}", answer.error());
    }
    let request = Request::post(INFER).header("inference-header-content-length", "many").body(Body::empty()).unwrap();
    assert!(send(&app, request).await.error().contains("send a whole number"));
}

#[tokio::test]
async fn constants_and_models_stand_in() {
    let app = one_model().serve(&["--default", "cold=0.25", "--default", "new=scaled@1.0.0"]);
    let constant = post(&app, "/v2/models/cold/infer", rows(&[1.0; 6]).to_string()).await.json();
    assert_eq!(
        constant["outputs"],
        json!([{"name": "output", "datatype": "FP32", "shape": [2], "data": [0.25, 0.25]}])
    );
    assert_eq!(constant["parameters"]["default"], true);
    let other = post(&app, "/v2/models/new/infer", rows(&[1.0; 3]).to_string()).await.json();
    assert_eq!((&other["model_name"], &other["parameters"]["default"]), (&json!("scaled"), &json!(true)));
    let huge = input("x", "FP32", "[1000000000000,3]", "[1]");
    assert_eq!(post(&app, "/v2/models/cold/infer", huge).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(get(&app, "/v2/models/cold/ready").await.status, StatusCode::OK);
    assert_eq!(get(&app, "/v2/models/cold/versions/1.0.0/ready").await.status, StatusCode::NOT_FOUND);
}
