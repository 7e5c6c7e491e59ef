//! `hsm-enroll token`, `nodes` and `revoke`: what operators ask of the running server, over its UNIX socket.

use std::path::{Path, PathBuf};

use clap::Args;
use hsm_proto::v1 as wire;
use hsm_proto::v1::enrol_admin_client::EnrolAdminClient;
use hsm_proto::v1::revoke_request::Scope;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{Configured, Error, block_on, say};

/// A command that asks the server and prints.
#[derive(Args)]
struct Asking {
    #[command(flatten)]
    configured: Configured,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Token {
    #[command(flatten)]
    asking: Asking,
    /// The node's name, which is part of every certificate that it gets.
    #[arg(long)]
    node: String,
    /// sentry, signer, operator or auditor.
    #[arg(long)]
    role: String,
    /// The IP address that the node joins from; from any other the token is refused, and stays good.
    #[arg(long, value_name = "IP")]
    address: Option<std::net::IpAddr>,
    /// For how long the token is good, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    valid: u64,
    /// A signer's DNS name or IP address, by which its callers verify it. May be repeated.
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

#[derive(Args)]
pub(super) struct Nodes {
    #[command(flatten)]
    asking: Asking,
    /// Assign files to this node: all of them, in the place of those that it had.
    #[arg(long, value_name = "NODE")]
    assign: Option<String>,
    /// The files. Each gets its own name on the node.
    #[arg(value_name = "FILE", requires = "assign")]
    files: Vec<PathBuf>,
}

#[derive(Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    asking: Asking,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// This node.
    #[arg(long)]
    node: Option<String>,
    /// Every node of this role.
    #[arg(long)]
    role: Option<String>,
    /// Every node: all have to join again.
    #[arg(long)]
    all: bool,
}

pub(super) fn token(arguments: &Token) -> Result<(), Error> {
    let address = arguments.address.map(|address| address.to_string());
    let request = wire::CreateTokenRequest {
        node: arguments.node.clone(),
        role: arguments.role.clone(),
        address: address.unwrap_or_default(),
        valid_s: arguments.valid,
        names: arguments.names.clone(),
    };
    block_on(async {
        let made = arguments.asking.client().await?.create_token(request).await;
        let made = made.map_err(said)?.into_inner();
        let expires = moment(made.expires);
        if arguments.asking.json {
            let value = json!({
                "token": made.token, "expires": expires, "ca_fingerprint": made.ca_fingerprint,
                "entry": made.entry,
            });
            return say(format_args!("{value}"));
        }
        say(format_args!("token           {}", made.token))?;
        say(format_args!(
            "expires         {}",
            expires.unwrap_or_default()
        ))?;
        say(format_args!("CA fingerprint  {}", made.ca_fingerprint))?;
        say(format_args!(
            "\nOn the node, with the token in a file of mode 0600:"
        ))?;
        say(format_args!(
            "  hsm-enroll join --server HOST:PORT --ca-fingerprint {} --node {} --token-file FILE --directory DIR",
            made.ca_fingerprint, arguments.node
        ))
    })
}

pub(super) fn nodes(arguments: &Nodes) -> Result<(), Error> {
    match &arguments.assign {
        Some(node) => assign(arguments, node),
        None => list(&arguments.asking),
    }
}

fn assign(arguments: &Nodes, node: &str) -> Result<(), Error> {
    let read = |path: &PathBuf| -> Result<wire::NodeFile, Error> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| format!("{}: has no name", path.display()))?;
        let content =
            std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(wire::NodeFile {
            name: name.to_owned(),
            content,
        })
    };
    let files: Result<Vec<_>, Error> = arguments.files.iter().map(read).collect();
    let request = wire::AssignFilesRequest {
        node: node.to_owned(),
        files: files?,
    };
    block_on(async {
        let assigned = arguments.asking.client().await?.assign_files(request).await;
        let entry = assigned.map_err(said)?.into_inner().entry;
        match arguments.asking.json {
            true => say(format_args!("{}", json!({ "node": node, "entry": entry }))),
            false => say(format_args!(
                "assigned to {node}; it takes them at its next renewal"
            )),
        }
    })
}

