//! The wire of hsmd: the messages and services of `proto/hsm/v1/*.proto`, those of a CometBFT node's
//! privval socket, what hsmd says to etcd, and the code generated from them. The .proto files carry the documentation.

/// Package `hsm.v1`: the services `Signer` and `Admin`, the reasons of a refusal, and the entries of the
/// journal.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("hsm.v1");

    /// The encoded `FileDescriptorSet` of this package, for server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hsm_v1.descriptors"));
}

/// Package `cometbft.privval.superset`: what a CometBFT node of any line from 0.34 to 1.0 says to its remote
/// signer.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod privval {
    tonic::include_proto!("cometbft.privval.superset");
}

/// Package `etcdserverpb`: the part of etcd's API that a ledger needs.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}

/// The domain of every `google.rpc.ErrorInfo` that hsmd attaches to a status.
pub const ERROR_DOMAIN: &str = "hsm.v1";

impl v1::Reason {
    /// The name that stands in an `ErrorInfo` and in the journal: the enum's without `REASON_`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("REASON_").unwrap_or(name)
    }

    /// The reverse of [`v1::Reason::name`]; `None` for a name that is no reason of ours.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("REASON_{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::v1::Reason;

    #[test]
    fn a_reason_survives_the_trip_through_its_name() {
        for number in 0..100 {
            if let Ok(reason) = Reason::try_from(number) {
                assert_eq!(Reason::from_name(reason.name()), Some(reason));
                assert!(!reason.name().starts_with("REASON_"));
            }
        }
        assert_eq!(Reason::from_name("NO_SUCH_REASON"), None);
    }
}
