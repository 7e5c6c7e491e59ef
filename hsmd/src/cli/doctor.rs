//! `hsmd doctor`.

use hsm_proto::v1 as wire;
use hsm_proto::v1::Severity;
use serde_json::json;

use super::output::write;
use super::{Error, Printed, admin, block_on};

pub(super) fn run(printed: &Printed) -> Result<(), Error> {
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
    write(format_args!("{text}"))?;
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
