//! End-to-end tests of hsmd, their harness, the demo and the benches.
