//! `hsm-enroll join` and `hsm-enroll renew`: what runs on a node.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Error, block_on, feed_watchdog, harden, notify, say, signals, start_log};
use crate::node::{self, Folder, Invitation, Server};
use crate::token;

#[derive(Args)]
pub(super) struct Join {
    /// Host and port of hsm-enroll.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// The name in its certificate, where that is not the host.
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// SHA-256 of its CA's certificate, hexadecimal, as `hsm-enroll token` printed it.
    #[arg(long, value_name = "HEX")]
    ca_fingerprint: String,
    /// The node's name.
    #[arg(long)]
    node: String,
    /// The file with the token, mode 0600; - for standard input.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Where certificates, keys and assigned files go. It belongs to the user that uses them.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Renew {
    /// The folder that `join` filled.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Renew what is due, and end.
    #[arg(long)]
    once: bool,
    /// Print JSON, with --once.
    #[arg(long, requires = "once")]
    json: bool,
    /// Run as root. Renewing needs no privilege: run it as the user that uses the certificates.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn join(arguments: &Join) -> Result<(), Error> {
    harden(true)?;
    let fingerprint = arguments.ca_fingerprint.trim_start_matches("sha256:");
    let fingerprint = hex::decode(fingerprint).ok();
    let fingerprint = fingerprint.and_then(|bytes| bytes.try_into().ok());
    let invitation = Invitation {
        server: Server::new(&arguments.server, arguments.server_name.as_deref())?,
        ca_fingerprint: fingerprint.ok_or("--ca-fingerprint: write 64 hexadecimal digits")?,
        node: arguments.node.clone(),
        token: token::read(&arguments.token_file)?,
    };
    block_on(async {
        let folder = Folder::create(&arguments.directory)?;
        let (settings, outcome) = node::join(&invitation, &folder).await?;
        if arguments.json {
            let value = json!({
                "node": settings.node, "role": settings.role, "files": outcome.replaced,
            });
            return say(format_args!("{value}"));
        }
        let (node, role) = (settings.node, settings.role);
        say(format_args!(
            "joined as {role} {node}: {}",
            outcome.replaced.join(", ")
        ))
    })
}

pub(super) fn renew(arguments: &Renew) -> Result<(), Error> {
    let folder = Folder::open(&arguments.directory);
    if arguments.once {
        harden(true)?;
        return block_on(async {
            let outcome = node::renew(&folder).await?;
            match arguments.json {
                true => say(format_args!("{}", json!({ "files": outcome.replaced }))),
                false if outcome.replaced.is_empty() => say(format_args!("nothing was due")),
                false => say(format_args!("replaced {}", outcome.replaced.join(", "))),
            }
        });
    }
    start_log("info", false);
    harden(arguments.allow_root)?;
    block_on(async {
        let shutdown = signals()?;
        notify(&[sd_notify::NotifyState::Ready]);
        let watchdog = tokio::spawn(feed_watchdog());
        let renewed = node::run(&folder, shutdown).await;
        watchdog.abort();
        Ok(renewed?)
    })
}
