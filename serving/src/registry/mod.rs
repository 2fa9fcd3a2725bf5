//! The file registry, read-only: names, files, metadata, digests, resolution and changes. `registry/FORMAT.md` is its
//! specification and `tests/golden/registry/` its test.

pub mod aliases;
pub mod cache;
pub mod digest;
pub mod fields;
pub mod index;
pub mod listings;
pub mod manifest;
pub mod marks;
pub mod names;
pub mod objects;
pub mod onnx;
pub mod private;
pub mod refusal;
pub mod remote;
pub mod signatures;
pub mod store;
pub mod strict;
pub mod verify;
pub mod watch;
pub mod workers;
