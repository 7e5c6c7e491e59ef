//! `hsmd state officers|set-officers|request`: who the officers are, and what they are asked to sign.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use hsm_policy::officers::{
    Document, Nonce, Officer, Officers, RecoverKey, SetOfficers, Statement, Thaw,
};
use hsm_proto::v1 as wire;
use hsm_proto::v1::entry::Event;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::evidence::Evidence;
use super::super::holder::{self, Holder};
use super::super::{Configured, Error, Printed, admin, block_on, ledger, out};
use super::doubt;
use crate::guard::entry;
use crate::moves;

/// A document and the signatures that officers made of it.
#[derive(Args)]
pub(in crate::cli) struct SignedFiles {
    /// The document that the officers signed, byte for byte.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) document: Option<PathBuf>,
    /// A signature that `ssh-keygen -Y sign` made of it; give one for each officer.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) signature: Vec<PathBuf>,
}

impl SignedFiles {
    /// Whether any is named.
    pub(in crate::cli) fn any(&self) -> bool {
        self.document.is_some() || !self.signature.is_empty()
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// Where there is none, or one cannot be read.
    pub(in crate::cli) fn read(&self) -> Result<wire::SignedDocument, Error> {
        let document = self.document.as_ref().ok_or(
            "this needs a document that officers signed: --document FILE --signature FILE...; `hsmd state \
             request` makes one, and `hsmd policy sign-request` a policy",
        )?;
        let signatures = self.signature.iter().map(|path| text(path));
        Ok(wire::SignedDocument {
            document: std::fs::read(document).map_err(at(document))?,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }
}

/// Who the officers are to be.
#[derive(Args)]
pub(in crate::cli) struct Named {
    /// The officers: a line each with name and SSH public key, as in OpenSSH's allowed_signers. Their
    /// keys are ssh-ed25519, ecdsa-sha2-nistp256, or of a security key (sk-).
    #[arg(long, value_name = "FILE")]
    officers: PathBuf,
    /// How many of them must sign what no single person may decide.
    #[arg(long, value_name = "M")]
    threshold: usize,
}

impl Named {
    /// The officers.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, or names no officers.
    pub(super) fn read(&self) -> Result<Officers, Error> {
        let path = &self.officers;
        Ok(Officers::parse(&text(path)?, self.threshold).map_err(at(path))?)
    }
}

#[derive(Args)]
pub(in crate::cli) struct SetArguments {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
}

#[derive(Args)]
pub(in crate::cli) struct Request {
    #[command(subcommand)]
    kind: Kind,
    /// How long the document is good for.
    #[arg(long, value_name = "HOURS", default_value_t = 72, global = true)]
    hours: u32,
    /// The deployment's id, where neither hsmd runs nor its journal is here: 32 digits of 0-9 a-f.
    #[arg(long, value_name = "ID", global = true)]
    deployment: Option<String>,
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/hsmd/hsmd.toml",
        global = true
    )]
    config: PathBuf,
    /// Accept mock devices in the configuration. They protect nothing.
    #[arg(long, global = true)]
    mock: bool,
}

#[derive(Subcommand)]
enum Kind {
    /// To replace the officers; then `hsmd state set-officers`.
    SetOfficers(Named),
    /// To make a key known that was restored from a backup; then `hsmd key init --recovered`.
    RecoverKey(Recover),
    /// To end a freeze; then `hsmd thaw`.
    Thaw(RequestThaw),
    /// To bind the state to the anchor that the configuration names; then `hsmd state rebind-anchor`. hsmd must not
    /// run.
    RebindAnchor(doubt::RequestRebind),
    /// To have keys sign below their ceilings again; then `hsmd state accept-tail`.
    AcceptTail(doubt::RequestAccept),
    /// To go on without a signer whose journal is lost; then `hsmd ledger replace-journal`.
    ReplaceJournal(ledger::RequestReplace),
}

#[derive(Args)]
struct RequestThaw {
    /// The key's name, as it was frozen.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    key: Option<String>,
    /// The freeze of every key.
    #[arg(long)]
    all: bool,
    /// Why it was frozen, and how one knows that this is over: the officers sign for this.
    #[arg(long, value_name = "TEXT")]
    the_cause_is_over: String,
}

#[derive(Args)]
struct Recover {
    /// The key's name in the configuration.
    name: String,
    /// The chain id it signs for.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// The key's raw public key, in hex.
    #[arg(long, value_name = "HEX")]
    public_key: String,
    #[command(flatten)]
    evidence: Evidence,
    /// The chain's present height, where no state of the old signer survived.
    #[arg(
        long,
        value_name = "H",
        conflicts_with = "evidence",
        required_unless_present = "evidence"
    )]
    chain_height: Option<i64>,
    /// How far above the evidence the key begins: more than the chain can have grown since.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1000)]
    margin: i64,
    /// What was switched off, where, and how one knows that it stays so: the officers sign for this.
    #[arg(long, value_name = "TEXT")]
    old_device_is_off: String,
}

