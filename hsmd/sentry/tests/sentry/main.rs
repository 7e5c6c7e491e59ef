//! The sentry between a node and an hsmd that the tests play themselves: real sockets, real TLS.

mod binary;
mod connections;
mod house;
mod hsmd;
mod identity;
mod node;
mod pki;
mod refusals;
mod signing;
