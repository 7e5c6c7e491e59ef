//! The least that keys and authentication keys need, by the YubiHSM2's names of capabilities.

use super::spec::{Algorithm, Purpose};

/// What a key has to have, and may not exceed: it signs, and it can be backed up.
pub(super) fn of_key(algorithm: Algorithm) -> [&'static str; 2] {
    [signing(algorithm), "exportable-under-wrap"]
}

/// The capability of signing with such a key.
pub(super) fn signing(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ed25519 => "sign-eddsa",
        Algorithm::Secp256k1 => "sign-ecdsa",
    }
}

/// What an authentication key of this purpose may have, beside the signing capabilities of the spec's keys where it
/// signs.
pub(super) fn of_purpose(purpose: Purpose) -> &'static [&'static str] {
    match purpose {
        // hsmd signs, reads and frees the audit log, and keeps its rollback anchor in opaque objects.
        Purpose::Sign => &[
            "get-log-entries",
            "get-option",
            "get-opaque",
            "put-opaque",
            "delete-opaque",
        ],
        Purpose::Audit => &["get-log-entries", "get-option"],
        // What the next ceremony needs: another wrap key, keys from backups, other authentication keys.
        Purpose::Administer => &[
            "put-wrap-key",
            "delete-wrap-key",
            "export-wrapped",
            "import-wrapped",
            "generate-asymmetric-key",
            "delete-asymmetric-key",
            "put-authentication-key",
            "delete-authentication-key",
            "get-log-entries",
            "get-option",
            "put-option",
            "get-pseudo-random",
            "sign-attestation-certificate",
            "reset-device",
        ],
    }
}
