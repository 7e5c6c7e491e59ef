//! How modules encode curves and points.

use crate::{Algorithm, Error, PublicKey};

/// The scheme of a `CKA_EC_PARAMS`: an object identifier, or for Ed25519 the name that PKCS#11 3.0 section 2.3.5 also
/// allows and yubihsm_pkcs11 uses.
pub(super) fn curve(parameters: &[u8]) -> Option<Algorithm> {
    match parameters {
        [6, 3, 0x2b, 0x65, 0x70] | b"\x13\x0cedwards25519" => Some(Algorithm::Ed25519),
        [6, 5, 0x2b, 0x81, 4, 0, 0x0a] => Some(Algorithm::Secp256k1),
        [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(Algorithm::P256),
        _ => None,
    }
}

/// Reads a `CKA_EC_POINT`: raw, or wrapped in a DER OCTET STRING, by module.
pub(super) fn decode_point(algorithm: Algorithm, point: &[u8]) -> Result<PublicKey, Error> {
    let length = point.len();
    let unwrapped = match (algorithm, point) {
        (Algorithm::Ed25519, [4, 32, key @ ..]) if length == 34 => key,
        (Algorithm::Secp256k1 | Algorithm::P256, [4, 65, key @ ..]) if length == 67 => key,
        (Algorithm::Secp256k1 | Algorithm::P256, [4, 33, key @ ..]) if length == 35 => key,
        _ => point,
    };
    PublicKey::from_parts(algorithm, unwrapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_known_by_every_encoding_that_modules_use() {
        let cases: [(&str, Option<Algorithm>); 7] = [
            ("06032b6570", Some(Algorithm::Ed25519)),
            ("130c656477617264733235353139", Some(Algorithm::Ed25519)),
            ("06052b8104000a", Some(Algorithm::Secp256k1)),
            ("06082a8648ce3d030107", Some(Algorithm::P256)),
            ("06052b81040022", None), // P-384
            ("06032b6571", None),     // Ed448
            ("", None),
        ];
        for (parameters, algorithm) in cases {
            assert_eq!(
                curve(&hex::decode(parameters).unwrap()),
                algorithm,
                "{parameters}"
            );
        }
    }

    #[test]
    fn a_point_is_read_raw_and_wrapped() {
        let ed = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
        let ed = ed.unwrap();
        let expected = PublicKey::from_parts(Algorithm::Ed25519, &ed).unwrap();
        for point in [ed.clone(), [vec![4, 32], ed.clone()].concat()] {
            assert_eq!(decode_point(Algorithm::Ed25519, &point).unwrap(), expected);
        }
        let secret = k256::ecdsa::SigningKey::from_slice(&[9; 32]).unwrap();
        let long = secret
            .verifying_key()
            .to_sec1_point(false)
            .as_bytes()
            .to_vec();
        let short = secret
            .verifying_key()
            .to_sec1_point(true)
            .as_bytes()
            .to_vec();
        let expected = PublicKey::from_parts(Algorithm::Secp256k1, &short).unwrap();
        for point in [
            long.clone(),
            short.clone(),
            [vec![4, 65], long].concat(),
            [vec![4, 33], short].concat(),
        ] {
            assert_eq!(
                decode_point(Algorithm::Secp256k1, &point).unwrap(),
                expected
            );
        }
        for wrong in [
            vec![],
            [vec![4, 31], ed[1..].to_vec()].concat(),
            vec![4; 40],
        ] {
            assert!(decode_point(Algorithm::Ed25519, &wrong).is_err());
        }
    }
}
