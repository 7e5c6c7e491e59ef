//! The sentry between a node and an hsmd that the tests play themselves: real sockets, real TLS.

// A test fails by panicking; what the workspace exempts as test code does not reach helper functions.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod binary;
mod connections;
mod failover;
mod house;
mod hsmd;
mod identity;
mod node;
mod pki;
mod refusals;
mod signing;
