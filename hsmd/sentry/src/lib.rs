//! Lets a stock CometBFT node sign through hsmd.
//!
//! The node listens on its `priv_validator_laddr`, the sentry dials it, reads one request after the other
//! and forwards votes and proposals to hsmd over mutual TLS 1.3:
//!
//! ```text
//! node  <- privval, UNIX socket or SecretConnection ->  chain  <- gRPC, mTLS ->  hsmd
//!            frame, node                                privval      link, signer, tls
//! ```
//!
//! The sentry holds no consensus key and decides nothing: hsmd does, and a refusal of hsmd is handed to the
//! node word for word. What the sentry adds is that a request waits, within its deadline, for an hsmd that is
//! just being restarted, because a node does not ask a second time after a refusal.

mod backoff;
mod chain;
pub mod config;
mod frame;
mod link;
mod metrics;
mod node;
mod privval;
mod refusal;
mod signer;
mod supervise;
pub mod tls;

pub use config::Config;
pub use supervise::{Error, run};
