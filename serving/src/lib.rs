//! Serves the ONNX versions of an ocad registry over the Open Inference Protocol.

pub mod auth;
pub mod budget;
pub mod config;
pub mod error;
pub mod grpc;
pub mod http;
pub mod infer;
pub mod metrics;
pub mod model;
pub mod registry;
pub mod server;
pub mod start;
pub mod text;
pub mod work;
