//! Signed notes, checkpoints and cosignatures: [c2sp.org/signed-note](https://c2sp.org/signed-note),
//! [c2sp.org/tlog-checkpoint](https://c2sp.org/tlog-checkpoint) and
//! [c2sp.org/tlog-cosignature](https://c2sp.org/tlog-cosignature).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

use crate::tree::Hash;

/// A longer note is not read, nor one with more signatures.
const MAX_BYTES: usize = 1 << 20;
const MAX_SIGNATURES: usize = 100;
/// How a signature line begins.
const DASH: &str = "\u{2014} ";

/// What is wrong with a note, a checkpoint or a verifier key: a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

fn wrong(reason: impl Into<String>) -> Error {
    Error(reason.into())
}

/// What a key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// 0x01: Ed25519 over the note's text. A log's key.
    Ed25519,
    /// 0x04: Ed25519 over a time and the note's text, `cosignature/v1`. A witness's key.
    Cosignature,
}

impl Algorithm {
    fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// A public key with its name, as `NAME+HASH+KEY` ("vkey").
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    algorithm: Algorithm,
    key: VerifyingKey,
}

impl Verifier {
    /// The verifier of a key of 32 bytes.
    ///
    /// # Errors
    /// A name that is empty or has spaces or `+`, or bytes that are no point of the curve.
    pub fn new(name: &str, algorithm: Algorithm, key: &[u8; 32]) -> Result<Self, Error> {
        if !is_name(name) {
            return Err(wrong(format!(
                "{name:?} is not a key name: it may not be empty, nor have spaces or +"
            )));
        }
        let key = VerifyingKey::from_bytes(key)
            .ok()
            .filter(|key| !key.is_weak())
            .ok_or_else(|| wrong("these 32 bytes are no Ed25519 public key"))?;
        Ok(Self {
            name: name.to_owned(),
            algorithm,
            key,
        })
    }

    /// The key's name; of a log's key its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The 32 bytes of the Ed25519 public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    /// The first 4 bytes of SHA-256 over name, line feed, algorithm byte and key.
    #[must_use]
    pub fn id(&self) -> [u8; 4] {
        let digest: Hash = Sha256::new()
            .chain_update(&self.name)
            .chain_update([b'\n', self.algorithm.byte()])
            .chain_update(self.key.as_bytes())
            .finalize()
            .into();
        let [a, b, c, d, ..] = digest;
        [a, b, c, d]
    }

    /// The signature line of a note for a signature by this key.
    #[must_use]
    pub fn line(&self, signature: &[u8]) -> String {
        let body = BASE64.encode([&self.id(), signature].concat());
        format!("{DASH}{} {body}\n", self.name)
    }

    /// Whether this is the key that the line names, and its signature holds. For a cosignature also when
    /// it was made.
    fn holds(&self, text: &str, line: &Line) -> Option<Held> {
        let named = line.name == self.name && line.id == self.id();
        if !named {
            return None;
        }
        let (time, message, signature) = match self.algorithm {
            Algorithm::Ed25519 => (None, text.to_owned(), line.signature.as_slice()),
            Algorithm::Cosignature => {
                let (time, signature) = line.signature.split_first_chunk::<8>()?;
                let time = u64::from_be_bytes(*time);
                (Some(time), cosigned(time, text), signature)
            }
        };
        let signature = Signature::from_slice(signature).ok()?;
        let held = self.key.verify_strict(message.as_bytes(), &signature);
        held.is_ok().then_some(Held { time })
    }
}

/// What a witness signs: the time in seconds since 1970, and the note's text.
fn cosigned(time: u64, text: &str) -> String {
    format!("cosignature/v1\ntime {time}\n{text}")
}

struct Held {
    time: Option<u64>,
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let key = [&[self.algorithm.byte()], self.key.as_bytes().as_slice()].concat();
        write!(f, "{}+{id:08x}+{}", self.name, BASE64.encode(key))
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Verifier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || {
            wrong(format!(
                "{text:?} is not a verifier key: NAME+8 hex digits+base64"
            ))
        };
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(_), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let bytes = BASE64.decode(key).map_err(|_| malformed())?;
        let Some((algorithm, key)) = bytes.split_first() else {
            return Err(malformed());
        };
        let algorithm = match algorithm {
            1 => Algorithm::Ed25519,
            4 => Algorithm::Cosignature,
            other => {
                return Err(wrong(format!(
                    "{text:?} is a key of algorithm {other}: known are 1 (Ed25519) and 4 (cosignature/v1)"
                )));
            }
        };
        let verifier = Self::new(name, algorithm, key.try_into().map_err(|_| malformed())?)?;
        if verifier.to_string() != text {
            return Err(wrong(format!(
                "{text:?} is mistyped: its hash is not that of its name and key"
            )));
        }
        Ok(verifier)
    }
}

