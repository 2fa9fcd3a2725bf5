//! Calls of gRPC, asked without a socket: what is refused before it is read, counted before it is decoded, and how.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use ocad_server::grpc::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use ocad_server::grpc::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use ocad_server::grpc::wire::weight;
use ocad_server::infer::App;
use prost::Message;
use support::{Draft, Registry};
use tower::ServiceExt;

/// A message as it is sent: a flag, its length, its bytes.
fn framed(compressed: bool, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap();
    [&[u8::from(compressed)][..], &length.to_be_bytes(), message].concat()
}

/// A code, its message, and the body.
type Outcome = (u32, String, Vec<u8>);

async fn call<B>(app: &Arc<App>, method: &str, headers: &[(&str, &str)], body: B) -> Outcome
where
    B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    let mut request = Request::post(format!("/inference.GRPCInferenceService/{method}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let service = ocad_server::grpc::service(Arc::clone(app));
    let (head, body) = service.oneshot(request.body(body).unwrap()).await.unwrap().into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = |headers: &HeaderMap, name| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let find = |name| text(&head.headers, name).or_else(|| text(&trailers, name)).unwrap_or_default();
    (find("grpc-status").parse().unwrap(), find("grpc-message"), body.to_bytes().to_vec())
}

async fn infer(app: &Arc<App>, message: &[u8]) -> Outcome {
    call(app, "ModelInfer", &[], Full::from(framed(false, message))).await
}

const INVALID: u32 = 3;
const LATE: u32 = 4;
const EXHAUSTED: u32 = 8;
const UNAUTHENTICATED: u32 = 16;

fn scaled(flags: &[&str]) -> (Registry, Arc<App>) {
    let registry = Registry::new();
    registry.publish("scaled", "1.0.0", &Draft::scaled(2.0));
    let app = registry.serve(flags);
    (registry, app)
}

fn request() -> ModelInferRequest {
    let contents = InferTensorContents { fp32_contents: vec![1.0, 2.0, 3.0], ..Default::default() };
    let input = InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 3],
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { model_name: "scaled".into(), inputs: vec![input], ..Default::default() }
}

#[tokio::test]
async fn a_call_is_answered() {
    let (_registry, app) = scaled(&[]);
    let (code, message, body) = infer(&app, &request().encode_to_vec()).await;
    assert_eq!((code, message.as_str()), (0, ""));
    let answer = ModelInferResponse::decode(&body[5..]).unwrap();
    assert_eq!(answer.raw_output_contents[0], [2.0_f32, 4.0, 6.0].map(f32::to_le_bytes).concat());
    assert_eq!(app.budget.used(), 0, "everything is given back");
}

/// A body that must not be looked at.
struct Untouched;

impl Body for Untouched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("the body is read before the token");
    }
}

/// A body that never goes on.
struct Stuck(Option<Bytes>);

impl Body for Stuck {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |bytes| Poll::Ready(Some(Ok(Frame::data(bytes)))))
    }
}

#[tokio::test]
async fn the_token_is_asked_for_before_the_body() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let (_registry, app) = scaled(&["--token-file", token.to_str().unwrap()]);
    for method in ["ModelInfer", "ModelMetadata", "RepositoryIndex", "RepositoryModelLoad"] {
        assert_eq!(call(&app, method, &[], Untouched).await.0, UNAUTHENTICATED, "{method}");
    }
    for (sent, code) in [("Bearer s3cret", 0), ("BEARER s3cret", 0), ("bearer  s3cret ", 0), ("Bearers3cret", 16)] {
        let body = Full::from(framed(false, &request().encode_to_vec()));
        assert_eq!(call(&app, "ModelInfer", &[("authorization", sent)], body).await.0, code, "{sent}");
    }
    let body = Full::from(framed(false, b""));
    assert_eq!(call(&app, "ServerReady", &[], body).await.0, 0, "probes need no secret");
}

