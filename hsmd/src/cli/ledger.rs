//! `hsmd ledger bind|reconcile|status`.

use clap::{Args, Subcommand, ValueEnum};
use hsm_policy::officers::ReplaceJournal;
use hsm_proto::v1 as wire;
use serde_json::{Value, json};

use super::state::SignedFiles;
use super::{Configured, Error, Printed, admin, block_on, show};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Have a key that is known share its mark on a chain with other signers, at its mark or above. Bind it on every
    /// signer before a sentry may use more than one.
    Bind(Bind),
    /// Merge this signer's journal into every ledger that is not in order: after etcd was restored from a backup or
    /// made anew. Run it on every signer; none signs before all have.
    Reconcile(Printed),
    /// Have a ledger that is being reconciled wait no more for a signer whose journal is lost, as officers signed. `hsmd
    /// state request replace-journal` makes the document.
    ReplaceJournal(Replace),
    /// How the ledgers are at this moment. The exit code is 1 where one is not in order.
    Status(Printed),
}

#[derive(Args)]
pub(super) struct Bind {
    /// The key's name in the configuration.
    name: String,
    /// The chain id.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// `create` on the first signer, `join` on every other.
    #[arg(value_enum)]
    how: Use,
    #[command(flatten)]
    configured: Configured,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct Replace {
    #[command(flatten)]
    signed: SignedFiles,
    #[command(flatten)]
    configured: Configured,
}

/// What the document says.
#[derive(Args)]
pub(in crate::cli) struct RequestReplace {
    /// The key's name in the configuration.
    name: String,
    /// The chain id it signs for.
    #[arg(long, value_name = "ID")]
    chain: String,
    /// The signer whose journal is lost, as `hsmd ledger status` names it.
    #[arg(long, value_name = "ID")]
    signer: String,
    /// The chain's present height.
    #[arg(long, value_name = "H")]
    chain_height: i64,
    /// How far above it all signers begin: more than the chain grows until the document is used.
    #[arg(long, value_name = "BLOCKS", default_value_t = 1000)]
    margin: i64,
    /// What was switched off, where, and how one knows that it stays so: the officers sign for this.
    #[arg(long, value_name = "TEXT")]
    signer_is_off: String,
}

/// How a key comes to a ledger.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Use {
    /// Make one. Refused where etcd has one for this key and chain.
    Create,
    /// Join the one that is there.
    Join,
}

impl Use {
    pub(super) fn to_wire(self) -> wire::LedgerUse {
        match self {
            Self::Create => wire::LedgerUse::Create,
            Self::Join => wire::LedgerUse::Join,
        }
    }
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Bind(bind) => bind_key(bind),
        Command::Reconcile(printed) => reconcile(printed),
        Command::ReplaceJournal(replace) => replace_journal(replace),
        Command::Status(printed) => status(printed),
    }
}

fn bind_key(bind: &Bind) -> Result<(), Error> {
    let key = block_on(async {
        let config = bind.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let request = wire::BindLedgerRequest {
            key: bind.name.clone(),
            chain_id: bind.chain.clone(),
            r#use: bind.how.to_wire().into(),
        };
        let answer = client.bind_ledger(request).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner()
            .key
            .unwrap_or_default())
    })?;
    if bind.json {
        say!("{:#}", show::key_json(&key));
        return Ok(());
    }
    for chain in &key.chains {
        say!("{}", show::chain_line(chain));
    }
    Ok(())
}

fn reconcile(printed: &Printed) -> Result<(), Error> {
    let ledgers = block_on(async {
        let config = printed.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client
            .reconcile_ledgers(wire::ReconcileLedgersRequest {})
            .await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner()
            .ledgers)
    })?;
    print(printed, &ledgers, json!({}))?;
    // To be awaited is what a merge comes to, until the last signer has made it.
    let failed =
        |ledger: &&wire::LedgerState| !ledger.fault.is_empty() && ledger.awaited.is_empty();
    outcome(ledgers.iter().filter(failed).count())
}

