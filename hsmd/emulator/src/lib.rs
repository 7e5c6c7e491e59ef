//! A mock YubiHSM2 for continuous integration: the connector's HTTP interface and the device's own rules. Protects nothing..
