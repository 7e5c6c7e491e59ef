//! hsmd: a signing daemon that wraps YubiHSM2 and PKCS#11 devices behind a narrow gRPC API over mutual
//! TLS, and cannot be made to sign twice.
//!
//! The life of a sign request is [`mod@line`]: identity, request, permit, reserve, device, reply. What it
//! rests on: [`transport`] says who asks, `hsm_policy` decides, [`guard`] reserves in the journal
//! (`hsm_journal`), [`keyring`] reaches the devices (`hsm_device`).

pub mod advisories;
pub mod anchor;
pub mod audit;
pub mod cli;
pub mod config;
pub mod daemon;
#[cfg(feature = "mock")]
pub mod development;
pub mod devices;
pub mod doctor;
pub mod guard;
pub mod hardening;
pub mod in_force;
pub mod key;
pub mod keyring;
pub mod ledger;
pub mod line;
pub mod log;
pub mod metrics;
pub mod moves;
pub mod service;
mod sync;
pub mod transport;
