//! Whether enough officers signed a document that counts here and now.

use std::collections::BTreeMap;

use ssh_key::public::KeyData;
use ssh_key::{HashAlg, SshSig};

use super::document::hex;
use super::{Document, Error, Nonce, Officer, Officers, Statement};
use crate::quoted;

/// How far ahead an expiry may lie: nonces are kept until then.
const MAX_DAYS: i64 = 31;
/// The bit in a security key's flags that says that a person touched it (FIDO U2F, user presence).
const USER_PRESENT: u8 = 1;
/// What follows a security key's signature: flags, and a counter of 4 bytes (OpenSSH `PROTOCOL.u2f`).
const FLAGS_AND_COUNTER: usize = 5;

/// What a document has to fit.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// This deployment's id.
    pub deployment_id: &'a [u8],
    /// Our clock, in seconds since 1970-01-01T00:00:00Z.
    pub now: i64,
    /// The nonces that were used, of all documents that have not expired.
    pub used: &'a BTreeMap<Nonce, i64>,
}

/// Proof that enough officers signed. Only [`Officers::authorise`] makes one.
#[derive(Debug, Clone)]
#[must_use]
pub struct Authorised<S> {
    statement: S,
    nonce: Nonce,
    expires: i64,
    signers: Vec<String>,
}

impl<S> Authorised<S> {
    /// What they signed.
    pub fn statement(&self) -> &S {
        &self.statement
    }

    /// To be remembered until [`Self::expires`].
    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    /// In seconds since 1970-01-01T00:00:00Z.
    pub fn expires(&self) -> i64 {
        self.expires
    }

    /// Who signed.
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

impl Officers {
    /// Takes in a document and the armored signatures over its bytes. Every signature has to be good.
    ///
    /// # Errors
    ///
    /// See [`Error`]; the document counts for nothing then.
    pub fn authorise<S: Statement>(
        &self,
        document: &[u8],
        signatures: &[String],
        context: &Context<'_>,
    ) -> Result<Authorised<S>, Error> {
        let read = Document::<S>::parse(document)?;
        let ours = hex(context.deployment_id);
        if read.deployment != ours {
            return Err(Error::Deployment {
                found: quoted(&read.deployment),
                ours,
            });
        }
        let (expires, shown) = (read.expires_unix()?, read.expires.to_string());
        if expires <= context.now {
            return Err(Error::Expired { expires: shown });
        }
        if expires > context.now.saturating_add(MAX_DAYS * 24 * 3600) {
            return Err(Error::TooFarAhead {
                expires: shown,
                days: MAX_DAYS,
            });
        }
        if context.used.contains_key(&read.nonce) {
            return Err(Error::Replayed {
                nonce: read.nonce.to_string(),
            });
        }
        let signers = self.signers(&S::namespace(), document, signatures)?;
        Ok(Authorised {
            statement: read.statement,
            nonce: read.nonce,
            expires,
            signers,
        })
    }

    /// Who signed these bytes, of a document or not, under this namespace. Every signature has to be good, and enough
    /// of them there.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn signers(
        &self,
        namespace: &str,
        document: &[u8],
        signatures: &[String],
    ) -> Result<Vec<String>, Error> {
        let (threshold, officers) = (self.threshold(), self.members().len());
        if signatures.len() > officers {
            return Err(Error::TooMany {
                signatures: signatures.len(),
                officers,
            });
        }
        let mut signers: Vec<String> = Vec::new();
        for (number, armored) in (1..).zip(signatures) {
            let officer = self.signer(number, document, armored, namespace)?;
            if signers.iter().any(|signer| signer == officer.name()) {
                let officer = officer.name().to_owned();
                return Err(Error::Twice { officer, threshold });
            }
            signers.push(officer.name().to_owned());
        }
        if signers.len() < threshold {
            return Err(Error::TooFew {
                signed: signers.len(),
                officers,
                threshold,
            });
        }
        Ok(signers)
    }

    fn signer(
        &self,
        number: usize,
        document: &[u8],
        armored: &str,
        namespace: &str,
    ) -> Result<&Officer, Error> {
        // ssh-keygen ends the armor with a line break, and the library wants it without blanks around.
        let signature = SshSig::from_pem(armored.trim()).map_err(|error| Error::Unreadable {
            number,
            reason: error.to_string(),
        })?;
        let officer = self.holder(signature.public_key()).ok_or_else(|| {
            let fingerprint = signature.public_key().fingerprint(HashAlg::Sha256);
            Error::Stranger {
                number,
                fingerprint: fingerprint.to_string(),
            }
        })?;
        if signature.namespace() != namespace {
            return Err(Error::Namespace {
                number,
                found: quoted(signature.namespace()),
                expected: namespace.to_owned(),
            });
        }
        let name = || officer.name().to_owned();
        if officer
            .key()
            .verify(namespace, document, &signature)
            .is_err()
        {
            return Err(Error::Forged {
                number,
                officer: name(),
            });
        }
        if !was_present(&signature) {
            return Err(Error::Untouched {
                number,
                officer: name(),
            });
        }
        Ok(officer)
    }
}

/// Whether a person touched the security key; of other keys, nobody can tell.
fn was_present(signature: &SshSig) -> bool {
    match signature.public_key() {
        KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
            let bytes = signature.signature_bytes();
            let flags = bytes.iter().rev().nth(FLAGS_AND_COUNTER - 1);
            flags.is_some_and(|flags| flags & USER_PRESENT != 0)
        }
        _ => true,
    }
}