/// A note: text, and signatures that nobody has looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    name: String,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        let (name, body) = line.strip_prefix(DASH)?.split_once(' ')?;
        let body = BASE64.decode(body).ok()?;
        let (id, signature) = body.split_first_chunk::<4>()?;
        (is_name(name) && !signature.is_empty()).then(|| Self {
            name: name.to_owned(),
            id: *id,
            signature: signature.to_vec(),
        })
    }
}

/// Whether a key, and so a log, can be called so: not empty, no spaces, no control characters, no `+`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    !name.is_empty() && !name.contains(forbidden)
}

impl Note {
    /// The text, to its last line feed: what a log's key signs.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the key signed it.
    #[must_use]
    pub fn is_signed_by(&self, verifier: &Verifier) -> bool {
        self.signed(verifier).is_some()
    }

    /// When a witness cosigned it, in seconds since 1970; the latest, if it did more than once.
    #[must_use]
    pub fn cosigned_by(&self, witness: &Verifier) -> Option<u64> {
        let held = self.lines.iter();
        held.filter_map(|line| witness.holds(&self.text, line)?.time)
            .max()
    }

    fn signed(&self, verifier: &Verifier) -> Option<Held> {
        self.lines
            .iter()
            .find_map(|line| verifier.holds(&self.text, line))
    }

    /// Adds, of signature lines, those by keys of `verifiers` that hold and are not there yet; returns how
    /// many. Others are left out, as c2sp.org/tlog-witness wants.
    pub fn add(&mut self, lines: &str, verifiers: &[Verifier]) -> usize {
        let mut added = 0;
        for line in lines.lines().take(MAX_SIGNATURES).filter_map(Line::parse) {
            let holds = |verifier: &Verifier| verifier.holds(&self.text, &line).is_some();
            if verifiers.iter().any(holds) && !self.lines.contains(&line) {
                self.lines.push(line);
                added += 1;
            }
        }
        added
    }
}

impl FromStr for Note {
    type Err = Error;

