//! `hsmd doctor`.

use hsm_proto::v1 as wire;
use hsm_proto::v1::Severity;
use serde_json::json;

use super::{Error, Printed, admin, block_on, out};

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Instead: end the alarm about what this device's audit log showed. The journal says who did, and what it
    /// showed.
    #[arg(long, value_name = "DEVICE")]
    acknowledge: Option<String>,
    #[command(flatten)]
    printed: Printed,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    match &arguments.acknowledge {
        Some(device) => acknowledge(device, &arguments.printed),
        None => diagnose(&arguments.printed),
    }
}

fn acknowledge(device: &str, printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let request = wire::AcknowledgeAlarmRequest {
        device: device.to_owned(),
    };
    let seen = block_on(async {
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.acknowledge_alarm(request).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner())
    })?;
    if printed.json {
        let all = json!({
            "device": device,
            "unknown_signatures": seen.unknown_signatures,
            "missing_entries": seen.missing_entries,
            "broken_links": seen.broken_links,
            "unreadable_entries": seen.unreadable_entries,
            "administrative_commands": seen.administrative_commands,
        });
        say!("{all:#}");
        return Ok(());
    }
    say!(
        "device {device}: acknowledged {} unknown signatures, {} entries missing, {} links broken, {} unreadable, {} \
         administrative commands",
        seen.unknown_signatures,
        seen.missing_entries,
        seen.broken_links,
        seen.unreadable_entries,
        seen.administrative_commands
    );
    Ok(())
}

fn diagnose(printed: &Printed) -> Result<(), Error> {
    let config = printed.configured.load_to_look()?;
    let findings = block_on(async {
        let mut client = admin::connect(&config.admin_socket).await?;
        let answer = client.diagnose(wire::DiagnoseRequest {}).await;
        Ok(answer
            .map_err(|status| admin::sentence(&status))?
            .into_inner()
            .findings)
    })?;
    let count = |severity| findings.iter().filter(|f| f.severity() == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let text = match printed.json {
        true => {
            let findings: Vec<_> = findings.iter().map(as_json).collect();
            let all = json!({ "problems": problems, "warnings": warnings, "findings": findings });
            format!("{all:#}\n")
        }
        false => findings.iter().map(as_line).collect(),
    };
    out::whole(format_args!("{text}"))?;
    match problems {
        0 => Ok(()),
        1 => Err("1 problem".into()),
        problems => Err(format!("{problems} problems").into()),
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "WARNING",
        Severity::Problem | Severity::Unspecified => "PROBLEM",
    }
}

fn as_line(finding: &wire::Finding) -> String {
    let word = word(finding.severity());
    let (subject, name, message) = (&finding.subject, &finding.name, &finding.message);
    let what = format!("{subject} {name}");
    format!("{word:<8} {:<20} {message}\n", what.trim_end())
}

fn as_json(finding: &wire::Finding) -> serde_json::Value {
    json!({
        "severity": word(finding.severity()).to_lowercase(),
        "subject": finding.subject,
        "name": finding.name,
        "check": finding.check,
        "message": finding.message,
    })
}
