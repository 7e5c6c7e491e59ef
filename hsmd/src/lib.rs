//! The signing daemon: an HSM behind a narrow gRPC API, durably guarded against double signing.

pub mod config;
