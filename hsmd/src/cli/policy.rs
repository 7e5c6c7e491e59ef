//! `hsmd policy check|show|diff|explain|sign-request|load`.

mod explain;
pub(super) mod source;
pub(super) mod table;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use hsm_policy::grants::{self, Header, Policy};
use hsm_proto::v1 as wire;
use serde_json::json;

use super::holder::{self, Holder};
use super::state::SignedFiles;
use super::{Configured, Error, Printed, admin, block_on, out, show};
use crate::config::Config;
use crate::guard::entry;
use crate::in_force;
use crate::service::documents;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Read a policy, hold it against the configuration, and print who may have what signed.
    Check(Check),
    /// Print the policy in force.
    Show(Printed),
    /// Say what a policy allows that the one in force does not, and what it no longer allows.
    Diff(Diff),
    /// Say what would be decided about a message, and which line decides.
    Explain(explain::Arguments),
    /// Print a policy as officers are to sign it: bound to this deployment, the next version and an expiry.
    SignRequest(SignRequest),
    /// Put a policy in force that enough officers signed. Nothing of it counts where anything is wrong with it.
    Load(Load),
}

#[derive(Args)]
pub(super) struct Check {
    /// The policy.
    file: PathBuf,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Args)]
pub(super) struct Diff {
    /// The new policy.
    file: PathBuf,
    /// The old one; the one in force where none is named.
    #[arg(long, value_name = "FILE")]
    old: Option<PathBuf>,
    #[command(flatten)]
    printed: Printed,
}

#[derive(Args)]
pub(super) struct SignRequest {
    /// The draft: a policy without kind, deployment, version and expires.
    file: PathBuf,
    /// For how many days it may be loaded. Once loaded, it stays in force.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    days: u32,
    /// Its version; one above that of the policy in force where none is given.
    #[arg(long, value_name = "N")]
    version: Option<NonZeroU64>,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Args)]
pub(super) struct Load {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
    /// Run as root, where no daemon runs.
    #[arg(long)]
    allow_root: bool,
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Check(arguments) => check(arguments),
        Command::Show(printed) => show_in_force(printed),
        Command::Diff(arguments) => diff(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::SignRequest(arguments) => sign_request(arguments),
        Command::Load(arguments) => load(arguments),
    }
}

fn check(arguments: &Check) -> Result<(), Error> {
    let config = arguments.printed.configured.load_to_look()?;
    let (_, policy) = source::read(&arguments.file)?;
    fits(&policy, &config).map_err(|reason| format!("{}: {reason}", arguments.file.display()))?;
    let header = policy.header();
    if arguments.printed.json {
        let mut all = table::as_json(&policy);
        if let Some(all) = all.as_object_mut() {
            all.insert("version".to_owned(), json!(header.map(Header::version)));
        }
        say!("{all:#}");
        return Ok(());
    }
    match header {
        None => say!("{}: good, a draft", arguments.file.display()),
        Some(header) => say!(
            "{}: good, version {}, to be loaded until {}",
            arguments.file.display(),
            header.version(),
            header.expires()
        ),
    }
    table::print(&policy)
}

fn show_in_force(printed: &Printed) -> Result<(), Error> {
    let found = source::in_force(&printed.configured.load_to_look()?)?;
    let status = &found.status;
    if printed.json {
        let mut all = table::as_json(&found.policy);
        if let Some(all) = all.as_object_mut() {
            all.insert("version".to_owned(), json!(status.version));
            all.insert("old".to_owned(), json!(status.old));
            all.insert("unsigned".to_owned(), json!(status.unsigned));
        }
        say!("{all:#}");
        return Ok(());
    }
    describe(status)?;
    table::print(&found.policy)
}

/// A line or two about the policy in force.
pub(super) fn describe(status: &wire::PolicyStatus) -> Result<(), Error> {
    match status.version {
        0 if status.unsigned => say!("policy: UNSIGNED, for development only"),
        0 => say!("policy: none was loaded, so that nothing is signed"),
        version => say!("policy: version {version}"),
    }
    if status.old {
        let expires = show::moment(status.expires.as_ref());
        say!("policy: OLD: it could be loaded until {expires}, and stays in force");
    }
    Ok(())
}