fn replace_journal(replace: &Replace) -> Result<(), Error> {
    let signed = Some(replace.signed.read()?);
    let answer = block_on(async {
        let config = replace.configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client
            .replace_journal(wire::ReplaceJournalRequest { signed })
            .await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    say!(
        "the ledger waits for that signer no more, as {} signed",
        answer.signers.join(" and ")
    );
    Ok(())
}

/// From the running daemon.
pub(in crate::cli) fn replace_statement(
    request: &RequestReplace,
    configured: &Configured,
) -> Result<ReplaceJournal, Error> {
    let (name, chain) = (&request.name, &request.chain);
    let ledgers = ask_status(configured)?.ledgers;
    let ledger = ledgers
        .into_iter()
        .find(|ledger| ledger.key == *name && ledger.chain_id == *chain);
    let ledger = ledger.ok_or_else(|| format!("key {name} shares no mark on chain {chain}"))?;
    if !ledger.awaited.contains(&request.signer) {
        let signer = &request.signer;
        return Err(format!(
            "its ledger does not wait for signer {signer}: see `hsmd ledger status`"
        )
        .into());
    }
    Ok(ReplaceJournal {
        key: name.clone(),
        chain_id: chain.clone(),
        ledger_id: ledger.ledger_id,
        signer_id: request.signer.clone(),
        chain_height: request.chain_height,
        margin: request.margin,
        signer_is_off: request.signer_is_off.clone(),
    })
}

fn ask_status(configured: &Configured) -> Result<wire::GetLedgerStatusResponse, Error> {
    block_on(async {
        let config = configured.load_to_look()?;
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client
            .get_ledger_status(wire::GetLedgerStatusRequest {})
            .await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })
}

fn status(printed: &Printed) -> Result<(), Error> {
    let status = ask_status(&printed.configured)?;
    if !printed.json {
        say!("this signer  {}", status.signer_id);
        say!("etcd         {}", status.endpoints.join(", "));
    }
    let about = json!({ "signer_id": status.signer_id, "endpoints": status.endpoints });
    print(printed, &status.ledgers, about)?;
    let faulty = status.ledgers.iter().filter(|it| !it.fault.is_empty());
    outcome(faulty.count())
}

fn outcome(faulty: usize) -> Result<(), Error> {
    match faulty {
        0 => Ok(()),
        1 => Err("1 ledger is not in order".into()),
        faulty => Err(format!("{faulty} ledgers are not in order").into()),
    }
}

fn print(printed: &Printed, ledgers: &[wire::LedgerState], mut about: Value) -> Result<(), Error> {
    if printed.json {
        let ledgers = ledgers.iter().map(as_json).collect::<Vec<_>>();
        if let Some(fields) = about.as_object_mut() {
            fields.insert("ledgers".to_owned(), ledgers.into());
        }
        say!("{about:#}");
        return Ok(());
    }
    for ledger in ledgers {
        say!(
            "{} on {}: ledger {}, generation {}, {} signers, in etcd cluster {} at revision {}",
            ledger.key,
            ledger.chain_id,
            ledger.ledger_id,
            ledger.generation,
            ledger.members.len(),
            ledger.cluster_id,
            ledger.revision
        );
        if !ledger.fault.is_empty() {
            say!("  NOT SIGNING: {}", ledger.fault);
        }
    }
    Ok(())
}

fn as_json(ledger: &wire::LedgerState) -> Value {
    json!({
        "key": ledger.key,
        "chain_id": ledger.chain_id,
        "ledger_id": ledger.ledger_id,
        "members": ledger.members,
        "awaited": ledger.awaited,
        "generation": ledger.generation,
        "cluster_id": ledger.cluster_id,
        "revision": ledger.revision,
        "fault": ledger.fault,
    })
}
