//! Admission tokens: 32 random bytes, of which the register has the hash only.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hsm_proto::v1::Reason;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::Refusal;

/// Random bytes of a token.
const BYTES: usize = 32;
/// Of its text in base64url (RFC 4648 section 5) without padding.
const CHARACTERS: usize = 43;

/// The SHA-256 of a token's bytes. They are random, so that nobody finds a token for a hash.
pub type Hash = [u8; 32];

/// A new token and its hash.
///
/// # Errors
/// Where the system gives no randomness.
pub fn generate() -> Result<(SecretString, Hash), getrandom::Error> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    getrandom::fill(&mut *bytes)?;
    let text = SecretString::from(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
    Ok((text, Sha256::digest(bytes.as_slice()).into()))
}

/// The hash of a token that somebody shows.
///
/// # Errors
/// [`Reason::TokenUnknown`]: such a text is no token.
pub fn hash(text: &str) -> Result<Hash, Refusal> {
    let unknown = || {
        Refusal::new(
            Reason::TokenUnknown,
            "this is no admission token: `hsm-enroll token` prints one, of 43 characters",
        )
    };
    if text.len() != CHARACTERS {
        return Err(unknown());
    }
    let mut bytes = Zeroizing::new([0; BYTES]);
    let length = URL_SAFE_NO_PAD.decode_slice(text, &mut *bytes);
    match length {
        Ok(BYTES) => Ok(Sha256::digest(bytes.as_slice()).into()),
        _ => Err(unknown()),
    }
}

/// Reads a token from a file that nobody else can read, or from standard input where the path is `-`.
///
/// # Errors
/// A sentence for people.
pub fn read(path: &Path) -> Result<SecretString, String> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    let mut text = Zeroizing::new(String::with_capacity(256));
    let limit = 200;
    let fault = |error: std::io::Error| format!("token {}: {error}", path.display());
    if path == Path::new("-") {
        std::io::stdin().take(limit).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(fault)?;
        let mode = file.metadata().map_err(fault)?.mode();
        if mode & 0o077 != 0 {
            let path = path.display();
            return Err(format!(
                "token {path}: its mode lets others read it; run chmod 0600 {path}"
            ));
        }
        file.take(limit).read_to_string(&mut text)
    }
    .map_err(fault)?;
    let token = SecretString::from(text.trim().to_owned());
    hash(token.expose_secret()).map_err(|refusal| refusal.message)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_is_known_by_its_hash_and_no_other_text_is_one() {
        let (token, expected) = generate().unwrap();
        let text = token.expose_secret();
        assert_eq!(hash(text).unwrap(), expected);
        for wrong in [
            "",
            &text[1..],
            &format!("{text}A"),
            &format!("{text}="),
            &"!".repeat(CHARACTERS),
            // The last character's unused bits are set: another text for the same bytes.
            &format!("{}{}", "A".repeat(42), "B"),
        ] {
            assert_eq!(hash(wrong).unwrap_err().reason, Reason::TokenUnknown);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = hash(&text);
        }
    }
}