#[tokio::test]
async fn a_message_that_stops_is_given_up() {
    let (_registry, app) = scaled(&["--read-timeout", "0.1"]);
    let begun = framed(false, &[0; 1000])[..500].to_vec();
    assert_eq!(call(&app, "ModelInfer", &[], Stuck(Some(begun.into()))).await.0, LATE);
    assert_eq!(call(&app, "ServerLive", &[], Stuck(None)).await.0, 0, "health is answered all the same");
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn what_is_no_message_is_an_invalid_argument() {
    let (_registry, app) = scaled(&["--max-body-mb", "1"]);
    let good = request().encode_to_vec();
    let cases: [(&str, Vec<u8>, u32); 8] = [
        ("no protobuf", framed(false, b"\xff\xff\xff"), INVALID),
        ("a wrong type", framed(false, b"\x08\x01"), INVALID),
        ("text that is no UTF-8", framed(false, b"\x0a\x01\xff"), INVALID),
        ("a group", framed(false, b"\x2b\x2c"), INVALID),
        ("nothing", Vec::new(), INVALID),
        ("half of it", framed(false, &good)[..20].to_vec(), INVALID),
        ("two", [framed(false, &good), framed(false, &good)].concat(), INVALID),
        ("too much", framed(false, &vec![0; 2 << 20]), EXHAUSTED),
    ];
    for (name, body, code) in cases {
        assert_eq!(call(&app, "ModelInfer", &[], Full::from(body)).await.0, code, "{name}");
    }
    let small = Full::from(framed(false, &vec![0; 100_000]));
    assert_eq!(call(&app, "RepositoryIndex", &[], small).await.0, EXHAUSTED, "a question is short");
    assert_eq!(app.budget.used(), 0);
}

fn gzip(message: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(message).unwrap();
    writer.finish().unwrap()
}

#[tokio::test]
async fn compressed_messages_are_bounded_as_plain_ones() {
    let (_registry, app) = scaled(&["--max-body-mb", "1"]);
    let good = gzip(&request().encode_to_vec());
    let ask = |encoding: &'static str, body: Vec<u8>| {
        let (app, headers) = (Arc::clone(&app), [("grpc-encoding", encoding)]);
        async move { call(&app, "ModelInfer", &headers, Full::from(framed(true, &body))).await }
    };
    assert_eq!(ask("gzip", good.clone()).await.0, 0);
    assert_eq!(ask("br", good.clone()).await.0, INVALID);
    assert_eq!(ask("gzip", b"no gzip".to_vec()).await.0, INVALID);
    assert_eq!(ask("gzip", gzip(&vec![0; 2 << 20])).await.0, EXHAUSTED);
    assert_eq!(ask("zstd", zstd::encode_all(&vec![0; 40 << 20][..], 1).unwrap()).await.0, EXHAUSTED);
    let unnamed = call(&app, "ModelInfer", &[], Full::from(framed(true, &good))).await;
    assert_eq!(unnamed.0, INVALID, "{}", unnamed.1);
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn repeated_elements_are_counted_before_they_are_decoded() {
    let (_registry, app) = scaled(&[]);
    for (tag, what) in [(0x2a, "inputs"), (0x32, "outputs"), (0x3a, "raw"), (0x22, "parameters")] {
        // two bytes each, of which gzip makes two thousandths
        let message = gzip(&[tag, 0].repeat(1_000_000));
        assert!(message.len() < 4_000);
        let headers = [("grpc-encoding", "gzip")];
        let (code, text, _) = call(&app, "ModelInfer", &headers, Full::from(framed(true, &message))).await;
        assert!(code == INVALID && text.contains(what), "{what}: {code} {text}");
    }
    let mut ranked = request();
    ranked.inputs[0].shape = vec![1; 1_000_000];
    let (code, text, _) = infer(&app, &ranked.encode_to_vec()).await;
    assert!(code == INVALID && text.len() < 500 && text.contains("dimensions"), "{code} {text}");
}

#[test]
fn a_message_weighs_at_least_what_it_becomes() {
    let with = |contents| {
        let mut request = request();
        request.inputs[0].contents = Some(contents);
        weight(&request.encode_to_vec()).unwrap()
    };
    let none = with(InferTensorContents::default());
    let count = 10_000;
    assert!(with(InferTensorContents { uint64_contents: vec![1; count], ..Default::default() }) >= none + 8 * count);
    assert!(with(InferTensorContents { bool_contents: vec![true; count], ..Default::default() }) >= none + count);
    assert!(with(InferTensorContents { fp64_contents: vec![1.0; count], ..Default::default() }) >= none + 8 * count);
    let texts = InferTensorContents { bytes_contents: vec![Bytes::new(); count], ..Default::default() };
    assert!(with(texts) >= none + 56 * count);
    let mut many = request();
    many.inputs = vec![InferInputTensor::default(); 1024];
    many.outputs = vec![InferRequestedOutputTensor::default(); 1024];
    assert!(weight(&many.encode_to_vec()).unwrap() >= 1024 * size_of::<InferInputTensor>());
    many.inputs.push(InferInputTensor::default());
    assert!(weight(&many.encode_to_vec()).is_err());
    let parameters =
        (0..100).map(|number: i32| (number.to_string(), InferParameter::default())).collect::<BTreeMap<_, _>>();
    assert!(weight(&ModelInferRequest { parameters, ..request() }.encode_to_vec()).is_err());
}

#[tokio::test]
async fn numbers_that_grow_when_decoded_are_within_the_budget() {
    let (_registry, app) = scaled(&["--memory-mb", "4"]);
    let mut grown = request();
    // a byte each on the wire, and eight in memory
    let contents = InferTensorContents { uint64_contents: vec![1; 1_000_000], ..Default::default() };
    grown.inputs[0].contents = Some(contents);
    let (code, text, _) = infer(&app, &grown.encode_to_vec()).await;
    assert!(code == EXHAUSTED && text.contains("memory"), "{code} {text}");
    assert_eq!(app.budget.used(), 0);
}

#[tokio::test]
async fn long_names_are_cut_in_answers() {
    let (_registry, app) = scaled(&[]);
    let long = "\u{1b}]0;x".repeat(100_000);
    let in_input = |change: fn(&mut InferInputTensor, String)| {
        let mut request = request();
        change(&mut request.inputs[0], long.clone());
        request
    };
    let requests = [
        ModelInferRequest { model_name: long.clone(), ..request() },
        ModelInferRequest { model_version: long.clone(), ..request() },
        ModelInferRequest {
            outputs: vec![InferRequestedOutputTensor { name: long.clone(), ..Default::default() }],
            ..request()
        },
        in_input(|input, long| input.name = long),
        in_input(|input, long| input.datatype = long),
    ];
    for request in requests {
        let (code, text, _) = infer(&app, &request.encode_to_vec()).await;
        assert!(code != 0 && text.len() < 3000 && !text.contains("%1B"), "{code} {text}");
    }
    let path = "n".repeat(60_000);
    assert!(call(&app, &path, &[], Full::from(Bytes::new())).await.1.len() < 3000);
}

#[tokio::test]
async fn a_full_client_is_told_to_come_back() {
    let (_registry, app) = scaled(&["--client-memory-mb", "1"]);
    let held = app.budget.client([0, 0, 0, 0].into()).ticket(1_044_000).unwrap();
    let (code, text, _) = infer(&app, &request().encode_to_vec()).await;
    assert!(code == EXHAUSTED && text.contains("try%20again%20later"), "{code} {text}");
    let health = call(&app, "ServerReady", &[], Full::from(framed(false, b""))).await;
    assert_eq!(health.0, 0, "health always answers");
    drop(held);
    assert_eq!(infer(&app, &request().encode_to_vec()).await.0, 0);
    let late = tokio::time::timeout(Duration::from_secs(20), infer(&app, &request().encode_to_vec())).await.unwrap();
    assert_eq!(late.0, 0);
}