fn diff(arguments: &Diff) -> Result<(), Error> {
    let (_, new) = source::read(&arguments.file)?;
    let old = source::of(arguments.old.as_deref(), &arguments.printed.configured)?;
    let difference = grants::diff(&old, &new);
    if arguments.printed.json {
        say!(
            "{:#}",
            json!({ "allows": difference.more, "no_longer_allows": difference.less })
        );
        return Ok(());
    }
    if difference.is_empty() {
        say!("both allow the same");
    }
    for (head, sentences) in [
        ("It allows what the old one did not:", &difference.more),
        ("It no longer allows:", &difference.less),
    ] {
        if !sentences.is_empty() {
            say!("{head}");
        }
        for sentence in sentences {
            say!("- {sentence}");
        }
    }
    Ok(())
}

fn sign_request(arguments: &SignRequest) -> Result<(), Error> {
    let config = arguments.configured.load_to_look()?;
    let (text, draft) = source::read(&arguments.file)?;
    let file = arguments.file.display();
    if draft.header().is_some() {
        return Err(format!(
            "{file}: it has kind, deployment, version and expires already: officers sign it as it is, or remove these \
             lines for new ones"
        )
        .into());
    }
    fits(&draft, &config).map_err(|reason| format!("{file}: {reason}"))?;
    let found = source::in_force(&config)?;
    let next = NonZeroU64::MIN.saturating_add(found.status.version);
    let version = arguments.version.unwrap_or(next);
    let lasting = Duration::from_secs(u64::from(arguments.days) * 24 * 3600);
    let expires = prost_types::Timestamp {
        nanos: 0,
        ..entry::wall_clock(SystemTime::now() + lasting)
    };
    let header = Header::new(&found.deployment_id, version, expires.to_string().parse()?)?;
    let document = format!("{}\n{text}", header.to_text());
    // What is signed is what was looked at.
    Policy::parse(&document)?;
    out::whole(format_args!("{document}"))?;
    out::note(&format!(
        "each officer reads this, and what `hsmd policy diff FILE` says of it, and signs the file that holds it, byte \
         for byte:\n  ssh-keygen -Y sign -f KEY -n {} FILE\nthen: hsmd policy load --document FILE --signature FILE.sig, a \
         signature for each officer",
        grants::namespace()
    ));
    Ok(())
}

fn load(arguments: &Load) -> Result<(), Error> {
    let signed = arguments.signed.read()?;
    let config = arguments.configured.load_to_look()?;
    let answer = block_on(async {
        match holder::find(&arguments.configured, arguments.allow_root).await? {
            Holder::Daemon(mut client) => {
                let signed = Some(signed);
                let answer = client.load_policy(wire::LoadPolicyRequest { signed }).await;
                Ok(answer
                    .map_err(|status| admin::sentence(&status))?
                    .into_inner())
            }
            Holder::Files(guard) => {
                let signed = documents::signed(Some(signed));
                let has_key = |name: &str| config.keys.iter().any(|key| key.name == name);
                let loaded =
                    in_force::load(&guard, &config.state_dir, &signed, has_key, drop).await;
                let by = format!("uid {}", nix::unistd::getuid());
                let error = loaded.as_ref().err();
                documents::journal(&guard, grants::KIND, &by, &signed, error).await;
                guard.close()?;
                let (mark, signers) = loaded?;
                Ok(wire::LoadPolicyResponse {
                    version: mark.version,
                    signers,
                })
            }
        }
    })?;
    say!(
        "policy version {} is in force, as {} signed",
        answer.version,
        answer.signers.join(" and ")
    );
    Ok(())
}

fn fits(policy: &Policy, config: &Config) -> Result<(), String> {
    in_force::names_known_keys(policy, |name| {
        config.keys.iter().any(|key| key.name == name)
    })
}
