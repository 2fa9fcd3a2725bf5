//! The file registry, read-only: names, files, metadata, digests, resolution and changes.

pub mod digest;
pub mod format;
pub mod index;
pub mod names;
pub mod onnx;
pub mod store;
pub mod verify;
pub mod watch;
