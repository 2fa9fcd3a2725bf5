//! Models at work: tensors, signatures, sessions, queues, and the loaded versions.

pub mod catalog;
pub mod json;
pub mod leash;
pub mod listing;
pub mod loads;
pub mod queue;
pub mod refresh;
pub mod served;
pub mod session;
pub mod signature;
pub mod statistics;
pub mod tensor;
mod vanished;
pub mod worker;