fn list(asking: &Asking) -> Result<(), Error> {
    block_on(async {
        let listed = asking
            .client()
            .await?
            .list_nodes(wire::ListNodesRequest {})
            .await;
        let listed = listed.map_err(said)?.into_inner();
        if asking.json {
            let nodes: Vec<Value> = listed.nodes.into_iter().map(node_json).collect();
            let revocations = listed.revocations.unwrap_or_default().document;
            let value = json!({
                "nodes": nodes, "ca_fingerprint": listed.ca_fingerprint,
                "revocations": String::from_utf8_lossy(&revocations),
            });
            return say(format_args!("{value}"));
        }
        say(format_args!("CA fingerprint {}", listed.ca_fingerprint))?;
        for node in listed.nodes {
            let joined =
                moment(node.joined).map_or("not joined".to_owned(), |at| format!("joined {at}"));
            let expires =
                moment(node.expires).map_or(String::new(), |at| format!(", expires {at}"));
            let revoked = if node.not_before == 0 {
                String::new()
            } else {
                format!(
                    ", revoked before {}",
                    moment(crate::register::to_wire(node.not_before)).unwrap_or_default()
                )
            };
            let (name, role, tokens) = (node.name, node.role, node.open_tokens);
            say(format_args!(
                "{name}  {role}  {joined}{expires}{revoked}, {tokens} open tokens"
            ))?;
        }
        Ok(())
    })
}

fn node_json(node: wire::NodeState) -> Value {
    json!({
        "name": node.name, "role": node.role, "names": node.names, "joined": moment(node.joined),
        "renewed": moment(node.renewed), "expires": moment(node.expires),
        "not_before": node.not_before, "files": node.files, "open_tokens": node.open_tokens,
    })
}

pub(super) fn revoke(arguments: &Revoke) -> Result<(), Error> {
    let whom = &arguments.whom;
    let scope = match (&whom.node, &whom.role, whom.all) {
        (Some(node), _, _) => Scope::Node(node.clone()),
        (None, Some(role), _) => Scope::Role(role.clone()),
        (None, None, all) => Scope::All(all),
    };
    let request = wire::RevokeRequest { scope: Some(scope) };
    block_on(async {
        let revoked = arguments.asking.client().await?.revoke(request).await;
        let revoked = revoked.map_err(said)?.into_inner();
        let (sequence, not_before) = (revoked.sequence, revoked.not_before);
        if arguments.asking.json {
            let entry = revoked.entry;
            let value = json!({ "sequence": sequence, "not_before": not_before, "entry": entry });
            return say(format_args!("{value}"));
        }
        say(format_args!(
            "revoked: list {sequence}. Who polls it refuses within seconds; to admit a node again, make it a token"
        ))
    })
}

impl Asking {
    async fn client(&self) -> Result<EnrolAdminClient<Channel>, Error> {
        let socket = socket(&self.configured.config)?;
        let shown = socket.display().to_string();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let connected = Endpoint::from_static("http://hsm-enroll")
            .connect_with_connector(connector)
            .await;
        let client = connected.map_err(|error| {
            use std::error::Error as _;
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{shown}: {cause}; does hsm-enroll serve, and may you use its socket?")
        });
        Ok(EnrolAdminClient::new(client?).max_decoding_message_size(64 << 20))
    }
}

/// Who administers may not be able to read what else the configuration names, so only this is taken from it.
fn socket(config: &Path) -> Result<PathBuf, Error> {
    let fault = |fault: String| format!("{}: {fault}", config.display());
    let text = std::fs::read_to_string(config).map_err(|error| fault(error.to_string()))?;
    let table: toml::Table = toml::from_str(&text).map_err(|mut error| {
        error.set_input(None);
        fault(error.to_string())
    })?;
    let socket = table.get("admin").and_then(|admin| admin.get("socket"));
    let socket = socket.and_then(toml::Value::as_str);
    let socket = socket.ok_or_else(|| fault("admin.socket: missing".to_owned()))?;
    let config = std::path::absolute(config)?;
    Ok(config.parent().unwrap_or(Path::new("/")).join(socket))
}

fn said(status: tonic::Status) -> Error {
    status.message().to_owned().into()
}

fn moment(time: Option<prost_types::Timestamp>) -> Option<String> {
    time.map(|time| time.to_string())
}
