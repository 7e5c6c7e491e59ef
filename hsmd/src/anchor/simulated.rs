//! An anchor for tests: it can fail before it was moved, and after.

use std::sync::{Arc, Mutex};

use super::{Anchor, Error, Found, Place, Tag};

#[derive(Clone, Default)]
pub(super) struct Simulated(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    found: Vec<Found>,
    fail: Option<Fail>,
    moved: u64,
}

/// How the next move fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fail {
    /// It was not moved.
    Before,
    /// It was moved, and nobody hears of it.
    After,
}

impl Simulated {
    pub(super) fn anchor(&self) -> Anchor {
        Anchor {
            kind: "tpm",
            place: Place::Simulated(self.clone()),
        }
    }

    pub(super) fn fail_next(&self, fail: Option<Fail>) {
        self.0.lock().unwrap().fail = fail;
    }

    /// How often it was moved.
    pub(super) fn moved(&self) -> u64 {
        self.0.lock().unwrap().moved
    }

    /// Somebody else moves or deletes it.
    pub(super) fn set(&self, found: Vec<Found>) {
        self.0.lock().unwrap().found = found;
    }

    #[allow(clippy::unnecessary_wraps, reason = "as the other places have it")]
    pub(super) fn read(&self) -> Result<Vec<Found>, Error> {
        Ok(self.0.lock().unwrap().found.clone())
    }

    #[allow(clippy::unnecessary_wraps, reason = "as the other places have it")]
    pub(super) fn make(&self, tag: Tag) -> Result<u64, Error> {
        self.0.lock().unwrap().found = vec![Found { tag, counter: 41 }];
        Ok(41)
    }

    pub(super) fn advance(&self, tag: Tag, counter: u64) -> Result<(), Error> {
        let mut inner = self.0.lock().unwrap();
        let fail = inner.fail.take();
        if fail != Some(Fail::Before) {
            inner.found = vec![Found { tag, counter }];
            inner.moved += 1;
        }
        match fail {
            None => Ok(()),
            Some(_) => Err(Error::Tpm {
                tcti: "simulated".to_owned(),
                action: "increment",
                cause: "an injected fault".to_owned(),
            }),
        }
    }
}
