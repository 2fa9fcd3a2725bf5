//! The file registry, read-only: names, files, metadata, digests, resolution and changes. `registry/FORMAT.md` is its
//! specification and `tests/golden/registry/` its test.

pub mod digest;
pub mod fields;
pub mod index;
pub mod manifest;
pub mod names;
pub mod onnx;
pub mod refusal;
pub mod store;
pub mod strict;
pub mod verify;
pub mod watch;