/// `hsmd state officers`.
pub(super) fn show(printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let answer = block_on(async {
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.get_officers(wire::GetOfficersRequest {}).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    let deployment = hex::encode(&answer.deployment_id);
    if printed.json {
        let all = json!({
            "deployment": deployment,
            "threshold": answer.threshold,
            "officers": answer.officers,
        });
        say!("{all:#}");
        return Ok(());
    }
    say!("deployment  {deployment}");
    if answer.officers.is_empty() {
        say!("officers    none: what needs them is refused; they are named at `hsmd state init`");
        return Ok(());
    }
    say!(
        "threshold   {} of {}",
        answer.threshold,
        answer.officers.len()
    );
    for line in &answer.officers {
        let officer = Officer::parse(line)?;
        say!("officer     {}  {}", officer.name(), officer.fingerprint());
    }
    Ok(())
}

/// `hsmd state set-officers`.
pub(super) fn set(arguments: &SetArguments) -> Result<(), Error> {
    let request = wire::SetOfficersRequest {
        signed: Some(arguments.signed.read()?),
    };
    let answer = block_on(async {
        match holder::find(&arguments.configured, arguments.allow_root).await? {
            Holder::Daemon(mut client) => {
                let answer = client.set_officers(request).await;
                Ok(answer
                    .map_err(|status| admin::sentence(&status))?
                    .into_inner())
            }
            Holder::Files(guard) => {
                let set = moves::set_officers(&guard, request).await;
                guard.close()?;
                Ok(set?)
            }
        }
    })?;
    say!(
        "the officers were replaced, as {} signed",
        answer.signers.join(" and ")
    );
    Ok(())
}

/// `hsmd state request`: the document on standard output, and on standard error what to do with it.
pub(super) fn request(request: &Request) -> Result<(), Error> {
    let configured = Configured {
        config: request.config.clone(),
        mock: request.mock,
    };
    let id = match &request.deployment {
        Some(id) => hex::decode(id)?,
        None => deployment_id(&configured)?,
    };
    let expires = SystemTime::now() + Duration::from_secs(u64::from(request.hours) * 3600);
    match &request.kind {
        Kind::SetOfficers(named) => {
            let officers = named.read()?;
            print(&id, expires, SetOfficers::from(&officers))
        }
        Kind::RecoverKey(recover) => print(&id, expires, statement(recover)?),
        Kind::Thaw(thaw) => {
            let statement = Thaw {
                key: thaw.key.clone().unwrap_or_default(),
                the_cause_is_over: thaw.the_cause_is_over.clone(),
            };
            print(&id, expires, statement)
        }
        Kind::RebindAnchor(rebind) => {
            let statement = doubt::rebind_statement(rebind, &configured)?;
            print(&id, expires, statement)
        }
        Kind::AcceptTail(accept) => {
            let statement = doubt::accept_statement(accept, &configured)?;
            print(&id, expires, statement)
        }
        Kind::ReplaceJournal(replace) => {
            let statement = ledger::replace_statement(replace, &configured)?;
            print(&id, expires, statement)
        }
    }
}

fn statement(recover: &Recover) -> Result<RecoverKey, Error> {
    let file = recover.evidence.read()?;
    let evidence_height = match (&file, recover.chain_height) {
        (Some(file), _) => {
            let public_key = hex::decode(&recover.public_key)?;
            moves::evidence_height(file, &recover.chain, &public_key)?
        }
        (None, Some(height)) => height,
        (None, None) => return Err("give --evidence FILE or --chain-height H".into()),
    };
    let sha256 = file.map(|file| hex::encode(Sha256::digest(&file.content)));
    Ok(RecoverKey {
        key: recover.name.clone(),
        public_key: recover.public_key.to_lowercase(),
        chain_id: recover.chain.clone(),
        evidence_sha256: sha256.unwrap_or_default(),
        evidence_height,
        margin: recover.margin,
        old_device_is_off: recover.old_device_is_off.clone(),
    })
}

/// A fresh document around the statement.
pub(in crate::cli) fn print<S: Statement + Clone>(
    deployment_id: &[u8],
    expires: SystemTime,
    statement: S,
) -> Result<(), Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce)?;
    let expires = prost_types::Timestamp {
        nanos: 0,
        ..entry::wall_clock(expires)
    };
    let expires = expires.to_string().parse()?;
    let document = Document::new(deployment_id, Nonce(nonce), expires, statement);
    out::whole(format_args!("{}", document.to_text()?))?;
    out::note(&format!(
        "each officer reads this and signs the file that holds it, byte for byte:\n  ssh-keygen -Y sign -f \
         KEY -n {} FILE\nthen give it with --document FILE --signature FILE.sig, a signature for each officer",
        S::namespace()
    ));
    Ok(())
}

/// From the running daemon, or from the journal's files, which are only read.
pub(in crate::cli) fn deployment_id(configured: &Configured) -> Result<Vec<u8>, Error> {
    let config = configured.load_to_look()?;
    let told = block_on(async {
        let Some(mut client) = admin::find(&config.admin_socket).await? else {
            return Ok(None);
        };
        let answer = client.get_officers(wire::GetOfficersRequest {}).await;
        let answer = answer.map_err(|status| admin::sentence(&status))?;
        Ok(Some(answer.into_inner().deployment_id))
    })?;
    if let Some(id) = told {
        return Ok(id);
    }
    for read in hsm_journal::read(&config.state_dir)? {
        let leaf = read?.leaf;
        if hsm_journal::is_snapshot_leaf(&leaf) {
            continue;
        }
        return match entry::decode(&leaf)? {
            (_, Event::StateCreated(created)) => Ok(created.deployment_id),
            _ => Err("the journal's beginning is not here: start hsmd, or give --deployment ID, which `hsmd state \
                      officers` prints"
                .into()),
        };
    }
    Err("the journal is empty".into())
}

fn text(path: &Path) -> Result<String, Error> {
    Ok(std::fs::read_to_string(path).map_err(at(path))?)
}

fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}
