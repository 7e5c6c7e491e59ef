//! The marks at a checkpoint, as a document that a key restored from a backup can be started from.
//!
//! The checkpoint carries the document's digest, so a witnessed checkpoint proves it. `hsmd/journal/README.md` gives the
//! format.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hsm_device::{Algorithm, PublicKey};
use hsm_journal::note::{Checkpoint, Note, Verifier};
use hsm_policy::cometbft::{ChainId, Height, Position, Round, Step};
use sha2::{Digest as _, Sha256};

use crate::guard::State;

const TITLE: &str = "hsmd marks v1";
/// The word that begins the checkpoint's extension line.
const EXTENSION: &str = "hsmd-marks";
/// The first line of a checkpoint as evidence.
const EVIDENCE: &str = "hsmd checkpoint evidence v1";

/// The mark of one key on one chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The key.
    pub public_key: PublicKey,
    /// The chain.
    pub chain: ChainId,
    /// The height at or below which nothing is signed.
    pub initial_height: i64,
    /// The last position reserved; none where none was.
    pub last: Option<Position>,
}

/// Marks that a checkpoint proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// They are those of all entries before this one.
    pub before: u64,
    /// The tree that they are of.
    pub checkpoint: Checkpoint,
    /// When each witness that cosigned it did so, in seconds since 1970.
    pub cosigned: Vec<(String, u64)>,
    /// One for each key and chain.
    pub marks: Vec<Mark>,
}

/// Why marks are not proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The checkpoint is not signed by this log's key.
    #[error(transparent)]
    Checkpoint(#[from] hsm_journal::note::Error),
    /// Too few witnesses cosigned it.
    #[error("{found} of the witnesses named cosigned this checkpoint, and {quorum} have to")]
    Witnesses {
        /// How many did.
        found: usize,
        /// How many must.
        quorum: usize,
    },
    /// It has not the parts that evidence has.
    #[error(
        "no evidence of a checkpoint: {0}. It is a text of {EVIDENCE:?}, `log VKEY`, `witness VKEY` for each witness that \
         has to have cosigned it, an empty line, the checkpoint and its marks document"
    )]
    Evidence(&'static str),
    /// The document is not the checkpoint's.
    #[error("the marks are not those of the checkpoint: {0}")]
    Document(String),
}

/// The document of these marks.
#[must_use]
pub fn document(state: &State) -> String {
    let chains = state.keys().flat_map(|(public_key, key)| {
        key.chains.iter().map(|(chain, known)| Mark {
            public_key: *public_key,
            chain: chain.clone(),
            initial_height: known.mark.initial_height.max(known.bounds.floor),
            last: known.mark.last.as_ref().map(|last| last.position),
        })
    });
    write(chains.collect())
}

/// The line of a checkpoint whose marks are those of all entries before `index`.
#[must_use]
pub fn extension(index: u64, document: &str) -> String {
    format!(
        "{EXTENSION} {index} {}",
        BASE64.encode(Sha256::digest(document))
    )
}

/// Before which entry a checkpoint's marks are, as its line says; none where it carries no marks.
#[must_use]
pub fn before(note: &Note) -> Option<u64> {
    let mut lines = note.text().lines().skip(3);
    let line = lines.find_map(|line| line.strip_prefix(EXTENSION)?.strip_prefix(' '))?;
    line.split_once(' ')?.0.parse().ok()
}

/// The marks of a checkpoint that the log's key signed and at least `quorum` of these witnesses cosigned.
///
/// # Errors
///
/// See [`Error`].
pub fn verify(
    note: &Note,
    log: &Verifier,
    witnesses: &[Verifier],
    quorum: usize,
    document: &str,
) -> Result<Proven, Error> {
    let checkpoint = Checkpoint::verify(note, log)?;
    let cosigned = witnesses.iter().filter_map(|witness| {
        let time = note.cosigned_by(witness)?;
        Some((witness.name().to_owned(), time))
    });
    let mut cosigned: Vec<_> = cosigned.collect();
    // A witness counts once, under however many keys it is named.
    cosigned.sort();
    cosigned.dedup_by(|one, other| one.0 == other.0);
    let found = cosigned.len();
    if found < quorum {
        return Err(Error::Witnesses { found, quorum });
    }
    let wrong = |what: &str| Error::Document(what.to_owned());
    let before = before(note).ok_or_else(|| wrong("it carries none"))?;
    if !checkpoint.extensions.contains(&extension(before, document)) {
        return Err(wrong("their digest is another"));
    }
    if before >= checkpoint.size {
        return Err(wrong("they are of entries that it does not have"));
    }
    let marks = read(document).ok_or_else(|| wrong("the document is malformed"))?;
    Ok(Proven {
        before,
        checkpoint,
        cosigned,
        marks,
    })
}

