//! What a certificate says. All of it comes from the register; only the public key is the node's.

use std::net::IpAddr;

use hsm_policy::identity::{Role, TrustDomain};
use hsm_proto::v1::CertificateKind;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SerialNumber, string::Ia5String,
};

/// A certificate's subject and validity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The one URI.
    pub uri: String,
    /// For people: the common name. Nothing is decided by it.
    pub common_name: String,
    /// DNS names and IP addresses, of a server's only.
    pub names: Vec<String>,
    /// Whether it is a server's; else a client's.
    pub server: bool,
    /// The first and the last second of its validity, since 1970.
    pub not_before: u64,
    /// The same.
    pub not_after: u64,
}

/// The kinds of certificates that a role has, beside the granting one.
#[must_use]
pub fn kinds(role: Role) -> &'static [CertificateKind] {
    match role {
        Role::Sentry | Role::Operator | Role::Auditor => &[CertificateKind::Client],
        // With the client's it fetches the list of revocations.
        Role::Signer => &[CertificateKind::Server, CertificateKind::Client],
        Role::Grant => &[],
    }
}

impl Contents {
    /// What a node's certificate of this kind says.
    #[must_use]
    pub fn of_node(
        trust_domain: &TrustDomain,
        (role, name): (Role, &str),
        kind: CertificateKind,
        names: &[String],
        (not_before, not_after): (u64, u64),
    ) -> Self {
        let (role, server) = match kind {
            CertificateKind::Grant | CertificateKind::Unspecified => (Role::Grant, false),
            CertificateKind::Client => (role, false),
            CertificateKind::Server => (role, true),
        };
        Self {
            uri: format!("spiffe://{trust_domain}/{role}/{name}"),
            common_name: format!("{role} {name}"),
            names: if server { names.to_vec() } else { Vec::new() },
            server,
            not_before,
            not_after,
        }
    }

    /// As rcgen takes it, with a random serial number of 16 bytes.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn params(&self) -> Result<CertificateParams, String> {
        let text = |error: rcgen::Error| error.to_string();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        let uri = Ia5String::try_from(self.uri.as_str()).map_err(text)?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        for name in &self.names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(text)?),
            });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![if self.server {
            ExtendedKeyUsagePurpose::ServerAuth
        } else {
            ExtendedKeyUsagePurpose::ClientAuth
        }];
        params.use_authority_key_identifier_extension = true;
        let mut serial = [0; 16];
        getrandom::fill(&mut serial).map_err(|error| error.to_string())?;
        // Positive, and 16 bytes whatever comes.
        if let Some(first) = serial.first_mut() {
            *first = *first & 0x3f | 0x40;
        }
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.not_before = moment(self.not_before)?;
        params.not_after = moment(self.not_after)?;
        Ok(params)
    }
}

/// Whether a server can be known by this: an IP address, or a host name of RFC 1123.
#[must_use]
pub fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.parse::<IpAddr>().is_ok() || name.len() <= 253 && name.split('.').all(label)
}

/// Whether two names are of one host: an address may be written in several ways.
#[must_use]
pub fn is_same_host(one: &str, other: &str) -> bool {
    match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => one.to_canonical() == other.to_canonical(),
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// A second since 1970 as rcgen takes it.
pub(crate) fn moment<T: From<std::time::SystemTime>>(seconds: u64) -> Result<T, String> {
    /// The last second of the year 9999, the last that a certificate can name.
    const LAST: u64 = 253_402_300_799;
    if seconds > LAST {
        return Err(format!("{seconds} s after 1970 is beyond the year 9999"));
    }
    Ok((std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_host_however_it_is_written() {
        for (one, other) in [
            ("::1", "0:0:0:0:0:0:0:1"),
            ("2001:db8::1", "2001:DB8:0::1"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("Keys.example.org", "keys.example.org"),
        ] {
            assert!(is_same_host(one, other), "{one} {other}");
        }
        assert!(!is_same_host("::1", "::2") && !is_same_host("a", "b"));
    }
}
