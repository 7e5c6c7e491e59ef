//! From a spec to a plan: numbered steps in an order that is checked, and the script that the room reads.

mod capabilities;
mod order;
mod script;
mod spec;
mod step;

use serde::{Deserialize, Serialize};

pub use order::{Disorder, Fact};
pub use spec::{
    Algorithm, AuthenticationKey, Custodian, Device, Error as SpecError, Group, Key, Purpose, Role,
    Spec, Use, Wrap,
};
pub use step::{ShareOf, Step};

use crate::paper::{Paper, document};
use crate::transcript::Digest;

/// Most bytes of a plan that are read.
pub const MAX_PLAN: usize = 1 << 20;

/// Steps in an order in which each can follow the ones before. There is no other way to a value of it than to be
/// checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    title: String,
    spec: Digest,
    steps: Vec<Step>,
}

impl Plan {
    /// The plan of a spec.
    ///
    /// # Errors
    /// [`Disorder`], which would be a mistake of this program.
    pub fn new(spec: &Spec) -> Result<Self, Disorder> {
        Self::checked(spec.title().to_owned(), spec.digest(), step::steps(spec))
    }

    /// Reads what [`Self::to_json`] writes.
    ///
    /// # Errors
    /// [`Error`]: where it is none, or a step cannot follow the ones before it.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_PLAN {
            return Err(Error::TooLong(bytes.len()));
        }
        let malformed = |error: serde_json::Error| Error::Malformed(error.to_string());
        let raw: Raw = serde_json::from_slice(bytes).map_err(malformed)?;
        let plan = Self::checked(raw.title, raw.spec, raw.steps)?;
        // Nothing was passed over: not even a field that a step does not have.
        let read: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        if serde_json::to_value(&plan).map_err(malformed)? != read {
            return Err(Error::Malformed(
                "a step has a field that it does not know".to_owned(),
            ));
        }
        Ok(plan)
    }

    /// As JSON, for [`Self::parse`] and for people.
    ///
    /// # Errors
    /// Where it could not be written as JSON, which does not happen to these types.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self).map(|json| json + "\n")
    }

    /// What the ceremony is called.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The SHA-256 of the spec.
    pub fn spec(&self) -> Digest {
        self.spec
    }

    /// The steps, with their numbers from 1 on.
    pub fn steps(&self) -> impl Iterator<Item = (u32, &Step)> {
        (1..).zip(&self.steps)
    }

    /// Whether a step belongs to the block that holds secrets in memory: a crash in it voids all of it.
    pub fn in_block(&self, number: u32) -> bool {
        let place = |wanted: &Step| {
            self.steps()
                .find(|(_, step)| *step == wanted)
                .map(|(number, _)| number)
        };
        let (first, last) = (place(&Step::MakeWrapKey), place(&Step::WipeWrapKey));
        first
            .zip(last)
            .is_some_and(|(first, last)| (first..=last).contains(&number))
    }

    /// The script, as plain text.
    ///
    /// # Errors
    /// Where this is not the plan of that spec.
    pub fn script(&self, spec: &Spec) -> Result<String, Error> {
        self.check_spec(spec)?;
        Ok(script::text(self, spec))
    }

    /// The script, as a PDF for the printer.
    ///
    /// # Errors
    /// As [`Self::script`].
    pub fn printed_script(&self, spec: &Spec, paper: Paper) -> Result<Vec<u8>, Error> {
        self.check_spec(spec)?;
        let pages = script::pages(self, spec, paper);
        Ok(document(paper, pages).to_vec())
    }

    fn check_spec(&self, spec: &Spec) -> Result<(), Error> {
        if Self::new(spec)? == *self {
            return Ok(());
        }
        Err(Error::OtherSpec {
            plan: self.spec,
            given: spec.digest(),
        })
    }

    fn checked(title: String, spec: Digest, steps: Vec<Step>) -> Result<Self, Disorder> {
        order::check(&steps)?;
        Ok(Self { title, spec, steps })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: String,
    spec: Digest,
    steps: Vec<Step>,
}

/// Why a plan does not load.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than is read.
    #[error("the plan has {0} bytes, and at most {MAX_PLAN} are read")]
    TooLong(usize),
    /// No plan.
    #[error("it is no plan: {0}. Make it anew from the spec")]
    Malformed(String),
    /// A step that cannot follow the ones before.
    #[error(transparent)]
    Disorder(#[from] Disorder),
    /// Not the plan that the spec makes.
    #[error(
        "the plan, made from the spec {plan}, is not the one that the spec {given} makes. Make the plan anew"
    )]
    OtherSpec {
        /// The spec that the plan names.
        plan: Digest,
        /// The spec that was given.
        given: Digest,
    },
}