/// The marks of a witnessed checkpoint in one text, which names the log's key and the witnesses: whoever rests something
/// on it signs for these, too. Every witness that is named has to have cosigned it, and one at least.
///
/// # Errors
///
/// See [`Error`].
pub fn evidence(text: &str) -> Result<Proven, Error> {
    let wrong = Error::Evidence;
    let (head, rest) = text
        .split_once("\n\n")
        .ok_or(wrong("it has no empty line"))?;
    let mut lines = head.lines();
    if lines.next() != Some(EVIDENCE) {
        return Err(wrong("its first line is another"));
    }
    let log = lines.next().and_then(|line| line.strip_prefix("log "));
    let log: Verifier = log.ok_or(wrong("it names no log"))?.parse()?;
    let mut witnesses = Vec::new();
    for line in lines {
        let key = line.strip_prefix("witness ");
        let key = key.ok_or(wrong("a line names no witness"))?;
        witnesses.push(key.parse::<Verifier>()?);
    }
    let mut names: Vec<&str> = witnesses.iter().map(Verifier::name).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() < witnesses.len() {
        return Err(wrong("it names no witness, or one twice"));
    }
    let place = rest.find(&format!("\n{TITLE}\n"));
    let place = place.ok_or(wrong("it has no marks"))?.saturating_add(1);
    let (note, document) = rest
        .split_at_checked(place)
        .ok_or(wrong("it has no marks"))?;
    verify(&note.parse()?, &log, &witnesses, witnesses.len(), document)
}

fn write(mut marks: Vec<Mark>) -> String {
    marks.sort();
    let lines = marks.iter().map(|mark| {
        let (height, round, step) = mark.last.map_or((0, 0, 0), |last| {
            (last.height.get(), last.round.get(), step_number(last.step))
        });
        format!(
            "{} {} {} {height} {round} {step} {}\n",
            mark.public_key.algorithm().name(),
            hex::encode(mark.public_key.as_bytes()),
            mark.initial_height,
            mark.chain,
        )
    });
    format!("{TITLE}\n{}", lines.collect::<String>())
}

fn read(document: &str) -> Option<Vec<Mark>> {
    let lines = document.strip_prefix(TITLE)?.strip_prefix('\n')?.lines();
    let marks: Vec<Mark> = lines.map(read_line).collect::<Option<_>>()?;
    // One text a set of marks: sorted, no line twice, no digits that need not be there.
    (write(marks.clone()) == document).then_some(marks)
}

fn read_line(line: &str) -> Option<Mark> {
    let mut words = line.splitn(7, ' ');
    let algorithm = match words.next()? {
        "ed25519" => Algorithm::Ed25519,
        "secp256k1" => Algorithm::Secp256k1,
        _ => return None,
    };
    let public_key = PublicKey::from_parts(algorithm, &hex::decode(words.next()?).ok()?).ok()?;
    let initial_height = words.next()?.parse().ok()?;
    let height: i64 = words.next()?.parse().ok()?;
    let round: i32 = words.next()?.parse().ok()?;
    let step: u8 = words.next()?.parse().ok()?;
    let chain = ChainId::new(words.next()?).ok()?;
    let last = match (height, round, step) {
        (0, 0, 0) => None,
        _ => Some(Position {
            height: Height::new(height).ok()?,
            round: Round::new(round).ok()?,
            step: step_of(step)?,
        }),
    };
    Some(Mark {
        public_key,
        chain,
        initial_height,
        last,
    })
}

/// CometBFT's own numbers.
fn step_number(step: Step) -> u8 {
    match step {
        Step::Proposal => 1,
        Step::Prevote => 2,
        Step::Precommit => 3,
    }
}