    fn from_str(note: &str) -> Result<Self, Error> {
        if note.len() > MAX_BYTES {
            return Err(wrong(format!("a note of {} bytes is too long", note.len())));
        }
        if note.chars().any(|c| c.is_ascii_control() && c != '\n') {
            return Err(wrong("a note may have no control characters"));
        }
        let (text, signatures) = note
            .rsplit_once("\n\n")
            .ok_or_else(|| wrong("a note has text, an empty line, and signatures"))?;
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or_else(|| wrong("the note's last line does not end"))?;
        let lines = signatures.split('\n').map(|line| {
            Line::parse(line).ok_or_else(|| wrong(format!("{line:?} is not a signature line")))
        });
        let lines = lines.collect::<Result<Vec<_>, _>>()?;
        if lines.len() > MAX_SIGNATURES {
            return Err(wrong(format!("a note of {} signatures", lines.len())));
        }
        Ok(Self {
            text: format!("{text}\n"),
            lines,
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.lines {
            let body = BASE64.encode([line.id.as_slice(), &line.signature].concat());
            writeln!(f, "{DASH}{} {body}", line.name)?;
        }
        Ok(())
    }
}

/// What a log says of its tree: the text of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name, unique in the world; also the name of its key.
    pub origin: String,
    /// How many entries the tree has.
    pub size: u64,
    /// Its RFC 6962 root.
    pub root: Hash,
    /// Further lines, none of them empty.
    pub extensions: Vec<String>,
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let (size, root) = (self.size, BASE64.encode(self.root));
        let mut text = format!("{}\n{size}\n{root}\n", self.origin);
        for line in &self.extensions {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// The note of this checkpoint with the signature by its log's key.
    ///
    /// # Errors
    /// A signature that does not hold, or a text that is no checkpoint.
    pub fn sign(&self, verifier: &Verifier, signature: &[u8; 64]) -> Result<Note, Error> {
        let note = format!("{}\n{}", self.text(), verifier.line(signature));
        let note: Note = note.parse()?;
        let read = Self::verify(&note, verifier)?;
        if read != *self {
            return Err(wrong("the text is not that of one checkpoint"));
        }
        Ok(note)
    }

    /// Reads the checkpoint of a note, which the log's key must have signed.
    ///
    /// # Errors
    /// Where it did not, or the text is no checkpoint of that log.
    pub fn verify(note: &Note, verifier: &Verifier) -> Result<Self, Error> {
        if verifier.algorithm() != Algorithm::Ed25519 {
            return Err(wrong(format!("{verifier} is not the key of a log")));
        }
        if !note.is_signed_by(verifier) {
            return Err(wrong(format!(
                "the checkpoint is not signed by {}, or was changed",
                verifier.name()
            )));
        }
        let checkpoint: Self = note.text().parse()?;
        if checkpoint.origin != verifier.name() {
            return Err(wrong(format!(
                "the checkpoint is of {:?}, and the key of {:?}",
                checkpoint.origin,
                verifier.name()
            )));
        }
        Ok(checkpoint)
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || wrong("this is no checkpoint: origin, size, root in base64, more lines");
        let mut lines = text.strip_suffix('\n').ok_or_else(malformed)?.split('\n');
        let mut line = || lines.next().filter(|line| !line.is_empty());
        let origin = line().ok_or_else(malformed)?.to_owned();
        let digits = line().ok_or_else(malformed)?;
        let size = number(digits).ok_or_else(malformed)?;
        let root = line().and_then(hash).ok_or_else(malformed)?;
        let extensions: Vec<String> = lines.map(str::to_owned).collect();
        if extensions.iter().any(String::is_empty) {
            return Err(malformed());
        }
        Ok(Self {
            origin,
            size,
            root,
            extensions,
        })
    }
}

/// A decimal number without leading zeros.
pub(crate) fn number(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// A hash to base64.
pub(crate) fn to_base64(hash: &Hash) -> String {
    BASE64.encode(hash)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn verifier(algorithm: Algorithm) -> Verifier {
        Verifier::new(
            "example.com/log",
            algorithm,
            key().verifying_key().as_bytes(),
        )
        .unwrap()
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            origin: "example.com/log".to_owned(),
            size: 9,
            root: [3; 32],
            extensions: vec!["one more".to_owned()],
        }
    }

    fn note() -> Note {
        let checkpoint = checkpoint();
        let signature = key().sign(checkpoint.text().as_bytes()).to_bytes();
        let verifier = verifier(Algorithm::Ed25519);
        checkpoint.sign(&verifier, &signature).unwrap()
    }

    /// The key of Go's own documentation of golang.org/x/mod/sumdb/note.
    #[test]
    fn a_verifier_key_of_gos_note_package_reads_and_prints_alike() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let verifier: Verifier = text.parse().unwrap();
        assert_eq!(verifier.to_string(), text);
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let read: Note = note.parse().unwrap();
        assert!(read.is_signed_by(&verifier));
        assert_eq!(read.to_string(), note);
        for mistyped in [
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TX",
            "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+AB",
            "PeterNeumann",
        ] {
            assert!(mistyped.parse::<Verifier>().is_err(), "{mistyped}");
        }
    }

    #[test]
    fn a_checkpoint_reads_back_and_any_changed_byte_is_found() {
        let note = note().to_string();
        let verifier = verifier(Algorithm::Ed25519);
        let read = |note: &str| Checkpoint::verify(&note.parse()?, &verifier);
        assert_eq!(read(&note), Ok(checkpoint()));
        for place in 0..note.len() {
            for bit in 0..8 {
                let mut bytes = note.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert!(read(&changed).is_err(), "byte {place} bit {bit}: {changed}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in [
            "",
            "log\n",
            "log\n1\n",
            "log\n01\nAAAA\n",
            "\n1\n",
            "log\n1\nAAAA\n",
            "log\n+1\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n",
            "log\n1\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
            "log\n1\nAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\n\nmore\n",
        ] {
            assert!(text.parse::<Checkpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_cosignatures_that_hold_by_keys_that_are_known_are_added() {
        let mut note = note();
        let witness = verifier(Algorithm::Cosignature);
        let time = 1_700_000_000_u64;
        let signature = key().sign(cosigned(time, note.text()).as_bytes());
        let body = [time.to_be_bytes().as_slice(), &signature.to_bytes()].concat();
        let line = witness.line(&body);
        let mut later = body.clone();
        later[7] += 1;
        assert_eq!(
            note.add(&witness.line(&later), std::slice::from_ref(&witness)),
            0
        );
        assert_eq!(note.add(&line, &[verifier(Algorithm::Ed25519)]), 0);
        assert_eq!(note.cosigned_by(&witness), None);
        assert_eq!(note.add(&line, std::slice::from_ref(&witness)), 1);
        assert_eq!(note.add(&line, std::slice::from_ref(&witness)), 0);
        assert_eq!(note.cosigned_by(&witness), Some(time));
        let read: Note = note.to_string().parse().unwrap();
        assert_eq!(read.cosigned_by(&witness), Some(time));
    }
}
