//! A certificate request (PKCS#10, RFC 2986): the public key, and the proof that the sender has its private half. All
//! else in it is ignored.

use hsm_device::{Algorithm, PublicKey};
use hsm_proto::v1::Reason;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY};
use x509_parser::prelude::FromDer as _;

use crate::Refusal;

/// The longest request that is read, in bytes.
pub const MAX_BYTES: usize = 4096;

/// The public key that a request proves: always P-256.
///
/// # Errors
/// [`Reason::RequestMalformed`] with what is wrong.
pub fn proven_key(der: &[u8]) -> Result<PublicKey, Refusal> {
    let malformed = |fault: &str| {
        let text = format!("the certificate request {fault}");
        Refusal::new(Reason::RequestMalformed, text)
    };
    if der.len() > MAX_BYTES {
        return Err(malformed("is longer than 4096 bytes"));
    }
    let (rest, request) = X509CertificationRequest::from_der(der)
        .map_err(|_| malformed("is no PKCS#10 request in DER"))?;
    if !rest.is_empty() {
        return Err(malformed("has bytes after its end"));
    }
    let info = &request.certification_request_info.subject_pki;
    let curve = info.algorithm.parameters.as_ref();
    let curve = curve.and_then(|parameters| parameters.as_oid().ok());
    if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err(malformed("is not for a key on P-256"));
    }
    let key = PublicKey::from_parts(Algorithm::P256, &info.subject_public_key.data)
        .map_err(|_| malformed("holds no point of P-256"))?;
    request
        .verify_signature()
        .map_err(|_| malformed("is not signed by its key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;

    fn request(key: &KeyPair) -> Vec<u8> {
        let request = CertificateParams::default().serialize_request(key).unwrap();
        request.der().to_vec()
    }

    #[test]
    fn a_request_yields_the_key_that_signed_it() {
        let key = KeyPair::generate().unwrap();
        let expected = PublicKey::from_parts(Algorithm::P256, key.der_bytes()).unwrap();
        assert_eq!(proven_key(&request(&key)).unwrap(), expected);
    }

    #[test]
    fn a_request_for_another_kind_of_key_or_not_signed_by_its_key_is_refused() {
        let good = request(&KeyPair::generate().unwrap());
        let ed25519 = request(&KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap());
        let p384 = request(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap());
        let mut forged = good.clone();
        *forged.last_mut().unwrap() ^= 1;
        let longer = [good.clone(), vec![0]].concat();
        for (request, expected) in [
            (ed25519, "not for a key on P-256"),
            (p384, "not for a key on P-256"),
            (forged, "not signed by its key"),
            (longer, "bytes after its end"),
            (good[..50].to_vec(), "no PKCS#10 request"),
            (vec![0x30; MAX_BYTES + 1], "longer than 4096"),
        ] {
            let refusal = proven_key(&request).unwrap_err();
            assert_eq!(refusal.reason, Reason::RequestMalformed);
            assert!(refusal.message.contains(expected), "{}", refusal.message);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            flips in proptest::collection::vec((0_usize..300, any::<u8>()), 1..8)
        ) {
            static GOOD: LazyLock<Vec<u8>> =
                LazyLock::new(|| request(&KeyPair::generate().unwrap()));
            let mut bytes = GOOD.clone();
            for (place, value) in flips {
                let length = bytes.len();
                bytes[place % length] = value;
            }
            let _ = proven_key(&bytes);
        }
    }
}
