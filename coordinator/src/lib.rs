//! The coordinator: one process that owns the state of the cluster, and speaks to clients and workers.

pub mod blobs;
pub mod store;
