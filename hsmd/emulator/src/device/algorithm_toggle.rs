//! Which algorithms are switched off.
//!
//! Source: the vendor's user guide, "Set Algorithm Toggle Option".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::algorithm::Algorithm;
use super::audit::Switch;
use super::error::ErrorCode;
use super::firmware::Firmware;

/// The option "algorithm toggle". It outlives a power cycle.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlgorithmToggle {
    /// Those that are not simply on.
    switches: BTreeMap<Algorithm, Switch>,
    #[serde(skip)]
    revision: u64,
}

impl AlgorithmToggle {
    /// Fails with [`ErrorCode::AlgorithmDisabled`] if the algorithm is switched off.
    pub(crate) fn require(&self, algorithm: Algorithm) -> Result<(), ErrorCode> {
        if self.switch(algorithm) == Switch::Off {
            return Err(ErrorCode::AlgorithmDisabled);
        }
        Ok(())
    }

    /// Pairs of algorithm and value, for all algorithms of this firmware.
    pub(crate) fn pairs(&self, firmware: Firmware) -> Vec<u8> {
        Algorithm::of(firmware)
            .flat_map(|algorithm| [algorithm.byte(), self.switch(algorithm) as u8])
            .collect()
    }

    /// Changes the algorithms given; all or none.
    pub(crate) fn set(
        &mut self,
        pairs: &[(u8, Switch)],
        firmware: Firmware,
    ) -> Result<(), ErrorCode> {
        let mut switches = self.switches.clone();
        for (algorithm, value) in pairs {
            let algorithm = Algorithm::from_byte(*algorithm)?;
            if !Algorithm::of(firmware).any(|known| known == algorithm) {
                return Err(ErrorCode::InvalidData);
            }
            if self.switch(algorithm) == Switch::Fixed && *value != Switch::Fixed {
                return Err(ErrorCode::InvalidData);
            }
            switches.insert(algorithm, *value);
        }
        self.switches = switches;
        self.revision += 1;
        Ok(())
    }

    /// Everything on, as after a reset.
    pub(crate) fn reset(&mut self) {
        self.switches.clear();
        self.revision += 1;
    }

    /// Rises with every change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    fn switch(&self, algorithm: Algorithm) -> Switch {
        self.switches.get(&algorithm).copied().unwrap_or(Switch::On)
    }
}
