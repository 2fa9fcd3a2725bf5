//! Models at work: tensors, signatures, sessions, queues, and the loaded versions.

pub mod catalog;
pub mod json;
pub mod listing;
pub mod queue;
pub mod refresh;
pub mod served;
pub mod session;
pub mod signature;
pub mod statistics;
pub mod tensor;
pub mod worker;
