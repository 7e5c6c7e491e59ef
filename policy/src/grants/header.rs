//! What a policy document says of itself.

use std::num::NonZeroU64;

use toml::value::Datetime;

use super::Error;
use crate::officers;
use crate::quoted;

/// What the field `kind` of a policy document says.
pub const KIND: &str = "policy";

/// What `ssh-keygen -Y sign` is given with `-n` for a policy document.
pub fn namespace() -> String {
    format!("{KIND}@hsmd")
}

/// The deployment, version and expiry that a document is bound to: the first lines of one that is to be signed.
///
/// ```toml
/// kind = "policy"
/// deployment = "000102030405060708090a0b0c0d0e0f"
/// version = 7
/// expires = 2026-12-26T12:00:00Z
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    deployment: String,
    version: u64,
    expires: Datetime,
    expires_unix: i64,
}

impl Header {
    /// One for the deployment with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Header`] where the expiry is no moment in UTC.
    pub fn new(
        deployment_id: &[u8],
        version: NonZeroU64,
        expires: Datetime,
    ) -> Result<Self, Error> {
        let deployment = officers::hex(deployment_id);
        Self::checked(
            Some(KIND.to_owned()),
            Some(deployment),
            Some(version),
            Some(expires),
        )?
        .ok_or_else(|| Error::Header("it is empty".to_owned()))
    }

    /// Its lines, to stand before those of a draft.
    pub fn to_text(&self) -> String {
        let Self {
            deployment,
            version,
            expires,
            ..
        } = self;
        format!(
            "kind = \"{KIND}\"\ndeployment = \"{deployment}\"\nversion = {version}\nexpires = {expires}\n"
        )
    }

    /// The deployment's id, in hex.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// At least 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// After this moment it is not loaded any more. Seconds since 1970-01-01T00:00:00Z.
    pub fn expires_unix(&self) -> i64 {
        self.expires_unix
    }

    /// The same as it is written.
    pub fn expires(&self) -> Datetime {
        self.expires
    }

    /// All four fields, or none.
    pub(super) fn checked(
        kind: Option<String>,
        deployment: Option<String>,
        version: Option<NonZeroU64>,
        expires: Option<Datetime>,
    ) -> Result<Option<Self>, Error> {
        let (kind, deployment, version, expires) = match (kind, deployment, version, expires) {
            (None, None, None, None) => return Ok(None),
            (Some(kind), Some(deployment), Some(version), Some(expires)) => {
                (kind, deployment, version, expires)
            }
            _ => {
                return Err(Error::Header(
                    "a document that is to be signed has all of kind, deployment, version and expires, and a \
                     draft has none: `hsmd policy sign-request` writes them"
                        .to_owned(),
                ));
            }
        };
        if kind != KIND {
            return Err(Error::Header(format!(
                "kind = {}: it must be \"{KIND}\"",
                quoted(&kind)
            )));
        }
        let expires_unix =
            officers::unix(&expires).map_err(|error| Error::Header(error.to_string()))?;
        let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if deployment.len() != 32 || !deployment.chars().all(lower) {
            return Err(Error::Header(format!(
                "deployment = {}: it is 32 digits of 0-9 a-f",
                quoted(&deployment)
            )));
        }
        Ok(Some(Self {
            deployment,
            version: version.get(),
            expires,
            expires_unix,
        }))
    }
}
