//! Lets a stock CometBFT node sign through hsmd.
//!
//! The node listens on its `priv_validator_laddr`, the sentry dials it, reads one request after the other
//! and forwards votes and proposals to hsmd over mutual TLS 1.3:
//!
//! ```text
//! node  <- privval, UNIX socket or SecretConnection ->  chain  <- gRPC, mTLS ->  hsmd
//!            frame, node                                privval      failover, signer, pin, link, tls
//! ```
//!
//! The sentry holds no consensus key and decides nothing: hsmd does, and a refusal of hsmd is handed to the
//! node word for word. What the sentry adds is that a request waits, within its deadline, for an hsmd that is
//! just being restarted, because a node does not ask a second time after a refusal. Where a chain names several
//! hsmd, all bound to one ledger, a request goes to the next of them when one fails.

mod backoff;
mod chain;
pub mod config;
mod failover;
mod frame;
mod link;
mod metrics;
mod node;
mod pin;
mod privval;
mod refusal;
mod signer;
mod supervise;
pub mod survey;
pub mod tls;

pub use config::Config;
pub use supervise::{Error, run};
