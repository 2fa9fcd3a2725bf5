//! Small ONNX graphs and registries, made without any other program.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::pedantic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use ocad_server::config::Config;
use ocad_server::infer::App;
use ocad_server::model::session::Runtime;
use ocad_server::registry::digest::sha256;
use ocad_server::start::assemble;
use prost::Message;
use serde_json::{Value, json};
use tower::ServiceExt;

pub mod onnx {
    //! The part of onnx.proto3 that the graphs of the tests need.
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Model {
        #[prost(int64, tag = "1")]
        pub ir_version: i64,
        #[prost(message, repeated, tag = "8")]
        pub opsets: Vec<Opset>,
        #[prost(message, optional, tag = "7")]
        pub graph: Option<Graph>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Opset {
        #[prost(string, tag = "1")]
        pub domain: String,
        #[prost(int64, tag = "2")]
        pub version: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Graph {
        #[prost(message, repeated, tag = "1")]
        pub nodes: Vec<Node>,
        #[prost(string, tag = "2")]
        pub name: String,
        #[prost(message, repeated, tag = "5")]
        pub initializers: Vec<Tensor>,
        #[prost(message, repeated, tag = "11")]
        pub inputs: Vec<Port>,
        #[prost(message, repeated, tag = "12")]
        pub outputs: Vec<Port>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Node {
        #[prost(string, repeated, tag = "1")]
        pub inputs: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        pub outputs: Vec<String>,
        #[prost(string, tag = "4")]
        pub operator: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Tensor {
        #[prost(int64, repeated, tag = "1")]
        pub dims: Vec<i64>,
        #[prost(int32, tag = "2")]
        pub kind: i32,
        #[prost(float, repeated, tag = "4")]
        pub floats: Vec<f32>,
        #[prost(string, tag = "8")]
        pub name: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Port {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(message, optional, tag = "2")]
        pub kind: Option<Kind>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Kind {
        #[prost(message, optional, tag = "1")]
        pub tensor: Option<TensorKind>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct TensorKind {
        #[prost(int32, tag = "1")]
        pub element: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "1")]
        pub dims: Vec<Dim>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Dim {
        #[prost(int64, optional, tag = "1")]
        pub value: Option<i64>,
        #[prost(string, optional, tag = "2")]
        pub parameter: Option<String>,
    }
}

/// The protocol's types with ONNX's numbers for them.
pub const TYPES: &[(&str, i32)] = &[
    ("FP32", 1),
    ("UINT8", 2),
    ("INT8", 3),
    ("UINT16", 4),
    ("INT16", 5),
    ("INT32", 6),
    ("INT64", 7),
    ("BYTES", 8),
    ("BOOL", 9),
    ("FP16", 10),
    ("FP64", 11),
    ("UINT32", 12),
    ("UINT64", 13),
    ("BF16", 16),
];

/// An input or output: its name, the protocol's type and its shape.
pub type Port<'a> = (&'a str, &'a str, &'a [i64]);

fn port((name, datatype, shape): &Port) -> onnx::Port {
    let element = TYPES.iter().find(|(known, _)| known == datatype).unwrap().1;
    let dim =
        |dim: &i64| onnx::Dim { value: (*dim >= 0).then_some(*dim), parameter: (*dim < 0).then(|| "batch".to_owned()) };
    let shape = Some(onnx::Shape { dims: shape.iter().map(dim).collect() });
    onnx::Port { name: (*name).into(), kind: Some(onnx::Kind { tensor: Some(onnx::TensorKind { element, shape }) }) }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> onnx::Node {
    onnx::Node {
        inputs: inputs.iter().map(ToString::to_string).collect(),
        outputs: vec![output.into()],
        operator: operator.into(),
    }
}

/// A version to publish.
pub struct Draft<'a> {
    pub inputs: Vec<Port<'a>>,
    pub outputs: Vec<Port<'a>>,
    pub nodes: Vec<onnx::Node>,
    pub initializers: Vec<onnx::Tensor>,
    pub passed: bool,
    pub task: &'a str,
    pub with_graph: bool,
    pub batchable: bool,
}

impl<'a> Draft<'a> {
    fn of(inputs: Vec<Port<'a>>, outputs: Vec<Port<'a>>, nodes: Vec<onnx::Node>) -> Self {
        Self {
            inputs,
            outputs,
            nodes,
            initializers: Vec::new(),
            passed: true,
            task: "ctr",
            with_graph: true,
            batchable: true,
        }
    }

    /// y = factor · x, over rows of three.
    pub fn scaled(factor: f32) -> Self {
        let mut draft = Self::of(
            vec![("x", "FP32", &[-1, 3])],
            vec![("y", "FP32", &[-1, 3])],
            vec![node("Mul", &["x", "factor"], "y")],
        );
        draft.initializers = vec![onnx::Tensor { dims: vec![1], kind: 1, floats: vec![factor], name: "factor".into() }];
        draft
    }

    /// Every type, each through an identity.
    pub fn every_type() -> Self {
        let names: Vec<(&'static str, String, String)> =
            TYPES.iter().map(|(name, _)| (*name, format!("in_{name}"), format!("out_{name}"))).collect();
        let leak = |text: &String| -> &'static str { Box::leak(text.clone().into_boxed_str()) };
        let inputs = names.iter().map(|(name, input, _)| (leak(input), *name, [-1, 2].as_slice())).collect();
        let outputs = names.iter().map(|(name, _, output)| (leak(output), *name, [-1, 2].as_slice())).collect();
        let nodes = names.iter().map(|(_, input, output)| node("Identity", &[input], output)).collect();
        Self::of(inputs, outputs, nodes)
    }

    /// A table of five numbers, looked up by id.
    pub fn lookup() -> Self {
        let mut draft = Self::of(
            vec![("ids", "INT64", &[-1])],
            vec![("value", "FP32", &[-1])],
            vec![node("Gather", &["table", "ids"], "value")],
        );
        let floats = vec![0.0, 10.0, 20.0, 30.0, 40.0];
        draft.initializers = vec![onnx::Tensor { dims: vec![5], kind: 1, floats, name: "table".into() }];
        draft
    }

    fn graph(&self) -> Vec<u8> {
        let graph = onnx::Graph {
            nodes: self.nodes.clone(),
            name: "graph".into(),
            initializers: self.initializers.clone(),
            inputs: self.inputs.iter().map(port).collect(),
            outputs: self.outputs.iter().map(port).collect(),
        };
        let opsets = vec![onnx::Opset { domain: String::new(), version: 20 }];
        onnx::Model { ir_version: 9, opsets, graph: Some(graph) }.encode_to_vec()
    }
}

/// A registry in a temporary folder.
pub struct Registry(pub tempfile::TempDir);

impl Registry {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models")).unwrap();
        fs::write(folder.path().join("models/registry.json"), r#"{"format": 1}"#).unwrap();
        Self(folder)
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().join("models")
    }

    /// Publishes a version and answers the sha256 of its metadata.
    pub fn publish(&self, name: &str, version: &str, draft: &Draft) -> String {
        let folder = self.root().join(".staging").join(format!("{name}-{version}"));
        fs::create_dir_all(&folder).unwrap();
        let graph = draft.graph();
        let ports = |ports: &[Port]| -> Vec<Value> {
            ports.iter().map(|(name, dtype, shape)| json!({"name": name, "dtype": dtype, "shape": shape})).collect()
        };
        let mut files = Vec::new();
        if draft.with_graph {
            fs::write(folder.join("model.onnx"), &graph).unwrap();
            files.push(json!({"path": "model.onnx", "role": "onnx", "size": graph.len(), "sha256": sha256(&graph), "media_type": "application/octet-stream"}));
        }
        let metadata = json!({
            "format": 1, "name": name, "version": version, "created_at": "2026-01-01T00:00:00.000000Z",
            "plugin": {"name": "test", "version": "1", "package": "test"}, "task": draft.task,
            "signature": {"inputs": ports(&draft.inputs), "outputs": ports(&draft.outputs), "batchable": draft.batchable},
            "files": files, "metrics": {"auc": 0.7}, "passed": draft.passed,
            "gates": [{"name": "auc", "metric": "auc", "op": ">", "threshold": 0.5, "observed": 0.7, "passed": draft.passed}],
            "parity": {"reference": "torch", "samples": 1, "max_scaled_diff": 0.0, "tolerance": 1e-5, "passed": true},
        });
        let metadata = serde_json::to_vec(&metadata).unwrap();
        let digest = sha256(&metadata);
        fs::write(folder.join("metadata.json"), metadata).unwrap();
        fs::write(folder.join("metadata.sha256"), format!("{digest}  metadata.json\n")).unwrap();
        fs::create_dir_all(self.root().join(name)).unwrap();
        fs::rename(folder, self.root().join(name).join(version)).unwrap();
        digest
    }

    /// Moves an alias.
    pub fn promote(&self, name: &str, alias: &str, number: u64, version: &str, digest: &str) {
        let folder = self.root().join(name).join("aliases").join(alias);
        fs::create_dir_all(&folder).unwrap();
        let entry = json!({"kind": "promote", "version": version, "metadata_sha256": digest, "moved_at": "", "by": "", "reason": "", "forced": false});
        let staged = self.root().join(".staging").join(format!("{alias}-{number}"));
        fs::write(&staged, entry.to_string()).unwrap();
        fs::hard_link(staged, folder.join(format!("{number:06}.json"))).unwrap();
    }

    /// The state of a server over this registry with further flags, everything loaded.
    pub fn serve(&self, flags: &[&str]) -> Arc<App> {
        let app = self.assemble(flags);
        app.catalog.refresh();
        app
    }

    /// The same, nothing loaded.
    pub fn assemble(&self, flags: &[&str]) -> Arc<App> {
        Arc::new(assemble(&self.config(flags), runtime()).unwrap())
    }

    pub fn config(&self, flags: &[&str]) -> Config {
        use clap::Parser;
        let (root, cache) = (self.root(), self.0.path().join("cache"));
        let fixed = ["ocad-server", "--registry", root.to_str().unwrap(), "--cache", cache.to_str().unwrap()];
        Config::parse_from(fixed.iter().chain(flags))
    }
}

/// The runtime library: `ORT_DYLIB_PATH`, else the one in the project's virtual environment.
pub fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/lib");
    let pythons = fs::read_dir(environment).expect("no `.venv`: make it, or name the library in `ORT_DYLIB_PATH`");
    let folders = pythons.map(|python| python.unwrap().path().join("site-packages/onnxruntime/capi"));
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().map(|file| file.unwrap().path());
    let is_library = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("libonnxruntime.so");
    files.into_iter().find(is_library).expect("no `libonnxruntime.so` in `.venv`: name it in `ORT_DYLIB_PATH`")
}

/// The runtime, loaded once.
pub fn runtime() -> Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::load(&library()).unwrap()).clone()
}

/// An answer: its status, head and whole body.
pub struct Answer {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends `request` to `app` without a socket.
pub async fn send(app: &Arc<App>, request: Request<Body>) -> Answer {
    let response: Response<Body> = ocad_server::http::app(Arc::clone(app)).oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes().to_vec() }
}

pub async fn get(app: &Arc<App>, path: &str) -> Answer {
    send(app, Request::get(path).body(Body::empty()).unwrap()).await
}

pub async fn post(app: &Arc<App>, path: &str, body: impl Into<Body>) -> Answer {
    send(app, Request::post(path).body(body.into()).unwrap()).await
}

/// An inference request of one FP32 input `x`.
pub fn rows(values: &[f32]) -> Value {
    json!({"inputs": [{"name": "x", "shape": [values.len() / 3, 3], "datatype": "FP32", "data": values}]})
}
