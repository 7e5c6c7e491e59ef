//! The certificates of a development set-up: made together, for one year, by a CA whose key is not kept.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, string::Ia5String,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::time::ASN1Time;

use super::{Error, TRUST_DOMAIN, io_error, write_new};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA: &str = "ca.pem";
/// File name without its ending, role, and whether it is a server's.
const LEAVES: [(&str, &str, bool); 3] = [
    ("server", "signer", true),
    ("sentry", "sentry", false),
    ("operator", "operator", false),
];

/// Makes all certificates anew if one is missing or expires within a day.
pub(super) fn ensure(directory: &Path) -> Result<(), Error> {
    let names = || LEAVES.iter().map(|(name, ..)| name);
    let files: Vec<_> = names()
        .map(|name| format!("{name}.pem"))
        .chain([CA.to_owned()])
        .collect();
    let keys = names().all(|name| directory.join(format!("{name}.key")).exists());
    if keys && files.iter().all(|file| is_usable(&directory.join(file))) {
        return Ok(());
    }
    for file in files
        .into_iter()
        .chain(names().map(|name| format!("{name}.key")))
    {
        let path = directory.join(file);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error(&path)(error));
            }
            _ => {}
        }
    }
    issue(directory)
}

fn is_usable(path: &Path) -> bool {
    let tomorrow = SystemTime::now() + DAY;
    let tomorrow = tomorrow
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let Ok(tomorrow) = i64::try_from(tomorrow.as_secs()) else {
        return false;
    };
    let (Ok(tomorrow), Ok(der)) = (
        ASN1Time::from_timestamp(tomorrow),
        CertificateDer::from_pem_file(path),
    ) else {
        return false;
    };
    x509_parser::parse_x509_certificate(&der)
        .is_ok_and(|(_, certificate)| certificate.validity().is_valid_at(tomorrow))
}

fn issue(directory: &Path) -> Result<(), Error> {
    let mut params = params("CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?;
    let issuer = Issuer::new(params, key);
    for (name, role, is_server) in LEAVES {
        let key = KeyPair::generate()?;
        let certificate = leaf(role, is_server)?.signed_by(&key, &issuer)?;
        write_new(&directory.join(format!("{name}.key")), &key.serialize_pem())?;
        write_new(&directory.join(format!("{name}.pem")), &certificate.pem())?;
    }
    write_new(&directory.join(CA), &ca.pem())
}

fn leaf(role: &str, is_server: bool) -> Result<CertificateParams, Error> {
    let mut params = params(role);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let uri = Ia5String::try_from(format!("spiffe://{TRUST_DOMAIN}/{role}/dev"))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    if is_server {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
            .subject_alt_names
            .push(SanType::DnsName(Ia5String::try_from("localhost")?));
        for address in [[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()] {
            params.subject_alt_names.push(SanType::IpAddress(address));
        }
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }
    Ok(params)
}

/// For a year from now; from an hour ago, since clocks differ.
fn params(what: &str) -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY / 24).into();
    params.not_after = (now + 365 * DAY).into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("hsmd DEVELOPMENT ONLY {what}"));
    params
}
