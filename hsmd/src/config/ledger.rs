//! The checks of `[ledger]`.

use std::fmt;
use std::path::PathBuf;

use super::check::Checker;
use super::raw;

/// Where the marks are that several signers share: an etcd cluster.
#[derive(Debug)]
pub struct Ledger {
    /// Its members, at least one, as `https://HOST:PORT`.
    pub endpoints: Vec<EtcdEndpoint>,
    /// What its connections need.
    pub files: LedgerFiles,
}

/// The files of a TLS client.
#[derive(Clone, Debug)]
pub struct LedgerFiles {
    /// The CA certificates that etcd's own chain must end in, PEM.
    pub ca: PathBuf,
    /// Our certificate chain, PEM, leaf first.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
}

/// A member of an etcd cluster. The host is also the name that its certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdEndpoint {
    /// A host name or an IPv4 address.
    pub host: String,
    /// The port for clients.
    pub port: u16,
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}", self.host, self.port)
    }
}

const REMEDY: &str =
    "write https://HOST:PORT of each member, such as \"https://etcd-a.example.org:2379\"";

pub(super) fn check(checker: &mut Checker, raw: raw::Ledger) -> Option<Ledger> {
    let endpoints = endpoints(checker, raw.endpoints);
    let ca = checker.readable("ledger.ca", raw.ca);
    let certificate = checker.readable("ledger.certificate", raw.certificate);
    let private_key = checker.private("ledger.private_key", raw.private_key);
    Some(Ledger {
        endpoints: endpoints?,
        files: LedgerFiles {
            ca: ca?,
            certificate: certificate?,
            private_key: private_key?,
        },
    })
}

fn endpoints(checker: &mut Checker, written: Vec<String>) -> Option<Vec<EtcdEndpoint>> {
    const KEY: &str = "ledger.endpoints";
    if written.is_empty() {
        checker.problems.missing(KEY, REMEDY);
        return None;
    }
    let mut endpoints = Vec::with_capacity(written.len());
    for text in &written {
        match endpoint(text) {
            None => {
                let fault = "is no https:// address with a port";
                checker.problems.value(KEY, text, fault, REMEDY);
            }
            Some(endpoint) if endpoints.contains(&endpoint) => {
                let remedy = "name each member once";
                checker.problems.value(KEY, text, "is named twice", remedy);
            }
            Some(endpoint) => endpoints.push(endpoint),
        }
    }
    (endpoints.len() == written.len()).then_some(endpoints)
}

fn endpoint(text: &str) -> Option<EtcdEndpoint> {
    let (host, port) = text.strip_prefix("https://")?.rsplit_once(':')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let named = !host.is_empty() && host.bytes().all(plain);
    Some(EtcdEndpoint {
        host: named.then(|| host.to_owned())?,
        port: port.parse().ok().filter(|port| *port > 0)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_https_address_with_a_port_and_nothing_else() {
        for good in ["https://etcd-a.example.org:2379", "https://10.0.0.1:1"] {
            assert_eq!(endpoint(good).unwrap().to_string(), good);
        }
        for bad in [
            "http://etcd:2379",
            "https://etcd",
            "https://:2379",
            "https://etcd:0",
            "https://etcd:2379/",
            "https://user@etcd:2379",
            "https://etcd:70000",
            "",
        ] {
            assert_eq!(endpoint(bad), None, "{bad}");
        }
    }
}