fn step_of(number: u8) -> Option<Step> {
    match number {
        1 => Some(Step::Proposal),
        2 => Some(Step::Prevote),
        3 => Some(Step::Precommit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hsm_journal::note;

    fn mark(first: u8, chain: &str, last: Option<(i64, i32, u8)>) -> Mark {
        let hex = match first {
            0 => "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            _ => "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        };
        let bytes = hex::decode(hex).unwrap();
        Mark {
            public_key: PublicKey::from_parts(Algorithm::Ed25519, &bytes).unwrap(),
            chain: ChainId::new(chain).unwrap(),
            initial_height: 5,
            last: last.map(|(height, round, step)| Position {
                height: Height::new(height).unwrap(),
                round: Round::new(round).unwrap(),
                step: step_of(step).unwrap(),
            }),
        }
    }

    #[test]
    fn marks_have_the_documented_text_and_one_only() {
        let marks = vec![
            mark(0, "chain with spaces", Some((7, 1, 3))),
            mark(1, "b", None),
        ];
        let text = write(marks.clone());
        assert_eq!(
            text,
            "hsmd marks v1\n\
             ed25519 3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c 5 0 0 0 b\n\
             ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a 5 7 1 3 chain with spaces\n"
        );
        let mut sorted = marks;
        sorted.sort();
        assert_eq!(read(&text), Some(sorted));
        assert_eq!(read("hsmd marks v1\n"), Some(Vec::new()));
        for wrong in [
            text.replace(" 5 7", " 05 7"),
            text.replace(" 7 1 3", " 7 1 4"),
            text.replace("v1", "v2"),
            text.trim_end().to_owned(),
            text.clone() + "\n",
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }

    /// A log's key or a witness's.
    struct Signer {
        key: ed25519_dalek::SigningKey,
        verifier: Verifier,
    }

    impl Signer {
        fn new(name: &str, seed: u8, algorithm: note::Algorithm) -> Self {
            let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
            let public = key.verifying_key().to_bytes();
            let verifier = Verifier::new(name, algorithm, &public).unwrap();
            Self { key, verifier }
        }
    }

    #[test]
    fn a_checkpoint_is_evidence_if_every_witness_that_is_named_cosigned_it() {
        use ed25519_dalek::Signer as _;
        let log = Signer::new("log.example/a", 1, note::Algorithm::Ed25519);
        let witness = Signer::new("witness.example", 2, note::Algorithm::Cosignature);
        let other = Signer::new("other.example", 3, note::Algorithm::Cosignature);
        let document = write(vec![mark(0, "a", Some((7, 1, 3)))]);
        let checkpoint = Checkpoint {
            origin: "log.example/a".to_owned(),
            size: 9,
            root: [4; 32],
            extensions: vec![extension(8, &document)],
        };
        let signature = log.key.sign(checkpoint.text().as_bytes()).to_bytes();
        let mut note = checkpoint.sign(&log.verifier, &signature).unwrap();
        let text = |note: &Note, witnesses: &[&Signer], document: &str| {
            let lines = witnesses
                .iter()
                .map(|it| format!("witness {}\n", it.verifier));
            let lines = lines.collect::<String>();
            format!(
                "{EVIDENCE}\nlog {}\n{lines}\n{note}{document}",
                log.verifier
            )
        };
        let alone = evidence(&text(&note, &[&witness], &document));
        assert!(matches!(alone, Err(Error::Witnesses { .. })), "{alone:?}");
        let (time, signed) = (77_u64, note.text().to_owned());
        let message = format!("cosignature/v1\ntime {time}\n{signed}");
        let cosignature = witness.key.sign(message.as_bytes()).to_bytes();
        let body = [&time.to_be_bytes()[..], &cosignature].concat();
        let line = witness.verifier.line(&body);
        let verifiers = [witness.verifier.clone()];
        assert_eq!(note.add(&line, &verifiers), 1);
        let proven = evidence(&text(&note, &[&witness], &document)).unwrap();
        assert_eq!(proven.marks, [mark(0, "a", Some((7, 1, 3)))]);
        let raised = document.replace(" 7 1 3", " 6 1 3");
        for (witnesses, document) in [
            (&[][..], &document),
            (&[&witness, &witness], &document),
            (&[&witness, &other], &document),
            (&[&other], &document),
            (&[&witness], &raised),
        ] {
            let refused = evidence(&text(&note, witnesses, document));
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}
