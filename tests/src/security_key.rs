//! A security key (`sk-ssh-ed25519@openssh.com`), as hardware would answer: its wire format is put together by hand
//! after OpenSSH's `PROTOCOL.u2f` and `PROTOCOL.sshsig`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};

/// The flag that says that a person touched the key (FIDO U2F, user presence).
pub const TOUCHED: u8 = 1;

const KIND: &str = "sk-ssh-ed25519@openssh.com";
const APPLICATION: &str = "ssh:";

/// The key.
pub struct SecurityKey(SigningKey);

impl SecurityKey {
    /// The key with this seed.
    #[must_use]
    pub fn new(seed: u8) -> Self {
        Self(SigningKey::from_bytes(&[seed; 32]))
    }

    /// A line of `allowed_signers`.
    #[must_use]
    pub fn line(&self, name: &str) -> String {
        format!("{name} {KIND} {}\n", STANDARD.encode(self.public()))
    }

    /// What `ssh-keygen -Y sign -n NAMESPACE` writes, with these flags and this counter from the key.
    #[must_use]
    pub fn sign(&self, namespace: &str, document: &[u8], flags: u8, counter: u32) -> String {
        let mut signed = b"SSHSIG".to_vec();
        let hash = Sha512::digest(document);
        for part in [namespace.as_bytes(), b"", b"sha512", &hash] {
            signed.extend(string(part));
        }
        let mut asked = Sha256::digest(APPLICATION).to_vec();
        asked.push(flags);
        asked.extend(counter.to_be_bytes());
        asked.extend(Sha256::digest(&signed));
        let mut signature = string(KIND.as_bytes());
        signature.extend(string(&self.0.sign(&asked).to_bytes()));
        signature.push(flags);
        signature.extend(counter.to_be_bytes());
        let mut whole = b"SSHSIG".to_vec();
        whole.extend(1u32.to_be_bytes());
        for part in [
            &self.public(),
            namespace.as_bytes(),
            b"",
            b"sha512",
            &signature,
        ] {
            whole.extend(string(part));
        }
        let text = STANDARD.encode(whole);
        let lines = text.as_bytes().chunks(70).map(String::from_utf8_lossy);
        let lines = lines.collect::<Vec<_>>().join("\n");
        format!("-----BEGIN SSH SIGNATURE-----\n{lines}\n-----END SSH SIGNATURE-----\n")
    }

    fn public(&self) -> Vec<u8> {
        let mut blob = string(KIND.as_bytes());
        blob.extend(string(self.0.verifying_key().as_bytes()));
        blob.extend(string(APPLICATION.as_bytes()));
        blob
    }
}

/// A string of the SSH protocol (RFC 4251 section 5).
fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short string");
    [&length.to_be_bytes(), bytes].concat()
}
