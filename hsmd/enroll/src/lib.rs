//! hsm-enroll, the keyserver: it admits nodes by one-use tokens, issues their short-lived certificates, hands out the
//! files that are assigned to them, and revokes.
//!
//! The server, in the order in which a call meets it:
//!
//! - [`listener`]: TLS 1.3, and the certificate at the other end, if any.
//! - [`service`]: the calls, each of which ends in one entry of the register.
//! - [`authority`]: the CA's key in its device, and what certificates say.
//! - [`register`]: tokens, nodes, revocations: what replaying the journal yields, and the one lock over it.
//!
//! [`node`] is the other side: joining, and renewing for as long as the node lives.

#![forbid(unsafe_code)]

pub mod authority;
pub mod cli;
pub mod config;
pub mod contents;
pub mod daemon;
pub mod listener;
pub mod metrics;
pub mod node;
pub mod refusal;
pub mod register;
pub mod request;
pub mod service;
pub mod token;

pub use refusal::Refusal;
